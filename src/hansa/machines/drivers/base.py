"""What a provider of machines promises: one Protocol for their life, one for each thing more that it can do.

Everything is asked by an *idempotency key* that the caller chose before: a driver writes it on what it makes (a tag, a
folder's name) and finds it again by it, so that a call may be repeated after any crash, by any process. Drivers keep
nothing in memory that a new process would miss. Errors are :class:`Temporary` or :class:`Permanent`, of which
:class:`Refused` says by a stable code what was wrong; absent is never an error of ``delete`` and ``release``.

Calls return when the provider has taken the order; ``observe`` tells when it is done. A driver blocks no event loop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from hansa.kernel.errors import Permanent, Temporary

__all__ = ["Permanent", "Temporary"]

Key = str
"""An idempotency key: letters, digits, ``_`` and ``-``, at most 63; usable as a file's name."""


class Why(StrEnum):
    """Why a provider refuses for good; the code is the reason that people see."""

    QUOTA = "machines.quota"
    """The project's quota there is used up."""
    NO_HOST = "machines.no_host"
    """The provider has no room for such a machine now."""
    FLAVOUR = "machines.flavour"
    IMAGE = "machines.image"
    """It does not have the image, or cannot use it."""
    USER_DATA = "machines.user_data"
    """The user data is larger than it takes."""
    SIGN_IN = "machines.sign_in"
    """It does not accept the credential."""
    NETWORK = "machines.network"
    """The network asked for is not there, or no address is left."""
    UNABLE = "machines.unable"
    """It cannot do this at all."""
    REFUSED = "machines.refused"
    """Any other no, in the provider's own words."""


class Refused(Permanent):
    """It will not work here, for this reason; perhaps at another place."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why


class Can(StrEnum):
    """What a driver may be able to do beyond ensure, observe and delete; each has its Protocol below."""

    POWER = "power"
    RESIZE = "resize"
    SNAPSHOT = "snapshot"
    VOLUMES = "volumes"
    ADDRESSES = "addresses"
    """Public addresses, given and taken back."""
    PORTS = "ports"
    """Ports are closed unless opened."""
    NETWORKS = "networks"
    """Private networks, made by name."""
    CONSOLE = "console"
    IMAGES = "images"
    """Images are brought to the provider before machines start of them."""
    GPUS = "gpus"
    METERS = "meters"
    """It can tell what a machine uses."""


@dataclass(frozen=True)
class Capabilities:
    """What a driver can do at its place, as it is configured. No I/O is needed to say it."""

    can: frozenset[Can] = frozenset()
    user_data_bytes: int = 65_535
    """The most user data that it takes, before any encoding."""
    is_open: bool = False
    """Whether all ports of a machine are open to whoever can reach it. Else, and without PORTS, only SSH is."""
    is_isolated: bool = True
    """Whether somebody else's code may run in its machines. False: for its owner, or trusted users, only."""
    note: str = ""
    """What a user should know, in a sentence: how machines are run, and why not better."""


@dataclass(frozen=True)
class Image:
    """What a machine is started of. At least one of ``path`` and ``provider_id`` is there."""

    checksum: str
    """``sha256:…`` of the content, whatever names it may have."""
    path: Path | None = None
    """The content on this computer: read-only, whole, its checksum checked."""
    provider_id: str | None = None
    """The provider's own id of the same content, where it has been brought there (or is the provider's own)."""
    format: str = "qcow2"
    """Of ``path``: qcow2, raw, or tar (a root file system)."""
    arch: str = "x86_64"
    login: str = "root"
    """The user that its cloud-init gives the SSH keys to."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What a provider should write on it, in OpenStack's words (``os_distro``)."""
    min_disk_gib: int = 0
    """The smallest root disk that it fits on; 0: not known."""
    is_public: bool = False
    """A user named the provider's own: it is started only where the provider offers it to everybody, as another
    user's snapshot, or what a VO has withdrawn, may be found in the same project."""


