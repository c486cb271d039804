"""Which driver starts and watches a pilot: one for each account at an endpoint, made when it is first needed.

An endpoint's settings and credential may change at any time; the next look at one of its pilots goes by the new ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from hansa.engines.egress import EgressPolicy
from hansa.engines.ssh import NotLetIn
from hansa.identity.model import Caller
from hansa.jobs.drivers.base import BatchDriver, Life, LoginLapsed, PilotOrder, Seen
from hansa.jobs.drivers.machines import MachineBatch, Whose
from hansa.jobs.drivers.slurm import SlurmBatch
from hansa.jobs.drivers.ssh import SshBatch
from hansa.jobs.placing import MACHINES
from hansa.jobs.program import NodeProgram
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault, Permanent, Temporary
from hansa.sites import store
from hansa.sites.kinds.base import Target, parse_settings
from hansa.sites.kinds.slurm import sbatch_words
from hansa.sites.kinds.ssh import make_shell
from hansa.sites.model import VoAccess
from hansa.sites.service import SiteService

log = structlog.get_logger(__name__)
T = TypeVar("T")
MakeMachineBatch = Callable[[Whose], MachineBatch]
_SIGN_IN_AGAIN_S = 30.0
_LOOK_FOR = 'for path in "$@"; do [ -r "$path" ] || printf "%s\\n" "$path"; done'


@dataclass(frozen=True)
class Place:
    """A driver, and the options of its site and VO for what it starts."""

    driver: BatchDriver
    options: tuple[str, ...] = ()
    enrols: bool = False
    """Whether its pilots get their tokens by tickets of their own."""


class Places(Protocol):
    """Finds the driver of a pilot."""

    async def of(self, pilot: Any) -> Place:
        """By the pilot's row. Raises Temporary or Permanent."""


@dataclass(frozen=True)
class PathsAt:
    """Where paths are looked for."""

    site: str
    endpoint_id: str | None
    vo: str | None


class Paths(Protocol):
    """Looks whether paths are there at a site."""

    async def missing(self, place: Any, paths: Sequence[str]) -> list[str]:
        """Those that are no folder or file that can be read there; ``place``: as a pilot's row, by ``endpoint_id``,
        ``vo`` and ``site``. Raises Temporary or Permanent where nobody can look."""


class FixedPlaces:
    """Drivers by their name, for tests and for sites that need no endpoint."""

    def __init__(self, drivers: Mapping[str, BatchDriver]) -> None:
        self._drivers = drivers

    async def of(self, pilot: Any) -> Place:
        return Place(self._drivers[pilot.driver])


