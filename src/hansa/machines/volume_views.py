"""Rows of volumes and snapshots as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa.kernel.events import StoredEvent
from hansa.machines import volume_model as model
from hansa.machines.drivers.base import Volume as Seen
from hansa.machines.model import Phase as MachinePhase
from hansa.machines.model import site_of
from hansa.machines.views import status_of
from hansa.machines.volume_wire import Snapshot, Volume
from hansa.machines.wire import MachineExplanation


def volume_view(row: Any, machines: Mapping[str, str]) -> Volume:
    """``machines``: names by id."""
    site, _, endpoint = (row.place or "").partition("/")
    return Volume(
        name=row.name,
        id=row.id,
        owner=row.owner_name,
        status=status_of(row),
        size_gib=row.size_gib,
        created=row.created,
        vo=row.vo,
        vo_group=row.vo_group,
        site=site or None,
        endpoint=endpoint or None,
        machine=machines.get(row.machine_id or "", row.machine_id),
        path=row.path,
        device=row.seen.get("device") or None,
        provider_id=row.seen.get("provider_id"),
        ended=row.ended,
        version=row.version,
    )


def decided_of(row: Any, machine: Any | None) -> model.Row:
    """What decides about a volume. ``machine``: the row of the one that shall have it."""
    target = None
    if machine is not None:
        there = (MachinePhase.RUNNING, MachinePhase.STOPPED)
        target = model.Target(
            machine.id,
            machine.name,
            machine.place,
            machine.seen.get("provider_id"),
            MachinePhase(machine.phase) in there,
        )
    return model.Row(
        row.id, model.Phase(row.phase), row.wanted, row.place, row.size_gib, row.created, row.since, target,
        bool(row.seen.get("provider_id")), row.missing_since, row.refused,
    )  # fmt: skip


def seen_of(found: Seen) -> dict[str, Any]:
    """What is kept of an observation."""
    return {"provider_id": found.provider_id, "attached_to": found.attached_to, "device": found.device}


def explained(row: Any, machine: str | None, timeline: Sequence[StoredEvent]) -> MachineExplanation:
    """The explanation that CLI, API and portal show, the same text."""
    where = f"at {site_of(row.place)}" if row.place else "nowhere yet"
    lines = [f"It has {row.size_gib:,} GiB, {where}."]
    if machine is not None:
        path = f", at {row.path}" if row.path else ""
        lines.append(f"It belongs to {machine}{path}. When that is deleted it stays.")
    if row.vo:
        lines.append(f"It counts for {row.vo}.")
    lines += [f"{event.time:%Y-%m-%d %H:%M:%S} {event.actor}: {event.message}" for event in timeline]
    return MachineExplanation(f"volume/{row.name}", status_of(row), lines)


def snapshot_view(row: Any) -> Snapshot:
    return Snapshot(row.id, row.machine, row.image, row.version, status_of(row), site_of(row.place), row.created)
