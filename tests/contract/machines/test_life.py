"""The life of machines through service and controller, on both databases, at fake providers."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.accounting.store import usage
from hansa.images import store as image_store
from hansa.images.wire import ImagePolicy, NewEndorsement, NewImage, NewVersion
from hansa.kernel.errors import Fault, Permanent
from hansa.machines.drivers.base import Can, Capabilities, Life
from hansa.machines.drivers.fake import FakeMachines
from hansa.machines.drivers.fake import Fault as Wrong
from hansa.machines.store import Search
from hansa.machines.wire import MachineChange, NewMachine, Reboot, Resize
from hansa.sites.capacity import reservations
from hansa.sites.capacity_service import CapacityService
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, GrantTerms
from hansa.sites.steering import SteeringService
from hansa.sites.wire import NewBan, SitePolicy
from tests.support.machineworld import IMAGE, MachineWorld

LOCAL = "local/fake"


def code_of(fault: pytest.ExceptionInfo[Fault]) -> str:
    return fault.value.code.code


async def test_from_the_wish_to_the_end(world: MachineWorld) -> None:
    made = await world.create(flavour="medium", public=True, ports=["443"])
    assert (made.status.phase, made.site, made.size.cores, made.size.memory_mib) == ("creating", "local", 2, 4096)
    await world.settle()
    seen = await world.get()
    assert (seen.status.phase, seen.status.reason, seen.site) == ("running", "machines.running", "local")
    assert seen.public
    assert seen.ssh is not None
    assert (seen.ssh.user, seen.ssh.host) == ("debian", seen.public[0])
    assert [len(one.openings) for one in world.drivers.cloud(LOCAL).machines.values()] == [2]
    await world.service.delete(world.ada, "web")
    await world.settle()
    with pytest.raises(Fault) as fault:
        await world.get()
    assert code_of(fault) == "machines.not_found"
    gone = await world.service.get(world.ada, made.id)
    assert (gone.status.phase, gone.ended) == ("deleted", world.clock.now())
    cloud = world.drivers.cloud(LOCAL)
    assert not cloud.machines
    assert not cloud.addresses
    reasons = [one.reason for one in await world.said(made)]
    assert reasons[0] == "machines.created"
    assert reasons[-1] == "machines.deleted"


async def test_names_are_made_unique_and_may_be_used_again(world: MachineWorld) -> None:
    names = [(await world.service.create(world.ada, NewMachine(IMAGE))).name for _ in range(3)]
    assert names == ["debian-1", "debian-2", "debian-3"]
    with pytest.raises(Fault) as fault:
        await world.create("debian-2")
    assert code_of(fault) == "machines.name_taken"
    await world.service.delete(world.ada, "debian-2")
    await world.settle()
    await world.create("debian-2")
    page = await world.service.list_machines(world.ada, None, 2)
    rest = await world.service.list_machines(world.ada, page.next, 2)
    assert [one.name for one in page.items + rest.items] == names
    assert (await world.service.list_machines(world.bob, None, 10)).items == []
    with pytest.raises(Fault):
        await world.service.get(world.bob, "debian-1")
    await world.service.change(world.ada, "debian-1", MachineChange(name="web"))
    assert (await world.get("web")).name == "web"


async def test_the_same_key_is_the_same_machine(world: MachineWorld) -> None:
    first = await world.service.create(world.ada, NewMachine(IMAGE), "k1")
    again = await world.service.create(world.ada, NewMachine(IMAGE), "k1")
    assert first.id == again.id
    with pytest.raises(Fault) as fault:
        await world.service.create(world.ada, NewMachine(IMAGE, cores=2), "k1")
    assert code_of(fault) == "kernel.idempotency_reused"


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (NewMachine(IMAGE, "Web_1"), "machines.bad_spec"),
        (NewMachine(IMAGE, flavour="small", cores=3), "machines.bad_spec"),
        (NewMachine(IMAGE, ports=["70000"]), "machines.bad_spec"),
        (NewMachine(IMAGE, ports=["http"]), "machines.bad_spec"),
        (NewMachine(IMAGE, ssh_keys=["-----BEGIN OPENSSH PRIVATE KEY-----"]), "machines.bad_spec"),
        (NewMachine(IMAGE, user_data="a\0b"), "machines.bad_spec"),
        (NewMachine("nothing"), "images.not_found"),
        (NewMachine(IMAGE, cores=9), "machines.no_site"),
        (NewMachine(IMAGE, sites=["nowhere"]), "machines.no_site"),
        (NewMachine(IMAGE, gpus=1), "machines.no_site"),
        (NewMachine(IMAGE, vo="vo.x"), "identity.no_vo"),
    ],
)
async def test_what_cannot_be_is_told_at_once_and_changes_nothing(
    world: MachineWorld, new: NewMachine, code: str
) -> None:
    with pytest.raises(Fault) as fault:
        await world.service.create(world.ada, new)
    assert code_of(fault) == code
    assert (await world.service.list_machines(world.ada, None, 10)).items == []


async def test_a_refusal_names_each_way_once_and_only_wishes_that_were_typed(
    world: MachineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = {name: world.drivers.driver("local/fake") for name in ("nspawn", "qemu")}
    monkeypatch.setattr(type(world.drivers), "local", property(lambda _self: ways))
    with pytest.raises(Fault) as fault:
        await world.service.create(world.ada, NewMachine(IMAGE, cores=4000))
    said = "local (nspawn): 4,000 cores asked, 8 there.; local (qemu): 4,000 cores asked, 8 there."
    assert fault.value.detail == f"No site can run it. {said}"
    with pytest.raises(Fault) as fault:
        await world.service.create(world.ada, NewMachine(IMAGE, cores=4000, memory_mib=10**7))
    assert fault.value.detail.count("MiB of memory asked") == 2
    plan = await world.service.plan(world.ada, NewMachine(IMAGE, cores=4000))
    assert [one.reasons for one in plan.refused] == [["4,000 cores asked, 8 there."]] * 2


async def test_an_image_that_cannot_be_fetched_is_not_waited_for_for_ever(world: MachineWorld) -> None:
    away = NewVersion("1", url="http://127.0.0.1:1/disk.qcow2", checksum=f"sha256:{'1' * 64}")
    await world.images.add(world.olga, NewImage("away", away, visibility="all"))
    found = await world.create(image="away")
    version_id = (await world.row()).image_version_id

    async def failed(attempt: int) -> None:
        """As the room of images writes it down."""
        said = f"The source does not answer (attempt {attempt})"
        values = {"reason": "images.source_away", "message": said, "attempt": attempt, "since": world.clock.now()}
        async with world.database.begin() as tx:
            await image_store.update_version(tx, version_id, **values)

    await world.settle(5)
    await failed(2)
    await world.settle(60)
    seen = await world.get()
    assert seen.status.phase == "creating"
    assert "does not answer (attempt 2). It is tried again." in seen.status.message
    await failed(5)
    await world.settle(30)
    seen = await world.get()
    assert (seen.status.phase, seen.status.waiting_on) == ("failed", "user")
    said = (await world.service.explain(world.ada, "web")).lines
    assert any("cannot be fetched" in line and "hansa image show away" in line for line in said), said
    assert any("create it again" in line for line in said)
    await world.service.delete(world.ada, found.id)
    await world.settle()
    assert (await world.service.get(world.ada, found.id)).status.phase == "deleted"
    await world.create(image="away")  # it is tried for this one, too, before that is given up
    await world.settle(30)
    assert (await world.get()).status.phase == "creating"


async def test_stop_start_reboot_resize(world: MachineWorld) -> None:
    await world.create()
    with pytest.raises(Fault) as fault:
        await world.service.reboot(world.ada, "web", Reboot())
    assert code_of(fault) == "machines.not_now"
    await world.settle()
    await world.service.stop(world.ada, "web")
    await world.settle()
    assert (await world.get()).status.phase == "stopped"
    await world.service.start(world.ada, "web")
    await world.settle()
    await world.service.reboot(world.ada, "web", Reboot(hard=True))
    await world.settle()
    assert next(iter(world.drivers.cloud(LOCAL).machines.values())).seen.message == "hard"
    await world.service.resize(world.ada, "web", Resize(cores=4, memory_mib=2048))
    await world.settle()
    seen = await world.get()
    assert (seen.status.phase, seen.size.cores, seen.size.memory_mib) == ("running", 4, 2048)
    with pytest.raises(Fault) as fault:
        await world.service.resize(world.ada, "web", Resize(cores=99))
    assert code_of(fault) == "machines.no_site"
    assert "login:" in (await world.service.console(world.ada, "web", 10)).text


@pytest.mark.parametrize("wrong", [Wrong.LOST_ANSWER, Wrong.DUPLICATE, Wrong.LATE, Wrong.AWAY])
async def test_a_creation_whose_answer_is_lost_makes_one_machine(world: MachineWorld, wrong: Wrong) -> None:
    cloud = world.drivers.cloud(LOCAL)
    cloud.faults = [wrong]
    await world.create()
    await world.settle()
    assert "did not answer" in (await world.get()).status.message or "away" in (await world.get()).status.message
    await world.settle(90)
    assert (await world.get()).status.phase == "running"
    assert len(cloud.machines) == 1


async def test_a_machine_that_fails_to_build_is_removed_and_the_causes_are_told(world: MachineWorld) -> None:
    cloud = world.drivers.cloud(LOCAL)
    cloud.faults = [Wrong.FAILS]
    await world.create()
    await world.settle(60)
    seen = await world.get()
    assert (seen.status.phase, seen.status.waiting_on) == ("failed", "user")
    assert "It could not be built" in seen.status.message
    assert not cloud.machines
    await world.service.delete(world.ada, "web")
    await world.settle()
    assert (await world.service.get(world.ada, seen.id)).status.phase == "deleted"


async def test_it_goes_to_the_next_site_and_leaves_nothing_behind(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    for name in ("alpha", "beta", "gamma"):
        await world.site(name, "vo.a")
    world.drivers.cloud("alpha/cloud").quota = 0
    world.drivers.cloud("beta/cloud").faults = [Wrong.FAILS]
    made = await world.create(who=world.bob, sites=["alpha", "beta", "gamma"])
    assert made.vo == "vo.a"
    await world.settle(60)
    seen = await world.get(who=world.bob)
    assert (seen.status.phase, seen.site, seen.endpoint) == ("running", "gamma", "cloud")
    left = {place: len(cloud.machines) for place, cloud in world.drivers.clouds.items() if cloud.machines}
    assert left == {"gamma/cloud": 1}
    said = (await world.service.explain(world.bob, "web")).lines
    assert any("At alpha it failed: Quota exceeded" in line for line in said)
    assert any("At beta it failed: It could not be built" in line for line in said)
    world.clock.advance(61)  # what was seen is looked up again
    plan = await world.service.plan(world.bob, NewMachine(IMAGE))
    assert plan.places[0].site == "gamma"
    wish = NewMachine(IMAGE, "next", preferred_sites=["beta"], sites=["beta", "alpha"])
    assert (await world.service.create(world.bob, wish)).site == "beta"


async def test_why_it_is_there_and_what_would_bring_it_elsewhere(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    for name in ("alpha", "beta"):
        await world.site(name, "vo.a")
    await world.site("strict", "vo.a", demands_grant=True)
    await world.create(who=world.bob, preferred_sites=["beta"])
    said = "\n".join((await world.service.explain(world.bob, "web")).lines)
    assert "Chosen: beta, before 1 more. " in said
    assert "Your choice number 1." in said
    assert "Not strict: vo.a has no capacity grant there." in said
    assert "A manager of vo.a can ask for one: hansa grant ask strict --vo vo.a." in said


async def test_a_ban_after_the_choice_of_places_holds_too(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    for name in ("alpha", "beta", "gamma"):
        await world.site(name, "vo.a")
    world.drivers.cloud("alpha/cloud").faults = [Wrong.FAILS]
    await world.create(who=world.bob, sites=["alpha", "beta", "gamma"])
    steering = SteeringService(world.database, world.events, world.clock)
    await steering.ban(world.olga, "beta", NewBan("user", "bob", "Mines coins"))
    await world.settle(60)
    seen = await world.get(who=world.bob)
    assert (seen.status.phase, seen.site) == ("running", "gamma")
    assert not world.drivers.cloud("beta/cloud").machines
    said = (await world.service.explain(world.bob, "web")).lines
    assert any("At beta it failed: beta has banned you: Mines coins" in line for line in said)


async def test_ports_that_cannot_be_opened_there_are_refused_before_anything_is_made(world: MachineWorld) -> None:
    class Closed(FakeMachines):
        def capabilities(self) -> Capabilities:
            able_to = super().capabilities()
            return replace(able_to, can=able_to.can - {Can.PORTS})

    cloud = world.drivers.cloud(LOCAL)
    calls: list[str] = []
    world.drivers.real[LOCAL] = Closed(cloud, calls.append)
    await world.create("web", ports=["443"])
    await world.settle(60)
    seen = await world.get("web")
    assert seen.status.phase == "failed"
    assert "It can open no ports of its machines besides SSH" in seen.status.message
    assert "ensure" not in calls
    await world.create("plain")
    await world.settle()
    assert (await world.get("plain")).status.phase == "running"


async def test_a_site_that_never_answers_is_given_up_after_its_time(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    await world.site("alpha", "vo.a")
    world.drivers.cloud("alpha/cloud").faults = [Wrong.AWAY] * 1000
    await world.create(who=world.bob)
    await world.settle(300)
    assert (await world.get(who=world.bob)).status.reason == "machines.site_away"
    await world.settle(900)
    seen = await world.get(who=world.bob)
    assert (seen.status.phase, seen.status.reason) == ("failed", "machines.no_place")


async def test_quota_is_met_with_a_clear_reason(world: MachineWorld) -> None:
    world.drivers.cloud(LOCAL).quota = 1
    await world.create("one")
    await world.settle()
    await world.create("two")
    await world.settle(10)
    seen = await world.get("two")
    assert seen.status.phase == "failed"
    assert "1 of 1 machines are used" in seen.status.message
    assert any(one.reason == "machines.quota" for one in await world.said(seen))


async def test_lost_machines_are_told_or_made_anew(world: MachineWorld) -> None:
    cloud = world.drivers.cloud(LOCAL)
    for name, restart in (("kept", False), ("again", True)):
        await world.create(name, restart=restart)
    await world.settle(60)
    cloud.machines.clear()
    await world.settle(120)
    assert (await world.get("kept")).status.reason in ("machines.missing", "machines.lost")
    await world.settle(600)
    kept, again = await world.get("kept"), await world.get("again")
    assert (kept.status.phase, kept.status.reason) == ("failed", "machines.lost")
    assert again.status.phase == "running"
    assert len(cloud.machines) == 1


async def test_a_broken_machine_is_kept_or_made_anew(world: MachineWorld) -> None:
    cloud = world.drivers.cloud(LOCAL)
    for name, restart in (("kept", False), ("again", True)):
        made = await world.create(name, restart=restart)
        await world.settle()
        cloud.set_life(made.id, Life.FAILED, "disk on fire")
    await world.settle(600)
    kept, again = await world.get("kept"), await world.get("again")
    assert (kept.status.phase, again.status.phase) == ("failed", "running")
    assert "disk on fire" in kept.status.message
    assert len(cloud.machines) == 2
    cloud.set_life(kept.id, Life.RUNNING)
    await world.settle(600)
    assert (await world.get("kept")).status.phase == "running"


async def test_one_that_stops_by_itself_stays_stopped_unless_it_shall_restart(world: MachineWorld) -> None:
    cloud = world.drivers.cloud(LOCAL)
    for name, restart in (("off", False), ("on", True)):
        made = await world.create(name, restart=restart)
        await world.settle()
        cloud.set_life(made.id, Life.STOPPED)
    await world.settle(600)
    off, on = await world.get("off"), await world.get("on")
    assert (off.status.phase, off.wanted, on.status.phase) == ("stopped", "stopped", "running")
    await world.service.start(world.ada, "off")
    for name, restart in (("off", True), ("on", False)):  # the other way round, while they live
        assert (await world.service.change(world.ada, name, MachineChange(restart=restart))).restart is restart
    await world.settle(60)
    for one in (off, on):
        cloud.set_life(one.id, Life.STOPPED)
    await world.settle(600)
    off, on = await world.get("off"), await world.get("on")
    assert (off.status.phase, on.status.phase, on.wanted) == ("running", "stopped", "stopped")


async def test_a_first_boot_that_fails_is_told_in_the_guests_own_words(world: MachineWorld) -> None:
    world.drivers.cloud(LOCAL).faults = [Wrong.GUEST_FAILS]
    await world.create()
    await world.settle()
    seen = await world.get()
    assert (seen.status.phase, seen.status.reason, seen.guest) == ("running", "machines.guest_failed", "failed")
    assert "no such package" in seen.status.message


async def test_after_seven_days_it_is_warned_stopped_and_a_week_later_deleted(world: MachineWorld) -> None:
    made = await world.create()
    assert made.expires == world.clock.now() + timedelta(days=7)
    await world.settle()
    world.clock.advance(6 * 86_400)
    await world.settle(60)
    assert "machines.expires_soon" in [one.reason for one in await world.said(made)]
    assert (await world.get()).status.phase == "running"
    await world.service.change(world.ada, "web", MachineChange(lifetime_s=2 * 86_400))
    await world.settle()
    world.clock.advance(2 * 86_400)
    await world.settle(60)
    seen = await world.get()
    assert (seen.status.phase, seen.status.reason) == ("stopped", "machines.expired")
    with pytest.raises(Fault) as fault:
        await world.service.start(world.ada, "web")
    assert code_of(fault) == "machines.not_now"
    world.clock.advance(7 * 86_400)
    await world.settle(60)
    assert (await world.service.get(world.ada, made.id)).status.phase == "deleted"
    assert not world.drivers.cloud(LOCAL).machines


async def test_a_vo_starts_only_what_it_endorses(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.site("alpha", "vo.a")
    with pytest.raises(Fault) as fault:
        await world.create(who=world.bob)
    assert code_of(fault) == "images.not_endorsed"
    with pytest.raises(Fault) as fault:
        await world.create(who=world.bob, image="site:cirros")
    assert code_of(fault) == "machines.bad_spec"
    await world.endorsing.set_policy(world.olga, "vo.a", ImagePolicy(site_images=True))
    await world.create(who=world.bob, image="site:cirros")
    await world.settle()
    assert (await world.get(who=world.bob)).status.phase == "running"


async def test_a_site_rules_over_its_images_and_numbers(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    await world.site("strict", "vo.a", vm_images_denied=["deb*"])
    await world.site("small", "vo.a", vms_per_user=1)
    await world.site("picky", "vo.a", vm_images=["cirros*", "site-*"])
    await world.site("closed", "vo.a", users=["ada"])
    assert (await world.create("one", world.bob)).site == "small"
    with pytest.raises(Fault, match="does not let this VM image run") as fault:
        await world.create("two", world.bob)
    assert "small: You have 1 machines at small; it lets each user have 1." in fault.value.detail
    assert "picky: picky does not let this VM image run." in fault.value.detail
    assert "closed: closed serves named users only, and you are not one." in fault.value.detail


async def test_a_site_rules_over_how_long_a_machine_lives(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    await world.site("short", "vo.a", vm_lifetime_h=12)
    with pytest.raises(Fault, match="172,800 s asked, 43,200 there") as fault:
        await world.create(who=world.bob, lifetime_s=2 * 86_400)
    assert "Ask for at most 43,200 s." in str(fault.value.hint)
    made = await world.create(who=world.bob)  # who says nothing gets what there is
    ends = world.clock.now() + timedelta(hours=12)
    assert made.expires == ends
    await world.settle()
    with pytest.raises(Fault, match="short lets it live until"):
        await world.service.change(world.bob, "web", MachineChange(lifetime_s=86_400))
    world.clock.advance(9 * 3600)
    await world.settle(400)
    assert "machines.site_ends_soon" in [one.reason for one in await world.said(made)]
    assert (await world.get(who=world.bob)).status.phase == "running"
    world.clock.advance((ends - world.clock.now()).total_seconds() + 1)
    await world.settle(30)
    assert not world.drivers.cloud("short/cloud").machines
    said = [one.message for one in await world.said(made) if one.reason == "machines.site_ended"]
    assert said == [f"short lets no machine live longer than until {ends:%Y-%m-%d %H:%M} UTC: it is deleted."]
    assert (await world.service.get(world.bob, made.id)).status.phase == "deleted"


async def test_a_policy_that_comes_later_holds_for_machines_that_run(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    await world.site("alpha", "vo.a")
    made = await world.create(who=world.bob, lifetime_s=0)
    await world.settle(400)
    assert (await world.get(who=world.bob)).expires is None
    steering = SteeringService(world.database, world.events, world.clock)
    await steering.set_policy(world.olga, "alpha", SitePolicy(vm_lifetime_h=1))
    await world.settle(400)
    assert (await world.get(who=world.bob)).expires == made.created + timedelta(hours=1)
    await world.settle(3600)
    assert not world.drivers.cloud("alpha/cloud").machines


async def test_a_grant_is_reserved_used_and_given_back(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    await world.site("alpha", "vo.a", demands_grant=True)
    with pytest.raises(Fault) as fault:
        await world.create(who=world.bob)
    assert code_of(fault) == "machines.no_site"
    grants = CapacityService(world.database, world.events, world.clock)
    await grants.ask(world.olga, AskGrant("vo.a", "alpha", GrantTerms(core_hours=400)))
    await grants.agree(world.olga, "vo.a", "alpha", AgreeGrant())
    await world.create(who=world.bob, cores=2)  # 2 cores for 168 hours
    await world.settle()
    held = await grants.get(world.olga, "vo.a", "alpha")
    assert (held.reserved_h, held.used_h, held.left_h) == (336, 0, 64)
    with pytest.raises(Fault, match="does not suffice"):
        await world.create("two", world.bob, cores=2)
    world.clock.advance(3 * 3600)
    await world.settle()
    held = await grants.get(world.olga, "vo.a", "alpha")
    assert (held.reserved_h, held.used_h) == (330, 6)
    await world.service.delete(world.bob, "web")
    await world.settle()
    async with world.database.read() as tx:
        assert (await tx.execute(sa.select(reservations))).all() == []
        row = (await tx.execute(sa.select(usage))).one()
    assert (row.kind, row.vo, row.site, row.core_s) == ("machine", "vo.a", "alpha", 6 * 3600)


async def test_where_a_grant_is_at_zero_a_machine_waits_for_the_managers_of_its_vo(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    await world.site("alpha", "vo.a", demands_grant=True)
    grants = CapacityService(world.database, world.events, world.clock)
    await grants.ask(world.olga, AskGrant("vo.a", "alpha", GrantTerms(core_hours=168)))
    await grants.agree(world.olga, "vo.a", "alpha", AgreeGrant())
    await world.create("first", who=world.bob)  # a core for 168 hours: that is all
    await world.settle()
    made = await world.create("second", who=world.bob)
    assert (made.status.phase, made.status.reason, made.site) == ("waiting", "capacity.used_up", None)
    await world.settle(60)
    waits = await world.get("second", who=world.bob)
    assert (waits.status.phase, waits.status.waiting_on) == ("waiting", "vo_manager")
    assert "hansa grant ask alpha --vo vo.a" in waits.status.message
    assert len(world.drivers.cloud("alpha/cloud").machines) == 1
    await grants.ask(world.olga, AskGrant("vo.a", "alpha", GrantTerms(core_hours=400)))
    await grants.agree(world.olga, "vo.a", "alpha", AgreeGrant())
    await world.settle(60)
    runs = await world.get("second", who=world.bob)
    assert (runs.status.phase, runs.site) == ("running", "alpha")
    assert round((await grants.get(world.olga, "vo.a", "alpha")).reserved_h) == 336  # the second waited a little


async def test_a_deletion_waits_for_nothing_and_goes_on_until_it_is_done(world: MachineWorld) -> None:
    made = await world.create()
    await world.settle()

    def away(_place: str, call: str) -> None:
        if call in ("delete", "observe"):
            raise Permanent("credential refused")

    world.drivers.before = away
    await world.service.delete(world.ada, "web")
    await world.settle(120)
    seen = await world.get()
    assert (seen.status.phase, seen.status.reason) == ("deleting", "machines.not_removed")
    assert "credential refused" in seen.status.message
    world.drivers.before = lambda _place, _call: None
    await world.settle(3700)
    assert (await world.service.get(world.ada, made.id)).status.phase == "deleted"


async def test_deleted_before_it_was_made(world: MachineWorld) -> None:
    made = await world.create()
    await world.service.delete(world.ada, "web")
    await world.settle()
    assert (await world.service.get(world.ada, made.id)).status.phase == "deleted"
    assert not world.drivers.cloud(LOCAL).machines


async def test_a_table_is_searched_sorted_and_paged_in_the_database(world: MachineWorld) -> None:
    for name in ("web", "db-1", "db-2", "pc"):
        await world.create(name, public=True)
    await world.settle()
    await world.service.delete(world.ada, "db-2")
    await world.settle()

    async def names(**wanted: Any) -> tuple[list[str], int]:
        found, number = await world.service.search(world.ada, Search(**wanted))
        return [one.name for one in found], number

    assert await names() == (["db-1", "pc", "web"], 3)
    assert await names(down=True, limit=2) == (["web", "pc"], 3)
    assert await names(down=True, limit=2, skip=2) == (["db-1"], 3)
    assert await names(word="DB-") == (["db-1"], 1)
    assert await names(word="%") == ([], 0)
    assert await names(word="local", phase="running") == (["db-1", "pc", "web"], 3)
    assert await names(word="debian", phase="deleted") == (["db-2"], 1)
    seen = await world.get("web")
    assert await names(word=seen.public[0]) == (["web"], 1)
    assert (await names(sort="vo"))[1] == (await names(sort="expires", down=True))[1] == 3
    assert (await world.service.search(world.bob, Search()))[1] == 0
