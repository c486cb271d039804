"""Jobs on machines over one database and one clock: demand, pilots, machines, and fake clouds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hansa.engines.egress import EgressPolicy
from hansa.images.wire import NewEndorsement
from hansa.jobs.controller import PilotRoom
from hansa.jobs.demand import Demand
from hansa.jobs.drivers.fake import FakeBatch
from hansa.jobs.drivers.machines import MachineBatch, Whose
from hansa.jobs.drivers.places import EndpointPlaces
from hansa.jobs.enrolment import EnrolReply, EnrolRequest, EnrolService, Tickets
from hansa.jobs.program import build_node_program
from hansa.jobs.tables import pilots
from hansa.kernel.database import Database
from hansa.kernel.reconcile import Engine
from hansa.kernel.settings import JobSettings, PilotSettings
from hansa.kernel.wire import encode
from hansa.machines.store import machines
from hansa.sites import store as site_store
from hansa.sites.wire import Facts, Flavour, NewEndpoint, NewSite, SitePolicy, VmImage
from tests.support.jobworld import Pilot, World
from tests.support.machineworld import IMAGE, MachineWorld
from tests.support.siteworld import KEYSTONE, URL

SMALL, LARGE, GPU = (
    Flavour("s", "small", 2, 4096, 20),
    Flavour("l", "large", 8, 16_384, 40),
    Flavour("g", "gpu", 8, 32_768, 40, 2, "A100"),
)


class VmWorld:
    """A server whose sites make machines for jobs. ``step`` lets everything happen that is due."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.vms = MachineWorld(database, folder / "depot")
        self.jobs = World(database, folder, self.vms.clock)
        self.database, self.clock = database, self.vms.clock
        self.tickets = Tickets(self.vms.base.vault)
        self.program = build_node_program()
        self._folder = folder
        self.demand = Demand(database, self.vms.events, self.clock, self.vms.base.sites, 3600)
        self.enrolments = EnrolService(
            database, self.vms.events, self.clock, self.jobs.identity, self.tickets, self.program, [URL], JobSettings()
        )
        self.engine = self._engine()

    def _engine(self) -> Engine[str, Any, Any, Any]:
        places = EndpointPlaces(
            FakeBatch(), self.database, self.vms.base.sites, self.program, lambda: [URL], URL, EgressPolicy(),
            self._folder, None, self.batch,
        )  # fmt: skip
        room = PilotRoom(places, self.jobs.identity, self.vms.events, self.clock, PilotSettings(), JobSettings())
        return Engine(self.database, self.clock, room, chance=lambda: 0.0)

    def batch(self, whose: Whose) -> MachineBatch:
        return MachineBatch(self.database, self.clock, self.vms.service, self.tickets, [URL], whose)

    async def start(self) -> VmWorld:
        await self.vms.start(with_local=False)
        return self

    async def site(
        self, name: str, *vos: str, flavours: Sequence[Flavour] = (SMALL, LARGE, GPU), policy: SitePolicy | None = None,
        vm_images: Sequence[VmImage] = (),
        **settings: Any,
    ) -> None:  # fmt: skip
        """A cloud with these flavours on which jobs of these VOs run in machines."""
        ends = [
            NewEndpoint("openstack", name="cloud", url=KEYSTONE, vos=dict.fromkeys(vos)),
            NewEndpoint("machines", name="jobs", vos=dict.fromkeys(vos), settings={"image": IMAGE, **settings}),
        ]
        await self.vms.base.registry.add(self.vms.olga, NewSite(name, ends, policy=policy or SitePolicy()))
        async with self.database.begin() as tx:
            for row in await site_store.endpoints_of(tx, [name]):
                if row.kind == "openstack":
                    facts = {"": encode(Facts(flavours=list(flavours), vm_images=list(vm_images)))}
                    await site_store.update_endpoint(tx, row.id, facts=facts, facts_at=self.clock.now())

    async def endorse(self, *vos: str) -> None:
        for vo in vos:
            await self.vms.endorsing.endorse(self.vms.olga, IMAGE, NewEndorsement(vo, follow=True))

    async def step(self, seconds: float = 0.0) -> None:
        """Time passes, and everything happens that is due."""
        left = seconds
        while True:
            await self.demand.look()
            await self.engine.run_until_idle()
            await self.vms.engine.run_until_idle()
            await self.engine.run_until_idle()
            if left <= 0:
                return
            step = min(left, 30.0)
            self.clock.advance(step)
            left -= step

    async def crash(self) -> None:
        """The server was killed: another takes over what it held."""
        await self.vms.crash()
        self.engine = self._engine()
        async with self.database.begin() as tx:
            await self.engine.queue.take_over(tx, self.clock.now())

    async def pilots(self) -> list[Any]:
        async with self.database.read() as tx:
            return list((await tx.execute(sa.select(pilots).order_by(pilots.c.id))).all())

    async def machines(self) -> list[Any]:
        async with self.database.read() as tx:
            return list((await tx.execute(sa.select(machines).order_by(machines.c.id))).all())

    def made(self, site: str) -> int:
        """Machines at a site, as its provider counts them."""
        return len(self.vms.drivers.cloud(f"{site}/cloud").machines)

    async def enrol(self, pilot_id: str, secret: str = "s" * 32) -> EnrolReply:
        """As the guest does, with the ticket that is in its user data."""
        (machine,) = [one for one in await self.machines() if one.pilot_id == pilot_id]
        found = re.search(r'"ticket": "([0-9a-f]+)"', machine.spec["user_data"])
        assert found is not None
        return await self.enrolments.enrol(pilot_id, EnrolRequest(found[1], secret))

    async def guest(self, pilot_id: str) -> Pilot:
        """The pilot in a machine that has booted."""
        await self.enrol(pilot_id)
        return Pilot(self.jobs, pilot_id)
