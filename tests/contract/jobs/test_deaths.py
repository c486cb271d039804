"""Pilots that die at once: what kills them is found out, and they are not started anew without a pause."""

from __future__ import annotations

import pytest

from hansa.jobs import store_pilots
from hansa.jobs.model import start_delay_s
from hansa.jobs.wire import Phase
from hansa.node.protocol import RunningTask
from tests.support.jobworld import Pilot, World, done, ended, indices


async def test_a_task_that_kills_its_pilot_before_a_word_is_stopped(world: World) -> None:
    job = await world.submit()
    for _ in range(2):  # the world's crash_limit
        assert (await world.get(job.number)).status.phase != Phase.FAILED
        pilot = await world.pilot()
        await pilot.take(1)
        await world.lose(pilot)
    view = await world.get(job.number)
    assert view.status.phase == Phase.FAILED
    assert "2 pilots died" in view.status.message


async def test_only_as_many_are_suspected_as_the_pilot_has_cores(world: World) -> None:
    await world.submit(100)
    pilot = await world.pilot(cores=2)
    await pilot.take(50)
    await world.lose(pilot)
    assert [row.index for row in await world.attempt_rows(1)] == [0, 1]


async def test_a_place_that_is_taken_away_is_no_failure_however_often(world: World) -> None:
    job = await world.submit(3, checkpoint="state")
    for attempt in (1, 2, 3, 4):  # more often than the world's crash_limit
        pilot = await world.pilot(cores=2)
        found = [RunningTask(one.lease, index, 1.0) for one in await pilot.take(3) for index in indices(one)]
        await pilot.exchange(running=[task for task in found if task.index < 2])
        world.batch.why_ended[pilot.id] = f"Slurm ended it at its time limit (job {attempt})"
        await world.lose(pilot)
        explained = "\n".join((await world.jobs.explain(world.owner, job.number, 0)).lines)
        assert f"Attempt {attempt} at local ended" in explained
        assert f"preempted. The site ended it: Slurm ended it at its time limit (job {attempt})." in explained
    view = await world.get(job.number)
    assert (view.counts.waiting, view.counts.failed) == (3, 0)
    assert "time limit (job 4)" in "\n".join((await world.jobs.explain(world.owner, job.number, None)).lines)
    assert {row.index for row in await world.attempt_rows(job.number)} == {0, 1}, "2 had not begun"


async def test_a_pilot_that_slurm_starts_anew_had_lost_its_place_however_often(world: World) -> None:
    job = await world.submit()
    pilot = await world.pilot()
    async with world.database.begin() as tx:
        await store_pilots.update(tx, pilot.id, driver="slurm")
    for attempt in (1, 2, 3, 4):  # more often than the world's crash_limit
        (lease,) = await pilot.take(1)
        assert lease.attempt == attempt
        await pilot.exchange(running=[RunningTask(lease.lease, 0, 1.0)])
        pilot.session, pilot.leases = f"anew {attempt}", {}
    (lease,) = await pilot.take(1)
    await pilot.report(done(lease, 0))
    assert (await world.get(job.number)).status.phase == Phase.DONE
    assert [row.outcome for row in await world.attempt_rows(job.number)] == ["preempted"] * 4


async def test_who_stopped_a_pilot_is_told_of_what_it_stopped(world: World) -> None:
    job = await world.submit()
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    world.batch.why_ended[pilot.id] = "Slurm pre-empted it (job 7)"
    await pilot.report(ended(lease, 0, "preempted", message="the pilot was stopped"))
    await pilot.exchange(ending="stopped")
    await world.lose(pilot)
    explained = "\n".join((await world.jobs.explain(world.owner, job.number, None)).lines)
    assert "preempted. the pilot was stopped. Of its pilot: It ended: Slurm pre-empted it (job 7)." in explained


async def test_pilots_that_die_without_a_word_are_started_with_pauses(world: World) -> None:
    await world.submit()
    for _ in range(2):
        assert await world.demand.look() == 1
        await world.engine.run_until_idle()
        for pilot_id in list(world.batch.lives):
            await world.batch.cancel(pilot_id)
        world.manual.advance(10)
        await world.engine.run_until_idle()
    assert await world.demand.look() == 0, "two in a row died without a word"
    world.manual.advance(2)
    assert await world.demand.look() == 1


@pytest.mark.parametrize(("failures", "delay_s"), [(0, 0), (1, 0), (2, 2), (3, 4), (6, 32), (7, 60), (10, 60)])
def test_the_pause_doubles_up_to_a_minute(failures: int, delay_s: float) -> None:
    assert start_delay_s(failures) == delay_s


async def test_a_pilot_that_lives_for_long_keeps_its_token(world: World) -> None:
    await world.submit()
    assert await world.demand.look() == 1
    await world.engine.run_until_idle()
    ((pilot_id, order),) = world.batch.orders.items()
    for _ in range(30):
        world.manual.advance(24 * 3600)
        await world.exchanges.exchange(pilot_id, Pilot(world, pilot_id, session=order.pilot_id).request())
        await world.engine.run_until_idle()
        assert (await world.identity.authenticate(order.token)).pilot == pilot_id
