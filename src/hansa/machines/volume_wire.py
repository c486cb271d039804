"""Wire models of volumes and snapshots."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, MaxLen, MinLen

from hansa.kernel.status import Status
from hansa.kernel.wire import STRICT

VolumeName = Annotated[str, MinLen(1), MaxLen(63)]
Gib = Annotated[int, Ge(1), Le(1_000_000)]
GuestPath = Annotated[str, MinLen(2), MaxLen(200)]
"""An absolute path in a guest."""


@dataclass(frozen=True)
class MachineVolume:
    """A volume for a new machine. With ``size_gib`` a new one; without, the one of this ``name`` that there is."""

    __pydantic_config__: ClassVar = STRICT

    size_gib: Gib | None = None
    name: VolumeName | None = None
    path: GuestPath | None = None
    """Where the guest mounts it; an empty one gets a file system. None: it is there as a disk."""


@dataclass(frozen=True)
class NewVolume:
    """A disk of its own. It stays until it is deleted, whatever happens to machines that had it."""

    __pydantic_config__: ClassVar = STRICT

    name: VolumeName
    size_gib: Gib
    vo: Annotated[str, MaxLen(200)] | None = None
    vo_group: Annotated[str, MaxLen(200)] | None = None
    sites: Annotated[list[Annotated[str, MaxLen(200)]], MaxLen(100)] = field(default_factory=list)
    """The only sites that will do. Default: any."""


@dataclass(frozen=True)
class AttachVolume:
    """To which machine, at the same place; ``path``: where it is mounted, by drivers that mount volumes."""

    __pydantic_config__: ClassVar = STRICT

    machine: Annotated[str, MinLen(1), MaxLen(80)]
    path: GuestPath | None = None


@dataclass(frozen=True)
class Volume:
    """A volume. ``machine``: who has it, or shall have it; ``device``: what it is called in there."""

    name: str
    id: str
    owner: str
    status: Status
    size_gib: int
    created: datetime
    vo: str | None = None
    vo_group: str | None = None
    site: str | None = None
    endpoint: str | None = None
    machine: str | None = None
    path: str | None = None
    device: str | None = None
    provider_id: str | None = None
    ended: datetime | None = None
    version: int = 1


@dataclass(frozen=True)
class VolumePage:
    """Volumes, and the cursor of the next page."""

    items: list[Volume]
    next: str | None = None


@dataclass(frozen=True)
class NewSnapshot:
    """The disk of a machine as a version of a VM image of yours."""

    __pydantic_config__: ClassVar = STRICT

    name: Annotated[str, MinLen(1), MaxLen(63)] | None = None
    """Of the image, which is made where there is none. Default: the machine's name."""
    version: Annotated[str, MinLen(1), MaxLen(60)] | None = None
    """Default: the next number."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot on its way into the catalogue of VM images, where it is ``image@version``."""

    id: str
    machine: str
    image: str
    version: str
    status: Status
    site: str
    created: datetime


@dataclass(frozen=True)
class SnapshotPage:
    """Snapshots, the newest first."""

    items: list[Snapshot]
    next: str | None = None