class EndpointPlaces:
    """Drivers of endpoints in the registry of sites, and ``local``."""

    def __init__(
        self,
        local: BatchDriver,
        database: Database,
        sites: SiteService,
        program: NodeProgram,
        urls: Callable[[], Sequence[str]],
        issuer: str,
        egress: EgressPolicy,
        sockets: Path,
        ca_file: Path | None = None,
        machines: MakeMachineBatch | None = None,
    ) -> None:
        self._local = local
        self._machines = machines
        self._database = database
        self._sites = sites
        self._program = program
        self._urls = urls
        self._name = hashlib.sha256(issuer.encode()).hexdigest()[:8]
        self._egress = egress
        self._sockets = sockets
        self._ca_file = ca_file
        self._made: dict[str, tuple[str, SlurmBatch | SshBatch]] = {}
        self._lock = asyncio.Lock()

    async def of(self, pilot: Any) -> Place:
        if pilot.endpoint_id is None:
            return Place(self._local)
        if pilot.driver == MACHINES and self._machines is not None:
            return Place(self._machines(await self._whose(pilot)), enrols=True)
        target, access = await self._target(pilot)
        if target is None:
            return Place(GoneBatch(pilot.site))
        async with self._lock:
            driver = await self._driver(target, access)
        words = sbatch_words(target.settings, access) if target.kind == "slurm" else ()
        if target.settings.own_config:
            return Place(OwnBatch(driver, target.site), words)
        return Place(driver, words)

    async def missing(self, place: Any, paths: Sequence[str]) -> list[str]:
        """See :class:`Paths`: looked for on the login node, whose file systems the nodes share."""
        if place.endpoint_id is None:
            return [path for path in paths if not os.access(path, os.R_OK)]
        target, access = await self._target(place)
        if target is None:
            raise Permanent(f"{place.site} is not registered any more.")
        if target.kind == MACHINES:
            raise Permanent("Machines for jobs are made when they are needed: nothing of the site is in them.")
        async with self._lock:
            driver = await self._driver(target, access)
        try:
            done = await driver.shell.script(_LOOK_FOR, *paths)
        except NotLetIn as error:
            raise _lapsed(place.site) from error
        if done.status != 0:
            raise Temporary(f"{place.site} does not say what is there: {done.complaint}.")
        return [path for path in paths if path in done.text.splitlines()]

    async def _whose(self, pilot: Any) -> Whose:
        """For whom a machine is made. Where the endpoint is gone, what was made is still watched and deleted."""
        target, _ = await self._target(pilot)
        owner = Caller(pilot.owner_id, (pilot.labels or {}).get("user", pilot.owner_id))
        return Whose(owner, pilot.vo or None, pilot.site, target.settings if target is not None else None)

    async def close(self) -> None:
        """End all connections; what runs there goes on."""
        made, self._made = self._made, {}
        for _, driver in made.values():
            await driver.close()

    async def _target(self, pilot: Any) -> tuple[Target | None, VoAccess | None]:
        async with self._database.read() as tx:
            row = await store.get_endpoint(tx, pilot.endpoint_id)
            vos = await store.vos_of(tx, [pilot.endpoint_id]) if row is not None else []
        if row is None:
            return None, None
        access = next((VoAccess(one.vo, one.project, one.settings) for one in vos if one.vo == pilot.vo), None)
        try:
            settings = parse_settings(row.kind, {**row.settings, **(access.settings if access else {})})
        except Fault as fault:
            raise Temporary(f"{row.site} cannot be used as it is written down: {fault.detail}", 60) from fault
        credential = await self._sites.credential(row.id)
        target = Target(
            row.id,
            row.site,
            row.kind,
            None,
            settings,
            credential=credential,
            sockets=self._sockets,
            egress=self._egress,
        )
        return target, access

    async def _driver(self, target: Target, access: VoAccess | None) -> SlurmBatch | SshBatch:
        """The driver for this account there; another one where what it was made from has changed."""
        settings = target.settings
        account = f"{target.id}/{settings.user}@{settings.host}:{settings.port}{settings.folder}"
        made_from = _fingerprint(target)
        known = self._made.get(account)
        if known is not None and known[0] == made_from:
            return known[1]
        if known is not None:
            await known[1].close()
        shell = await make_shell(target, access)
        common: dict[str, Any] = {
            "shell": shell,
            "program": self._program,
            "urls": self._urls,
            "folder": f"{settings.folder.rstrip('/')}/{self._name}",
            "python": settings.python,
            "is_direct": settings.transport == "https",
            "ca_file": self._ca_file,
        }
        driver = SlurmBatch(poll_s=settings.poll_s, **common) if target.kind == "slurm" else SshBatch(**common)
        self._made[account] = (made_from, driver)
        return driver


_OF_PILOTS = {
    "partition", "account", "qos", "constraint", "reservation", "extra",
    "max_pilots", "max_waiting", "pilot_cores", "pilot_wall_time_s",
}  # fmt: skip
"""Settings for what is started, which may be others for each VO; the connection is the same."""


def _fingerprint(target: Target) -> str:
    plain = [target.settings.model_dump(mode="json", exclude=_OF_PILOTS), dict(target.credential)]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class GoneBatch:
    """The endpoint is no longer in the registry: nothing can be started or seen there."""

    def __init__(self, site: str) -> None:
        self._site = site

    async def start(self, order: PilotOrder) -> Seen:  # noqa: ARG002
        raise Permanent(f"{self._site} is not registered any more.")

    async def observe(self, pilot_id: str) -> Seen:  # noqa: ARG002
        return Seen(Life.ABSENT)

    async def cancel(self, pilot_id: str) -> None:
        """There is no way to it."""

    async def clean(self, pilot_id: str) -> None:
        """There is no way to it."""


class OwnBatch:
    """A site that its owner signs in to by hand: where the login has lapsed, everything waits for that."""

    def __init__(self, driver: BatchDriver, site: str) -> None:
        self._driver = driver
        self._site = site

    async def start(self, order: PilotOrder) -> Seen:
        return await self._try(self._driver.start(order))

    async def observe(self, pilot_id: str) -> Seen:
        return await self._try(self._driver.observe(pilot_id))

    async def cancel(self, pilot_id: str) -> None:
        await self._try(self._driver.cancel(pilot_id))

    async def clean(self, pilot_id: str) -> None:
        await self._try(self._driver.clean(pilot_id))

    async def _try(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except NotLetIn as error:
            raise _lapsed(self._site) from error


def _lapsed(site: str) -> LoginLapsed:
    return LoginLapsed(f"Your login at {site} has lapsed. Sign in: hansa site login {site}", _SIGN_IN_AGAIN_S)
