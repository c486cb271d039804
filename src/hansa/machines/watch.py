"""Looks at what the machines of this computer use, twice a minute, and keeps it."""

from __future__ import annotations

import asyncio

import structlog

from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import DriverError
from hansa.machines import meter_store
from hansa.machines.drivers.base import Can, Meter, Meters, able
from hansa.machines.meters import EVERY_S, sample_of, with_sample
from hansa.machines.places import Drivers
from hansa.sites.service import LOCAL

log = structlog.get_logger(__name__)


class MachineWatch:
    """A loop. A machine that two servers of one computer look at has samples of both."""

    def __init__(self, database: Database, clock: Clock, drivers: Drivers) -> None:
        self._database = database
        self._clock = clock
        self._drivers = drivers

    async def run(self) -> None:
        """For ever; where no driver can tell, it ends at once."""
        if not self._places():
            return
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    def _places(self) -> dict[str, Meters]:
        return {
            f"{LOCAL}/{name}": able(driver, Meters)
            for name, driver in self._drivers.local.items()
            if Can.METERS in driver.capabilities().can
        }

    async def look(self) -> None:
        """Once, at every machine that runs here. One that cannot be looked at does not keep the others."""
        places = self._places()
        async with self._database.read() as tx:
            rows = await meter_store.running_at(tx, places)
        for row in rows:
            try:
                meter = await places[row.place].meter(row.id)
            except DriverError as error:
                log.info("machines.no_figures", machine=row.id, error=str(error))
                continue
            if meter is not None:
                await self._keep(row.id, meter)

    async def _keep(self, machine: str, meter: Meter) -> None:
        now = self._clock.now()
        async with self._database.begin() as tx:
            samples = await meter_store.of_machine(tx, machine)
            await meter_store.put(tx, machine, with_sample(samples, sample_of(meter, now.timestamp())), now)
