"""Jobs on machines: waiting tasks bring machines into being, by the rules of sites and VOs, and idle ones go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.accounting.store import usage
from hansa.identity.model import TokenKind
from hansa.identity.store import tokens
from hansa.jobs.enrolment import EnrolRequest
from hansa.jobs.wire import Selection
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.status import Party, Status
from hansa.machines.drivers.base import Life
from hansa.machines.drivers.fake import Fault as Wrong
from hansa.sites.capacity_service import CapacityService
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, GrantTerms
from hansa.sites.wire import SitePolicy
from tests.support.jobworld import done
from tests.support.vmworld import VmWorld

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""SQLite alone: what is asked of the database here is asked of both dialects by the suites of jobs and machines."""


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> VmWorld:
    """Ada is in vo.a, which has endorsed the image that machines for jobs are made of."""
    found = await VmWorld(database, tmp_path).start()
    await found.vms.base.vo("vo.a", found.vms.ada, found.vms.olga)
    await found.endorse("vo.a")
    return found


async def submit(world: VmWorld, count: int | None = None, **more: Any) -> int:
    return (await world.jobs.submit(count, caller=world.vms.ada, vo="vo.a", **more)).number


async def pilot_tokens(world: VmWorld) -> int:
    query = sa.select(sa.func.count()).where(tokens.c.kind == TokenKind.PILOT.value)
    async with world.database.read() as tx:
        return int((await tx.execute(query)).scalar_one())


async def test_a_waiting_job_gets_a_machine_which_goes_when_it_is_idle(world: VmWorld) -> None:
    await world.site("NEBULA", "vo.a")
    number = await submit(world, cores=2, memory_mib=1000)
    await world.step(5)
    (pilot,), (machine,) = await world.pilots(), await world.machines()
    assert (pilot.site, pilot.driver, pilot.vo, pilot.cores) == ("NEBULA", "machines", "vo.a", 2)
    assert (machine.pilot_id, machine.vo, machine.place) == (pilot.id, "vo.a", "NEBULA/cloud")
    assert machine.sizes["NEBULA/cloud"]["flavour"] == "small", "the smallest that has room for it"
    assert pilot.batch_id == machine.name
    assert world.made("NEBULA") == 1
    assert await pilot_tokens(world) == 0, "the token is made when the guest comes for it"

    answer = await world.enrol(pilot.id)
    assert answer.token not in machine.spec["user_data"]
    assert answer.config["idle_timeout_s"] == 300
    assert (answer.config["cores"], answer.config["gpus"]) == (2, [])
    caller = await world.jobs.identity.authenticate(answer.token)
    assert (caller.pilot, caller.user_id) == (pilot.id, world.vms.ada.user_id)
    guest = await world.guest(pilot.id)
    assert len(await guest.take(4)) == 1
    await guest.finish()
    assert (await world.jobs.jobs.get(world.vms.ada, number)).status.phase == "done"
    await world.step(120)
    assert world.made("NEBULA") == 1, "it waits for more"
    await guest.exchange(ending="idle")
    await world.step(30)
    assert world.made("NEBULA") == 0
    (pilot,), (machine,) = await world.pilots(), await world.machines()
    assert (pilot.phase, machine.phase, machine.let_go) == ("ended", "deleted", True)
    assert await pilot_tokens(world) == 0


async def test_what_a_pilots_machine_uses_is_counted_once(world: VmWorld) -> None:
    await world.site("NEBULA", "vo.a")
    await submit(world)
    await world.step(5)
    guest = await world.guest((await world.pilots())[0].id)
    await guest.take(1)
    for _ in range(5):
        await world.step(900)
        await guest.exchange()
    await guest.finish()
    await guest.exchange(ending="idle")
    await world.step(30)
    async with world.database.read() as tx:
        kinds = set((await tx.execute(sa.select(usage.c.kind))).scalars())
    assert kinds == {"job", "pilot_idle"}, "its tasks and its idle time, not its life as well"


