"""Events on both dialects: once, in order, nothing skipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa

from hansa.kernel.clock import ManualClock
from hansa.kernel.database import Database, open_database
from hansa.kernel.events import Event, EventLog, StoredEvent, events


def event(number: int, owner_id: str | None = "anna", subject: str = "job/1") -> Event:
    return Event("user:anna", subject, "running", f"test.{number}", f"Number {number}.", owner_id, "vo", {"n": number})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def log(database: Database, clock: ManualClock) -> EventLog:
    return EventLog(database, clock)


async def record(database: Database, log: EventLog, *new: Event) -> None:
    async with database.begin() as tx:
        await log.record(tx, *new)


async def settle(database: Database, log: EventLog) -> None:
    if database.dialect == "postgresql":
        await log.sequence()


@asynccontextmanager
async def sequenced(log: EventLog) -> AsyncIterator[None]:
    task = asyncio.create_task(log.run_sequencer())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def read(log: EventLog, count: int, position: int = 0, owner_id: str | None = None) -> list[StoredEvent]:
    """The next ``count`` events of the live stream."""
    found: list[StoredEvent] = []
    stream = log.stream(position, owner_id)
    async with asyncio.timeout(10):
        async for one in stream:
            if one is not None:
                found.append(one)
            if len(found) == count:
                break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


async def test_an_event_exists_if_and_only_if_its_unit_commits(database: Database, log: EventLog) -> None:
    async def undone() -> None:
        async with database.begin() as tx:
            await log.record(tx, event(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await undone()
    await record(database, log)
    await record(database, log, event(2), event(3))
    await settle(database, log)
    assert [one.reason for one in await log.after(0, None)] == ["test.2", "test.3"]


async def test_an_event_comes_back_as_it_was(database: Database, log: EventLog, clock: ManualClock) -> None:
    await record(database, log, event(1))
    await settle(database, log)
    [found] = await log.after(0, "anna")
    assert found == StoredEvent(1, clock.now(), "user:anna", "job/1", "running", "test.1", "Number 1.", {"n": 1})
    assert await log.last_position() == 1


async def test_owners_see_only_their_own(database: Database, log: EventLog) -> None:
    await record(database, log, event(1), event(2, owner_id="bert"), event(3, owner_id=None))
    await settle(database, log)
    assert [one.data["n"] for one in await log.after(0, "anna")] == [1]
    assert [one.data["n"] for one in await log.after(0, "bert")] == [2]
    assert [one.data["n"] for one in await log.after(0, None)] == [1, 2, 3]


async def test_the_timeline_of_a_thing(database: Database, log: EventLog) -> None:
    await record(database, log, *(event(n, subject=f"job/{n % 2}") for n in range(10)))
    async with database.read() as tx:
        assert [one.data["n"] for one in await log.timeline(tx, "job/1")] == [1, 3, 5, 7, 9]
        assert [one.data["n"] for one in await log.timeline(tx, "job/1", limit=2)] == [7, 9]


async def test_pages_of_the_stream(database: Database, log: EventLog) -> None:
    await record(database, log, *(event(n) for n in range(5)))
    await settle(database, log)
    first = await log.after(0, None, limit=3)
    assert first[-1].position is not None
    second = await log.after(first[-1].position, None, limit=3)
    assert [one.data["n"] for one in (*first, *second)] == list(range(5))


async def test_a_live_reader_gets_all_once_and_in_order_while_many_write(database: Database, log: EventLog) -> None:
    async def writer(first: int) -> None:
        for n in range(first, first + 20):
            async with database.begin() as tx:
                await log.record(tx, event(n))
                await asyncio.sleep(0.0005 * (n % 5))  # units end in another order than they began

    async with sequenced(log):
        reader = asyncio.create_task(read(log, 160))
        await asyncio.gather(*(writer(first) for first in range(0, 160, 20)))
        found = await reader
    assert sorted(one.data["n"] for one in found) == list(range(160))
    positions = [one.position for one in found]
    assert positions == sorted(set(positions), key=lambda position: position or 0)
    for first in range(0, 160, 20):
        of_one = [one.data["n"] for one in found if first <= one.data["n"] < first + 20]
        assert of_one == sorted(of_one)


async def test_an_older_unit_that_commits_late_is_not_skipped(postgres_database: str, clock: ManualClock) -> None:
    database = await open_database(postgres_database)
    async with database.begin() as tx:
        await tx.execute(sa.schema.CreateTable(events))
    log = EventLog(database, clock)
    try:
        async with sequenced(log):
            async with database.begin() as late:
                await log.record(late, event(1))
                await record(database, log, event(2))
                [newer] = await read(log, 1)
                assert newer.data["n"] == 2
            [older] = await read(log, 1, position=newer.position or 0)
            assert older.data["n"] == 1
    finally:
        await database.close()


async def test_two_sequencers_give_each_position_once(database: Database, log: EventLog) -> None:
    if database.dialect == "sqlite":
        return  # there the insert gives the position
    await record(database, log, *(event(n) for n in range(50)))
    given = await asyncio.gather(*(log.sequence(limit=30) for _ in range(4)))
    assert sum(given) == 50
    positions = [one.position for one in await log.after(0, None)]
    assert positions == list(range(1, 51))


async def test_silence_is_told(database: Database, log: EventLog) -> None:
    stream = log.stream(0, None, idle_s=0.01)
    assert await anext(stream) is None
    await stream.aclose()  # type: ignore[attr-defined]


async def test_old_events_are_forgotten_but_positions_never_repeat(
    database: Database, log: EventLog, clock: ManualClock
) -> None:
    await record(database, log, *(event(n) for n in range(5)))
    await settle(database, log)
    clock.advance(timedelta(days=400).total_seconds())
    assert await log.forget(timedelta(days=365)) == 4
    await record(database, log, event(5))
    await settle(database, log)
    assert [one.position for one in await log.after(0, None)] == [5, 6]
