"""What every batch driver promises: one pilot per id, however often it is asked for, and the truth about it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from hansa.engines.shell import LocalShell, Shell
from hansa.engines.ssh import SshShell, SshTarget
from hansa.jobs.drivers.base import BatchDriver, Life, PilotOrder
from hansa.jobs.drivers.fake import FakeBatch
from hansa.jobs.drivers.local import LocalBatch, live_pilots
from hansa.jobs.drivers.machines import Whose
from hansa.jobs.drivers.slurm import SlurmBatch
from hansa.jobs.drivers.ssh import SshBatch
from hansa.jobs.program import build_node_program
from hansa.kernel.database import open_database
from hansa.kernel.errors import Temporary
from hansa.kernel.ids import new_id
from hansa.machines.drivers.base import Life as MachineLife
from hansa.sites.kinds.machines import MachinesSettings
from tests.contract.conftest import create_schema
from tests.support.machineworld import IMAGE
from tests.support.node_server import TOKEN, FakeServer
from tests.support.slurm import Slurm
from tests.support.sshd import Sshd
from tests.support.vmworld import VmWorld

ORDER = PilotOrder("pilot_1", TOKEN, 1, 512, [], idle_timeout_s=60)


@dataclass
class Site:
    """A driver, a second one over the same batch system (the server after a crash), and a way to shoot a pilot."""

    driver: BatchDriver
    reborn: BatchDriver
    root: Path | None
    ended: list[str]
    tells_ends: bool = True
    shot: Callable[[str], Awaitable[None]] | None = None
    order: PilotOrder = field(default_factory=lambda: replace(ORDER, pilot_id=new_id("pilot")))

    def pids(self) -> list[int]:
        return live_pilots(self.root) if self.root else []

    async def shoot(self, pilot_id: str) -> None:
        if isinstance(self.driver, FakeBatch):
            await self.driver.cancel(pilot_id)
        if self.shot is not None:
            await self.shot(pilot_id)
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def node_server() -> Iterator[FakeServer]:
    fake = FakeServer()
    fake.files["node.pyz"] = build_node_program().zipapp
    yield fake
    fake.shutdown()
    fake.server_close()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path_factory.mktemp("slurm")).start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def sshd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    cluster: Slurm = request.getfixturevalue("slurm")
    server = Sshd(tmp_path_factory.mktemp("sshd"), {"SLURM_CONF": str(cluster.conf)}).start()
    yield server
    server.stop()


def remote(request: pytest.FixtureRequest, kind: str, folder: Path, url: str) -> SshBatch | SlurmBatch:
    """A driver over a shell of its own, as a server that has just started makes it."""
    program = build_node_program()
    if kind == "slurm":
        cluster: Slurm = request.getfixturevalue("slurm")
        shell: Shell = LocalShell({"SLURM_CONF": str(cluster.conf)})
    else:
        server: Sshd = request.getfixturevalue("sshd")
        shell = SshShell(SshTarget("127.0.0.1", server.user, server.port, server.known_hosts, server.key))
    if kind == "ssh":
        return SshBatch(shell, program, lambda: [url], str(folder), python=sys.executable)
    return SlurmBatch(shell, program, lambda: [url], str(folder), python=sys.executable, poll_s=0.2)


class Patient:
    """A driver as the reconcile engine uses it: what passes is tried again."""

    def __init__(self, driver: BatchDriver) -> None:
        self._driver = driver
        self.start, self.observe, self.cancel = driver.start, driver.observe, driver.cancel

    async def clean(self, pilot_id: str) -> None:
        for _ in range(1500):
            try:
                return await self._driver.clean(pilot_id)
            except Temporary:
                await asyncio.sleep(0.02)
        raise AssertionError("it is never clean")


@asynccontextmanager
async def machines(folder: Path) -> AsyncIterator[Site]:
    """Pilots in machines of a fake cloud, with the room of machines at work."""
    database = await open_database(f"sqlite:///{folder}/hansa.db")
    await create_schema(database)
    world = await VmWorld(database, folder).start()
    await world.vms.base.vo("vo.a", world.vms.ada, world.vms.olga)
    await world.endorse("vo.a")
    await world.site("NEBULA", "vo.a")
    whose = Whose(world.vms.ada, "vo.a", "NEBULA", MachinesSettings(image=IMAGE))

    async def work() -> None:
        while True:
            await world.vms.engine.run_until_idle()
            world.clock.advance(1)
            await asyncio.sleep(0.01)

    async def shot(pilot_id: str) -> None:
        (machine,) = [one for one in await world.machines() if one.pilot_id == pilot_id]
        world.vms.drivers.cloud("NEBULA/cloud").set_life(machine.id, MachineLife.FAILED, "The host died.")

    working = asyncio.create_task(work())
    drivers = [Patient(world.batch(whose)) for _ in range(2)]
    yield Site(drivers[0], drivers[1], None, [], tells_ends=False, shot=shot)
    assert world.made("NEBULA") <= 1
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await database.close()


@pytest.fixture(params=["fake", "local", "ssh", "slurm", "slurm-over-ssh", "machines"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    if request.param == "fake":
        fake = FakeBatch()
        yield Site(fake, fake, None, [])
        return
    if request.param == "machines":
        async with machines(tmp_path) as found:
            yield found
        return
    server: FakeServer = request.getfixturevalue("node_server")
    if request.param != "local":
        drivers = [remote(request, request.param, tmp_path / "hansa", server.url) for _ in range(2)]
        found = Site(drivers[0], drivers[1], tmp_path / "hansa" / "pilots", [], tells_ends=False)
        yield found
        await drivers[0].cancel(found.order.pilot_id)
        for one in drivers:
            await one.close()
        return
    program = build_node_program()
    root, ended = tmp_path / "pilots", list[str]()

    def make() -> LocalBatch:
        return LocalBatch(root, lambda: [server.url], [tmp_path], program.bootstrap, program.digest, None, ended.append)

    found = Site(make(), make(), root, ended)
    yield found
    # Of two that were started at once, one waits its turn: it must not take over what the other leaves.
    for driver in (found.driver, found.reborn):
        assert isinstance(driver, LocalBatch)
        for child in driver._children.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            child.wait()


async def is_life(driver: BatchDriver, pilot_id: str, life: Life) -> bool:
    for _ in range(1500):
        if (await driver.observe(pilot_id)).life is life:
            return True
        await asyncio.sleep(0.02)
    return False


async def start(site: Site) -> None:
    """Started, and no longer in a queue."""
    assert (await site.driver.start(site.order)).life in (Life.ALIVE, Life.QUEUED)
    assert await is_life(site.driver, site.order.pilot_id, Life.ALIVE)
    if site.root is not None:
        for _ in range(1500):
            if site.pids():
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it holds no lock")


async def test_nothing_is_known_of_a_pilot_that_was_never_started(site: Site) -> None:
    assert (await site.driver.observe(site.order.pilot_id)).life is Life.ABSENT
    await site.driver.cancel(site.order.pilot_id)
    await site.driver.clean(site.order.pilot_id)
    assert (await site.driver.observe(site.order.pilot_id)).life is Life.ABSENT


async def test_started_twice_is_one_pilot(site: Site) -> None:
    await start(site)
    before = site.pids()
    assert (await site.driver.start(site.order)).life is Life.ALIVE
    assert (await site.reborn.start(site.order)).life is Life.ALIVE
    assert site.pids() == before
    assert len(before) == (0 if site.root is None else 1)
    assert (await site.driver.observe(site.order.pilot_id)).life is Life.ALIVE
    assert (await site.reborn.observe(site.order.pilot_id)).life is Life.ALIVE


async def test_started_twice_at_once_is_one_pilot(site: Site) -> None:
    await asyncio.gather(site.driver.start(site.order), site.reborn.start(site.order), return_exceptions=True)
    assert await is_life(site.driver, site.order.pilot_id, Life.ALIVE)
    assert len(site.pids()) <= 1


async def test_cancelled_and_cleaned(site: Site) -> None:
    await start(site)
    await site.reborn.cancel(site.order.pilot_id)
    assert site.pids() == []
    assert await is_life(site.driver, site.order.pilot_id, Life.ENDED)
    await site.driver.cancel(site.order.pilot_id)
    await site.driver.clean(site.order.pilot_id)
    await site.driver.clean(site.order.pilot_id)
    assert (await site.driver.observe(site.order.pilot_id)).life is Life.ABSENT
    if site.root is not None:
        assert list(site.root.iterdir()) == []


async def test_clean_leaves_a_pilot_that_lives_alone(site: Site) -> None:
    await start(site)
    await site.driver.clean(site.order.pilot_id)
    assert (await site.driver.observe(site.order.pilot_id)).life is Life.ALIVE


async def test_a_pilot_that_was_killed_has_ended(site: Site) -> None:
    await start(site)
    await site.shoot(site.order.pilot_id)
    assert await is_life(site.driver, site.order.pilot_id, Life.ENDED)
    assert await is_life(site.reborn, site.order.pilot_id, Life.ENDED)
    if site.root is not None and site.tells_ends:
        for _ in range(1500):
            if site.ended:
                break
            await asyncio.sleep(0.02)
        assert site.ended[0] == site.order.pilot_id


async def test_a_fault_of_the_batch_system_can_be_tried_again(tmp_path: Path) -> None:
    fake = FakeBatch()
    fake.faults.append(Temporary("busy", 1))
    with pytest.raises(Temporary):
        await fake.start(ORDER)
    assert (await fake.start(ORDER)).life is Life.ALIVE
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    local = LocalBatch(in_the_way, lambda: ["http://127.0.0.1:1"], [], b"", "sha256:0")
    with pytest.raises(Temporary):
        await local.start(ORDER)


async def test_a_program_that_is_not_what_it_says_is_not_run(node_server: FakeServer, tmp_path: Path) -> None:
    program = build_node_program()
    local = LocalBatch(tmp_path, lambda: [node_server.url], [], program.bootstrap, "sha256:" + "0" * 64, start_s=3)
    with pytest.raises(Temporary) as caught:
        await local.start(ORDER)
    assert "did not start" in str(caught.value)
    assert live_pilots(tmp_path) == []
    for child in local._children.values():
        child.wait()