async def test_gpus_bring_a_flavour_that_has_them_and_many_tasks_a_large_one(world: VmWorld) -> None:
    await world.site("NEBULA", "vo.a")
    await submit(world, 6, cores=1, memory_mib=500)
    await world.step(5)
    (machine,) = await world.machines()
    assert machine.sizes["NEBULA/cloud"]["flavour"] == "large", "six cores are asked for"
    await submit(world, gpus=1, gpu_model="A100")
    await world.step(5)
    _, machine = await world.machines()
    assert machine.sizes["NEBULA/cloud"]["flavour"] == "gpu"
    answer = await world.enrol(machine.pilot_id)
    assert answer.config["gpus"] == ["0", "1"]


async def test_only_what_the_vo_endorsed_is_started_and_the_job_says_so(world: VmWorld) -> None:
    await world.vms.base.vo("vo.b", world.vms.ada)
    await world.site("NEBULA", "vo.b")
    job = await world.jobs.submit(caller=world.vms.ada, vo="vo.b")
    await world.step(30)
    assert not await world.machines()
    said = await world.jobs.jobs.explain(world.vms.ada, job.number, None)
    assert any("vo.b has not endorsed the VM image debian" in line for line in said.lines), said.lines
    await world.endorse("vo.b")
    await world.step(120)
    assert world.made("NEBULA") == 1


async def test_a_job_that_nobody_waits_for_any_more_leaves_no_machine(world: VmWorld) -> None:
    await world.site("NEBULA", "vo.a")
    world.vms.drivers.cloud("NEBULA/cloud").build_s = 3600
    number = await submit(world)
    await world.step(10)
    said = await world.jobs.jobs.explain(world.vms.ada, number, None)
    assert any("Its machine pilot-" in line and "NEBULA" in line for line in said.lines), said.lines
    await world.jobs.jobs.kill(world.vms.ada, number, Selection(None))
    await world.step(90)
    assert world.made("NEBULA") == 0
    assert [one.phase for one in await world.pilots()] == ["ended"]
    assert [one.phase for one in await world.machines()] == ["deleted"]


async def test_where_no_machine_can_be_made_another_site_is_tried(world: VmWorld) -> None:
    await world.site("ALPHA", "vo.a")
    await world.site("BETA", "vo.a")
    for name in ("ALPHA", "BETA"):
        world.vms.drivers.cloud(f"{name}/cloud").quota = 0
    await submit(world)
    await world.step(60)
    world.vms.drivers.cloud("BETA/cloud").quota = None
    await world.step(300)
    assert (world.made("ALPHA"), world.made("BETA")) == (0, 1)
    lost = [one for one in await world.pilots() if one.phase == "lost"]
    assert any("Quota exceeded" in one.message for one in lost), [one.message for one in lost]


