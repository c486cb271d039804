"""Sites: which there are, whom they serve, what they offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hansa.identity.model import Caller
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.status import Party, Status
from hansa.sites import errors, store
from hansa.sites.wire import Capacity, Site, SitePage

LOCAL = "local"


class SiteService:
    """The registry of sites. The embedded site ``local`` serves its owner only."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    async def ensure_local(self, owner_id: str, owner_name: str, capacity: Capacity) -> None:
        """Register this computer as the site ``local``, or bring what it offers up to date."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await store.get(tx, LOCAL)
            if row is not None:
                if row.capacity != asdict(capacity):
                    await store.update(tx, LOCAL, capacity=asdict(capacity))
                return
            message = f"This computer: {capacity.cores} cores, {capacity.memory_mib:,} MiB, {len(capacity.gpus)} GPUs."
            await store.insert(
                tx,
                name=LOCAL,
                kind="local",
                owner_id=owner_id,
                owner_name=owner_name,
                capacity=asdict(capacity),
                phase="ready",
                reason="sites.ready",
                message=message,
                waiting_on=Party.NOBODY.value,
                since=now,
            )
            await self._events.record(tx, Event("hansa", f"site/{LOCAL}", "ready", "sites.ready", message, owner_id))

    async def remove_local(self) -> None:
        """This computer runs no jobs (setting local.enabled): forget the site, if it was there."""
        async with self._database.begin() as tx:
            await store.delete(tx, LOCAL)

    async def offers(self, caller: Caller) -> Sequence[Site]:
        """The sites that serve this caller."""
        async with self._database.read() as tx:
            return [_view(row) for row in await store.of_owner(tx, caller.user_id)]

    async def list_sites(self, caller: Caller) -> SitePage:
        return SitePage(list(await self.offers(caller)))

    async def get(self, caller: Caller, name: str) -> Site:
        """One site. Raises Fault ``sites.not_found``."""
        for site in await self.offers(caller):
            if site.name == name:
                return site
        raise Fault(errors.NOT_FOUND, f"There is no site {name} that serves you.", hint="hansa site list")

    async def capacity(self, name: str) -> Capacity | None:
        """What a site offers, for controllers."""
        async with self._database.read() as tx:
            row = await store.get(tx, name)
        return Capacity(**row.capacity) if row else None


def _view(row: Any) -> Site:
    status = Status(row.phase, row.reason, row.message, Party(row.waiting_on), row.since)
    return Site(row.name, row.kind, row.owner_name, status, Capacity(**row.capacity))
