"""What a machine used over its time, for its owner."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hansa.identity.model import Caller
from hansa.kernel.database import Database
from hansa.machines import meter_store
from hansa.machines.drivers.base import Can
from hansa.machines.meters import Stretch, stretches
from hansa.machines.places import Drivers
from hansa.machines.service import own_machine
from hansa.machines.views import size_view
from hansa.machines.wire import MachineUsage
from hansa.sites.service import LOCAL

NO_FIGURES = "This provider gives no figures of what its machines use."
SOON = "The first figures come about a minute after it has started."


class MeterService:
    """Reads only."""

    def __init__(self, database: Database, drivers: Drivers) -> None:
        self._database = database
        self._drivers = drivers

    async def usage(self, caller: Caller, name: str) -> MachineUsage:
        """By name or id. Raises Fault ``machines.not_found``."""
        async with self._database.read() as tx:
            row = await own_machine(tx, caller, name)
            found = stretches(await meter_store.of_machine(tx, row.id))
        return _view(row, found, "" if found else self._why_none(row))

    def _why_none(self, row: Any) -> str:
        site, _, endpoint = (row.place or "").partition("/")
        driver = self._drivers.local.get(endpoint) if site == LOCAL else None
        is_able = driver is not None and Can.METERS in driver.capabilities().can
        return SOON if is_able or row.place is None else NO_FIGURES


def _view(row: Any, found: Sequence[Stretch], message: str) -> MachineUsage:
    size = size_view(row)
    start = found[0].start if found else 0.0
    return MachineUsage(
        machine=row.name,
        cores_asked=size.cores,
        memory_asked_mib=size.memory_mib,
        started=datetime.fromtimestamp(start, UTC) if found else None,
        ends_s=[round(one.end - start, 3) for one in found],
        cores=[round(one.cores, 3) for one in found],
        memory_mib=[round(one.memory_mib, 1) for one in found],
        read_mib_s=_known([one.read_mib_s for one in found]),
        written_mib_s=_known([one.written_mib_s for one in found]),
        message=message,
    )


def _known(values: Sequence[float | None]) -> list[float] | None:
    """None where nothing was counted; a stretch of which it is not known counts as none."""
    if all(value is None for value in values):
        return None
    return [round(value or 0.0, 3) for value in values]