async def test_no_machine_is_made_while_hansa_may_not_act_for_its_user(
    world: VmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job waits for its user, who is told how to go on; a machine that runs is left, and can be deleted."""
    await world.site("NEBULA", "vo.a")
    may = world.vms.authority.look

    async def look(*_given: Any, **_more: Any) -> Status:
        message = "The lasting sign-in at Check-in has ended."
        return Status("waiting", "identity.grant_expired", message, Party.USER, world.clock.now())

    monkeypatch.setattr(world.vms.authority, "look", look)
    number = await submit(world)
    await world.step(120)
    assert not await world.machines()
    (pilot,) = [one for one in await world.pilots() if one.phase not in ("ended", "lost")]
    assert "The lasting sign-in at Check-in has ended." in pilot.message
    said = await world.jobs.jobs.explain(world.vms.ada, number, None)
    assert any("lasting sign-in" in line for line in said.lines), said.lines

    monkeypatch.setattr(world.vms.authority, "look", may)
    await world.step(1200)
    assert world.made("NEBULA") == 1
    (machine,) = [one for one in await world.machines() if one.phase == "running"]
    guest = await world.guest(machine.pilot_id)
    assert len(await guest.take(1)) == 1
    monkeypatch.setattr(world.vms.authority, "look", look)
    await world.step(60)
    assert world.made("NEBULA") == 1, "nothing is killed"
    await guest.finish()
    await guest.exchange(ending="idle")
    await world.step(60)
    assert world.made("NEBULA") == 0


async def test_a_site_that_demands_a_grant_has_machines_for_jobs_under_one_only(world: VmWorld) -> None:
    """Of the grant the tasks use it up, and what their machine is reserves nothing of it."""
    await world.site("NEBULA", "vo.a", policy=SitePolicy(demands_grant=True))
    number = await submit(world, wall_time_s=3600)
    await world.step(60)
    assert not await world.machines()
    said = await world.jobs.jobs.explain(world.vms.ada, number, None)
    assert any("grant" in line for line in said.lines), said.lines
    grants = CapacityService(world.database, world.vms.events, world.clock)
    await grants.ask(world.vms.olga, AskGrant("vo.a", "NEBULA", GrantTerms(core_hours=10)))
    await grants.agree(world.vms.olga, "vo.a", "NEBULA", AgreeGrant())
    await world.step(600)
    (machine,) = [one for one in await world.machines() if one.phase == "running"]
    held = await grants.get(world.vms.olga, "vo.a", "NEBULA")
    assert (held.reserved_h, held.used_h) == (0, 0), "a machine for jobs reserves nothing"
    guest = await world.guest(machine.pilot_id)
    (lease,) = await guest.take(1)
    await world.step(1800)
    await guest.exchange()
    guest.leases.clear()
    await guest.report(done(lease, lease.first, wall_s=1800.0))
    await guest.exchange(ending="idle")
    await world.step(60)
    assert world.made("NEBULA") == 0
    held = await grants.get(world.vms.olga, "vo.a", "NEBULA")
    assert (held.reserved_h, held.used_h) == (0, 1.0), "half an hour of two cores, one of them idle: once"


@pytest.mark.parametrize("end", ["deleted by its owner", "lost", "stopped", "failed"])
async def test_a_machine_that_ends_gives_its_tasks_back(world: VmWorld, end: str) -> None:
    await world.site("NEBULA", "vo.a")
    number = await submit(world)
    await world.step(5)
    first = (await world.pilots())[0]
    guest = await world.guest(first.id)
    await guest.take(1)
    (machine,) = await world.machines()
    cloud = world.vms.drivers.cloud("NEBULA/cloud")
    if end == "deleted by its owner":
        await world.vms.service.delete(world.vms.ada, machine.name)
    elif end == "lost":
        cloud.lose(machine.id)
    else:
        cloud.set_life(machine.id, Life.STOPPED if end == "stopped" else Life.FAILED, "The host died.")
    await world.step(400)
    (row,) = [one for one in await world.pilots() if one.id == first.id]
    assert row.phase == "lost", row.message
    others = [one for one in await world.pilots() if one.id != first.id]
    assert others, "its task waits for another machine"
    (fresh,) = [one for one in others if one.phase == "starting"]
    again = await world.guest(fresh.id)
    assert len(await again.take(1)) == 1
    await again.finish()
    assert (await world.jobs.jobs.get(world.vms.ada, number)).status.phase == "done"
    assert world.made("NEBULA") == 1, "nothing of the first is left"


async def test_a_ticket_is_good_for_one_guest(world: VmWorld) -> None:
    await world.site("NEBULA", "vo.a")
    await submit(world)
    await world.step(5)
    (pilot,) = await world.pilots()
    first = await world.enrol(pilot.id)
    second = await world.enrol(pilot.id)  # the first answer was lost on its way
    with pytest.raises(Fault):
        await world.jobs.identity.authenticate(first.token)
    assert (await world.jobs.identity.authenticate(second.token)).pilot == pilot.id
    with pytest.raises(Fault) as caught:
        await world.enrol(pilot.id, "another secret, which nobody of ours has")
    assert caught.value.code.code == "jobs.bad_ticket"
    with pytest.raises(Fault):
        await world.jobs.identity.authenticate(second.token)
    (row,) = [one for one in await world.pilots() if one.id == pilot.id]
    assert (row.phase, row.reason) == ("lost", "pilots.ticket_twice")
    await world.step(30)
    assert [one.phase for one in await world.machines() if one.pilot_id == pilot.id] == ["deleted"]


async def test_a_ticket_is_spent_when_the_pilot_has_spoken(world: VmWorld) -> None:
    await world.site("NEBULA", "vo.a")
    number = await submit(world)
    await world.step(5)
    (pilot,) = await world.pilots()
    guest = await world.guest(pilot.id)
    await guest.take(1)
    with pytest.raises(Fault):
        await world.enrol(pilot.id)
    counts = (await world.jobs.jobs.get(world.vms.ada, number)).counts
    assert (counts.waiting, counts.running) == (1, 0), "whoever has the pilot gets nothing more"


async def test_a_wrong_ticket_changes_nothing(world: VmWorld) -> None:
    await world.site("NEBULA", "vo.a")
    await submit(world)
    await world.step(5)
    (pilot,) = await world.pilots()
    with pytest.raises(Fault):
        await world.enrolments.enrol(pilot.id, EnrolRequest("0" * 64, "s" * 32))
    with pytest.raises(Fault):
        await world.enrolments.enrol("pilot_none", EnrolRequest(world.tickets.of("pilot_none"), "s" * 32))
    await world.guest(pilot.id)


class Killed(BaseException):
    """kill -9: nothing of the server runs any more."""


@pytest.mark.parametrize("wrong", [None, Wrong.DUPLICATE])
async def test_killed_at_every_call_no_machine_is_forgotten_and_none_doubled(
    world: VmWorld, wrong: Wrong | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round kills one call to the provider later, until a whole life passes without a kill."""
    await world.site("NEBULA", "vo.a")
    cloud, service = world.vms.drivers.cloud("NEBULA/cloud"), world.vms.service
    calls, kill_at, is_armed = 0, 0, False

    def before(_place: str = "", _call: str = "") -> None:
        nonlocal calls
        calls += is_armed
        if is_armed and calls == kill_at:
            raise Killed

    def watched(call: Any) -> Any:
        """A use case of machines: the server may die before it, and after it before anybody has heard of it."""

        async def run(*given: Any, **more: Any) -> Any:
            before()
            done = await call(*given, **more)
            before()
            return done

        return run

    world.vms.drivers.before = before
    monkeypatch.setattr(service, "create", watched(service.create))
    monkeypatch.setattr(service, "delete", watched(service.delete))

    async def drive(seconds: float) -> bool:
        nonlocal is_armed
        is_armed = True
        try:
            await world.step(seconds)
        except (Killed, BaseExceptionGroup):
            await world.crash()
            return True
        finally:
            is_armed = False
        return False

    for kill_at in range(1, 30):
        calls, cloud.faults = 0, [wrong] if wrong else []
        number = await submit(world)
        was_killed = await drive(30)
        await world.step(150)
        (pilot,) = [one for one in await world.pilots() if one.phase == "starting"]
        assert len(cloud.machines) == 1
        guest = await world.guest(pilot.id)
        await guest.take(1)
        await guest.finish()
        await guest.exchange(ending="idle")
        was_killed |= await drive(30)
        await world.step(150)
        assert (await world.jobs.jobs.get(world.vms.ada, number)).status.phase == "done"
        assert not cloud.machines
        assert {one.phase for one in await world.machines()} == {"deleted"}
        assert all(one.let_go for one in await world.machines())
        if not was_killed:
            assert kill_at > 2
            return
    raise AssertionError("a life has no end")
