"""The batch driver ``machines``: for each pilot a machine, made for it and deleted with it.

The room of machines makes, watches and deletes it under the rules for any machine of the pilot's owner: sites by
placement, the VO's image policy, grants of authority, the site's limits. The machine's row names its pilot, from the
unit of work that creates it on: that is all the memory that this driver has. The guest gets a ticket (see
``jobs.enrolment``).
"""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hansa.identity import errors as identity_errors
from hansa.identity.model import Caller
from hansa.jobs import store_pilots
from hansa.jobs.drivers.base import Life, LoginLapsed, PilotOrder, Seen
from hansa.jobs.enrolment import Tickets
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault, Permanent, Temporary
from hansa.machines import errors, store
from hansa.machines.model import Phase, Wanted
from hansa.machines.service import MachineService
from hansa.machines.wire import NewMachine
from hansa.placement.views import GUEST_MEMORY_MIB
from hansa.sites.kinds.machines import MachinesSettings
from hansa.sites.service import LOCAL

_LIVES_ON = timedelta(hours=2)  # reckoned with by placement.views.MACHINE_OVERHEAD_S
"""A machine outlives its pilot's wall time by so much at most: what it takes to start at the third site tried."""
_SPEECHLESS = timedelta(minutes=20)
"""A guest that runs for so long without giving its ticket for a token will not any more."""
_SOON_S, _LATER_S, _AGAIN_S = 2.0, 15.0, 60.0
_LOOPBACK = ("127.", "localhost", "[::1]", "::1")

_BOOT = """#!/bin/sh
# Written by Hansa: this machine runs tasks of jobs, and is deleted when there are none. The ticket in here is good
# once, for this machine; the pilot's token is never in user data.
umask 077
id hansa >/dev/null 2>&1 || useradd --create-home --home-dir /var/lib/hansa --shell /bin/sh hansa
mkdir -p /var/lib/hansa && cd /var/lib/hansa || exit 1
cat > enrol.py <<'END-OF-PROGRAM'
{program}END-OF-PROGRAM
cat > ticket.json <<'END-OF-TICKET'
{ticket}
END-OF-TICKET
chown -R hansa: /var/lib/hansa
if command -v systemd-run >/dev/null 2>&1; then
  exec systemd-run --quiet --unit=hansa-pilot --uid=hansa --collect -p WorkingDirectory=/var/lib/hansa \\
    -p StandardError=journal+console -p Delegate=yes -p ExecStopPost='+systemctl --no-block poweroff' \\
    python3 -I /var/lib/hansa/enrol.py /var/lib/hansa/ticket.json
fi
setsid sh -c 'su hansa -c "exec python3 -I /var/lib/hansa/enrol.py /var/lib/hansa/ticket.json"; poweroff' \\
  >/dev/console 2>&1 </dev/null &
"""


def user_data(pilot_id: str, ticket: str, urls: Sequence[str], ca: str | None) -> str:
    """What cloud-init runs: a user without rights, the program that gives the ticket, and the ticket. Pure."""
    program = resources.files("hansa.node").joinpath("enrol.py").read_text(encoding="utf-8")
    given = {"pilot": pilot_id, "urls": list(urls), "ticket": ticket, "folder": "/var/lib/hansa/pilot", "ca": ca}
    return _BOOT.format(program=program, ticket=json.dumps(given))


@dataclass(frozen=True)
class Whose:
    """Whose pilots these are, where, and as the endpoint says. ``settings`` None: the endpoint is gone."""

    caller: Caller
    vo: str | None
    site: str
    settings: MachinesSettings | None