@dataclass(frozen=True)
class Size:
    """What a machine should have. 0: whatever there is."""

    cores: int = 1
    memory_mib: int = 1024
    disk_gib: int = 0
    """Of the root disk; 0: as large as the image, or the flavour, makes it."""
    gpus: int = 0
    flavour: str | None = None
    """The provider's flavour to use, by name; None: where flavours do not exist."""


@dataclass(frozen=True)
class MachineSpec:
    """A machine as it should be. It is not changed by a second ``ensure`` with the same key."""

    name: str
    """A host name of letters, digits and ``-``: what the guest calls itself."""
    image: Image
    size: Size = Size()
    user_data: bytes = b""
    """For cloud-init, as it is; the driver adds nothing but ``ssh_keys`` and the host name, by its metadata."""
    ssh_keys: tuple[str, ...] = ()
    """Public keys, in the format of authorized_keys."""
    network: str | None = None
    """A private network: one of :class:`Networks`, or the provider's own by name. None: the driver's usual one."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """For the site's administrator: whose it is (``user``, ``vo``, ``hansa``). No secrets."""
    expires: datetime | None = None
    """When Hansa will delete it: written beside the tags, for the site's own sweeps."""


class Life(StrEnum):
    """How a machine is, as its provider sees it."""

    BUILDING = "building"
    RUNNING = "running"
    STOPPED = "stopped"
    CHANGING = "changing"
    """It is rebooted, resized or the like: look again."""
    FAILED = "failed"
    """The provider has given it up; it only remains to be deleted."""
    DELETING = "deleting"


@dataclass(frozen=True)
class Ssh:
    """How to sign in. ``host_keys``: what the guest said they are (``ssh-ed25519 AAAA…``), where it can be known."""

    host: str
    user: str
    port: int = 22
    host_keys: tuple[str, ...] = ()
    jump: str | None = None
    """``user@host:port`` to go through, where ``host`` is not reachable from here."""


class Guest(StrEnum):
    """How far the guest's own first boot (cloud-init) has come."""

    UNKNOWN = "unknown"
    """The provider cannot see inside."""
    BOOTING = "booting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Observed:
    """A machine as it is."""

    provider_id: str
    life: Life
    message: str = ""
    """The provider's own words, where something is wrong or under way."""
    private: tuple[str, ...] = ()
    """Addresses on private networks, IPv4 before IPv6."""
    public: tuple[str, ...] = ()
    ssh: Ssh | None = None
    """None: no address yet, or no way in from here."""
    guest: Guest = Guest.UNKNOWN
    guest_message: str = ""
    """Where its first boot failed: the guest's own words."""
    flavour: str = ""
    size: Size | None = None
    created: datetime | None = None
    surplus: tuple[str, ...] = ()
    """Provider ids of more machines with the same key: see :func:`adopt`."""


class Progress(StrEnum):
    """How far something has come."""

    DONE = "done"
    PENDING = "pending"


@dataclass(frozen=True)
class Snapshot:
    """A disk as it was. ``path``: on this computer; ``provider_id``: at the provider."""

    progress: Progress
    provider_id: str | None = None
    path: Path | None = None
    format: str = "qcow2"
    size_bytes: int = 0
    min_disk_gib: int = 0
    """The smallest root disk that machines of it need; 0: not known."""


@dataclass(frozen=True)
class Volume:
    """A disk of its own. ``attached_to``: provider id of the machine that has it; ``device``: its name in there."""

    provider_id: str
    size_gib: int
    is_ready: bool = True
    attached_to: str | None = None
    device: str = ""
    surplus: int = 0
    """How many more there are of the same key: ``ensure_volume`` removes them."""
    failed: str = ""
    """Where the provider has given it up: its own words. It only remains to be deleted."""


@dataclass(frozen=True)
class Meter:
    """What a machine has used since it was last started, as its provider counts it, and its memory now."""

    cpu_s: float
    memory_mib: float
    read_mib: float | None = None
    """From disks, and ``written_mib`` to them; None where nobody counts it."""
    written_mib: float | None = None


@dataclass(frozen=True)
class Opening:
    """Ports of a machine that the world may reach. ``cidr``: from where."""

    first: int
    last: int
    protocol: str = "tcp"
    cidr: str = "0.0.0.0/0"


