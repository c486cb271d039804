"""A user's own site behind SSH: a host of her ``~/.ssh/config``, on her own server, visible to her alone."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from hansa.identity.model import Caller
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault, Permanent, Temporary
from hansa.sites import errors, store
from hansa.sites.kinds.base import Target, parse_settings
from hansa.sites.kinds.ssh import ask
from hansa.sites.registry import SiteRegistry
from hansa.sites.service import allow
from hansa.sites.wire import NewEndpoint, NewSite, OwnSite, Site

_LOOK = "if command -v sbatch >/dev/null 2>&1 && command -v squeue >/dev/null 2>&1; then echo slurm; else echo ssh; fi"


class OwnSiteService:
    """Adds a host with one word, finding out by itself what it is."""

    def __init__(
        self, registry: SiteRegistry, database: Database, clock: Clock, sockets: Path, *, is_embedded: bool
    ) -> None:
        self._registry = registry
        self._database = database
        self._clock = clock
        self._sockets = sockets
        self._is_embedded = is_embedded

    async def add(self, caller: Caller, own: OwnSite) -> Site:
        """Sign in, look whether Slurm is there, add it. Raises Fault ``sites.login`` where a person must sign in."""
        if not self._is_embedded:
            said = "Your own SSH is on your own computer, not on this shared server."
            raise Fault(errors.FORBIDDEN, said, hint="Use the server of your computer: leave out HANSA_SERVER.")
        settings: dict[str, Any] = {"host": own.host, "own_config": True}
        if own.config:
            settings["config"] = own.config
        kind = await self._kind(own.host, settings)
        name = own.name or re.sub(r"[^A-Za-z0-9._-]+", "-", own.host).strip("-._")
        new = NewSite(
            name, [NewEndpoint(kind, settings=settings)], visibility="owner", description=f"{own.host} by SSH"
        )
        return await self._registry.add(caller, new)

    async def _kind(self, host: str, settings: dict[str, Any]) -> str:
        target = Target("", host, "ssh", None, parse_settings("ssh", settings), sockets=self._sockets)
        try:
            said = await ask(target, None, _LOOK)
        except Permanent as error:
            if "ost key" in str(error):
                hint = f"Look at it with: ssh {host}"
                raise Fault(errors.SSH, f"The key of {host} is not known, or has changed.", hint=hint) from error
            hint = f"hansa site login --host {host}"
            if settings.get("config"):
                hint += f" --ssh-config {shlex.quote(settings['config'])}"
            raise Fault(errors.LOGIN, f"{host} wants you to sign in.", hint=hint, host=host) from error
        except Temporary as error:
            raise Fault(errors.SSH, str(error), hint=f"Try it with: ssh {host}") from error
        return "slurm" if said.split()[-1:] == ["slurm"] else "ssh"

    async def look(self, caller: Caller, name: str) -> None:
        """Have all endpoints of a site looked at now."""
        async with self._database.begin() as tx:
            await allow(tx, caller, name)
            ids = [row.id for row in await store.endpoints_of(tx, [name])]
            await store.QUEUE.poke(tx, self._clock.now(), *ids)
