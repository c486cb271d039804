"""What an image is made of, and the command that makes it. Pure."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hansa.kernel.errors import INVALID, Fault

RELEASES = ("bookworm", "trixie")
BASE = (
    "linux-image-cloud-amd64", "cloud-init", "openssh-server", "python3", "python3-apt", "systemd", "systemd-sysv",
    "systemd-resolved", "dbus", "udev", "iproute2", "netbase", "ca-certificates", "sudo", "iputils-ping",
    "cloud-guest-utils", "busybox-static",
)  # fmt: skip
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{1,80}")
_MIRROR = re.compile(r"https?://[A-Za-z0-9.:_~/%-]{1,200}")
_LEFT_OUT = ("man", "doc", "locale", "info", "lintian")
# Snapshots of one day would give the same packages for ever; without one, those of today.
EPOCH = 1_764_000_000


@dataclass(frozen=True)
class Recipe:
    """A Debian cloud image. ``date`` is the time, in seconds since 1970, that all files in it have at the latest."""

    release: str = "bookworm"
    packages: tuple[str, ...] = ()
    disk_gib: int = 4
    mirror: str = "http://deb.debian.org"
    """Below it are ``/debian`` and ``/debian-security``."""
    date: int = EPOCH
    base: tuple[str, ...] = BASE
    """What makes it a cloud image."""
    variant: str = "minbase"
    """Of mmdebstrap: ``extract`` unpacks ``base`` alone and configures nothing, for tests."""

    @property
    def digest(self) -> str:
        """Tells recipes apart."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def disk_id(self) -> str:
        """The UUID of its file system: the same for the same recipe."""
        return str(uuid.UUID(self.digest[:32]))


def check(recipe: Recipe) -> Recipe:
    """Raises Fault ``kernel.invalid`` on what cannot be made."""
    if recipe.release not in RELEASES:
        raise Fault(INVALID, f"{recipe.release!r} is no release that images are made of: {', '.join(RELEASES)}.")
    if bad := [name for name in recipe.packages if not _PACKAGE.fullmatch(name)]:
        raise Fault(INVALID, f"{bad[0]!r} is no name of a Debian package.")
    if not _MIRROR.fullmatch(recipe.mirror):
        raise Fault(INVALID, f"{recipe.mirror!r} is no address of a Debian mirror.", hint="http://deb.debian.org")
    if not 2 <= recipe.disk_gib <= 100:
        raise Fault(INVALID, "The disk of an image has 2 to 100 GiB; machines may have larger ones.")
    return recipe


def command(recipe: Recipe, finish: Sequence[str], mode: str) -> list[str]:
    """mmdebstrap's, that ends with running ``finish ROOT`` where the tree belongs to root, and keeps nothing else."""
    suite, mirror = recipe.release, recipe.mirror.rstrip("/")
    # Cleaning is ours, in the tree: mmdebstrap's own would miss its configuration, and clean this computer's lists.
    options = [f"--variant={recipe.variant}", f"--mode={mode}", "--format=null", "--skip=cleanup"]
    options += [f"--include={','.join((*recipe.base, *recipe.packages))}", '--aptopt=Apt::Install-Recommends "false"']
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    options += ["--dpkgopt=force-unsafe-io"]  # what breaks off is thrown away: nothing need be on the disk before
    options += [f'--customize-hook={" ".join(finish)} "$1"']
    sources = [
        f"deb {mirror}/debian {suite} main",
        f"deb {mirror}/debian {suite}-updates main",
        f"deb {mirror}/debian-security {suite}-security main",
    ]
    return ["mmdebstrap", *options, suite, "/dev/null", *sources]


def pack_command(recipe: Recipe, tree: Path, disk: Path, at: int) -> tuple[list[str], Mapping[str, str]]:
    """mke2fs's, and its environment: a file system at a place of the disk, without any id or seed but the recipe's."""
    argv = [
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "cloudroot", "-U", recipe.disk_id,
        "-O", "^has_journal,^metadata_csum",
        "-E", f"hash_seed={recipe.disk_id},lazy_itable_init=1,root_owner=0:0,offset={at}",
        "-d", str(tree), str(disk), f"{recipe.disk_gib}G",
    ]  # fmt: skip
    return argv, {"E2FSPROGS_FAKE_TIME": str(recipe.date), "SOURCE_DATE_EPOCH": str(recipe.date)}


STEPS = (
    ("running apt-get update", "reads what the mirror has", 0.03),
    ("downloading packages", "fetches packages", 0.06),
    ("extracting archives", "unpacks the first packages", 0.2),
    ("installing essential packages", "installs the essential packages", 0.3),
    ("installing remaining packages", "installs the other packages", 0.4),
    ("running --customize-hook", "makes a disk of it", 0.85),
    ("success", "is done", 0.95),
)


def step_of(line: str) -> tuple[str, float] | None:
    """What a line of mmdebstrap's means for people, and how much is done by then; None: nothing."""
    return next(((said, share) for words, said, share in STEPS if words in line), None)
