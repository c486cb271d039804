"""Killing and retrying: whole jobs and single tasks, wherever these are."""

from __future__ import annotations

import pytest

from hansa.jobs.wire import Counts, Job, Phase, Selection
from hansa.kernel.errors import Fault
from hansa.node import protocol
from hansa.node.protocol import Kill
from tests.support.jobworld import World, done, ended, indices, running, spans


async def view(world: World, job: Job) -> tuple[Phase, Counts]:
    found = await world.get(job.number)
    return Phase(found.status.phase), found.counts


async def test_a_job_that_no_pilot_has_ends_at_once(world: World) -> None:
    job = await world.jobs.submit(world.owner, world.spec(count=1_000_000))
    found = await world.jobs.kill(world.owner, job.number, Selection())
    assert found.status.phase == Phase.KILLED
    assert found.counts == Counts(0, 0, 0, 0, 1_000_000)
    pilot = await world.pilot()
    assert (await world.exchanges.exchange(pilot.id, pilot.request(5))).leases == []
    page = await world.jobs.tasks(world.owner, job.number, phase=Phase.KILLED, cursor=None, limit=3)
    assert [(task.index, task.phase) for task in page.items] == [(0, "killed"), (1, "killed"), (2, "killed")]


async def test_tasks_that_a_pilot_has_end_when_it_says_so(world: World) -> None:
    job = await world.submit(10)
    pilot = await world.pilot()
    (lease,) = await pilot.take(4)
    await pilot.exchange(running=running(lease, 0))
    await world.kill(job.number)
    assert await view(world, job) == (Phase.RUNNING, Counts(3, 1, 0, 0, 6))
    await pilot.exchange(9)
    assert pilot.kills == [Kill(lease.lease)]
    assert list(pilot.leases) == [lease.lease]
    stopped = [ended(lease, index, protocol.KILLED) for index in (0, 1)]
    await pilot.report(*stopped, done(lease, 2), done(lease, 3, 5))  # two had ended by themselves
    assert await view(world, job) == (Phase.FAILED, Counts(0, 0, 1, 1, 8))
    assert await world.charged() == (4, 4.0)


async def test_a_job_can_be_killed_twice(world: World) -> None:
    job = await world.submit(10)
    pilot = await world.pilot()
    (lease,) = await pilot.take(4)
    first = await world.kill(job.number)
    second = await world.kill(job.number)
    assert first.counts == second.counts == Counts(4, 0, 0, 0, 6)
    await pilot.report(*[ended(lease, index, protocol.KILLED) for index in indices(lease)])
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 0, 0, 10))
    with pytest.raises(Fault) as caught:
        await world.kill(job.number)
    assert caught.value.code.code == "jobs.ended"


async def test_tasks_that_wait_to_run_again_are_killed_too(world: World) -> None:
    job = await world.submit(3, retries=3)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.report(done(lease, 0, 1), ended(lease, 1, protocol.NODE))
    await world.kill(job.number)
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 0, 0, 3))


@pytest.mark.parametrize("outcome", [protocol.NODE, protocol.EXITED])
async def test_what_would_run_again_does_not_after_a_kill(world: World, outcome: str) -> None:
    job = await world.submit(2, retries=3)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await world.kill(job.number)
    found = [done(lease, index, 1, outcome=outcome) for index in (0, 1)]
    await pilot.report(*found)
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 0, 0, 2))


@pytest.mark.parametrize("is_started", [True, False])
async def test_a_pilot_that_dies_with_killed_tasks(world: World, is_started: bool) -> None:
    job = await world.submit(3)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    if is_started:
        await pilot.exchange(running=running(lease, 0, 1))
    await world.kill(job.number)
    await world.lose(pilot)
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 0, 0, 3))


