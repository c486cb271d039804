"""Folders that tasks keep across attempts: whose word counts, and what the next attempt gets."""

from __future__ import annotations

import base64
import hashlib

import pytest

from hansa.jobs import store_checkpoints
from hansa.kernel.errors import Fault
from hansa.node import protocol
from hansa.node.protocol import Checkpoint, File, Lease
from tests.support.jobworld import Pilot, World, done, ended, running


async def content(world: World, text: str) -> tuple[str, int]:
    """Digest and size of content that was uploaded."""
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    await world.files.store_inline(digest, base64.b64encode(text.encode()).decode())
    return digest, len(text)


async def save(world: World, pilot: Pilot, lease: Lease, text: str, index: int = 0, path: str = "state/n") -> None:
    found = File(path, *await content(world, text))
    await world.exchanges.keep_checkpoint(pilot.id, Checkpoint(lease.lease, index, [found]))


async def kept(world: World, index: int = 0) -> list[str]:
    async with world.database.read() as tx:
        return [file.path for file in (await store_checkpoints.of_tasks(tx, 1, index, index)).get(index, [])]


async def test_the_next_attempt_gets_what_the_one_before_left(world: World) -> None:
    await world.submit(3, checkpoint="state", retries=1)
    pilot = await world.pilot()
    reply = await pilot.exchange(3)
    (lease,) = reply.leases
    assert (reply.jobs[0].checkpoint, lease.rows) == ("state", None)
    await save(world, pilot, lease, "one", 1)
    await save(world, pilot, lease, "two", 1)
    await pilot.report(done(lease, 0), done(lease, 1, 75), done(lease, 2, 75))
    again = await pilot.take(3)
    files = {one.first + n: row.inputs for one in again for n, row in enumerate(one.rows or [])}
    assert files == {1: [File("state/n", *await content(world, "two"))], 2: []}
    await world.exchanges.check_download(pilot.id, files[1][0].digest)
    await pilot.report(*(done(one, index) for one in again for index in range(one.first, one.last + 1)))
    assert await kept(world, 1) == [], "the task is done"


async def test_it_outlives_its_pilot_and_failures(world: World) -> None:
    await world.submit(checkpoint="state")
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.exchange(running=running(lease, 0))
    await save(world, pilot, lease, "one")
    await world.lose(pilot)
    other = await world.pilot()
    (again,) = await other.take(1)
    assert again.rows is not None
    assert [file.path for file in again.rows[0].inputs] == ["state/n"]
    await other.report(ended(again, 0, protocol.WALL_TIME))
    await world.retry(1)
    (third,) = await other.take(1)
    assert third.rows is not None
    assert len(third.rows[0].inputs) == 1


async def test_late_and_foreign_words_change_nothing(world: World) -> None:
    await world.submit(checkpoint="state", retries=1)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await save(world, pilot, lease, "one", index=7)
    await save(world, await world.pilot(), lease, "of another pilot")
    assert await kept(world) == []
    await pilot.report(done(lease, 0, 75))
    await save(world, pilot, lease, "after its end")
    assert await kept(world) == []
    (lease,) = await pilot.take(1)
    for path in ("elsewhere/n", "state/../n"):
        with pytest.raises(Fault, match="checkpoint folder"):
            await save(world, pilot, lease, "x", path=path)
    gone = File("state/n", f"sha256:{'0' * 64}", 3)
    with pytest.raises(Fault, match="not been uploaded"):
        await world.exchanges.keep_checkpoint(pilot.id, Checkpoint(lease.lease, 0, [gone]))


@pytest.mark.parametrize("folder", ["/abs", "../up", "a//b", "a/", "."])
async def test_the_folder_lies_in_the_tasks_directory(world: World, folder: str) -> None:
    with pytest.raises(Fault):
        await world.submit(checkpoint=folder)
