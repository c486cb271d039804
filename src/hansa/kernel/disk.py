"""Which disks an embedded database may live on."""

from __future__ import annotations

import os
from pathlib import Path

from hansa.kernel import errors

_NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "lustre",
    "beegfs",
    "gpfs",
    "fuse.sshfs",
}


def refuse_network_disk(path: Path) -> None:
    """Raise Fault ``kernel.network_disk`` if ``path`` would lie on NFS or the like: SQLite loses data."""
    folder = os.path.realpath(path.parent)
    best, kind = "", ""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux: nothing is known, nothing is refused
        return
    for line in mounts:
        fields = line.split(" ")
        point = fields[1].encode().decode("unicode_escape")
        if (folder == point or folder.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fields[2]
    if kind in _NETWORK_FILE_SYSTEMS:
        raise errors.Fault(
            errors.NETWORK_DISK,
            f"{path.parent} is on a network file system ({kind} at {best}), where SQLite loses data.",
            hint="Set HANSA_HOME to a folder on a local disk, or use PostgreSQL (database.url).",
        )
