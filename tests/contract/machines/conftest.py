"""Drivers of machines for the contract suite. A driver is one function in ``PLACES``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hansa.kernel.database import Database
from hansa.machines.drivers.base import Image, Machines, MachineSpec, Size
from hansa.machines.drivers.fake import FakeCloud, FakeMachines
from hansa.machines.drivers.qemu.driver import Qemu
from tests.support.machineworld import MachineWorld
from tests.support.nspawn import image, nspawn_place, qemu_folder

IMAGE = Image(f"sha256:{'0' * 64}", provider_id="fake-image")


@dataclass
class Place:
    """A driver; how a new process would make it; what it starts; and how to see that nothing is left."""

    driver: Machines
    reborn: Machines
    """A second driver of the same place, as a server makes it after a crash."""
    spec: MachineSpec
    other_size: Size
    """A size that machines there can be given."""
    deadline_s: float = 120.0
    leftovers: Callable[[], Awaitable[list[str]]] = field(default=lambda: _nothing())
    """What is left at the place of machines, in words; empty when all is deleted."""


async def _nothing() -> list[str]:
    return []


async def fake_place(_request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    cloud = FakeCloud()

    async def leftovers() -> list[str]:
        return [*cloud.machines, *cloud.addresses, *cloud.volumes, *cloud.snapshots, *cloud.networks]

    spec = MachineSpec("contract", IMAGE, Size(1, 512), ssh_keys=("ssh-ed25519 AAAA test",))
    yield Place(FakeMachines(cloud), FakeMachines(cloud), spec, Size(2, 1024), 10.0, leftovers)


async def nspawn(_request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    place = await nspawn_place()
    spec = MachineSpec("contract", image(), Size(1, 512))
    yield Place(place.driver(), place.driver(), spec, Size(2, 768), 120.0, place.driver().leftovers)
    assert await place.clear() == []


async def qemu(_request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    folder = qemu_folder()
    spec = MachineSpec("contract", image(), Size(1, 256))
    drivers = [Qemu(folder, patience_s=1) for _ in range(2)]
    yield Place(drivers[0], drivers[1], spec, Size(2, 320), 60.0, drivers[0].leftovers)
    for key in await drivers[0].list_keys():
        await drivers[0].delete(key)
    assert await drivers[0].leftovers() == []


PLACES: dict[str, tuple[Callable[[pytest.FixtureRequest], AsyncIterator[Place]], list[pytest.MarkDecorator]]] = {
    "fake": (fake_place, []),
    "nspawn": (nspawn, [pytest.mark.root]),
    "qemu": (qemu, []),
}
"""By name of driver: how its place is made, and the marks of its tests (``pytest.mark.root``)."""


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in PLACES.items()])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    make, _ = PLACES[request.param]
    async for one in make(request):
        yield one
        await one.driver.close()
        await one.reborn.close()


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> MachineWorld:
    return await MachineWorld(database, tmp_path / "images").start()
