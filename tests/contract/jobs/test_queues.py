"""Which queue's tasks a pilot is given, on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from hansa.identity.wire import NewVo
from hansa.jobs import leases, matching, store
from hansa.kernel.errors import Fault
from hansa.sites.steering import SteeringService
from hansa.sites.wire import Capacity, NewBan
from tests.support.jobworld import World, spans


async def test_tasks_are_given_in_order_of_priority_over_all_queues(world: World) -> None:
    late = await world.submit(2, cores=2)
    first = await world.submit(1, priority=9)
    early = await world.submit(1, memory_mib=2000)
    pilot = await world.pilot()
    taken = await pilot.take(8)
    assert [lease.job for lease in taken] == [first.number, late.number, early.number]


async def test_tasks_for_gpus_are_not_hoarded(world: World) -> None:
    job = await world.submit(5, gpus=1)
    one, two = await world.pilot(), await world.pilot()
    assert spans((await one.exchange(16, gpus_free=2)).leases) == [(0, 1)]
    assert (await one.exchange(16, gpus_free=0)).leases == []
    assert spans((await two.exchange(16, gpus_free=1)).leases) == [(2, 2)]
    await world.books(job)


async def test_a_task_is_told_which_of_several_gpus_it_asked_for(world: World) -> None:
    mixed = ["0, A100, 40960 MiB", "1, Tesla T4, 15360 MiB"]
    await world.sites.ensure_local(world.owner.user_id, "ada", Capacity(4, 8192, mixed))
    await world.submit(gpus=1, gpu_model="T4")
    await world.submit(gpus=1)
    pilot = await world.pilot(gpus=mixed)
    orders = (await pilot.exchange(8, gpus_free=2)).jobs
    assert [order.gpus_like for order in orders] == [["1"], None]


async def test_a_task_that_has_waited_is_not_passed_by_small_ones_for_ever(world: World) -> None:
    big = await world.submit(cores=4)
    small = await world.submit(10)
    pilot = await world.pilot()
    (lease,) = (await pilot.exchange(3, cores_free=0)).leases
    assert lease.job == big.number
    (lease,) = (await pilot.exchange(3, cores_free=0)).leases
    assert lease.job == small.number


async def test_tags_and_platform(world: World) -> None:
    await world.site(await world.user("eve"), "other")
    await world.sites.ensure_local(world.owner.user_id, "ada", Capacity(4, 8192, tags=["ib", "data:sky"]))
    with pytest.raises(Fault, match="It lacks gold"):
        await world.submit(tags=["gold"])
    with pytest.raises(Fault, match="It has no replica of sea"):
        await world.submit(data=["sea"])
    tagged = await world.submit(tags=["ib"], data=["sky"])
    old = await world.submit(glibc="2.99")
    plain = await world.pilot()
    assert (await plain.exchange(9, node={"glibc": "2.36"})).leases == []
    good = await world.pilot(tags=["ib", "data:sky"])
    assert [lease.job for lease in (await good.exchange(9, node={"glibc": "3.0"})).leases] == [tagged.number]
    assert [lease.job for lease in await good.take(9)] == [old.number]
    picky = await world.pilot(required_tags=["gold"])
    await world.submit()
    assert await picky.take(9) == []


async def test_what_waits_for_a_suspended_vo_or_member_is_not_given_out(world: World) -> None:
    await world.vos.create(world.owner, NewVo("sky"))
    await world.vos.create(world.owner, NewVo("sea"))
    job = await world.submit(4, vo="sky")
    pilot = await world.pilot()
    (runs,) = await pilot.take(1)
    await world.vos.suspend(world.owner, "sky", "quota", suspended=True)
    assert await pilot.take(1) == []
    assert list(pilot.leases) == [runs.lease]
    assert pilot.kills == [], "what runs goes on"
    await pilot.finish()
    assert (await world.get(job.number)).counts.done == 1
    async with world.database.read() as tx:
        assert await store.owners_with_work(tx) == []
    await world.vos.suspend(world.owner, "sky", "", suspended=False)
    assert spans(await pilot.take(1)) == [(1, 1)]
    await world.books(job)


async def test_a_pilot_for_all_vos_is_given_nothing_of_one_that_its_site_banned(world: World) -> None:
    await world.vos.create(world.owner, NewVo("sky"))
    await world.vos.create(world.owner, NewVo("sea"))
    sea, sky = await world.submit(3, vo="sea"), await world.submit(3, vo="sky")
    pilot = await world.pilot()
    assert (await world.pilot_row(pilot)).vo is None
    steering = SteeringService(world.database, world.events, world.clock)
    await steering.ban(world.owner, "local", NewBan("vo", "sea", "Mines coins"))
    assert {lease.job for lease in await pilot.take(9)} == {sky.number}
    assert await pilot.take(9) == []
    await steering.unban(world.owner, "local", "vo", "sea")
    assert {lease.job for lease in await pilot.take(9)} == {sea.number}


async def test_jobs_that_back_off_are_out_of_the_way_until_they_are_due(world: World) -> None:
    jobs = [await world.submit(retries=1) for _ in range(3)]
    pilot = await world.pilot()
    await pilot.take(3)
    now = world.clock.now()
    async with world.database.begin() as tx:
        for job in jobs:
            await store.update_job(tx, job.number, open=False, wake_at=now, next_index=0)
    async with world.database.begin() as tx:
        assert await leases.has_due(tx, world.owner.user_id, now)
        assert await leases.wake(tx, world.owner.user_id, now) == 3
        assert not await leases.has_due(tx, world.owner.user_id, now)
        for job in jobs:
            await store.update_job(tx, job.number, open=False, next_index=1)


async def test_a_wide_queue_is_read_by_its_keys(world: World) -> None:
    numbers = [(await world.submit(wall_time_s=60 + n % 3)).number for n in range(9)]
    one, two = await world.pilot(), await world.pilot()
    assert [lease.job for lease in await one.take(4)] == numbers[:4]
    assert [lease.job for lease in await two.take(9)] == numbers[4:]


async def test_what_waits_is_found_in_an_index(world: World) -> None:
    """However much waits: a look at the plan, as time says nothing in a test."""
    await world.submit()
    if world.database.dialect != "sqlite":
        return  # its planner needs many rows to care
    for statement in (matching._eligible("sqlite", 16), matching._HEADS):
        words = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True}))
        async with world.database.read() as tx:
            plan = sa.text(f"EXPLAIN QUERY PLAN {words.replace('?', '1')}")
            rows = (await tx.execute(plan)).all()
        assert "ix_jobs_open" in str(rows)
        assert "TEMP B-TREE" not in str(rows)