class MachineBatch:
    """Pilots in machines of their own, of one owner at one endpoint. Keeps nothing in memory."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        machines: MachineService,
        tickets: Tickets,
        urls: Sequence[str],
        whose: Whose,
        ca_file: Path | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._machines = machines
        self._tickets = tickets
        self._urls = urls
        self._whose = whose
        self._ca = ca_file

    async def start(self, order: PilotOrder) -> Seen:
        """A machine for it; the same one however often it is asked for, by any server."""
        seen = await self.observe(order.pilot_id)
        if seen.life is not Life.ABSENT:
            return seen
        new = await self._wish(order)
        try:
            await self._machines.create(self._whose.caller, new, order.pilot_id, pilot_id=order.pilot_id)
        except Fault as fault:
            if fault.code is errors.NAME_TAKEN:  # another server made it a moment ago
                return await self.observe(order.pilot_id)
            raise refusal_of(fault, self._whose.site) from fault
        return await self.observe(order.pilot_id)

    async def _wish(self, order: PilotOrder) -> NewMachine:
        settings = self._whose.settings
        if settings is None:
            raise Permanent(f"{self._whose.site} is not registered any more.")
        urls = list(settings.urls or self._urls)
        if not settings.urls:
            check_reachable(urls, is_here=settings.here)
        models = {gpu.partition(",")[2].strip() for gpu in order.gpus} - {"", "gpu"}
        lasts = timedelta(seconds=order.wall_time_s or settings.pilot_wall_time_s) + _LIVES_ON
        ca = await asyncio.to_thread(self._ca.read_text, encoding="ascii") if self._ca else None
        return NewMachine(
            settings.image,
            name_of(order.pilot_id),
            self._whose.vo,
            cores=order.cores,
            memory_mib=order.memory_mib + GUEST_MEMORY_MIB,
            gpus=len(order.gpus),
            gpu_model=models.pop() if len(models) == 1 else None,
            sites=[LOCAL if settings.here else self._whose.site],
            user_data=user_data(order.pilot_id, self._tickets.of(order.pilot_id), urls, ca),
            network=settings.network,
            lifetime_s=round(lasts.total_seconds()),
        )

    async def observe(self, pilot_id: str) -> Seen:
        async with self._database.read() as tx:
            row = await store.of_pilot(tx, pilot_id)
            pilot = await store_pilots.get(tx, pilot_id)
        has_spoken = pilot is not None and pilot.enrolled_by is not None
        return seen_of(row, has_spoken=has_spoken, now=self._clock.now())

    async def cancel(self, pilot_id: str) -> None:
        """Its deletion is written down; the room of machines sees to it for as long as it takes."""
        async with self._database.read() as tx:
            row = await store.of_pilot(tx, pilot_id)
        if row is not None and row.wanted != Wanted.DELETED:
            await self._machines.delete(self._whose.caller, row.id, why="Its pilot needs it no more.")

    async def clean(self, pilot_id: str) -> None:
        """Let go of the machine when nothing is left of it, and not before."""
        if (await self.observe(pilot_id)).life is Life.ENDED:
            await self.cancel(pilot_id)
        async with self._database.begin() as tx:
            row = await store.of_pilot(tx, pilot_id)
            if row is not None and Phase(row.phase) is Phase.DELETED:
                await store.update(tx, row.id, let_go=True)
                return
        if row is not None and row.wanted == Wanted.DELETED:
            raise Temporary(f"Its machine {row.name} is still being deleted: {row.message}", _SOON_S)


def name_of(pilot_id: str) -> str:
    """The machine's name, which is its host name too: one per pilot, so that there are never two."""
    return pilot_id.replace("_", "-").lower()


def seen_of(machine: Any | None, *, has_spoken: bool, now: datetime) -> Seen:
    """What a machine means for its pilot. Pure."""
    if machine is None:
        return Seen(Life.ABSENT)
    phase, said = Phase(machine.phase), f"Its machine {machine.name}: {machine.message}"
    if machine.wanted == Wanted.DELETED or phase in (Phase.FAILED, Phase.DELETING, Phase.DELETED):
        return Seen(Life.ENDED, said, batch_id=machine.name)
    if machine.running_since is None or phase in (Phase.WAITING, Phase.CREATING):
        return Seen(Life.QUEUED, said, batch_id=machine.name, again_s=_SOON_S)
    if phase in (Phase.STOPPED, Phase.STOPPING):
        return Seen(Life.ENDED, f"Its machine {machine.name} has stopped.", batch_id=machine.name)
    runs_for = now - machine.running_since
    if not has_spoken and machine.reason == "machines.guest_failed":
        return Seen(Life.ENDED, said, batch_id=machine.name)
    if not has_spoken and runs_for > _SPEECHLESS:
        silent = (
            f"Its machine {machine.name} runs, and nothing was heard from inside in {_SPEECHLESS.seconds // 60} min"
        )
        look = f"what it says: hansa machine console {machine.name}"
        return Seen(Life.ENDED, f"{silent}; {look}", batch_id=machine.name)
    again_s = _LATER_S if has_spoken else _SOON_S
    heard_s = runs_for.total_seconds()
    return Seen(Life.ALIVE, said, listened_s=heard_s, batch_id=machine.name, again_s=again_s)


def check_reachable(urls: Sequence[str], *, is_here: bool) -> None:
    """Raises Permanent where no machine could reach this server so, or would send its ticket in the clear."""
    hosts = [urlsplit(url) for url in urls]
    if all(one.netloc.startswith(_LOOPBACK) for one in hosts):
        raise Permanent(
            f"Machines cannot reach this server, which answers at {', '.join(urls)} only. Give it an address that they"
            " reach (server.url, or urls of the endpoint)."
        )
    if not is_here and any(one.scheme != "https" for one in hosts):
        raise Permanent(f"Machines at other sites reach this server by HTTPS only, not at {', '.join(urls)}.")


def refusal_of(fault: Fault, site: str) -> Exception:
    """Why no machine is made, and whether that passes. Pure."""
    said = " ".join(word for word in (fault.detail, fault.hint) if word)
    if fault.code is identity_errors.GRANT_EXPIRED:
        return LoginLapsed(f"{site}: {said}", _AGAIN_S)
    if fault.code is errors.BAD_SPEC:
        return Permanent(said)
    return Temporary(textwrap.shorten(said, 600, placeholder=" …"), _AGAIN_S)
