"""What tasks used over their time: told while they run and at their end, kept within limits, seen by their owner."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.jobs import store_series
from hansa.jobs.retention import Retention
from hansa.jobs.tables import task_series
from hansa.jobs.usage import UsageService, bins_of
from hansa.jobs.wire import Phase
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.settings import JobSettings, RetentionSettings
from hansa.node.protocol import Lease, RunningTask, UsageSeries
from tests.support.jobworld import Pilot, World, done, ended

FIVE = UsageSeries(1.0, 4.5, [1.0, 2.0, 2.0, 1.0, 0.5], [10.0, 20.0, 30.0, 30.0, 30.0], written_mib_s=[0.0] * 5)
SHORT = UsageSeries(1.0, 2.0, [1.0, 1.0], [10.0, 10.0])


def usage_of(world: World, limit: int = 10_000) -> UsageService:
    return UsageService(world.database, JobSettings(usage_series_limit=limit))


def runs(lease: Lease, index: int, series: UsageSeries | None) -> RunningTask:
    return RunningTask(lease.lease, index, 4.5, series=series)


async def rows_of(world: World, job: int) -> list[tuple[int, int]]:
    query = sa.select(task_series.c.index, task_series.c.attempt).where(task_series.c.job == job)
    async with world.database.read() as tx:
        rows: Sequence[Any] = (await tx.execute(query.order_by("index", "attempt"))).all()
    return [(row[0], row[1]) for row in rows]


async def test_a_task_is_seen_while_it_runs_and_after(world: World) -> None:
    job = await world.submit(memory_mib=64, cores=2)
    usage = usage_of(world)
    waits = await usage.of_task(world.owner, job.number, None)
    assert (waits.phase, waits.attempt, waits.cores) == (Phase.WAITING, 0, [])
    assert waits.message == "It has not started yet."
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    before = (await world.get(job.number)).version
    await pilot.exchange(running=[runs(lease, 0, None)])
    started = await usage.of_task(world.owner, job.number, 0)
    assert (started.phase, started.attempt) == (Phase.RUNNING, 1)
    assert "first figures" in started.message
    await pilot.exchange(running=[runs(lease, 0, SHORT)])
    live = await usage.of_task(world.owner, job.number, 0)
    assert (live.phase, live.cores, live.message) == (Phase.RUNNING, SHORT.cores, "")
    assert live.seen == world.clock.now()
    assert live.started == world.clock.now() - timedelta(seconds=2)
    assert (await world.get(job.number)).version > before  # live pages hear of it
    await pilot.report(done(lease, 0, wall_s=4.5, series=FIVE))
    over = await usage.of_task(world.owner, job.number, 0)
    assert (over.phase, over.cores, over.memory_mib) == (Phase.DONE, FIVE.cores, FIVE.memory_mib)
    assert (over.written_mib_s, over.read_mib_s, over.gpus) == ([0.0] * 5, None, None)
    assert (over.cores_asked, over.memory_asked_mib, over.attempts) == (2, 64, [1])
    assert await rows_of(world, job.number) == [(0, 1)]


async def test_what_was_overtaken_or_is_of_others_changes_nothing(world: World) -> None:
    job = await world.submit(2)
    pilot, other = await world.pilot(), await world.pilot()
    (lease,) = await pilot.take(2)
    old = pilot.request(running=[runs(lease, 0, SHORT)])
    await pilot.report(done(lease, 0, wall_s=4.5, series=FIVE))
    await pilot.send(old)
    await other.exchange(running=[runs(lease, 1, FIVE)])
    await pilot.exchange(running=[runs(lease, 7, FIVE)])
    assert await rows_of(world, job.number) == [(0, 1)]
    assert (await usage_of(world).of_task(world.owner, job.number, 0)).cores == FIVE.cores


async def test_every_attempt_has_its_own(world: World) -> None:
    job = await world.submit(retries=1)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.report(done(lease, 0, exit_code=1, wall_s=4.5, series=FIVE))
    (again,) = await pilot.take(1)
    await pilot.report(done(again, 0, wall_s=2.0, series=SHORT))
    usage = usage_of(world)
    last = await usage.of_task(world.owner, job.number, 0)
    first = await usage.of_task(world.owner, job.number, 0, 1)
    assert (last.attempt, last.attempts, last.cores, last.phase) == (2, [1, 2], SHORT.cores, Phase.DONE)
    assert (first.attempt, first.cores, first.phase) == (1, FIVE.cores, Phase.FAILED)
    with pytest.raises(Fault, match="no attempt 3") as caught:
        await usage.of_task(world.owner, job.number, 0, 3)
    assert caught.value.code.code == "jobs.no_task"


async def test_what_a_lost_pilot_told_last_stays(world: World) -> None:
    job = await world.submit()
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.exchange(running=[runs(lease, 0, FIVE)])
    await world.lose(pilot)
    assert (await usage_of(world).of_task(world.owner, job.number, 0, 1)).cores == FIVE.cores


async def test_a_job_keeps_so_many_and_no_more(database: Database, tmp_path: Path) -> None:
    world = await World(database, tmp_path, job=JobSettings(usage_series_limit=2)).open()
    job = await world.submit(4)
    pilot = await world.pilot()
    (lease,) = await pilot.take(4)
    await pilot.exchange(running=[runs(lease, index, SHORT) for index in range(4)])
    assert len(await rows_of(world, job.number)) == 4
    await pilot.report(done(lease, 3, wall_s=4.5, series=FIVE))
    await pilot.report(*[done(lease, index, wall_s=4.5, series=FIVE) for index in range(3)])
    await pilot.repeat()
    assert await rows_of(world, job.number) == [(0, 1), (3, 1)]
    refused = await usage_of(world, 2).of_task(world.owner, job.number, 1)
    assert (refused.cores, refused.phase) == ([], Phase.DONE)
    assert "2 tasks is kept" in refused.message


@pytest.mark.parametrize(
    "bad",
    [
        replace(FIVE, cores=[]),
        replace(FIVE, cores=[1.0]),
        replace(FIVE, memory_mib=[float("nan")] * 5),
        replace(FIVE, memory_mib=[-1.0] * 5),
        replace(FIVE, every_s=0.0),
        replace(FIVE, span_s=float("inf")),
        replace(FIVE, cores=[1e300] * 5),
        UsageSeries(1.0, 300.0, [1.0] * 300, [1.0] * 300),
    ],
)
async def test_what_is_no_series_is_not_kept_and_the_result_counts(world: World, bad: UsageSeries) -> None:
    assert store_series.document_of(bad) is None
    job = await world.submit()
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.exchange(running=[runs(lease, 0, bad)])
    await pilot.report(done(lease, 0, wall_s=4.5, series=bad))
    assert await rows_of(world, job.number) == []
    over = await usage_of(world).of_task(world.owner, job.number, 0)
    assert over.phase is Phase.DONE
    assert "told nothing" in over.message


async def test_a_short_task_and_one_that_never_ran_say_so(world: World) -> None:
    job = await world.submit(2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.report(done(lease, 0, wall_s=0.5), ended(lease, 1, "not_started", wall_s=0.0))
    usage = usage_of(world)
    assert (await usage.of_task(world.owner, job.number, 0)).message.startswith("It ran for 0.5 s: only of tasks")
    assert (await usage.of_task(world.owner, job.number, 1)).message == "It never ran."


async def test_nobody_else_sees_it(world: World) -> None:
    job = await world.submit()
    stranger = await world.user("bob")
    usage = usage_of(world)
    for ask in (usage.of_task(stranger, job.number, 0), usage.of_job(stranger, job.number)):
        with pytest.raises(Fault) as caught:
            await ask
        assert caught.value.code.code == "jobs.not_found"
    with pytest.raises(Fault) as caught:
        await usage.of_task(world.owner, job.number, 5)
    assert caught.value.code.code == "jobs.no_task"


async def test_how_tasks_differ(world: World) -> None:
    job = await world.submit(20, memory_mib=100, cores=2, wall_time_s=60)
    usage = usage_of(world)
    assert await usage.of_job(world.owner, job.number) == await _nothing(usage, world, job.number)
    pilot = await world.pilot()
    while leases := await pilot.take(20):
        for lease in leases:
            found = [
                done(lease, index, wall_s=10.0 + index, cpu_s=5.0 + index / 2, memory_mib=float(index), series=FIVE)
                for index in range(lease.first, lease.last + 1)
            ]
            pilot.leases.pop(lease.lease)
            await pilot.report(*found)
    seen = await usage.of_job(world.owner, job.number)
    assert (seen.ended, seen.sampled, seen.with_series) == (20, 20, list(range(20)))
    wall, cores, memory = seen.spreads
    assert (wall.name, wall.asked, wall.least, wall.most) == ("wall_s", 60.0, 10.0, 29.0)
    assert (cores.name, cores.asked, cores.least, cores.most) == ("cores", 2.0, 0.5, 0.5)
    assert [one.tasks for one in cores.bins] == [20]
    assert (memory.asked, memory.half, memory.nine_of_ten) == (100.0, 9.0, 17.0)
    assert sum(one.tasks for one in memory.bins) == 20


async def _nothing(usage: UsageService, world: World, job: int) -> Any:
    found = await usage.of_job(world.owner, job)
    assert (found.ended, found.sampled, found.spreads, found.with_series) == (0, 0, [], [])
    return found


def test_every_value_lies_in_one_bin() -> None:
    for values in ([1.0, 2.0, 3.0, 10.0], [0.0], [5.0, 5.0], [1e9, 1e9 + 1e-9], [0.1 * n for n in range(100)]):
        bins = bins_of(values, 20)
        assert sum(one.tasks for one in bins) == len(values)
        assert (bins[0].low, bins[-1].high) == (min(values), max(values))
        assert all(one.high == next_one.low for one, next_one in itertools.pairwise(bins))


async def test_it_goes_with_the_files_of_the_job(world: World) -> None:
    old, young = await world.submit(), await world.submit()
    pilot = await world.pilot()
    await _run(pilot, 2)
    settings = RetentionSettings(job_files_days=10, logs_days=0, attempts_days=0)
    retention = Retention(world.database, world.clock, world.files, world.logs, settings)
    world.manual.advance(5 * 86_400)
    await retention.sweep()
    assert await rows_of(world, old.number) == [(0, 1)]
    world.manual.advance(6 * 86_400)
    await retention.sweep()
    assert await rows_of(world, old.number) == await rows_of(world, young.number) == []
    assert "not kept any more" in (await usage_of(world).of_task(world.owner, old.number, 0)).message


async def _run(pilot: Pilot, count: int) -> None:
    for lease in await pilot.take(count):
        found = [done(lease, index, wall_s=4.5, series=FIVE) for index in range(lease.first, lease.last + 1)]
        pilot.leases.pop(lease.lease)
        await pilot.report(*found)
