"""Tasks at a site that demands a capacity grant: bounded by what is left, held while they are out, spent at the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.accounting.service import AccountingService
from hansa.identity import vo_store
from hansa.jobs.measured import measured
from hansa.kernel.events import events
from hansa.kernel.wire import encode
from hansa.sites import capacity
from hansa.sites import store as site_store
from hansa.sites.capacity_model import GrantPhase
from hansa.sites.capacity_service import CapacityService
from hansa.sites.capacity_wire import Grant, GrantCaps, GrantTerms
from tests.support.jobworld import Pilot, World, done

SITE, VO = "nebula", "vo.a"


class Granted:
    """A world with a shared site, and jobs of an hour and a core for a VO of its owner's."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def open(self, *, demands: bool = True) -> Granted:
        world, now = self.world, self.world.clock.now()
        await world.site(world.owner, SITE)
        async with world.database.begin() as tx:
            await site_store.update(tx, SITE, visibility="vos", policy={"demands_grant": demands})
            for vo in (VO, "vo.b"):
                await vo_store.insert_vo(tx, name=vo, description="", created_by="hansa", created=now, suspended=None)
                row = {"vo": vo, "user_id": world.owner.user_id, "roles": [], "groups": ["astro"], "since": now}
                await vo_store.insert_member(tx, **row, suspended=None, suspended_why=None)
        return self

    async def grant(self, vo: str = VO, caps: GrantCaps | None = None, **terms: Any) -> None:
        values = {"phase": GrantPhase.AGREED.value, "since": self.world.clock.now(), "warned": False}
        async with self.world.database.begin() as tx:
            await capacity.put(
                tx, vo, SITE, terms=encode(GrantTerms(**terms)), caps=encode(caps or GrantCaps()), **values
            )

    async def get(self, vo: str = VO) -> Grant:
        service = CapacityService(self.world.database, self.world.events, self.world.clock)
        return await service.get(self.world.owner, vo, SITE)

    async def submit(self, count: int, vo: str | None = VO, **more: Any) -> None:
        needs = {"cores": 1, "memory_mib": 100, "wall_time_s": 3600}
        await self.world.submit(count, vo=vo, **(needs | more))

    async def pilot(self, **values: Any) -> Pilot:
        return await self.world.pilot(site=SITE, **values)


@pytest.fixture
async def granted(world: World) -> Granted:
    return await Granted(world).open()


async def taken(pilot: Pilot, want: int = 100) -> int:
    """How many tasks a pilot gets that says to have room for all of them."""
    reply = await pilot.exchange(want, cores_free=1000, memory_free_mib=10**6)
    return sum(lease.last - lease.first + 1 for lease in reply.leases)


def task_hours(pilot: Pilot, hours: float) -> list[Any]:
    """The end of every task that the pilot has, each after so many hours."""
    every = [(one, index) for one in pilot.leases.values() for index in range(one.first, one.last + 1)]
    pilot.leases.clear()
    return [done(one, index, wall_s=hours * 3600) for one, index in every]


async def test_hours_are_reserved_at_the_start_and_settled_at_the_end(granted: Granted) -> None:
    await granted.grant(core_hours=10)
    await granted.submit(100)
    one, two = await granted.pilot(), await granted.pilot()
    assert await taken(one) == 10
    seen = await granted.get()
    assert (seen.reserved_h, seen.used_h, seen.left_h) == (10, 0, 0)
    assert seen.status.phase == "used_up"
    assert await taken(two) == 0
    await one.report(*task_hours(one, 0.5))
    seen = await granted.get()
    assert (seen.reserved_h, seen.used_h, seen.left_h) == (0, 5, 5)
    assert await taken(two) == 5


