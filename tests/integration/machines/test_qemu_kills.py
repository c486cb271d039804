"""The server is killed at every step of what it does with virtual machines: nothing is made twice, nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hansa.machines.drivers.base import Life, MachineSpec, Progress, Size
from hansa.machines.drivers.qemu.driver import Qemu
from hansa.machines.drivers.qemu.qmp import talk
from tests.support.killed import kill_until_done
from tests.support.nspawn import image, qemu_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = qemu_folder()
    asyncio.run(_clear(folder))
    yield folder
    asyncio.run(_clear(folder))
    assert asyncio.run(Qemu(folder).leftovers()) == []


async def _clear(folder: Path) -> None:
    driver = Qemu(folder, patience_s=1)
    await driver.prepare(image())
    for key in await driver.list_keys():
        await driver.delete(key)
    await driver.delete_volume("data")
    await driver.delete_snapshot("snap")
    await driver.delete_network("lab")
    await driver.ensure_network("lab")
    await driver.delete_network("lab")


def killed(folder: Path, ask: Callable[[Qemu], Awaitable[object]]) -> None:
    """Ask a driver that is killed, and the one of the next server, until one comes to the end."""

    async def work() -> None:
        while await ask(Qemu(folder, patience_s=0.05)) is Progress.PENDING:
            await asyncio.sleep(0.2)

    kill_until_done(lambda: asyncio.run(work()))


def emulators(folder: Path) -> int:
    """How many run for machines of this folder."""
    found = 0
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        found += words[0].startswith("qemu-system") and any(word.startswith(f"{folder}/") for word in words)
    return found


def test_killed_at_every_step_of_a_life(folder: Path) -> None:
    spec = MachineSpec("one", image(), Size(1, 128), network="lab")
    killed(folder, lambda driver: driver.ensure_network("lab"))
    killed(folder, lambda driver: driver.ensure(spec, "one"))
    assert emulators(folder) == 1
    seen = asyncio.run(Qemu(folder).observe("one"))
    assert seen is not None
    assert seen.life is Life.RUNNING
    killed(folder, lambda driver: driver.ensure_volume("data", 1, "data"))
    killed(folder, lambda driver: driver.attach("data", "one"))
    killed(folder, lambda driver: driver.snapshot("one", "snap", "before"))
    assert (folder / "snapshots" / "snap.qcow2").is_file()
    killed(folder, lambda driver: driver.stop("one"))
    killed(folder, lambda driver: driver.start("one"))
    assert emulators(folder) == 1
    killed(folder, lambda driver: driver.resize("one", Size(2, 160)))
    assert emulators(folder) == 1
    killed(folder, lambda driver: driver.delete("one"))
    assert emulators(folder) == 0
    volume = asyncio.run(Qemu(folder).observe_volume("data"))
    assert volume is not None
    assert volume.attached_to is None
    for ask in (
        lambda driver: driver.delete_volume("data"),
        lambda driver: driver.delete_snapshot("snap"),
        lambda driver: driver.delete_network("lab"),
    ):
        killed(folder, ask)
    assert asyncio.run(Qemu(folder).leftovers()) == []


def test_a_machine_that_stood_still_for_a_snapshot_goes_on(folder: Path) -> None:
    """Killed while the disk is copied, and nobody asks for the snapshot again."""
    asyncio.run(Qemu(folder).ensure(MachineSpec("one", image(), Size(1, 128)), "one"))
    (folder / "machines" / "one" / "still").touch()
    asyncio.run(_ask(folder, "stop"))
    assert asyncio.run(_ask(folder, "query-status"))["running"] is False
    asyncio.run(Qemu(folder).observe("one"))
    assert asyncio.run(_ask(folder, "query-status"))["running"] is True


async def _ask(folder: Path, command: str) -> dict[str, object]:
    async with talk(folder / "machines" / "one") as qmp:
        found: dict[str, object] = await qmp.ask(command)
        return found
