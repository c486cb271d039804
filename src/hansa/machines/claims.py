"""Volumes of a new machine: those that are made for it, and those that it gets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault
from hansa.kernel.ids import new_id
from hansa.kernel.status import Party
from hansa.machines import errors, volume_store
from hansa.machines.volume_wire import MachineVolume

NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PATH = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+")
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "usr", "var")
_NEVER = ("dev", "proc", "run", "sys")


def check_path(path: str) -> None:
    """Raise Fault ``machines.bad_spec`` on what cannot be a place for a volume."""
    parts = path.split("/")[1:]
    if not _PATH.fullmatch(path) or parts[0] in _NEVER or (len(parts) == 1 and parts[0] in _SYSTEM):
        hint = "An absolute path of letters, digits and . _ - that is not the system's own: /data, /home/debian/data."
        raise Fault(errors.BAD_SPEC, f"No volume can be at {path!r}.", hint=hint)


def check(wanted: Sequence[MachineVolume]) -> None:
    """Raise Fault ``machines.bad_spec`` on volumes that no machine can have."""
    for one in wanted:
        if one.size_gib is None and one.name is None:
            raise Fault(errors.BAD_SPEC, "A volume has a size or a name.", hint="--volume 10G:/data, or --volume data")
        if one.path is not None:
            check_path(one.path)
    for what in ([one.path for one in wanted if one.path], [one.name for one in wanted if one.name]):
        if len(what) != len(set(what)):
            raise Fault(errors.BAD_SPEC, "Two volumes have the same path, or name.", hint="Say each once.")


async def check_name(tx: Tx, owner_id: str, name: str) -> None:
    """Raise Fault where a new volume cannot have this name."""
    if not NAME.fullmatch(name):
        hint = "Small letters, digits and - only, a letter first."
        raise Fault(errors.BAD_SPEC, f"{name!r} cannot name a volume.", hint=hint)
    found = await volume_store.find(tx, owner_id, name)
    if found is not None and found.phase != "deleted":
        hint = f"Choose another name, or delete that one: hansa volume delete {name}"
        raise Fault(errors.VOLUME_TAKEN, f"You have a volume {name} already.", hint=hint)


async def places(tx: Tx, owner_id: str, wanted: Sequence[MachineVolume]) -> set[str]:
    """Where the machine has to be, as a volume is there. Raises Fault on a volume that it cannot get."""
    found = set()
    for one in wanted:
        if one.size_gib is not None:
            if one.name is not None:
                await check_name(tx, owner_id, one.name)
            continue
        row = await volume_store.find(tx, owner_id, one.name or "")
        if row is None or not row.wanted:
            raise Fault(errors.NO_VOLUME, f"There is no volume {one.name} of yours.", hint="hansa volume list")
        if row.machine_id is not None:
            hint = f"hansa volume detach {one.name}"
            raise Fault(errors.NOT_NOW, f"Another machine has the volume {one.name}.", hint=hint)
        if row.place is not None:
            found.add(row.place)
    if len(found) > 1:
        raise Fault(errors.BAD_SPEC, f"The volumes are at several places: {', '.join(sorted(found))}.")
    return found


async def take(tx: Tx, machine: Any, wanted: Sequence[MachineVolume], now: datetime) -> None:
    """Write whose they are, in the unit of work of the machine's creation."""
    for number, one in enumerate(wanted, 1):
        if one.size_gib is None:
            row: Any = await volume_store.find(tx, machine.owner_id, one.name or "", lock=True)
            await volume_store.update(tx, row.id, machine_id=machine.id, path=one.path, refused=None)
            await volume_store.QUEUE.changed(tx, now, row.id)
            continue
        name = one.name or await _free_name(tx, machine, number)
        values = {
            "id": new_id("volume"), "owner_id": machine.owner_id, "owner_name": machine.owner_name, "vo": machine.vo,
            "vo_group": machine.vo_group, "name": name, "size_gib": one.size_gib, "machine_id": machine.id,
            "path": one.path, "wanted": True, "seen": {}, "phase": "waiting", "reason": "machines.volume_waits",
            "message": f"It is made when {machine.name} runs.", "waiting_on": Party.HANSA.value, "since": now,
            "created": now, "due_at": now,
        }  # fmt: skip
        await volume_store.insert(tx, **values)


async def _free_name(tx: Tx, machine: Any, number: int) -> str:
    while True:
        name = f"{machine.name[:55]}-disk-{number}"
        found = await volume_store.find(tx, machine.owner_id, name)
        if found is None or found.phase == "deleted":
            return name
        number += 1