async def test_the_same_request_again_reserves_once(granted: Granted) -> None:
    await granted.grant(core_hours=10)
    await granted.submit(100)
    pilot = await granted.pilot()
    assert await taken(pilot, 4) == 4
    again = await pilot.repeat()
    assert sum(lease.last - lease.first + 1 for lease in again.leases) == 4
    assert (await granted.get()).reserved_h == 4
    ends = task_hours(pilot, 1)
    await pilot.report(*ends)
    await pilot.repeat()
    assert ((await granted.get()).reserved_h, (await granted.get()).used_h) == (0, 4)


async def test_results_come_one_by_one_and_what_is_held_shrinks(granted: Granted) -> None:
    await granted.grant(core_hours=10)
    await granted.submit(8)
    pilot = await granted.pilot()
    await taken(pilot)
    ends = task_hours(pilot, 0.25)
    for number, end in enumerate(ends, 1):
        await pilot.report(end)
        seen = await granted.get()
        assert (seen.used_h, seen.reserved_h) == (number * 0.25, 8 - number)


async def test_work_of_no_vo_or_of_one_without_a_grant_is_not_given_out(world: World) -> None:
    granted = Granted(world)
    await granted.submit(5, None)
    await granted.open()
    await granted.submit(5, vo="vo.b")
    pilot = await granted.pilot()
    assert await taken(pilot) == 0
    await granted.grant("vo.b", core_hours=100, ends=granted.world.clock.now() + timedelta(seconds=-1))
    assert await taken(pilot) == 0
    await granted.grant("vo.b", core_hours=100)
    assert await taken(pilot) == 5


async def test_what_is_used_up_does_not_stand_in_the_way_of_others(granted: Granted) -> None:
    await granted.grant(core_hours=2)
    await granted.grant("vo.b", core_hours=3)
    await granted.submit(50, priority=9)
    await granted.submit(50, "vo.b")
    pilot = await granted.pilot()
    assert await taken(pilot) + await taken(pilot) == 5


async def test_more_hours_and_it_goes_on(granted: Granted) -> None:
    await granted.grant(core_hours=0)
    await granted.submit(3)
    pilot = await granted.pilot()
    assert await taken(pilot) == 0
    await granted.grant(core_hours=2)
    assert await taken(pilot) == 2


async def test_caps_of_users_and_groups(granted: Granted) -> None:
    await granted.grant(core_hours=100, caps=GrantCaps(users={"ada": 6.0}, groups={"astro": 2.0}))
    await granted.submit(50, vo_group="astro")
    pilot = await granted.pilot()
    assert await taken(pilot) == 2
    await granted.submit(50)
    assert await taken(pilot) == 4


async def test_cores_at_the_same_time_are_bounded(granted: Granted) -> None:
    await granted.grant(cores=3, core_hours=1000)
    await granted.submit(50)
    one, two = await granted.pilot(), await granted.pilot()
    assert await taken(one, 2) == 2
    assert await taken(two) == 1
    assert await taken(one) == 0
    await one.report(*task_hours(one, 1))
    assert await taken(two) == 2


@pytest.mark.parametrize(
    ("terms", "needs", "one_takes", "two_takes"),
    [
        ({"cores": 3}, {}, 2, 1),
        ({"memory_mib": 300}, {"memory_mib": 100}, 2, 1),
        ({"gpus": 1}, {"gpus": 1}, 1, 0),
        ({"gpus": 3}, {"gpus": 1}, 2, 1),
    ],
)
async def test_each_kind_of_capacity_is_bounded_at_the_same_time(
    granted: Granted, terms: dict[str, Any], needs: dict[str, Any], one_takes: int, two_takes: int
) -> None:
    await granted.grant(**terms)
    await granted.submit(50, **needs)
    one, two = await granted.pilot(), await granted.pilot()
    assert await taken(one, 2) == one_takes
    assert await taken(two, 2) == two_takes
    await one.report(*task_hours(one, 1))
    assert await taken(two, 2) >= 1


