"""Machines over one database and one clock: a fake provider at each of some sites, images, and people in VOs."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from hansa.identity.authority import AuthorityService
from hansa.identity.model import Caller
from hansa.identity.upstream.issuers import read_issuers
from hansa.identity.upstream.remote import Remote
from hansa.identity.vos import VoService
from hansa.images.depot import Depot
from hansa.images.endorsing import EndorsementService
from hansa.images.service import ImageService
from hansa.images.wire import NewImage, NewVersion
from hansa.kernel.database import Database
from hansa.kernel.events import StoredEvent
from hansa.kernel.reconcile import Engine, Tuning
from hansa.kernel.settings import IdentitySettings, ImageSettings
from hansa.machines import store
from hansa.machines.controller import MachineRoom, subject_of
from hansa.machines.drivers.base import Machines, Permanent
from hansa.machines.drivers.fake import FakeCloud, FakeMachines
from hansa.machines.places import Holder
from hansa.machines.service import Limits, MachineService
from hansa.machines.snapshot_controller import SnapshotRoom
from hansa.machines.snapshot_service import SnapshotService
from hansa.machines.volume_controller import VolumeRoom
from hansa.machines.volume_service import VolumeService
from hansa.machines.wire import Machine, NewMachine
from hansa.sites.wire import Capacity, NewEndpoint, NewSite, SitePolicy
from tests.support.siteworld import KEYSTONE, URL, SiteWorld
from tests.unit.images.test_formats import qcow2

DISK = qcow2()
DIGEST = hashlib.sha256(DISK).hexdigest()
IMAGE = "debian"


async def _content() -> AsyncIterator[bytes]:
    yield DISK


class FakeDrivers:
    """A fake cloud at every site that somebody asks for; ``local`` has one too. ``real``: places that have another."""

    def __init__(self) -> None:
        self.real: dict[str, Machines] = {}
        self.clouds: dict[str, FakeCloud] = {}
        self.gone: set[str] = set()
        self.before: Callable[[str, str], None] = lambda _place, _call: None
        self.asked: list[tuple[str, Holder]] = []

    @property
    def local(self) -> Mapping[str, Machines]:
        return {"fake": self.driver("local/fake")}

    def cloud(self, place: str) -> FakeCloud:
        return self.clouds.setdefault(place, FakeCloud())

    def driver(self, place: str) -> FakeMachines:
        return FakeMachines(self.cloud(place), lambda call: self.before(place, call))

    async def at(self, place: str, holder: Holder) -> Machines:
        self.asked.append((place, holder))
        if place in self.gone:
            raise Permanent("There is no such place.")
        return self.real.get(place) or self.driver(place)


class MachineWorld:
    """One server's machines; :meth:`crash` makes another over the same database and clouds."""

    def __init__(self, database: Database, folder: Path, clock: Any = None, drivers: Any = None) -> None:
        self.base = SiteWorld(database, clock)
        self.database, self.clock, self.events = database, self.base.clock, self.base.events
        self.drivers = drivers or FakeDrivers()
        self.depot = Depot(folder, 0)
        issuers = read_issuers((), URL)
        self.authority = AuthorityService(
            database, self.events, self.clock, self.base.vault, issuers, Remote(self.clock, 900)
        )
        vos = VoService(database, self.events, self.clock, URL, URL, IdentitySettings(), issuers)
        self.images = ImageService(database, self.events, self.clock, self.depot, ImageSettings())
        self.endorsing = EndorsementService(database, self.events, self.clock, self.images, URL)
        self.service = MachineService(
            database, self.events, self.clock, self.drivers, self.images, self.base.sites, vos, self.authority,
            Limits(start_s=600.0, attempts=3),
        )  # fmt: skip
        self.volumes = VolumeService(
            database, self.events, self.clock, self.drivers, self.base.sites, vos, self.authority
        )
        self.snapshots = SnapshotService(database, self.events, self.clock, self.drivers, self.authority)
        self.ada, self.bob, self.olga = self.base.ada, self.base.bob, self.base.olga
        self.engines = self._engines()

    def _engines(self) -> list[Engine[Any, Any, Any, Any]]:
        rooms: list[Any] = [
            MachineRoom(self.drivers, self.events, self.clock, self.depot, self.authority),
            VolumeRoom(self.drivers, self.events, self.clock, self.authority),
            SnapshotRoom(self.drivers, self.events, self.clock, self.depot),
        ]
        return [Engine(self.database, self.clock, room, Tuning(concurrency=8), chance=lambda: 1.0) for room in rooms]

    @property
    def engine(self) -> Engine[Any, Any, Any, Any]:
        """That of machines."""
        return self.engines[0]

    async def start(self, *, with_local: bool = True) -> MachineWorld:
        await self.base.start()
        await self.images.add(
            self.olga, NewImage(IMAGE, NewVersion("1", upload=True), visibility="all", login="debian")
        )
        await self.images.upload(self.olga, IMAGE, "1", _content())
        if with_local:
            await self.base.sites.ensure_local(self.ada.user_id, self.ada.name, Capacity(8, 16_384))
        return self

    async def site(self, name: str, *vos: str, **policy: Any) -> None:
        """A cloud that serves these VOs."""
        end = NewEndpoint("openstack", name="cloud", url=KEYSTONE, vos=dict.fromkeys(vos))
        await self.base.registry.add(self.olga, NewSite(name, [end], policy=SitePolicy(**policy)))

    async def create(self, name: str = "web", who: Caller | None = None, **more: Any) -> Machine:
        return await self.service.create(who or self.ada, NewMachine(more.pop("image", IMAGE), name, **more))

    async def crash(self) -> None:
        """The server was killed: another takes over what it held, as an embedded one does at its start."""
        self.engines = self._engines()
        async with self.database.begin() as tx:
            for engine in self.engines:
                await engine.queue.take_over(tx, self.clock.now())

    async def settle(self, seconds: float = 0.0) -> None:
        """Let time pass, in steps, and everything happen that is due."""
        await self._until_idle()
        left = seconds
        while left > 0:
            step = min(left, 30.0)
            self.clock.advance(step)
            left -= step
            await self._until_idle()

    async def _until_idle(self) -> None:
        while sum([await engine.run_until_idle() for engine in self.engines]):
            pass

    async def get(self, name: str = "web", who: Caller | None = None) -> Machine:
        return await self.service.get(who or self.ada, name)

    async def row(self, name: str = "web") -> Any:
        async with self.database.read() as tx:
            return await store.find(tx, self.ada.user_id, name)

    async def said(self, machine: Machine) -> list[StoredEvent]:
        async with self.database.read() as tx:
            return list(await self.events.timeline(tx, subject_of(machine.id)))