@runtime_checkable
class Machines(Protocol):
    """The life of machines at one place, with one credential. A driver may be used by many tasks at once."""

    def capabilities(self) -> Capabilities:
        """What it can do. No I/O."""

    async def ensure(self, spec: MachineSpec, key: Key) -> Observed:
        """See to it that there is a machine of this key: looked for first, made where there is none.

        Returns as soon as the provider has taken the order; it may be BUILDING. Where creation is not idempotent
        and its answer is lost, the next call finds what was made. Raises Temporary, Permanent, :class:`Refused`.
        """

    async def observe(self, key: Key) -> Observed | None:
        """How it is; None: there is none. A machine that is FAILED is told as such until it is deleted."""

    async def trim(self, key: Key) -> Progress:
        """Delete the surplus that ``observe`` tells of, and nothing else."""

    async def delete(self, key: Key) -> Progress:
        """Remove every machine of this key, with what was made for it alone: disks, ports, key pairs, addresses.

        Volumes stay, detached. DONE only when nothing is left; absent is DONE.
        """

    async def list_keys(self, prefix: str = "") -> Sequence[Key]:
        """Keys of all machines here that Hansa made: for the sweep that finds what nobody remembers."""

    async def close(self) -> None:
        """Let go of connections. Machines go on."""


@runtime_checkable
class Power(Protocol):
    """Each is fine where it is so already. Raises Refused UNABLE on a machine that is not there."""

    async def stop(self, key: Key) -> Progress:
        """Shut it down: the guest is asked first, and cut off after a while. Disk and addresses stay."""

    async def start(self, key: Key) -> Progress: ...

    async def reboot(self, key: Key, *, hard: bool = False) -> None:
        """Not idempotent by nature: once for each call."""


@runtime_checkable
class Resizes(Protocol):
    """Gives a machine another size; it may be stopped meanwhile."""

    async def resize(self, key: Key, size: Size) -> Progress:
        """DONE when it has that size. Raises Refused FLAVOUR or QUOTA, and the machine stays as it was."""


@runtime_checkable
class Snapshots(Protocol):
    """Disks as images."""

    async def snapshot(self, key: Key, snapshot_key: Key, name: str) -> Snapshot:
        """Its root disk as an image of ``snapshot_key``, made once. Asked again while it is PENDING."""

    async def delete_snapshot(self, snapshot_key: Key) -> Progress: ...


@runtime_checkable
class Volumes(Protocol):
    """Disks that outlive machines."""

    def device(self, volume_key: Key) -> str:
        """The disk's name in a guest, known before it is made; empty where the driver itself mounts volumes.

        Raises Refused UNABLE where it cannot be known: then no guest can be told beforehand to mount it. No I/O.
        """

    async def ensure_volume(self, volume_key: Key, size_gib: int, name: str) -> Volume:
        """See to it that there is one volume of this key: looked for first, made where there is none."""

    async def observe_volume(self, volume_key: Key) -> Volume | None: ...

    async def attach(self, volume_key: Key, key: Key, path: str | None = None) -> Volume:
        """Give it to a machine, running or stopped. Raises Refused UNABLE where another has it.

        ``path``: where a driver that mounts volumes puts it; others leave that to the guest.
        """

    async def detach(self, volume_key: Key) -> Progress:
        """PENDING while the guest holds on to it."""

    async def delete_volume(self, volume_key: Key) -> Progress: ...


@runtime_checkable
class Addresses(Protocol):
    """Public addresses. ``delete`` of the machine releases them too."""

    async def ensure_address(self, key: Key) -> str:
        """A public address for the machine, one however often it is asked. Raises Refused NETWORK: none is left."""

    async def release_address(self, key: Key) -> Progress: ...


@runtime_checkable
class Ports(Protocol):
    """Firewalls (security groups)."""

    async def open_ports(self, key: Key, openings: Sequence[Opening]) -> None:
        """Exactly these are open from outside. ``delete`` of the machine removes what was made for it."""