async def test_where_a_grant_is_not_demanded_it_counts_and_bounds_nothing(world: World) -> None:
    granted = Granted(world)
    await granted.submit(5, None)
    await granted.open(demands=False)
    await granted.grant(core_hours=1)
    await granted.submit(5)
    pilot = await granted.pilot()
    assert await taken(pilot) == 10
    await pilot.report(*task_hours(pilot, 2))
    assert (await granted.get()).used_h == 10


async def test_a_lost_pilot_holds_nothing(granted: Granted) -> None:
    await granted.grant(core_hours=10)
    await granted.submit(10)
    pilot = await granted.pilot()
    assert await taken(pilot) == 10
    await granted.world.lose(pilot)
    assert ((await granted.get()).reserved_h, (await granted.get()).used_h) == (0, 0)
    assert await taken(await granted.pilot()) == 10


async def test_a_pilot_that_was_started_anew_holds_what_it_has_now(granted: Granted) -> None:
    await granted.grant(core_hours=10)
    await granted.submit(6)
    pilot = await granted.pilot()
    await taken(pilot)
    await pilot.start_anew()
    assert (await granted.get()).reserved_h == 0


async def test_idle_hours_are_shown_apart_and_paid_by_the_vo(granted: Granted) -> None:
    await granted.grant(core_hours=100)
    await granted.submit(4)
    pilot = await granted.pilot(vo=VO)
    await taken(pilot, 4)
    granted.world.manual.advance(7200)  # four cores for two hours; four tasks of an hour each
    await pilot.exchange(results=task_hours(pilot, 1), ending="idle: nothing to do")
    seen = await granted.get()
    assert (seen.used_h, seen.idle_h, seen.reserved_h) == (8, 4, 0)
    accounting = AccountingService(granted.world.database)
    (row,) = (await accounting.usage(granted.world.owner)).items
    assert (row.vo, row.site, row.tasks, row.core_s, row.idle_core_s) == (VO, SITE, 4, 4 * 3600, 4 * 3600)
    by_kind = (await accounting.usage(granted.world.owner, by=("kind",))).items
    assert {row.kind: (row.core_s, row.idle_core_s) for row in by_kind} == {
        "job": (4 * 3600, 0),
        "pilot_idle": (0, 4 * 3600),
    }


async def test_it_warns_once_at_80_percent(granted: Granted) -> None:
    await granted.grant(core_hours=10)
    await granted.submit(10)
    pilot = await granted.pilot()
    await taken(pilot)
    for end in task_hours(pilot, 0.9):
        await pilot.report(end)
    async with granted.world.database.read() as tx:
        said = (await tx.execute(sa.select(events.c.message).where(events.c.reason == "capacity.mostly_used"))).all()
    assert [row.message for row in said] == ["80 % of the 10 core hours that nebula grants vo.a are used."]


async def test_pilots_at_the_same_time_cannot_overdraw(granted: Granted) -> None:
    await granted.grant(core_hours=10)
    await granted.submit(60)
    pilots = [await granted.pilot() for _ in range(6)]
    got = await asyncio.gather(
        *(
            granted.world.exchanges.exchange(one.id, one.request(4, cores_free=100, memory_free_mib=10**6))
            for one in pilots
        )
    )
    assert sum(lease.last - lease.first + 1 for reply in got for lease in reply.leases) == 10
    assert (await granted.get()).reserved_h == 10


async def test_on_this_computer_nobody_is_asked_for_a_grant(granted: Granted, world: World) -> None:
    await granted.submit(5)
    assert await taken(await world.pilot()) == 5


async def test_how_starts_went_is_measured(granted: Granted) -> None:
    world = granted.world
    for wait_s in (10, 30, 50):
        pilot = await granted.pilot()
        world.manual.advance(wait_s)
        await pilot.exchange()
    await world.lose(await granted.pilot())
    async with world.database.read() as tx:
        found = await measured(tx, [SITE, "local"], world.clock.now())
    assert (found[SITE].succeeded, found[SITE].failed, found[SITE].start_s) == (3, 1, 30)
    assert "local" not in found
