"""Pilots that run, or are about to, when their site's administrators say that its owner's work is not wanted there."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from hansa.identity.wire import NewVo
from hansa.jobs.steered import Steered
from hansa.jobs.tables import pilots
from hansa.kernel.wire import encode
from hansa.sites import store as site_store
from hansa.sites.steering import SteeringService
from hansa.sites.wire import NewBan, SitePolicy
from tests.contract.jobs.test_demand import cluster, started
from tests.support.jobworld import Pilot, World

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def steered(world: World) -> int:
    return await Steered(world.database, world.events, world.clock).look()


async def two_pilots(world: World) -> None:
    """One that runs, one that waits for its turn."""
    await cluster(world)
    await world.submit(site="cluster", cores=2)
    await world.demand.look()
    await world.submit(site="cluster", cores=32, memory_mib=64_000)
    await world.demand.look()
    (first, _) = await started(world)
    async with world.database.begin() as tx:
        await tx.execute(sa.update(pilots).where(pilots.c.id == first.id).values(phase="running"))


async def say(world: World, word: str) -> None:
    service = SteeringService(world.database, world.events, world.clock)
    if word == "drain":
        await service.drain(world.owner, "cluster", "New disks")
    elif word == "ban":
        await service.ban(world.owner, "cluster", NewBan("user", world.owner.name, "Mines coins"))
    else:
        await service.set_policy(world.owner, "cluster", SitePolicy(pilots=False))


@pytest.mark.parametrize(
    ("word", "reason"), [("drain", "sites.drained"), ("ban", "sites.user_banned"), ("policy", "sites.no_pilots")]
)
async def test_what_runs_is_told_to_take_no_more_and_what_waits_never_starts(
    world: World, word: str, reason: str
) -> None:
    await two_pilots(world)
    assert await steered(world) == 0
    await say(world, word)
    assert await steered(world) == 2
    runs, waits = await started(world)
    assert (runs.phase, runs.stop, runs.reason) == ("running", "drain", reason)
    assert runs.message.startswith("It takes no new tasks, and ends with those that it runs: cluster ")
    assert (waits.phase, waits.reason) == ("ended", reason)
    assert await steered(world) == 0, "once is enough"
    await world.demand.look()
    assert len(await started(world)) == 2, "and nothing new is started"


async def test_a_pilot_for_all_vos_gives_back_what_is_of_one_that_was_banned(world: World) -> None:
    await cluster(world)
    await world.vos.create(world.owner, NewVo("sky"))
    await world.vos.create(world.owner, NewVo("sea"))
    sea = await world.submit(2, site="cluster", vo="sea", cores=2)
    await world.demand.look()
    (first,) = await started(world)
    assert first.vo is None, "the endpoint names no VOs"
    async with world.database.begin() as tx:
        await tx.execute(sa.update(pilots).where(pilots.c.id == first.id).values(phase="running"))
    taken = await Pilot(world, first.id).take(1)
    assert [lease.job for lease in taken] == [sea.number]
    service = SteeringService(world.database, world.events, world.clock)
    await service.ban(world.owner, "cluster", NewBan("vo", "sky"))
    assert await steered(world) == 0, "it has nothing of that one"
    await service.ban(world.owner, "cluster", NewBan("vo", "sea", "Mines coins"))
    assert await steered(world) == 1
    (first,) = await started(world)
    assert (first.stop, first.reason) == ("drain", "sites.vo_banned")
    assert first.message.endswith("cluster has banned sea: Mines coins.")


async def test_what_waits_for_a_banned_vo_says_so_though_a_pilot_for_all_vos_is_there(world: World) -> None:
    await cluster(world)
    await world.vos.create(world.owner, NewVo("sky"))
    await world.vos.create(world.owner, NewVo("sea"))
    sea = await world.submit(site="cluster", vo="sea")
    sky = await world.submit(site="cluster", vo="sky")
    await world.demand.look()
    await SteeringService(world.database, world.events, world.clock).ban(
        world.owner, "cluster", NewBan("vo", "sea", "Mines coins")
    )
    assert await world.demand.look() == 0
    said = (await world.get(sea.number)).status
    assert (said.reason, said.waiting_on) == ("jobs.no_site_now", "site")
    assert "cluster has banned sea: Mines coins." in said.message
    assert (await world.get(sky.number)).status.reason != "jobs.no_site_now"


async def test_an_outage_lets_go_on_what_runs(world: World) -> None:
    await two_pilots(world)
    async with world.database.begin() as tx:
        values: Any = {"phase": "down", "reason": "sites.unreachable"}
        await tx.execute(sa.update(site_store.endpoints).values(**values))
        await site_store.update(tx, "cluster", policy=encode(SitePolicy()))
    assert await steered(world) == 0
