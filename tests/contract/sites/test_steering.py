"""The site's own word, on both dialects: policy, drain, bans, downtimes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from hansa.kernel.errors import Fault
from hansa.sites.model import Work, allows_image, endpoint_refusals, is_at_risk, site_refusals
from hansa.sites.steering import SteeringService
from hansa.sites.wire import NewBan, NewDowntime, SitePolicy
from tests.support.siteworld import SiteWorld, cloud


@pytest.fixture
async def steering(world: SiteWorld) -> SteeringService:
    await world.vo("vo.a", world.bob)
    await world.registry.add(world.olga, cloud())
    return SteeringService(world.database, world.events, world.clock)


async def reasons(world: SiteWorld, work: Work = Work.MACHINES) -> list[str]:
    (view,) = await world.serving(world.bob, "vo.a")
    now = world.clock.now()
    found = [*site_refusals(view, "vo.a", work), *endpoint_refusals(view, view.endpoints[0], "vo.a", now)]
    assert all(one.message.endswith(".") for one in found)
    return [one.reason for one in found]


async def refused(call: Any) -> str:
    with pytest.raises(Fault) as fault:
        await call
    return fault.value.code.code


async def test_drain_and_resume_act_on_the_next_decision(world: SiteWorld, steering: SteeringService) -> None:
    assert await reasons(world) == []
    shown = await steering.drain(world.ada, "NEBULA", "New switches")
    assert (shown.status.phase, shown.drained) == ("drained", "New switches")
    assert await reasons(world) == ["sites.drained"]
    assert (await steering.resume(world.ada, "NEBULA")).status.phase == "ready"
    assert await reasons(world) == []


async def test_bans_of_users_and_vos(world: SiteWorld, steering: SteeringService) -> None:
    await steering.ban(world.ada, "NEBULA", NewBan("user", "bob", "Mines coins"))
    await steering.ban(world.ada, "NEBULA", NewBan("vo", "vo.a"))
    assert await reasons(world) == ["sites.user_banned", "sites.vo_banned"]
    assert [(one.kind, one.who, one.by) for one in (await steering.bans(world.ada, "NEBULA")).items] == [
        ("user", "bob", "ada"),
        ("vo", "vo.a", "ada"),
    ]
    await steering.unban(world.ada, "NEBULA", "user", "bob")
    assert await reasons(world) == ["sites.vo_banned"]
    assert await refused(steering.ban(world.ada, "NEBULA", NewBan("user", "nobody"))) == "sites.no_user"


async def test_the_policy_rules_over_everybody(world: SiteWorld, steering: SteeringService) -> None:
    policy = SitePolicy(users=["ada"], pilots=False, vm_images=["egi-*"], vm_images_denied=["*-old"], vm_lifetime_h=12)
    await steering.set_policy(world.ada, "NEBULA", policy)
    assert await reasons(world, Work.PILOTS) == ["sites.user_not_listed", "sites.no_pilots"]
    (view,) = await world.serving(world.bob, "vo.a")
    assert view.policy == policy
    assert allows_image(view.policy, ["egi-ubuntu"])
    assert not allows_image(view.policy, ["egi-ubuntu-old"])
    assert not allows_image(view.policy, ["mine"])


async def test_downtimes(world: SiteWorld, steering: SteeringService) -> None:
    now = world.clock.now()
    soon = now + timedelta(hours=1)
    one = await steering.announce(
        world.ada, "NEBULA", NewDowntime(soon + timedelta(hours=2), soon, endpoint="openstack")
    )
    assert (one.planned, one.endpoint) == (False, "openstack")
    risk = NewDowntime(now + timedelta(days=3), now + timedelta(days=2), "at_risk")
    assert (await steering.announce(world.ada, "NEBULA", risk)).planned
    assert await reasons(world) == []
    world.clock.advance(3601)
    assert await reasons(world) == ["sites.downtime"]
    await steering.end_downtime(world.ada, "NEBULA", one.id)
    assert await reasons(world) == []
    world.clock.advance(2 * 86400)
    assert await reasons(world) == []
    (view,) = await world.serving(world.bob, "vo.a")
    assert is_at_risk(view, view.endpoints[0], world.clock.now()) is not None
    assert len((await steering.downtimes(world.bob, "NEBULA", now)).items) == 2
    assert len((await steering.downtimes(world.bob, "NEBULA", None)).items) == 1


@pytest.mark.parametrize(("starts", "ends"), [(2, 1), (-2, 1), (1, 24 * 500), (1, 1)])
async def test_downtimes_that_cannot_be(world: SiteWorld, steering: SteeringService, starts: int, ends: int) -> None:
    now = world.clock.now()
    new = NewDowntime(now + timedelta(hours=ends), now + timedelta(hours=starts))
    assert await refused(steering.announce(world.ada, "NEBULA", new)) == "sites.bad_downtime"


async def test_only_administrators_steer(world: SiteWorld, steering: SteeringService) -> None:
    bob = world.bob
    ends = NewDowntime(world.clock.now() + timedelta(hours=1))
    for call in (
        steering.drain(bob, "NEBULA", ""),
        steering.resume(bob, "NEBULA"),
        steering.set_policy(bob, "NEBULA", SitePolicy()),
        steering.ban(bob, "NEBULA", NewBan("user", "ada")),
        steering.unban(bob, "NEBULA", "user", "ada"),
        steering.bans(bob, "NEBULA"),
        steering.announce(bob, "NEBULA", ends),
        steering.end_downtime(bob, "NEBULA", "x"),
        steering.set_admins(bob, "NEBULA", ["bob"]),
    ):
        assert await refused(call) == "sites.forbidden"
    assert (await steering.set_admins(world.ada, "NEBULA", ["bob"])).users == ["bob"]
    assert (await steering.drain(bob, "NEBULA", "")).my_roles == ["admin"]
