"""Wire models of machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, MaxLen, MinLen

from hansa.kernel.status import Status
from hansa.kernel.wire import STRICT
from hansa.machines.volume_wire import MachineVolume

MachineName = Annotated[str, MinLen(1), MaxLen(63)]
"""Small letters, digits and ``-``: it is the guest's host name."""
Word = Annotated[str, MinLen(1), MaxLen(200)]
SshKey = Annotated[str, MinLen(16), MaxLen(16_384)]
DAY_S = 86_400
DEFAULT_LIFETIME_S = 7 * DAY_S


USER_DATA_LETTERS = 512 * 1024


@dataclass(frozen=True)
class NewMachine:
    """A machine to start. Its size is a ``flavour`` (``small``, or one of a site's own), or a wish."""

    __pydantic_config__: ClassVar = STRICT

    image: Word
    """A VM image of the catalogue, ``NAME`` or ``NAME@VERSION``; ``site:NAME`` for one of a site's own."""
    name: MachineName | None = None
    """Default: made of the image's name."""
    vo: Annotated[str, MaxLen(200)] | None = None
    vo_group: Annotated[str, MaxLen(200)] | None = None
    flavour: Word | None = None
    cores: Annotated[int, Ge(1), Le(100_000)] | None = None
    memory_mib: Annotated[int, Ge(1), Le(100_000_000)] | None = None
    disk_gib: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """Of the root disk; 0: as the flavour or the image says."""
    gpus: Annotated[int, Ge(0), Le(1000)] = 0
    gpu_model: Word | None = None
    sites: Annotated[list[Word], MaxLen(100)] = field(default_factory=list)
    """The only sites that will do. Default: any."""
    preferred_sites: Annotated[list[Word], MaxLen(100)] = field(default_factory=list)
    """Rather there, the most wanted first."""
    near_data: Annotated[list[Word], MaxLen(100)] = field(default_factory=list)
    """Data sets that it is better to be near to: at the site (its tag ``data:NAME``), or else in its country."""
    user_data: Annotated[str, MaxLen(USER_DATA_LETTERS)] = ""
    """For cloud-init: ``#cloud-config``, a script. How much of it a site takes differs: 15 to 512 KiB."""
    ssh_keys: Annotated[list[SshKey], MaxLen(50)] = field(default_factory=list)
    network: Word | None = None
    public: bool = False
    """Whether it gets a public address."""
    ports: Annotated[list[Annotated[str, MaxLen(40)]], MaxLen(100)] = field(default_factory=list)
    """Open from outside besides SSH: ``443``, ``8000-8010``, ``53/udp``."""
    restart: bool = False
    """Whether it is started again when it fails, and made anew when it is lost."""
    volumes: Annotated[list[MachineVolume], MaxLen(20)] = field(default_factory=list)
    """Disks of their own, which outlive it."""
    lifetime_s: Annotated[int, Ge(0), Le(10 * 366 * DAY_S)] | None = None
    """Seconds until it is stopped; a week later it is deleted. 0: never. Default: seven days, or less where the policy
    of its site has it deleted sooner. A site that deletes machines sooner than is asked for is not chosen."""


@dataclass(frozen=True)
class MachineSize:
    """What a machine has. ``flavour``: its site's own name for it."""

    cores: int
    memory_mib: int
    disk_gib: int = 0
    gpus: int = 0
    flavour: str | None = None


@dataclass(frozen=True)
class SshAccess:
    """How to sign in; ``jump`` is ``user@host:port`` to go through. ``host_keys``: where the guest told them."""

    host: str
    user: str
    port: int = 22
    host_keys: list[str] = field(default_factory=list)
    jump: str | None = None


@dataclass(frozen=True)
class Machine:
    """A machine. ``wanted`` is what its owner wants of it; ``status`` how it is."""

    name: str
    id: str
    owner: str
    status: Status
    wanted: str
    image: str
    image_version: str
    size: MachineSize
    created: datetime
    vo: str | None = None
    vo_group: str | None = None
    site: str | None = None
    endpoint: str | None = None
    """The site's endpoint, where it has several."""
    private: list[str] = field(default_factory=list)
    public: list[str] = field(default_factory=list)
    ssh: SshAccess | None = None
    guest: str = "unknown"
    """How far its first boot has come: ``booting``, ``ready``, ``failed``, ``unknown``."""
    restart: bool = False
    ports: list[str] = field(default_factory=list)
    running_since: datetime | None = None
    expires: datetime | None = None
    """When it is stopped, or where that is sooner deleted by its site's policy; None: never."""
    ended: datetime | None = None
    provider_id: str | None = None
    version: int = 1


@dataclass(frozen=True)
class MachinePage:
    """Machines, and the cursor of the next page."""

    items: list[Machine]
    next: str | None = None


@dataclass(frozen=True)
class MachineChange:
    """What shall be different; what is not said stays."""

    __pydantic_config__: ClassVar = STRICT

    name: MachineName | None = None
    lifetime_s: Annotated[int, Ge(0), Le(10 * 366 * DAY_S)] | None = None
    """Seconds from now until it is stopped. 0: never."""
    restart: bool | None = None


@dataclass(frozen=True)
class Resize:
    """The size that it shall have: as of :class:`NewMachine`."""

    __pydantic_config__: ClassVar = STRICT

    flavour: Word | None = None
    cores: Annotated[int, Ge(1)] | None = None
    memory_mib: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True)
class Reboot:
    """``hard``: without asking the guest."""

    __pydantic_config__: ClassVar = STRICT

    hard: bool = False


@dataclass(frozen=True)
class ConsoleText:
    """The last lines of a console."""

    text: str


@dataclass(frozen=True)
class MachineExplanation:
    """Why a machine or a volume is as it is, in sentences."""

    subject: str
    status: Status
    lines: list[str]


@dataclass(frozen=True)
class PlannedPlace:
    """A place where a machine could run, and what it would get there. ``price``: of a core hour, where it is told."""

    site: str
    size: MachineSize
    endpoint: str | None = None
    price: float | None = None


@dataclass(frozen=True)
class RefusedPlace:
    """A place where it cannot run: why, and what would change that."""

    site: str
    reasons: list[str]
    remedies: list[str]
    endpoint: str | None = None


@dataclass(frozen=True)
class MachinePlan:
    """What would be started, where (the best first), and why not elsewhere."""

    image: str
    image_version: str
    login: str
    vo: str | None
    places: list[PlannedPlace]
    refused: list[RefusedPlace]


@dataclass(frozen=True)
class MachineUsage:
    """What a machine used over its time, where its provider tells: stretches, the older ones longer.

    Rates are means of a stretch, memory is the most that was seen in it; a list is missing where nobody counts it.
    Where there are no stretches, ``message`` says why.
    """

    machine: str
    cores_asked: int
    memory_asked_mib: int
    started: datetime | None = None
    """Of the first stretch."""
    ends_s: list[float] = field(default_factory=list)
    """When each stretch ends, in seconds since then."""
    cores: list[float] = field(default_factory=list)
    """Busy ones."""
    memory_mib: list[float] = field(default_factory=list)
    read_mib_s: list[float] | None = None
    written_mib_s: list[float] | None = None
    message: str = ""
