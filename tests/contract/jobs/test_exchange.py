"""The pilots' exchange: leases are given once, results are accepted once, whatever is repeated, late or lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from hansa.jobs.wire import Counts, Phase
from hansa.kernel.errors import Fault
from hansa.node import protocol
from tests.support.jobworld import World, done, ended, indices, running, spans


async def test_an_array_is_leased_as_ranges_in_order(world: World) -> None:
    job = await world.submit(10, first=5)
    pilot = await world.pilot()
    assert spans(await pilot.take(4)) == [(5, 8)]
    assert spans(await pilot.take(100)) == [(9, 14)]
    assert await pilot.take(1) == []
    await pilot.finish()
    view = await world.get(job.number)
    assert view.status.phase == Phase.DONE
    assert view.counts == Counts(0, 0, 10, 0, 0)
    assert await world.charged() == (10, 10.0)


async def test_one_wish_is_filled_from_several_jobs(world: World) -> None:
    first, second = await world.submit(3), await world.submit()
    pilot = await world.pilot()
    leases = await pilot.take(10)
    assert [(lease.job, lease.first, lease.last) for lease in leases] == [(first.number, 0, 2), (second.number, 0, 0)]


async def test_a_job_starts_with_its_first_lease(world: World) -> None:
    job = await world.submit(2)
    assert (await world.get(job.number)).status.phase == Phase.WAITING
    pilot = await world.pilot()
    await pilot.take(1)
    view = await world.get(job.number)
    assert view.status.phase == Phase.RUNNING
    assert view.started is not None


async def test_the_order_tells_what_to_run(world: World) -> None:
    await world.submit(2, command=["echo", "{i}"], env={"A": "b"}, memory_mib=77, setup="make")
    reply = await (await world.pilot()).exchange(1)
    (order,) = reply.jobs
    assert (order.command, order.env, order.memory_mib, order.setup, order.array) == (
        ["echo", "{i}"],
        {"A": "b"},
        77,
        "make",
        True,
    )


async def test_rows_travel_with_their_lease(world: World) -> None:
    rows = [protocol.TaskRow([str(number)]) for number in range(600)]
    await world.submit(600, names=["x"], rows=rows)
    pilot = await world.pilot()
    await pilot.take(250)
    (lease,) = await pilot.take(300)
    assert lease.rows is not None
    assert [row.values for row in lease.rows] == [[str(index)] for index in indices(lease)]


async def test_a_repeated_request_gets_the_same_leases(world: World) -> None:
    await world.submit(10)
    pilot = await world.pilot()
    (lease,) = await pilot.take(3)
    again = await pilot.repeat()
    assert [one.lease for one in again.leases] == [lease.lease]
    assert again.jobs
    assert spans(await pilot.take(3)) == [(3, 5)]


async def test_a_late_request_gets_nothing_new(world: World) -> None:
    await world.submit(10)
    pilot = await world.pilot()
    late = pilot.request(5)
    await pilot.take(1)
    assert (await pilot.send(late)).leases == []
    assert spans(await pilot.take(1)) == [(1, 1)]


async def test_results_repeated_count_once(world: World) -> None:
    job = await world.submit(3)
    pilot = await world.pilot()
    (lease,) = await pilot.take(3)
    await pilot.report(done(lease, 0), done(lease, 1, 1))
    await pilot.repeat()
    await pilot.report(done(lease, 0), done(lease, 1), done(lease, 0, 9))  # and in a later request
    await pilot.report(done(lease, 2), done(lease, 2))  # and twice in one
    assert (await world.get(job.number)).counts == Counts(0, 0, 2, 1, 0)
    assert await world.charged() == (3, 3.0)
    await pilot.repeat()
    await pilot.report(done(lease, 2, 7))
    assert (await world.result_rows(job.number))[2].exit_code == 0
    assert await world.charged() == (3, 3.0)


@pytest.mark.parametrize("index", [-1, 3, 10**12])
async def test_results_out_of_the_lease_are_ignored(world: World, index: int) -> None:
    job = await world.submit(5)
    pilot = await world.pilot()
    (lease,) = await pilot.take(3)
    await pilot.report(done(lease, index))
    assert (await world.get(job.number)).counts.done == 0


async def test_results_of_anothers_lease_are_ignored(world: World) -> None:
    job = await world.submit(5)
    one, other = await world.pilot(), await world.pilot()
    (lease,) = await one.take(3)
    await other.take(2)
    reply = await other.report(done(lease, 0), held=[lease.lease])
    assert reply.dropped == [lease.lease]
    assert (await world.get(job.number)).counts.done == 0
    assert world.exchanges.counters.ignored == 1


async def test_results_of_a_lease_that_was_taken_back_are_ignored(world: World) -> None:
    job = await world.submit(2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.start_anew()
    await pilot.report(done(lease, 0), held=[lease.lease])
    assert (await world.get(job.number)).counts.done == 0
    leases = await pilot.take(2)
    assert spans(leases) == [(0, 1)]
    await pilot.finish()
    assert (await world.get(job.number)).status.phase == Phase.DONE


async def test_overlapping_requests_in_any_order(world: World) -> None:
    job = await world.submit(20)
    pilot = await world.pilot()
    (lease,) = await pilot.take(10)
    requests = [pilot.request(results=[done(lease, index)], want=1) for index in range(10)]
    replies = await asyncio.gather(*(world.exchanges.exchange(pilot.id, one) for one in reversed(requests)))
    books = await world.books(job)
    assert sorted(books.ended) == list(range(10))
    given = [index for reply in replies for one in reply.leases for index in indices(one)]
    assert sorted(given) == sorted(books.leased)


async def test_a_new_session_returns_what_the_old_one_held(world: World) -> None:
    job = await world.submit(6)
    pilot = await world.pilot()
    (lease,) = await pilot.take(4)
    await pilot.exchange(running=running(lease, 0, 1))
    await pilot.report(done(lease, 2))
    books = await world.books(job)
    assert set(books.leased) == {0, 1, 3}
    reply = await pilot.start_anew(want=10)
    attempts = {index: one.attempt for one in reply.leases for index in indices(one)}
    assert attempts == {0: 1, 1: 1, 3: 1, 4: 1, 5: 1} or attempts == {0: 2, 1: 2, 3: 1, 4: 1, 5: 1}
    await pilot.finish()
    assert (await world.get(job.number)).counts.done == 6


async def test_a_pilot_that_ends_returns_its_leases_and_is_nobody_afterwards(world: World) -> None:
    job = await world.submit(4)
    pilot = await world.pilot()
    (lease,) = await pilot.take(4)
    await pilot.report(done(lease, 0), ending="stopped")
    assert (await world.books(job)).again == {1, 2, 3}
    assert (await world.pilot_row(pilot)).phase == "ended"
    with pytest.raises(Fault) as caught:
        await pilot.exchange(1)
    assert caught.value.code.code == "jobs.pilot_gone"
    other = await world.pilot()
    await other.take(9)
    await other.finish()
    assert (await world.get(job.number)).status.phase == Phase.DONE


@pytest.mark.parametrize(("version", "is_spoken"), [(0, False), (1, True), (2, True), (3, False)])
async def test_versions_of_the_protocol(world: World, version: int, is_spoken: bool) -> None:
    pilot = await world.pilot()
    request = replace(pilot.request(), protocol=version)
    if is_spoken:
        await pilot.send(request)
        return
    with pytest.raises(Fault) as caught:
        await pilot.send(request)
    assert caught.value.code.code == "jobs.protocol"


async def test_a_lost_pilots_tasks_run_again_and_a_task_that_kills_its_pilots_does_not_for_ever(world: World) -> None:
    job = await world.submit(4)
    for attempt in (1, 2):
        pilot = await world.pilot()
        leases = await pilot.take(4)
        lease = next(one for one in leases if 0 in indices(one))
        assert lease.attempt == attempt
        await pilot.exchange(running=running(lease, 0))
        await world.lose(pilot)
        assert (await world.pilot_row(pilot)).phase == "lost"
    rows = await world.result_rows(job.number)
    assert rows.keys() == {0}
    assert (rows[0].phase, rows[0].outcome) == ("failed", "lost")
    assert "2 pilots died" in rows[0].message
    assert (await world.books(job)).again == {1, 2, 3}
    other = await world.pilot()
    await other.take(9)
    await other.finish()
    assert (await world.get(job.number)).counts == Counts(0, 0, 3, 1, 0)


async def test_the_attempt_that_died_with_its_pilot_is_remembered(world: World) -> None:
    job = await world.submit(1)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.exchange(running=running(lease, 0))
    await world.lose(pilot)
    (row,) = await world.attempt_rows(job.number)
    assert (row.index, row.attempt, row.outcome, row.pilot_id) == (0, 1, "lost", pilot.id)


async def test_tasks_that_had_not_started_can_be_lost_any_number_of_times(world: World) -> None:
    first = await world.submit(5, priority=9)
    innocent = await world.submit(2)
    for _ in range(5):  # each time another task was running when the pilot died
        pilot = await world.pilot()
        leases = await pilot.take(3)
        runs = next(lease for lease in leases if lease.job == first.number and lease.attempt == 1)
        await pilot.exchange(running=running(runs, runs.first))
        await world.kill(first.number, runs.first)
        await world.lose(pilot)
    pilot = await world.pilot()
    await pilot.take(2)
    await pilot.finish()
    assert (await world.get(innocent.number)).counts.done == 2


async def test_retries(world: World) -> None:
    job = await world.submit(2, retries=2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.report(done(lease, 0), done(lease, 1, 1))
    assert (await world.books(job)).again == {1}
    for attempt in (2, 3):
        (lease,) = await pilot.take(2)
        assert (spans([lease]), lease.attempt) == ([(1, 1)], attempt)
        await pilot.report(done(lease, 1, attempt))
        await pilot.repeat()  # the answer was lost
    row = (await world.result_rows(job.number))[1]
    assert (row.phase, row.attempt, row.exit_code) == ("failed", 3, 3)
    assert [(a.index, a.attempt, a.exit_code) for a in await world.attempt_rows(job.number)] == [(1, 1, 1), (1, 2, 2)]
    assert await world.charged() == (4, 4.0)


async def test_a_result_repeated_after_its_task_was_put_back_changes_nothing(world: World) -> None:
    job = await world.submit(2, retries=1)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.report(done(lease, 0, 1))
    await pilot.report(done(lease, 0, 0))  # it cannot have ended twice
    await pilot.report(done(lease, 0, 1))
    assert (await world.books(job)).again == {0}
    (second,) = [one for one in await pilot.take(1) if one.attempt == 2]
    await pilot.report(done(lease, 0, 0))
    assert (await world.books(job)).leased[0] == second.lease
    await pilot.report(done(second, 0))
    assert (await world.result_rows(job.number))[0].attempt == 2


async def test_faults_of_nodes_are_repeated_later_and_not_for_ever(world: World) -> None:
    job = await world.submit(1)
    pilot = await world.pilot()
    for attempt, pause_s in ((1, 1.0), (2, 2.0)):
        (lease,) = await pilot.take(1)
        assert lease.attempt == attempt
        await pilot.report(ended(lease, 0, protocol.NODE, message="The disk is full."))
        assert await pilot.take(1) == []
        world.manual.advance(pause_s - 0.01)
        assert await pilot.take(1) == []
        world.manual.advance(0.02)
    (lease,) = await pilot.take(1)
    await pilot.report(ended(lease, 0, protocol.NODE, message="The disk is full."))
    row = (await world.result_rows(job.number))[0]
    assert (row.phase, row.outcome, row.attempt) == ("failed", "node", 3)
    assert "The disk is full. (after 3 faults of nodes)" in row.message


async def test_faults_of_a_node_that_we_stopped_ourselves_do_not_count(world: World) -> None:
    job = await world.submit(1)
    for _ in range(5):
        pilot = await world.pilot(stop=None)
        (lease,) = await pilot.take(1)
        async with world.database.begin() as tx:
            from hansa.jobs import store_pilots

            await store_pilots.ask_to_stop(tx, "local", "now")
        reply = await pilot.report(ended(lease, 0, protocol.NODE))
        assert reply.stop == "now"
        await pilot.repeat()
        await pilot.exchange(ending="stopped")
    assert (await world.books(job)).again == {0}


async def test_a_task_that_waits_for_its_back_off_does_not_stand_in_the_way_of_others(world: World) -> None:
    first = await world.submit(1)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.report(ended(lease, 0, protocol.NODE))
    second = await world.submit(1)
    assert first.number < second.number
    (lease,) = await pilot.take(1)
    assert lease.job == second.number


async def test_usage_is_charged_once_per_attempt_and_by_cores(world: World) -> None:
    await world.submit(2, retries=1, cores=2)
    pilot = await world.pilot()
    leases = await pilot.take(4)
    found = [done(one, index, 1) for one in leases for index in indices(one)]
    await pilot.report(*found, *found)
    await pilot.repeat()
    assert await world.charged() == (2, 4.0)
    leases = await pilot.take(4)
    assert await world.charged() == (2, 4.0)
    await pilot.report(*[done(one, index) for one in leases for index in indices(one)])
    assert await world.charged() == (4, 8.0)


async def test_fields_are_kept(world: World) -> None:
    job = await world.submit(1)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.report(done(lease, 0, fields={"score": 0.5, "name": "é", "deep": [1, {"a": None}]}))
    assert (await world.result_rows(job.number))[0].fields == {"score": 0.5, "name": "é", "deep": [1, {"a": None}]}


@pytest.mark.parametrize(
    "more",
    [
        {"fields": {"a": "x\0y"}},
        {"fields": {"a\0": 1}},
        {"fields": {"a": float("nan"), "b": [float("inf")]}},
        {"message": "a\0b"},
        {"fields": {"a": 10**400}},
    ],
)
async def test_what_a_database_cannot_keep_does_not_stop_a_pilot(world: World, more: dict[str, Any]) -> None:
    job = await world.submit(2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.report(done(lease, 0, **more), done(lease, 1))
    view = await world.get(job.number)
    assert view.counts.done == 2
    page = await world.jobs.tasks(world.owner, job.number, phase=None, cursor=None, limit=10)
    assert len(page.items) == 2
