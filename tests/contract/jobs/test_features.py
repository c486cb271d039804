"""Held jobs, dependencies, retries with back-off, deadlines; on both databases."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from hansa.jobs.wire import After, Counts, Job, Phase, Selection
from hansa.kernel.errors import Fault
from hansa.node import protocol
from tests.support.jobworld import Pilot, World, done, ended, spans


async def status(world: World, job: Job) -> tuple[str, str]:
    found = await world.get(job.number)
    return found.status.phase, found.status.reason


async def run_one(world: World, pilot: Pilot, exit_code: int = 0, **more: Any) -> None:
    (lease,) = await pilot.take(1)
    pilot.leases.clear()
    await pilot.report(done(lease, lease.first, exit_code, **more))


async def test_a_held_job_waits_to_be_released(world: World) -> None:
    job = await world.submit(4, hold=True)
    pilot = await world.pilot()
    assert await pilot.take(4) == []
    assert (await world.get(job.number)).status.waiting_on == "user"
    assert await status(world, job) == ("waiting", "jobs.held")
    assert (await world.jobs.release(world.owner, job.number)).held is False
    assert spans(await pilot.take(2)) == [(0, 1)]
    await world.jobs.hold(world.owner, job.number)
    await world.check()
    await pilot.finish(1)
    assert await pilot.take(4) == []
    await world.retry(job.number, 0)
    assert await pilot.take(4) == []
    await world.jobs.release(world.owner, job.number)
    assert spans(await pilot.take(4)) == [(0, 0), (2, 3)]
    await pilot.finish()
    assert await status(world, job) == ("failed", "jobs.failed")
    with pytest.raises(Fault, match="is not held"):
        await world.jobs.release(world.owner, job.number)
    with pytest.raises(Fault, match="has ended"):
        await world.jobs.hold(world.owner, job.number)


async def test_who_retries_a_job_that_was_killed_while_it_was_held_wants_it_to_run(world: World) -> None:
    job = await world.submit(1, hold=True)
    await world.kill(job.number)
    await world.retry(job.number)
    assert (await world.get(job.number)).held is False
    pilot = await world.pilot()
    assert spans(await pilot.take(1)) == [(0, 0)]


async def test_a_pilot_that_dies_does_not_open_a_held_job(world: World) -> None:
    job = await world.submit(4)
    pilot = await world.pilot()
    await pilot.take(2)
    await world.jobs.hold(world.owner, job.number)
    await world.lose(pilot)
    other = await world.pilot()
    assert await other.take(4) == []
    await world.kill(job.number)
    assert await status(world, job) == ("killed", "jobs.killed")


async def test_jobs_in_a_row(world: World) -> None:
    first = await world.submit()
    second = await world.submit(after=[After(first.number)])
    third = await world.submit(2, after=[After(second.number, "any"), After(first.number, "started")])
    assert await status(world, second) == ("waiting", "jobs.blocked")
    pilot = await world.pilot()
    (lease,) = await pilot.take(9)
    assert lease.job == first.number
    await pilot.report(done(lease, 0))
    pilot.leases.clear()
    assert await status(world, second) == ("waiting", "jobs.queued")
    await run_one(world, pilot, 1)
    assert await status(world, third) == ("waiting", "jobs.queued")
    assert spans(await pilot.take(9)) == [(0, 1)]
    assert await world.timers.tick() == 0


async def test_a_chain_falls_when_its_first_job_fails(world: World) -> None:
    first = await world.submit()
    chain = [first]
    for _ in range(5):
        chain.append(await world.submit(3, after=[After(chain[-1].number)]))
    spared = await world.submit(after=[After(first.number, "any")])
    pilot = await world.pilot()
    await run_one(world, pilot, 1)
    assert await world.timers.tick() == 5
    await world.check()
    for before, job in pairwise(chain):
        found = await world.get(job.number)
        assert found.counts == Counts(0, 0, 0, 0, 3)
        word = "failed" if before is first else "killed"
        assert f"Job {before.number}, which had to be done before, is {word}." in found.status.message
    assert await status(world, spared) == ("waiting", "jobs.queued")
    with pytest.raises(Fault, match="would wait for ever"):
        await world.submit(after=[After(first.number)])
    with pytest.raises(Fault, match="no job 99 of yours"):
        await world.submit(after=[After(99)])
    assert (await world.submit(after=[After(first.number, "any")])).status.reason == "jobs.queued"


async def test_nobody_waits_for_the_jobs_of_others(world: World) -> None:
    job = await world.submit()
    eve = await world.user("eve")
    await world.site(eve, "hers")
    with pytest.raises(Fault, match="of yours"):
        await world.submit(caller=eve, after=[After(job.number)])


async def test_retries_by_exit_code_with_back_off(world: World) -> None:
    job = await world.submit(retries=3, retry_on=[75, 137], backoff_s=30)
    pilot = await world.pilot()
    await run_one(world, pilot, 75)
    assert await pilot.take(1) == []
    world.manual.advance(29)
    assert await pilot.take(1) == []
    assert await world.timers.tick() == 0
    world.manual.advance(2)
    assert await world.timers.tick() == 1
    (lease,) = await pilot.take(1)
    pilot.leases.clear()
    await pilot.report(ended(lease, 0, protocol.MEMORY, signal=9))
    assert await pilot.take(1) == []
    world.manual.advance(61)
    await run_one(world, pilot, 1)
    assert await status(world, job) == ("failed", "jobs.failed")
    assert [row.exit_code for row in await world.attempt_rows(job.number)] == [75, None]


async def test_what_backs_off_does_not_hide_what_does_not(world: World) -> None:
    job = await world.submit(3, retries=1, backoff_s=600)
    pilot = await world.pilot()
    await run_one(world, pilot, 1)
    assert spans(await pilot.take(9)) == [(1, 2)]
    await pilot.finish()
    assert await pilot.take(9) == []
    world.manual.advance(601)
    assert spans(await pilot.take(9)) == [(0, 0)]
    await world.books(job)


async def test_a_place_that_is_taken_away_is_no_failure(world: World) -> None:
    job = await world.submit()
    pilot = await world.pilot()
    for _ in range(9):
        (lease,) = await pilot.take(1)
        pilot.leases.clear()
        await pilot.report(ended(lease, 0, protocol.PREEMPTED))
    await run_one(world, pilot)
    found = await world.get(job.number)
    assert (found.status.phase, found.exit_code) == ("done", 0)
    assert len(await world.attempt_rows(job.number)) == 9


async def test_a_deadline_kills_what_has_not_ended(world: World) -> None:
    now = world.clock.now()
    job = await world.submit(5, deadline=now + timedelta(hours=1))
    early = await world.submit(priority=9, deadline=now + timedelta(hours=1))
    pilot = await world.pilot()
    await run_one(world, pilot)
    (lease,) = await pilot.take(2)
    assert await world.timers.tick() == 0
    world.manual.advance(3601)
    assert await world.timers.tick() == 2
    reply = await pilot.exchange()
    assert [kill.lease for kill in reply.kill] == [lease.lease]
    await pilot.report(ended(lease, 0, protocol.KILLED), done(lease, 1))
    found = await world.get(job.number)
    assert found.counts == Counts(0, 0, 1, 0, 4)
    assert "Its deadline" in found.status.message
    assert await status(world, early) == ("done", "jobs.done")
    with pytest.raises(Fault, match="has passed"):
        await world.submit(deadline=now)
    again = await world.jobs.retry(world.owner, job.number, Selection())
    assert (again.deadline, Phase(again.status.phase)) == (None, Phase.WAITING)


async def test_the_crash_limit_of_a_job(world: World) -> None:
    job = await world.submit(crash_limit=1)
    pilot = await world.pilot()
    await pilot.take(1)
    await world.lose(pilot)
    assert await status(world, job) == ("failed", "jobs.failed")