async def test_single_tasks_ahead_inside_and_behind(world: World) -> None:
    job = await world.submit(10, retries=1)
    pilot = await world.pilot()
    (lease,) = await pilot.take(4)
    await pilot.report(done(lease, 0), done(lease, 1, 1))  # 0 has ended, 1 waits again, 2 and 3 are with the pilot
    await world.kill(job.number, 0, 1, 2, 5, 9)
    assert await view(world, job) == (Phase.RUNNING, Counts(6, 0, 1, 0, 3))
    await pilot.exchange()
    assert pilot.kills == [Kill(lease.lease, 2)]
    await world.kill(job.number, 0, 1, 2, 5, 9)  # once more
    assert await view(world, job) == (Phase.RUNNING, Counts(6, 0, 1, 0, 3))
    await pilot.report(ended(lease, 2, protocol.KILLED))
    await pilot.exchange()
    assert pilot.kills == []
    leases = await pilot.take(10)
    assert spans(leases) == [(4, 4), (6, 8)]
    await pilot.finish()
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 6, 0, 4))
    assert await world.charged() == (8, 8.0)  # 0, 1, 2 (killed while it ran), 3, 4, 6, 7, 8


async def test_a_killed_task_inside_a_lease_that_comes_back(world: World) -> None:
    job = await world.submit(3)
    pilot = await world.pilot()
    await pilot.take(3)
    await world.kill(job.number, 1)
    await world.lose(pilot)
    books = await world.books(job)
    assert (books.again, books.ended) == ({0, 2}, {1: "killed"})


async def test_the_last_task_is_killed_singly(world: World) -> None:
    job = await world.submit(2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.report(done(lease, 0))
    await world.kill(job.number, 1)
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 1, 0, 1))
    assert await pilot.take(5) == []


@pytest.mark.parametrize("index", [-1, 10, 2**70])
async def test_there_is_no_such_task(world: World, index: int) -> None:
    job = await world.submit(10)
    for operation in (world.jobs.kill, world.jobs.retry):
        with pytest.raises(Fault) as caught:
            await operation(world.owner, job.number, Selection([index]))
        assert caught.value.code.code == "jobs.no_task"


async def test_failed_and_killed_tasks_run_again(world: World) -> None:
    job = await world.submit(4)
    pilot = await world.pilot()
    (lease,) = await pilot.take(3)
    await pilot.report(done(lease, 0), done(lease, 1, 1), done(lease, 2, 2))
    await world.kill(job.number, 3)
    assert await view(world, job) == (Phase.FAILED, Counts(0, 0, 1, 2, 1))
    await world.retry(job.number)
    assert await view(world, job) == (Phase.WAITING, Counts(3, 0, 1, 0, 0))
    leases = await pilot.take(9)
    assert {index: one.attempt for one in leases for index in indices(one)} == {1: 2, 2: 2, 3: 1}
    await pilot.finish()
    assert await view(world, job) == (Phase.DONE, Counts(0, 0, 4, 0, 0))
    assert [(row.index, row.attempt, row.exit_code) for row in await world.attempt_rows(job.number)] == [
        (1, 1, 1),
        (2, 1, 2),
    ]


async def test_a_retry_starts_with_a_clean_record(world: World) -> None:
    job = await world.submit(1, retries=1)
    pilot = await world.pilot()
    for attempt in (1, 2):
        (lease,) = await pilot.take(1)
        assert lease.attempt == attempt
        await pilot.report(done(lease, 0, 1))
    await world.retry(job.number)
    for attempt in (3, 4):
        (lease,) = await pilot.take(1)
        assert lease.attempt == attempt
        await pilot.report(done(lease, 0, 1))
    assert await view(world, job) == (Phase.FAILED, Counts(0, 0, 0, 1, 0))


async def test_retry_of_a_killed_array(world: World) -> None:
    job = await world.submit(10)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await world.kill(job.number, 7)
    await world.kill(job.number)
    with pytest.raises(Fault) as caught:
        await world.retry(job.number)
    assert caught.value.code.code == "jobs.ended"
    await pilot.report(done(lease, 0), ended(lease, 1, protocol.KILLED))
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 1, 0, 9))
    await world.retry(job.number)
    assert await view(world, job) == (Phase.WAITING, Counts(9, 0, 1, 0, 0))
    await pilot.take(20)
    await pilot.finish()
    assert await view(world, job) == (Phase.DONE, Counts(0, 0, 10, 0, 0))


