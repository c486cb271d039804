"""What live pages are told, and the picture of an array."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hansa.jobs import tallies
from hansa.jobs.overview import Bucket
from tests.support.jobworld import World, done, indices


@pytest.fixture(autouse=True)
async def sequencer(world: World) -> AsyncIterator[None]:
    """On PostgreSQL events can be read when they have a position."""
    task = asyncio.create_task(world.events.run_sequencer())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_picture_counts_every_task_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await world.submit(30, first=5)
    pilot = await world.pilot()
    lease = (await pilot.take(20))[0]
    some = list(indices(lease))[:12]
    await pilot.report(*[done(lease, index, exit_code=int(index % 5 == 0)) for index in some])
    await world.kill(job.number, 33, 34)

    async def both() -> list[Bucket]:
        seen = await world.jobs.picture(world.owner, job.number, 10)
        with monkeypatch.context() as patch:
            patch.setattr(tallies, "DIRECT", 10**9)
            direct = await world.jobs.picture(world.owner, job.number, 30)
        assert (seen[0].first, seen[-1].last) == (direct[0].first, direct[-1].last) == (5, 34)
        for phase in ("waiting", "running", "done", "failed", "killed"):
            parts = [(sum(getattr(one, phase) for one in direct if b.first <= one.first <= b.last)) for b in seen]
            assert [getattr(one, phase) for one in seen] == parts, phase
        return seen

    seen = await both()
    assert sum(one.failed for one in seen) == sum(index % 5 == 0 for index in some)
    assert sum(one.killed for one in seen) == 2
    await world.retry(job.number)
    assert sum(one.failed + one.killed for one in await both()) == 0
    await world.check()


async def test_many_readers_of_one_owner_all_hear_and_strangers_do_not(world: World) -> None:
    stranger = await world.user("bob")
    readers = [world.jobs.changes(world.owner, 0, 60) for _ in range(20)]
    quiet = world.jobs.changes(stranger, 0, 0.05)
    while await anext(quiet) is not None:
        pass  # what has been before
    for reader in readers:
        await anext(reader)
    waiting = [asyncio.ensure_future(anext(reader)) for reader in readers]
    job = await world.submit(1)
    for heard in await asyncio.wait_for(asyncio.gather(*waiting), 30):
        assert heard is not None
        assert f"job/{job.number}" in heard[1]
    assert await anext(quiet) is None


async def test_a_reader_who_was_away_hears_what_it_missed(world: World) -> None:
    ahead = world.jobs.changes(world.owner, 0, 60)
    heard = await anext(ahead)
    job = await world.submit(1)
    assert await anext(ahead)
    late = world.jobs.changes(world.owner, heard[0] if heard else 0, 60)
    found = await anext(late)
    assert found is not None
    assert f"job/{job.number}" in found[1]
