"""Servers that die in the middle, and pilots that nobody hears: nothing is lost, every result counts once."""

from __future__ import annotations

import pytest

from hansa.jobs.exchange import ExchangeService
from hansa.jobs.wire import Counts, Phase
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.settings import FileSettings, JobSettings
from hansa.node.protocol import ExchangeRequest, Lease
from tests.support.jobworld import Pilot, World, chunk, done, running
from tests.support.mortal import Crash, MortalDatabase, Points

MOST_POINTS = 200


def mortal(world: World, points: Points) -> ExchangeService:
    """Another server over the same database, which dies at a point."""
    database: Database = MortalDatabase(world.database, points)
    settings = JobSettings(crash_limit=2, node_retries=2)
    return ExchangeService(
        database,
        world.events,
        world.clock,
        world.files,
        world.logs,
        settings,
        FileSettings(free_bytes=0),
        world.registry_keys,
    )


def reporting(pilot: Pilot, lease: Lease) -> ExchangeRequest:
    """A request with a bit of everything: a success, a failure that is repeated, a log, a wish."""
    return pilot.request(
        want=2,
        results=[done(lease, 0), done(lease, 1, 75)],
        running=running(lease, 2),
        logs=[chunk(lease, 0, 0, b"hello")],
    )


async def test_one_of_two_servers_dies_anywhere_in_an_exchange(world: World) -> None:
    """The pilot goes to the other server with the same request."""
    other = world.exchanges
    for fatal in range(1, MOST_POINTS, 1 if world.database.dialect == "sqlite" else 4):
        job = await world.jobs.submit(world.owner, world.spec(5, retries=1))
        pilot = await world.pilot()
        (lease,) = pilot.hear(await other.exchange(pilot.id, pilot.request(3))).leases
        request, points, died = reporting(pilot, lease), Points(fatal), False
        try:
            pilot.hear(await mortal(world, points).exchange(pilot.id, request))
        except Crash:
            died = True
        pilot.hear(await other.exchange(pilot.id, request))  # also where only its answer got lost
        assert (await world.get(job.number)).counts == Counts(3, 1, 1, 0, 0), f"point {fatal}"
        fresh = [one for one in pilot.leases.values() if one is not lease]
        assert sorted((one.first, one.last, one.attempt) for one in fresh) == [(1, 1, 2), (3, 3, 1)], f"point {fatal}"
        results = [done(one, one.first) for one in fresh]
        given = pilot.hear(await other.exchange(pilot.id, pilot.request(9, results=[*results, done(lease, 2)]))).leases
        results = [done(one, one.first) for one in given]
        pilot.leases.clear()
        await other.exchange(pilot.id, pilot.request(results=results))
        await other.exchange(pilot.id, pilot.request(ending="idle"))
        assert (await world.get(job.number)).counts == Counts(0, 0, 5, 0, 0)
        assert await world.logs.tail(job.number, 0, "stdout", 100, 1) == b"hello"
        if not died:
            assert fatal > 10, "there was nothing to die at"
            books = await world.check()
            assert (await world.charged())[0] == 6 * len(books), "five tasks and one repetition each"
            return
    raise AssertionError("an exchange has more points than that")


async def test_ten_minutes_of_silence_lose_nothing(world: World) -> None:
    job = await world.submit(3)
    pilot = await world.pilot()
    (lease,) = await pilot.take(3)
    await pilot.exchange(running=running(lease, 0, 1, 2))
    lost = pilot.request(results=[done(lease, 0)])  # it leaves, and does not arrive
    for _ in range(10):
        world.manual.advance(60)
        await world.engine.run_until_idle()
    assert (await world.pilot_row(pilot)).phase == "running"
    assert (await world.get(job.number)).counts.running == 3
    for request in (lost, lost, pilot.request(results=[done(lease, 1), done(lease, 2)]), lost):
        await pilot.send(request)  # the cut is over: all arrives, some of it late and again
    view = await world.get(job.number)
    assert (view.status.phase, view.counts) == (Phase.DONE, Counts(0, 0, 3, 0, 0))
    assert (await world.charged())[0] == 3


async def test_a_pilot_that_is_silent_for_too_long_is_replaced_and_not_believed(world: World) -> None:
    job = await world.submit(2)
    pilot = await world.pilot()
    (lease,) = await pilot.take(2)
    await pilot.exchange(running=running(lease, 0))
    for _ in range(40):
        world.manual.advance(60)
        await world.engine.run_until_idle()
    assert (await world.pilot_row(pilot)).phase == "lost"
    other = await world.pilot()
    taken = await other.take(2)
    assert sorted((one.first, one.attempt) for one in taken) == [(0, 2), (1, 1)]
    with pytest.raises(Fault, match="not wanted") as caught:
        await pilot.send(pilot.request(results=[done(lease, 0), done(lease, 1)]))
    assert caught.value.code.status == 410
    await other.finish()
    assert (await world.get(job.number)).status.phase == Phase.DONE
    assert (await world.charged())[0] == 2, "what the lost one did is nobody's"
    rows = await world.result_rows(job.number)
    assert {row.pilot_id for row in rows.values()} == {other.id}