async def test_retry_of_some_tasks_of_a_killed_array(world: World) -> None:
    job = await world.submit(10)
    pilot = await world.pilot()
    (lease,) = await pilot.take(3)
    await world.kill(job.number)
    await pilot.report(*[ended(lease, index, protocol.KILLED) for index in indices(lease)])
    await world.retry(job.number, 1)
    assert (await world.books(job)).again == {1}
    await world.kill(job.number, 1, 8)  # 8 is killed already
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 0, 0, 10))
    await world.retry(job.number, 0)
    await world.kill(job.number)
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 0, 0, 10))
    await world.retry(job.number, 2, 8)  # 8 was never given out; its neighbours stay killed
    books = await world.books(job)
    assert (books.again, books.fresh) == ({2, 8}, set())
    assert await view(world, job) == (Phase.WAITING, Counts(2, 0, 0, 0, 8))
    await pilot.take(9)
    await pilot.finish()
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 2, 0, 8))
    await world.retry(job.number)  # all of the rest, 8 not among them
    assert await view(world, job) == (Phase.WAITING, Counts(8, 0, 2, 0, 0))
    assert spans(await pilot.take(20)) == [(0, 1), (3, 7), (9, 9)]
    await pilot.finish()
    assert await view(world, job) == (Phase.DONE, Counts(0, 0, 10, 0, 0))


async def test_retry_while_others_run(world: World) -> None:
    job = await world.submit(4)
    pilot = await world.pilot()
    (lease,) = await pilot.take(3)
    await pilot.exchange(running=running(lease, 2))
    await pilot.report(done(lease, 0, 1), running=running(lease, 2))
    await world.kill(job.number, 1, 3)
    await world.retry(job.number, 0, 3)
    assert await view(world, job) == (Phase.RUNNING, Counts(3, 1, 0, 0, 0))
    books = await world.books(job)
    assert (books.again, books.fresh, set(books.leased)) == ({0}, {3}, {1, 2})
    leases = await pilot.take(9)
    assert spans(leases) == [(0, 0), (3, 3)]
    await pilot.report(ended(lease, 1, protocol.KILLED), done(lease, 2))
    pilot.leases = {one.lease: one for one in leases}
    await pilot.finish()
    assert await view(world, job) == (Phase.KILLED, Counts(0, 0, 3, 0, 1))


async def test_nothing_to_retry(world: World) -> None:
    job = await world.submit(2)
    pilot = await world.pilot()
    await pilot.take(2)
    await pilot.finish()
    for tasks in (None, [0]):
        with pytest.raises(Fault) as caught:
            await world.jobs.retry(world.owner, job.number, Selection(tasks))
        assert caught.value.code.code == "jobs.nothing_to_retry"


async def test_outputs_of_an_earlier_attempt_are_not_those_of_the_next(world: World) -> None:
    from tests.support.jobworld import output

    job = await world.submit()
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.report(done(lease, 0, 1, outputs=[output("a", b"1"), output("b", b"2")]))
    await world.retry(job.number)
    (lease,) = await pilot.take(1)
    await pilot.report(done(lease, 0, outputs=[output("b", b"3")]))
    page = await world.jobs.task_files(world.owner, job.number, index=None, cursor=None, limit=9)
    assert [(file.path, file.digest) for file in page.items] == [("b", output("b", b"3").digest)]


async def test_a_single_job(world: World) -> None:
    job = await world.submit()
    await world.kill(job.number)
    found = await world.get(job.number)
    assert (found.status.phase, found.exit_code) == (Phase.KILLED, None)
    await world.retry(job.number)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await world.kill(job.number)
    await pilot.report(ended(lease, 0, protocol.KILLED, signal=15))
    found = await world.get(job.number)
    assert (found.status.phase, found.exit_code) == (Phase.KILLED, 137)
