"""What users do with jobs, and what of it pilots get to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.jobs.logs import LogChoice
from hansa.jobs.wire import JobSpec, Phase, Requirements
from hansa.kernel.clock import SystemClock
from hansa.kernel.database import Database, open_database
from hansa.kernel.errors import Fault
from hansa.node.protocol import File, OutputFile
from hansa.sites.wire import Capacity
from tests.support.jobworld import World, chunk, done, indices, output

SPEC = JobSpec(["true"])


# --- submission ---------------------------------------------------------------------------------------------


async def test_the_same_key_gives_the_same_job(world: World) -> None:
    first = await world.jobs.submit(world.owner, SPEC, "key")
    again = await world.jobs.submit(world.owner, SPEC, "key")
    assert first.number == again.number
    assert (await world.jobs.submit(world.owner, SPEC, "other")).number != first.number
    assert (await world.jobs.submit(world.owner, SPEC)).number != first.number
    other = await world.user("bob")
    await world.site(other, "cellar")
    assert (await world.jobs.submit(other, SPEC, "key")).number != first.number


async def test_a_key_is_good_for_one_request_only(world: World) -> None:
    await world.jobs.submit(world.owner, SPEC, "key")
    with pytest.raises(Fault) as caught:
        await world.jobs.submit(world.owner, replace(SPEC, command=["false"]), "key")
    assert caught.value.code.code == "kernel.idempotency_reused"


async def test_the_same_key_twice_at_once(world: World) -> None:
    found = await asyncio.gather(*(world.jobs.submit(world.owner, SPEC, "key") for _ in range(8)))
    assert len({job.number for job in found}) == 1


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (Requirements(cores=5), "5 cores asked, 4 there"),
        (Requirements(memory_mib=9000), "9,000 MiB"),
        (Requirements(gpus=3), "3 GPUs asked, 2 there"),
        (Requirements(site="garching"), "Only garching will do"),
    ],
)
async def test_what_no_site_can_run_is_refused(world: World, needs: Requirements, words: str) -> None:
    with pytest.raises(Fault) as caught:
        await world.jobs.submit(world.owner, replace(SPEC, requirements=needs))
    assert caught.value.code.code == "jobs.no_site"
    assert words in caught.value.detail
    assert (await world.jobs.list_jobs(world.owner, phase=None, name=None, cursor=None, limit=9)).items == []


async def test_whom_no_site_serves(world: World) -> None:
    with pytest.raises(Fault) as caught:
        await world.jobs.submit(await world.user("bob"), SPEC)
    assert caught.value.code.code == "jobs.no_site"


async def test_inputs_have_to_be_there_and_to_be_the_callers(world: World) -> None:
    data = b"content"
    digest = output("a", data).digest
    spec = replace(SPEC, inputs=[File("a", digest, len(data))])
    with pytest.raises(Fault) as caught:
        await world.jobs.submit(world.owner, spec)
    assert caught.value.code.code == "jobs.file_missing"
    await world.files.upload(world.owner, digest, len(data), _pieces(data))
    job = await world.jobs.submit(world.owner, spec)
    assert (job.input_files, job.input_bytes) == (1, len(data))
    other = await world.user("bob")
    await world.site(other, "cellar")
    with pytest.raises(Fault) as caught:  # who knows a digest does not have the content
        await world.jobs.submit(other, spec)
    assert caught.value.code.code == "jobs.file_missing"
    mine, theirs = await world.pilot(), await world.pilot(other, "cellar")
    await world.exchanges.check_download(mine.id, digest)
    with pytest.raises(Fault):
        await world.exchanges.check_download(theirs.id, digest)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_jobs_of_others_do_not_exist(world: World) -> None:
    job = await world.submit(3)
    other = await world.user("bob")
    from hansa.jobs.wire import Selection

    for ask in (
        world.jobs.get(other, job.number),
        world.jobs.kill(other, job.number, Selection()),
        world.jobs.retry(other, job.number, Selection()),
        world.jobs.explain(other, job.number, None),
        world.jobs.log(other, job.number, 0, LogChoice()),
        world.jobs.task_files(other, job.number, index=None, cursor=None, limit=1),
        world.jobs.open_file(other, job.number, 0, "a"),
        world.jobs.follow(other, job.number, None, 0),
    ):
        with pytest.raises(Fault) as caught:
            await ask
        assert caught.value.code.code == "jobs.not_found"
    assert (await world.jobs.list_jobs(other, phase=None, name=None, cursor=None, limit=9)).items == []


# --- matching -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "pilot", "request_", "fits"),
    [
        ({"cores": 2}, {"cores": 1}, {"cores_free": 1}, False),
        ({"cores": 2}, {"cores": 2}, {"cores_free": 2}, True),
        ({"memory_mib": 2000}, {"memory_mib": 1999}, {}, False),
        ({"gpus": 1}, {"gpus": []}, {}, False),
        ({"gpus": 1}, {"gpus": ["0"]}, {}, True),
        ({"wall_time_s": 100}, {}, {"remaining_s": 99.5}, False),
        ({"wall_time_s": 100}, {}, {"remaining_s": 100.5}, True),
        ({"wall_time_s": 100}, {}, {"remaining_s": None}, True),
        ({"site": "local"}, {}, {}, True),
    ],
)
async def test_a_pilot_gets_only_what_fits(
    world: World, needs: dict[str, Any], pilot: dict[str, Any], request_: dict[str, Any], fits: bool
) -> None:
    job = await world.submit(1, **needs)
    played = await world.pilot(**pilot)
    reply = await played.exchange(2, **request_)
    assert [lease.job for lease in reply.leases] == ([job.number] if fits else [])


async def test_a_job_for_another_site_waits_for_it(world: World) -> None:
    await world.site(world.owner, "cellar")
    job = await world.submit(1, site="cellar")
    here, there = await world.pilot(), await world.pilot(site="cellar")
    assert await here.take(5) == []
    assert [lease.job for lease in await there.take(5)] == [job.number]


async def test_pilots_serve_their_owner_only(world: World) -> None:
    await world.submit(3)
    other = await world.user("bob")
    stranger = await world.pilot(other)
    assert await stranger.take(5) == []


async def test_more_urgent_jobs_go_first_and_then_older_ones(world: World) -> None:
    numbers = [(await world.submit(1, priority=priority, cores=cores)).number
               for priority, cores in ((5, 1), (9, 1), (5, 1), (0, 1), (9, 2))]  # fmt: skip
    pilot = await world.pilot()
    found = [lease.job for lease in await pilot.take(20)]
    assert found == [numbers[1], numbers[4], numbers[0], numbers[2], numbers[3]]


async def test_two_servers_give_every_task_out_once(database_url: str, world: World, tmp_path: Path) -> None:
    job = await world.submit(400, retries=1)
    other_database: Database = world.database
    if world.database.dialect == "postgresql":
        other_database = await open_database(database_url)
    try:
        other = World(other_database, tmp_path)
        pilots = [await world.pilot() for _ in range(6)]
        for number, pilot in enumerate(pilots):
            pilot.world = (world, other)[number % 2]

        async def work(pilot: Any) -> list[int]:
            taken: list[int] = []
            while leases := pilot.hear(await pilot.world.exchanges.exchange(pilot.id, pilot.request(7))).leases:
                found = [done(lease, index, int(lease.attempt == 1 and index % 10 == 0))
                         for lease in leases for index in indices(lease)]  # fmt: skip
                taken += [result.index for result in found if result.exit_code == 0]
                pilot.leases.clear()
                await pilot.world.exchanges.exchange(pilot.id, pilot.request(results=found))
            return taken

        taken: list[int] = []
        for _ in range(3):  # a pilot may find nothing while another is about to put a task back
            taken += [index for some in await asyncio.gather(*map(work, pilots)) for index in some]
        assert sorted(taken) == list(range(400))
        await world.check()
        view = await world.get(job.number)
        assert (view.status.phase, view.counts.done) == (Phase.DONE, 400)
        assert await world.charged() == (440, 440.0)
    finally:
        if other_database is not world.database:
            await other_database.close()


async def test_a_held_request_gets_work_as_soon_as_there_is_some(database: Database, tmp_path: Path) -> None:
    world = await World(database, tmp_path, SystemClock()).open()
    pilot = await world.pilot()
    held = asyncio.create_task(world.exchanges.exchange(pilot.id, pilot.request(2, wait_s=30)))
    await asyncio.sleep(0.1)
    assert not held.done()
    job = await world.submit(5)
    reply = await asyncio.wait_for(held, 10)
    assert [(lease.job, lease.first, lease.last) for lease in reply.leases] == [(job.number, 0, 1)]
    again = await pilot.repeat()
    assert [lease.lease for lease in again.leases] == [lease.lease for lease in reply.leases]


async def test_a_held_request_is_answered_when_another_one_comes(database: Database, tmp_path: Path) -> None:
    world = await World(database, tmp_path, SystemClock()).open()
    pilot = await world.pilot()
    held = asyncio.create_task(world.exchanges.exchange(pilot.id, pilot.request(2, wait_s=30)))
    await asyncio.sleep(0.1)
    await pilot.exchange()
    assert (await asyncio.wait_for(held, 10)).leases == []


async def test_a_held_request_hears_of_kills(database: Database, tmp_path: Path) -> None:
    world = await World(database, tmp_path, SystemClock()).open()
    job = await world.submit(2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    held = asyncio.create_task(world.exchanges.exchange(pilot.id, pilot.request(0, wait_s=30)))
    await asyncio.sleep(0.1)
    await world.kill(job.number, 1)
    reply = await asyncio.wait_for(held, 10)
    assert [(kill.lease, kill.index) for kill in reply.kill] == [(lease.lease, 1)]


# --- outputs and logs ---------------------------------------------------------------------------------------


async def test_outputs_come_with_results(world: World) -> None:
    job = await world.submit(2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.report(done(lease, 1, outputs=[output("a/b.txt", b"hello"), output("empty", b"")]))
    page = await world.jobs.task_files(world.owner, job.number, index=1, cursor=None, limit=1)
    assert [(file.index, file.path, file.size) for file in page.items] == [(1, "a/b.txt", 5)]
    rest = await world.jobs.task_files(world.owner, job.number, index=1, cursor=page.next, limit=9)
    assert [file.path for file in rest.items] == ["empty"]
    size, pieces = await world.jobs.open_file(world.owner, job.number, 1, "a/b.txt")
    assert (size, b"".join([piece async for piece in pieces])) == (5, b"hello")
    with pytest.raises(Fault) as caught:
        await world.jobs.open_file(world.owner, job.number, 0, "a/b.txt")
    assert caught.value.code.code == "jobs.no_file"


async def test_outputs_that_are_not_what_they_say_are_refused_whole(world: World) -> None:
    job = await world.submit(2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    wrong = replace(output("a", b"hello"), digest=output("a", b"other").digest)
    absent = OutputFile("b", output("b", b"never sent").digest, 10)
    for bad, code in ((wrong, "jobs.digest_mismatch"), (absent, "jobs.file_missing")):
        with pytest.raises(Fault) as caught:
            await pilot.report(done(lease, 0, outputs=[bad]))
        assert caught.value.code.code == code
    assert (await world.get(job.number)).counts.done == 0


async def log_of(world: World, number: int, index: int = 0, tail_bytes: int | None = None, **more: Any) -> bytes:
    pieces = (await world.jobs.log(world.owner, number, index, LogChoice(tail_bytes=tail_bytes, **more))).pieces
    return b"".join([piece async for piece in pieces])


async def test_logs_repeated_out_of_order_and_with_gaps(world: World) -> None:
    job = await world.submit(2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.exchange(
        logs=[chunk(lease, 0, 6, b"world"), chunk(lease, 1, 0, b"other"), chunk(lease, 0, 0, b"err", "stderr")]
    )
    assert await log_of(world, job.number) == b"world"
    await pilot.exchange(logs=[chunk(lease, 0, 0, b"hello ")])
    await pilot.repeat()
    await pilot.exchange(logs=[chunk(lease, 0, 3, b"lo wor"), chunk(lease, 0, 11, b"!"), chunk(lease, 0, 0, b"hel")])
    assert await log_of(world, job.number) == b"hello world!"
    assert await log_of(world, job.number, tail_bytes=6) == b"world!"
    assert await log_of(world, job.number, 1) == b"other"
    assert await log_of(world, job.number, stream="stderr") == b"err"
    assert await log_of(world, job.number, stream="setup") == b""


async def test_each_attempt_has_its_log(world: World) -> None:
    job = await world.submit(1, retries=1)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.report(done(lease, 0, 1), logs=[chunk(lease, 0, 0, b"first")])
    (lease,) = await pilot.take(1)
    await pilot.report(done(lease, 0), logs=[chunk(lease, 0, 0, b"second")])
    assert await log_of(world, job.number) == b"second"
    assert await log_of(world, job.number, attempt=1) == b"first"


async def test_logs_of_a_lease_that_is_not_the_pilots_are_ignored(world: World) -> None:
    job = await world.submit(1)
    one, other = await world.pilot(), await world.pilot()
    (lease,) = await one.take(1)
    await other.exchange(logs=[chunk(lease, 0, 0, b"forged")])
    assert await log_of(world, job.number) == b""


async def test_follow_wakes_on_a_change(database: Database, tmp_path: Path) -> None:
    world = await World(database, tmp_path, SystemClock()).open()
    job = await world.submit(1)
    first = await world.jobs.follow(world.owner, job.number, None, 0)
    waiting = asyncio.create_task(world.jobs.follow(world.owner, job.number, first.cursor, 30))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    following = await asyncio.wait_for(waiting, 10)
    assert following.job.status.phase == Phase.RUNNING
    await pilot.exchange(logs=[chunk(lease, 0, 0, b"hi")])
    following = await asyncio.wait_for(world.jobs.follow(world.owner, job.number, following.cursor, 30), 10)
    assert [(piece.index, piece.data) for piece in following.logs] == [(0, "aGk=")]
    rest = await world.jobs.follow(world.owner, job.number, following.cursor, 0)
    assert rest.logs == []


# --- pilots -------------------------------------------------------------------------------------------------


async def test_pilots_are_started_for_what_waits_and_not_more(world: World) -> None:
    assert await world.demand.look() == 0
    await world.submit(100)
    assert await world.demand.look() == 1
    assert await world.demand.look() == 0
    await world.engine.run_until_idle()
    assert world.batch.starts == 1
    (order,) = world.batch.orders.values()
    caller = await world.identity.authenticate(order.token)
    assert (caller.pilot, caller.is_operator) == (order.pilot_id, False)


async def test_the_token_of_a_pilot_that_is_gone_is_void(world: World) -> None:
    await world.submit(1)
    await world.demand.look()
    await world.engine.run_until_idle()
    (order,) = world.batch.orders.values()
    await world.batch.cancel(order.pilot_id)
    world.manual.advance(10)
    await world.engine.run_until_idle()
    with pytest.raises(Fault) as caught:
        await world.identity.authenticate(order.token)
    assert caught.value.code.code == "identity.bad_token"
    assert await world.demand.look() == 1


async def test_a_job_that_waits_for_a_larger_site_starts_no_pilot_at_a_small_one(world: World) -> None:
    await world.site(world.owner, "large", Capacity(64, 65536))
    await world.submit(1, cores=32)
    assert await world.demand.look() == 1
    page = await world.jobs.pilots(world.owner, None, 9, live=True)
    assert [pilot.site for pilot in page.items] == ["large"]


async def test_a_job_can_be_submitted_again_as_it_was(world: World) -> None:
    needs = Requirements(cores=1, memory_mib=64, wall_time_s=60)
    spec = JobSpec(["fit", "{rate}"], array=True, count=2, env={"A": "1"}, labels={"k": "v"}, requirements=needs)
    job = await world.jobs.submit(world.owner, spec)
    assert await world.jobs.spec(world.owner, job.number) == spec
