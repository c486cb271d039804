"""From a place to the driver of its machines: one per endpoint and credential, kept while it is used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hansa.engines.egress import EgressPolicy
from hansa.kernel.database import Database
from hansa.kernel.errors import Permanent
from hansa.kernel.secrets import Vault
from hansa.machines.drivers.base import Machines, Refused, Why
from hansa.sites import store as site_store
from hansa.sites.controller import make_target
from hansa.sites.kinds.base import Target
from hansa.sites.model import VoAccess
from hansa.sites.service import LOCAL


@dataclass(frozen=True)
class Holder:
    """For whom a driver acts."""

    owner_id: str
    vo: str | None


Builder = Callable[[Target, Holder], Awaitable[Machines]]
"""Makes the driver of an endpoint. ``target.credential`` and ``target.token`` are what it may sign in with."""
Equip = Callable[[Target, Holder], Awaitable[Target]]
"""Gives a target what to sign in with: the VO's credential there, or a token of the owner that the site trusts."""


class Drivers(Protocol):
    """Finds drivers."""

    @property
    def local(self) -> Mapping[str, Machines]:
        """The drivers of this computer, the preferred one first."""

    async def at(self, place: str, holder: Holder) -> Machines:
        """The driver of a place. Raises Permanent where the place is gone, Temporary where a token cannot be had."""


class SiteDrivers:
    """Drivers of the registered sites and of this computer."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        egress: EgressPolicy,
        builders: Mapping[str, Builder],
        local: Mapping[str, Machines],
        equip: Equip,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._vault = vault
        self._egress = egress
        self._builders = builders
        self._local = local
        self._equip = equip
        self._close = close

    @property
    def local(self) -> Mapping[str, Machines]:
        return self._local

    async def at(self, place: str, holder: Holder) -> Machines:
        site, _, endpoint = place.partition("/")
        if site == LOCAL:
            found = self._local.get(endpoint)
            if found is None:
                raise Refused(Why.UNABLE, f"This computer runs no machines by {endpoint} now: hansa doctor says why.")
            return found
        target = await self._target(site, endpoint, holder)
        return await self._builders[target.kind](target, holder)

    async def close(self) -> None:
        for driver in self._local.values():
            await driver.close()
        self._close()

    async def _target(self, site: str, endpoint: str, holder: Holder) -> Target:
        async with self._database.read() as tx:
            rows = await site_store.endpoints_of(tx, [site])
            row = next((one for one in rows if one.name == endpoint), None)
            access = await site_store.vos_of(tx, [row.id]) if row is not None else ()
        if row is None or row.kind not in self._builders:
            raise Permanent(f"{site} has no endpoint {endpoint} for machines any more.")
        vos = {one.vo: VoAccess(one.vo, one.project, one.settings) for one in access}
        target, broken = make_target(row, vos, self._vault, self._egress)
        if broken:
            raise Permanent(broken)
        return await self._equip(target, holder)
