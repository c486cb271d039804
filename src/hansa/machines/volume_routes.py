"""HTTP routes of volumes and snapshots."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import API, provided
from hansa.machines.snapshot_service import SnapshotService
from hansa.machines.volume_service import VolumeService
from hansa.machines.volume_wire import (
    AttachVolume,
    NewSnapshot,
    NewVolume,
    Snapshot,
    SnapshotPage,
    Volume,
    VolumePage,
)
from hansa.machines.wire import MachineExplanation

router = APIRouter(prefix=API, tags=["machines"])
Volumes = Annotated[VolumeService, Depends(provided(VolumeService))]
Snapshots = Annotated[SnapshotService, Depends(provided(SnapshotService))]
Reader = Annotated[Caller, allowed(Permission.MACHINES_READ)]
Writer = Annotated[Caller, allowed(Permission.MACHINES_WRITE)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Name = Annotated[str, Path(min_length=1, max_length=80)]
Key = Annotated[str | None, Header(max_length=200)]


@router.post("/volumes", status_code=202)
async def create_volume(body: NewVolume, who: Writer, volumes: Volumes, idempotency_key: Key = None) -> Volume:
    """Have a volume made. Durable when answered; GET tells how far it has come."""
    return await volumes.create(who, body, idempotency_key)


@router.get("/volumes")
async def list_volumes(who: Reader, volumes: Volumes, after: str | None = None, limit: Limit = 100) -> VolumePage:
    """The caller's volumes at all sites, by name."""
    return await volumes.list_volumes(who, after, limit)


@router.get("/volumes/{volume}")
async def get_volume(volume: Name, who: Reader, volumes: Volumes, response: Response) -> Volume:
    """One volume, by name or id; its version is the ETag."""
    found = await volumes.get(who, volume)
    response.headers["ETag"] = f'"{found.version}"'
    return found


@router.post("/volumes/{volume}/attach", status_code=202)
async def attach_volume(volume: Name, body: AttachVolume, who: Writer, volumes: Volumes) -> Volume:
    """Give it to a machine at the same site."""
    return await volumes.attach(who, volume, body)


@router.post("/volumes/{volume}/detach", status_code=202)
async def detach_volume(volume: Name, who: Writer, volumes: Volumes) -> Volume:
    """Take it from its machine."""
    return await volumes.detach(who, volume)


@router.delete("/volumes/{volume}", status_code=202)
async def delete_volume(volume: Name, who: Writer, volumes: Volumes) -> Volume:
    """Remove it and what is on it; one that a machine has is detached before."""
    return await volumes.delete(who, volume)


@router.get("/volumes/{volume}/explain")
async def explain_volume(volume: Name, who: Reader, volumes: Volumes) -> MachineExplanation:
    """Why it is where and as it is."""
    return await volumes.explain(who, volume)


@router.post("/machines/{machine}/snapshots", status_code=202)
async def create_snapshot(
    machine: Name, body: NewSnapshot, who: Writer, snapshots: Snapshots, idempotency_key: Key = None
) -> Snapshot:
    """Make the machine's disk a version of a VM image of yours, of which machines start."""
    return await snapshots.create(who, machine, body, idempotency_key)


@router.get("/snapshots")
async def list_snapshots(
    who: Reader, snapshots: Snapshots, after: str | None = None, limit: Limit = 100
) -> SnapshotPage:
    """The caller's snapshots, the newest first."""
    return await snapshots.list_snapshots(who, after, limit)


@router.get("/snapshots/{snapshot}")
async def get_snapshot(snapshot: Name, who: Reader, snapshots: Snapshots) -> Snapshot:
    """How far a snapshot has come."""
    return await snapshots.get(who, snapshot)