@runtime_checkable
class Networks(Protocol):
    """Private networks, for machines of one owner that belong together."""

    async def ensure_network(self, name: Key) -> None: ...

    async def delete_network(self, name: Key) -> Progress:
        """PENDING while machines are in it."""


@runtime_checkable
class Consoles(Protocol):
    """What the machine's serial console said."""

    async def console_log(self, key: Key, lines: int = 200) -> str:
        """The last lines; empty where it has said nothing yet. Raises Refused UNABLE where there is no machine."""


@runtime_checkable
class Meters(Protocol):
    """What machines use."""

    async def meter(self, key: Key) -> Meter | None:
        """As it is now; totals never fall while the machine runs. None where it does not run, or is not there."""


@runtime_checkable
class Images(Protocol):
    """A provider with an image store of its own."""

    async def ensure_image(self, image: Image, name: str) -> str | None:
        """The provider's id of this content, sent there where it lacks it; None: it is on its way, ask again.

        Found again by its checksum, so it is sent once. Raises Refused IMAGE on what the provider does not take.
        """

    async def delete_image(self, checksum: str) -> Progress:
        """Remove it. PENDING while machines need it: from then on nobody else finds it there."""


@runtime_checkable
class Keeps(Protocol):
    """A driver that keeps images unpacked on this computer, by the names that :func:`base_of` gives them."""

    async def bases(self) -> Mapping[str, int]:
        """Those that are here, with the number of machines of each."""

    async def remove_base(self, sha256: str) -> bool:
        """Remove one; False while machines use it. Absent is fine."""


def base_of(image: Image) -> str:
    """The name of an image's unpacked tree: its SHA-256, or one made of whatever checksum it has."""
    algorithm, _, value = image.checksum.partition(":")
    return value if algorithm == "sha256" else hashlib.sha256(image.checksum.encode()).hexdigest()


PROTOCOLS: Mapping[Can, type] = {
    Can.POWER: Power,
    Can.RESIZE: Resizes,
    Can.SNAPSHOT: Snapshots,
    Can.VOLUMES: Volumes,
    Can.ADDRESSES: Addresses,
    Can.PORTS: Ports,
    Can.NETWORKS: Networks,
    Can.CONSOLE: Consoles,
    Can.IMAGES: Images,
    Can.METERS: Meters,
}
"""What a driver that declares a capability has; the contract suite sees to it."""

C = TypeVar("C")


def able(driver: Machines, protocol: type[C]) -> C:
    """The driver, as one that can. Raises Refused UNABLE where it does not declare it."""
    can = next(one for one, has in PROTOCOLS.items() if has is protocol)
    if can not in driver.capabilities().can or not isinstance(driver, protocol):
        raise Refused(Why.UNABLE, f"Machines at this place have no {can.value}: it cannot do that.")
    return driver


def adopt(found: Sequence[Observed]) -> Observed | None:
    """Of all machines with one key the one that counts: healthy before failed, then the oldest, then by id.

    The others are its ``surplus``. Every process chooses the same.
    """
    if not found:
        return None
    bad = (Life.FAILED, Life.DELETING)
    first, *others = sorted(
        found, key=lambda one: (one.life in bad, one.created is None, str(one.created or ""), one.provider_id)
    )
    return replace(first, surplus=tuple(one.provider_id for one in others if one.life is not Life.DELETING))


def through(found: Observed, jump: str | None) -> Observed:
    """The same, reached through the site's jump host where it has no public address."""
    if jump is None or found.public or found.ssh is None:
        return found
    return replace(found, ssh=replace(found.ssh, jump=jump))


def check(spec: MachineSpec, capabilities: Capabilities) -> None:
    """Raise Refused on a spec that this driver cannot take, before anything is made."""
    if len(spec.user_data) > capabilities.user_data_bytes:
        said = f"The user data has {len(spec.user_data):,} bytes; at most {capabilities.user_data_bytes:,} go there."
        raise Refused(Why.USER_DATA, said)
    if spec.size.gpus and Can.GPUS not in capabilities.can:
        raise Refused(Why.FLAVOUR, "There are no GPUs for machines at this place.")
