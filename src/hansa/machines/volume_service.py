"""What people do with volumes: create, look, attach, detach, delete, explain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.identity import vo_store
from hansa.identity.authority import AuthorityService
from hansa.identity.model import Caller
from hansa.identity.vos import VoService
from hansa.kernel import idempotency
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import DriverError, Fault, Temporary
from hansa.kernel.events import Event, EventLog
from hansa.kernel.http import decode_cursor, encode_cursor
from hansa.kernel.ids import new_id
from hansa.kernel.status import Party
from hansa.kernel.wire import encode
from hansa.machines import accounts, claims, errors, placing, volume_store
from hansa.machines import store as machine_store
from hansa.machines.controller import DEFAULT_LIFE
from hansa.machines.drivers.base import Can, Refused, Volumes, able
from hansa.machines.model import Phase as MachinePhase
from hansa.machines.places import Drivers, Holder
from hansa.machines.volume_controller import subject_of
from hansa.machines.volume_model import Phase
from hansa.machines.volume_views import explained, volume_view
from hansa.machines.volume_wire import AttachVolume, NewVolume, Volume, VolumePage
from hansa.machines.wire import MachineExplanation, NewMachine
from hansa.placement.choose import choose, explain_all
from hansa.sites.service import LOCAL, SiteService

_SECOND = 1
_HAVING = (MachinePhase.RUNNING, MachinePhase.STOPPED, MachinePhase.CREATING, MachinePhase.STARTING,
           MachinePhase.STOPPING, MachinePhase.WAITING)  # fmt: skip


class VolumeService:
    """Volumes are their owner's alone, as machines are."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        drivers: Drivers,
        sites: SiteService,
        vos: VoService,
        authority: AuthorityService,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._drivers = drivers
        self._sites = sites
        self._vos = vos
        self._authority = authority

    async def create(self, caller: Caller, new: NewVolume, key: str | None = None) -> Volume:
        """Have a volume made at the best site that has room for it; durable on return.

        Raises Fault ``machines.bad_spec``, ``machines.volume_taken``, ``machines.no_site``, and those of the VO and
        of the grants under which it is.
        """
        request = idempotency.fingerprint("volumes.create", json.dumps(encode(new), sort_keys=True).encode())
        now = self._clock.now()
        async with self._database.begin() as tx:
            before = await idempotency.recall(tx, caller.user_id, key, request)
            if before is not None:
                return await self._view(tx, await self._own(tx, caller, before))
            vo = await self._vos.check_may_start(tx, caller, new.vo)
            await claims.check_name(tx, caller.user_id, new.name)
            place = await self._place(tx, caller, new, vo, now)
            site = place.partition("/")[0]
            await self._authority.require(tx, caller.user_id, now + DEFAULT_LIFE, vo=vo, site=site)
            values: dict[str, Any] = {
                "id": new_id("volume"), "owner_id": caller.user_id, "owner_name": caller.name, "vo": vo,
                "vo_group": new.vo_group, "name": new.name, "size_gib": new.size_gib, "place": place, "wanted": True,
                "seen": {}, "phase": Phase.CREATING.value, "reason": "machines.volume_creating",
                "message": f"It is being made at {site}.", "waiting_on": Party.SITE.value, "since": now, "created": now,
                "due_at": now,
            }  # fmt: skip
            await volume_store.insert(tx, **values)
            row: Any = await volume_store.get(tx, values["id"])
            await accounts.reserve_volume(tx, row, place, now)
            await self._record(tx, caller, row, "machines.volume_created", f"{caller.name} created it. {row.message}")
            await idempotency.remember(tx, self._clock, caller.user_id, key, request, row.id)
            return await self._view(tx, row)

    async def _place(self, tx: Tx, caller: Caller, new: NewVolume, vo: str | None, now: datetime) -> str:
        """The best place that has volumes. What only speaks against one more machine does not count."""
        wish = placing.Wish(1, 1)
        asked = placing.request_of(NewMachine("volume", sites=new.sites), wish, vo, _SECOND, None)
        vos = [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
        sites = await self._sites.serving(tx, caller.user_id, vos)
        local = list(self._drivers.local)
        asking = placing.Asking(caller.user_id, caller.name, vo, new.vo_group or "", None)
        found = []
        for one in await placing.candidates(tx, sites, local, asking, now):
            kept = tuple(no for no in one.refusals if no.reason not in ("sites.machine_limit", "sites.image_denied"))
            if one.site != LOCAL or self._has_volumes(one.endpoint):
                found.append(replace(one, refusals=kept))
        order = placing.order(choose(asked, found), local) if found else []
        if not order:
            verdicts = explain_all(choose(asked, found)) if found else []
            said = "; ".join(f"{one.site}: {' '.join(two.message for two in one.findings)}" for one in verdicts[:10])
            raise Fault(errors.NO_SITE, f"No site can have the volume. {said}".strip(), hint="hansa site list")
        return order[0]

    def _has_volumes(self, endpoint: str | None) -> bool:
        driver = self._drivers.local.get(endpoint or "")
        return driver is not None and Can.VOLUMES in driver.capabilities().can

    async def list_volumes(self, caller: Caller, cursor: str | None, limit: int) -> VolumePage:
        """The caller's volumes at all sites, by name."""
        after = decode_cursor(cursor, str, str)
        start = (str(after[0]), str(after[1])) if after else None
        async with self._database.read() as tx:
            rows = await volume_store.listed(tx, caller.user_id, start, limit)
            names = await _names(tx, rows)
        following = encode_cursor(rows[-1].name, rows[-1].id) if len(rows) == limit else None
        return VolumePage([volume_view(row, names) for row in rows], following)

    async def get(self, caller: Caller, name: str) -> Volume:
        """One volume, by name or id."""
        async with self._database.read() as tx:
            return await self._view(tx, await self._own(tx, caller, name))

    async def attach(self, caller: Caller, name: str, how: AttachVolume) -> Volume:
        """Give it to a machine at the same place. Raises Fault ``machines.not_now``, ``machines.unable``."""
        if how.path is not None:
            claims.check_path(how.path)
        now = self._clock.now()
        async with self._database.read() as tx:
            row = await self._own(tx, caller, name)
            machine = await self._machine(tx, caller, how.machine)
        await self._check_path(row, how.path)
        async with self._database.begin() as tx:
            row = await self._own(tx, caller, name, lock=True)
            machine = await self._machine(tx, caller, how.machine)
            _check_fits(row, machine)
            if row.machine_id != machine.id or row.path != how.path or row.refused:
                await volume_store.update(tx, row.id, machine_id=machine.id, path=how.path, refused=None)
                await volume_store.QUEUE.changed(tx, now, row.id)
                said = f"{caller.name} gives it to {machine.name}."
                await self._record(tx, caller, row, "machines.attach_asked", said)
            return await self._view(tx, await volume_store.get(tx, row.id))

    async def _check_path(self, row: Any, path: str | None) -> None:
        """Nobody but the guest itself mounts a disk in a guest that runs already."""
        if path is None or row.place is None:
            return
        site = row.place.partition("/")[0]
        try:
            device = able(await self._drivers.at(row.place, Holder(row.owner_id, row.vo)), Volumes).device(row.id)
        except Refused as error:
            raise Fault(errors.UNABLE, f"{site}: {error}", hint="Attach it without a path.") from error
        except DriverError as error:
            code = errors.SITE_AWAY if isinstance(error, Temporary) else errors.UNABLE
            raise Fault(code, f"{site}: {error}") from error
        if device:
            hint = f"Attach it without a path; in the machine: sudo mount {device} {path}"
            raise Fault(errors.UNABLE, f"Nobody at {site} can mount it in a machine that runs.", hint=hint)

    async def detach(self, caller: Caller, name: str) -> Volume:
        """Take it from its machine. Unmount it there before: a guest that holds on to it keeps it."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await self._own(tx, caller, name, lock=True)
            if row.machine_id is not None:
                await volume_store.update(tx, row.id, machine_id=None, path=None, refused=None)
                await volume_store.QUEUE.changed(tx, now, row.id)
                await self._record(
                    tx, caller, row, "machines.detach_asked", f"{caller.name} takes it from its machine."
                )
                row = await volume_store.get(tx, row.id)
            return await self._view(tx, row)

    async def delete(self, caller: Caller, name: str) -> Volume:
        """Remove it and all that is on it. One that a machine has is detached first: Fault ``machines.not_now``."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await self._own(tx, caller, name, lock=True)
            if row.machine_id is not None and row.phase not in (Phase.WAITING, Phase.FAILED):
                names = await _names(tx, [row])
                said = f"{names.get(row.machine_id, 'A machine')} has the volume {row.name}."
                raise Fault(errors.NOT_NOW, said, hint=f"hansa volume detach {row.name}")
            if row.wanted:
                await volume_store.update(tx, row.id, wanted=False, machine_id=None)
                await volume_store.QUEUE.changed(tx, now, row.id)
                await self._record(tx, caller, row, "machines.volume_delete_asked", f"{caller.name} deleted it.")
                row = await volume_store.get(tx, row.id)
            return await self._view(tx, row)

    async def explain(self, caller: Caller, name: str) -> MachineExplanation:
        """Why it is where it is, and as it is."""
        async with self._database.read() as tx:
            row = await self._own(tx, caller, name)
            timeline = await self._events.timeline(tx, subject_of(row.id), 30)
            names = await _names(tx, [row])
        return explained(row, names.get(row.machine_id or ""), timeline)

    async def _own(self, tx: Tx, caller: Caller, name: str, *, lock: bool = False) -> Any:
        row = await volume_store.find(tx, caller.user_id, name, lock=lock) if caller.pilot is None else None
        if row is None:
            raise Fault(errors.NO_VOLUME, f"There is no volume {name[:80]} of yours.", hint="hansa volume list")
        return row

    async def _machine(self, tx: Tx, caller: Caller, name: str) -> Any:
        row = await machine_store.find(tx, caller.user_id, name)
        if row is None:
            raise Fault(errors.NOT_FOUND, f"There is no machine {name[:80]} of yours.", hint="hansa machine list")
        return row

    async def _view(self, tx: Tx, row: Any) -> Volume:
        return volume_view(row, await _names(tx, [row]))

    async def _record(self, tx: Tx, caller: Caller, row: Any, reason: str, message: str) -> None:
        event = Event(
            caller.actor, subject_of(row.id), row.phase, reason, message, row.owner_id, row.vo, {"name": row.name}
        )
        await self._events.record(tx, event)


async def _names(tx: Tx, rows: Sequence[Any]) -> dict[str, str]:
    """The names of the machines that have these volumes, by id."""
    ids = {row.machine_id for row in rows if row.machine_id}
    if not ids:
        return {}
    table = machine_store.machines
    found = (await tx.execute(sa.select(table.c.id, table.c.name).where(table.c.id.in_(ids)))).all()
    return {row.id: row.name for row in found}


def _check_fits(volume: Any, machine: Any) -> None:
    """Raise Fault where a machine cannot have a volume now."""
    if not volume.wanted:
        raise Fault(errors.NOT_NOW, f"{volume.name} is being deleted.")
    if volume.machine_id not in (None, machine.id):
        said = f"Another machine has the volume {volume.name}."
        raise Fault(errors.NOT_NOW, said, hint=f"hansa volume detach {volume.name}")
    if MachinePhase(machine.phase) not in _HAVING or machine.wanted == "deleted":
        said = f"{machine.name} is {machine.phase}: it cannot get a volume now."
        raise Fault(errors.NOT_NOW, said, hint=f"hansa machine explain {machine.name}")
    if volume.place is not None and volume.place != machine.place:
        said = f"{volume.name} is at {volume.place}, and {machine.name} at {machine.place or 'no site yet'}."
        raise Fault(errors.NOT_NOW, said, hint="A volume goes only to machines at its own site.")
