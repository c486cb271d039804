"""What live pages are told, and the picture of an array."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.identity.wire import NewVo
from hansa.jobs import tallies
from hansa.jobs.overview import Bucket
from hansa.jobs.shared_changes import may_hear
from hansa.kernel.events import Event, SharedChange
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


async def test_what_is_shared_is_told_to_those_who_may_see_it(world: World) -> None:
    eve, bob = await world.user("eve"), await world.user("bob")
    ole = replace(await world.user("ole"), is_operator=True)
    await world.vos.create(ole, NewVo("vo.example.org", ""))
    async with world.database.begin() as tx:
        values = {"vo": "vo.example.org", "roles": [], "groups": [], "since": world.clock.now(), "suspended": None}
        await vo_store.insert_member(tx, user_id=bob.user_id, **values)
    member, stranger = world.jobs.changes(bob, 0, 0.05), world.jobs.changes(eve, 0, 0.05)
    async with world.database.begin() as tx:
        grant = Event(
            "hansa", "grant/vo.example.org@NEBULA", "agreed", "capacity.agreed", "Agreed.", vo="vo.example.org"
        )
        site = Event("hansa", "site/NEBULA", "down", "sites.down", "It is down.")
        image = Event("hansa", "image/preset/debian-12", "ready", "images.ready", "It is there.", "hansa")
        await world.events.record(tx, grant, site, image)
    seen = {"vo/vo.example.org", "grant/vo.example.org@NEBULA", "image/preset/debian-12"}
    assert await asyncio.wait_for(_until(member, "image/preset/debian-12"), 60) == seen
    assert await asyncio.wait_for(_until(stranger, "image/preset/debian-12"), 60) == {"image/preset/debian-12"}


async def _until(reader: AsyncIterator[tuple[int, list[str]] | None], subject: str) -> set[str]:
    """All that a reader hears until it hears this, but about itself."""
    heard: set[str] = set()
    async for one in reader:
        heard |= set(one[1] if one else ())
        if subject in heard:
            return {one for one in heard if not one.startswith("user/")}
    raise AssertionError(heard)


def test_who_hears_of_what_is_shared() -> None:
    bob = Caller("user_b", "bob")
    ours = SharedChange(1, "grant/vo.example.org@NEBULA", None, "vo.example.org")
    assert may_hear(bob, ours, {"vo.example.org"}, ())
    assert may_hear(bob, ours, (), {"steered/NEBULA"})
    assert not may_hear(bob, ours, {"vo.other.org"}, {"site/NEBULA"})
    assert may_hear(replace(bob, is_operator=True), ours, (), ())
    site = SharedChange(2, "site/NEBULA", None, None)
    assert may_hear(bob, site, (), {"site/NEBULA"})
    assert not may_hear(bob, site, {"vo.example.org"}, {"site/OTHER"})
    assert not may_hear(bob, SharedChange(3, "image/ada/secret", "user_a", None), (), ())
    assert not may_hear(bob, SharedChange(4, "vo/vo.other.org", "user_a", "vo.other.org"), {"vo.example.org"}, ())
