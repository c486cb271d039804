"""What people do with snapshots: take one, look."""

from __future__ import annotations

import json
from typing import Any

from hansa.identity.authority import AuthorityService
from hansa.identity.model import Caller
from hansa.images import snapshots as catalogue
from hansa.images import store as image_store
from hansa.kernel import idempotency
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import DriverError, Fault, Temporary
from hansa.kernel.events import Event, EventLog
from hansa.kernel.http import decode_cursor, encode_cursor
from hansa.kernel.ids import new_id
from hansa.kernel.status import Party
from hansa.kernel.wire import encode
from hansa.machines import errors, volume_store
from hansa.machines import store as machine_store
from hansa.machines.controller import DEFAULT_LIFE, subject_of
from hansa.machines.drivers.base import Refused, Snapshots, able
from hansa.machines.model import Phase as MachinePhase
from hansa.machines.places import Drivers, Holder
from hansa.machines.snapshot_model import Phase
from hansa.machines.volume_views import snapshot_view
from hansa.machines.volume_wire import NewSnapshot, Snapshot, SnapshotPage


class SnapshotService:
    """Snapshots are their owner's alone; what becomes of them is in the catalogue."""

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, drivers: Drivers, authority: AuthorityService
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._drivers = drivers
        self._authority = authority

    async def create(self, caller: Caller, machine: str, new: NewSnapshot, key: str | None = None) -> Snapshot:
        """Have the machine's disk made a version of an image of the caller's; durable on return.

        Raises Fault ``machines.not_now``, ``machines.unable``, ``images.taken``, ``kernel.invalid``.
        """
        request = idempotency.fingerprint(
            "snapshots.create", json.dumps([machine, encode(new)], sort_keys=True).encode()
        )
        now = self._clock.now()
        async with self._database.read() as tx:
            found = await self._machine(tx, caller, machine)
        await self._check_can(found)
        async with self._database.begin() as tx:
            before = await idempotency.recall(tx, caller.user_id, key, request)
            if before is not None:
                return snapshot_view(await self._own(tx, caller, before))
            row = await self._machine(tx, caller, machine)
            site = row.place.partition("/")[0]
            await self._authority.require(tx, row.owner_id, now + DEFAULT_LIFE, vo=row.vo, site=site)
            owner, name = (caller.user_id, caller.name), new.name or row.name
            about = await self._about(tx, row)
            version_id, version = await catalogue.begin(tx, owner, name, new.version, about, now)
            values = {
                "id": new_id("snapshot"), "machine_id": row.id, "machine": row.name, "owner_id": row.owner_id,
                "vo": row.vo, "place": row.place, "image": name, "version": version, "image_version_id": version_id,
                "is_there": True, "phase": Phase.TAKING.value, "reason": "machines.snapshot_taking",
                "message": f"It is being taken at {site}.", "waiting_on": Party.SITE.value, "since": now,
                "created": now, "due_at": now,
            }  # fmt: skip
            await volume_store.insert_snapshot(tx, **values)
            said = f"{caller.name} takes a snapshot of it: {name}@{version}."
            event = Event(
                caller.actor, subject_of(row.id), row.phase, "machines.snapshot_asked", said, row.owner_id, row.vo,
                {"name": row.name},
            )  # fmt: skip
            await self._events.record(tx, event)
            await idempotency.remember(tx, self._clock, caller.user_id, key, request, values["id"])
            made: Any = await volume_store.get_snapshot(tx, values["id"])
        return snapshot_view(made)

    async def _about(self, tx: Tx, row: Any) -> dict[str, Any]:
        """What the image of the machine was said to be is true of its snapshot."""
        about: dict[str, Any] = {
            "os": "", "os_name": "", "os_version": "", "licence": "", "contact": "", "gpu_drivers": [],
        }  # fmt: skip
        version = await image_store.get_version(tx, row.image_version_id) if row.image_version_id else None
        image = await image_store.get_image(tx, version.image_id) if version is not None else None
        if image is not None:
            about = dict(image.about)
        described = f"A snapshot of a machine that was started of {row.image['name']} {row.image['version']}".strip()
        about |= {"title": row.name, "description": f"{described}.", "arch": row.image["arch"] or "x86_64"}
        return about | {"login": row.image["login"]}

    async def _check_can(self, row: Any) -> None:
        site = row.place.partition("/")[0]
        try:
            able(await self._drivers.at(row.place, Holder(row.owner_id, row.vo)), Snapshots)
        except Refused as error:
            raise Fault(errors.UNABLE, f"{site}: {error}") from error
        except DriverError as error:
            code = errors.SITE_AWAY if isinstance(error, Temporary) else errors.UNABLE
            raise Fault(code, f"{site}: {error}") from error

    async def list_snapshots(self, caller: Caller, cursor: str | None, limit: int) -> SnapshotPage:
        """The caller's snapshots, the newest first."""
        after = decode_cursor(cursor, str)
        async with self._database.read() as tx:
            rows = await volume_store.list_snapshots(tx, caller.user_id, str(after[0]) if after else None, limit)
        following = encode_cursor(rows[-1].id) if len(rows) == limit else None
        return SnapshotPage([snapshot_view(row) for row in rows], following)

    async def get(self, caller: Caller, snapshot_id: str) -> Snapshot:
        """One snapshot, by its id."""
        async with self._database.read() as tx:
            return snapshot_view(await self._own(tx, caller, snapshot_id))

    async def _own(self, tx: Tx, caller: Caller, snapshot_id: str) -> Any:
        row = await volume_store.get_snapshot(tx, snapshot_id) if caller.pilot is None else None
        if row is None or row.owner_id != caller.user_id:
            raise Fault(errors.NO_SNAPSHOT, f"There is no snapshot {snapshot_id[:80]} of yours.")
        return row

    async def _machine(self, tx: Tx, caller: Caller, name: str) -> Any:
        row = await machine_store.find(tx, caller.user_id, name) if caller.pilot is None else None
        if row is None:
            raise Fault(errors.NOT_FOUND, f"There is no machine {name[:80]} of yours.", hint="hansa machine list")
        if row.place is None or MachinePhase(row.phase) not in (MachinePhase.RUNNING, MachinePhase.STOPPED):
            hint = f"hansa machine explain {row.name}"
            raise Fault(errors.NOT_NOW, f"{row.name} is {row.phase}: it has no disk to keep now.", hint=hint)
        return row
