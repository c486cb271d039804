"""The few Linux calls that Python's standard library lacks, each raising OSError on failure."""

from __future__ import annotations

import ctypes
import fcntl
import os
from typing import Optional

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36

_FALLOC_KEEP_SIZE = 1
_FALLOC_PUNCH_HOLE = 2
_FICLONE = 0x40049409
_LAST_CAPABILITY_EVER = 63
_CAP_SETFCAP = 31

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _prctl(option: int, value: int, what: str) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero), what)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "prctl(PR_SET_CHILD_SUBREAPER)")


def forbid_inspection() -> None:
    """Close this process's memory, environment and descriptors to other processes of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0, "prctl(PR_SET_DUMPABLE)")


def drop_capability_bounds() -> None:
    """Empty the capability bounding set but for one: programs started from now on gain nothing, root's included.

    CAP_SETFCAP stays: without it the kernel (5.12 and later) lets no one map user 0 into a user namespace, so that
    tasks of a root pilot could start no container. Files get no more from it than the set allows: nothing.
    """
    for capability in range(_LAST_CAPABILITY_EVER + 1):
        if capability == _CAP_SETFCAP:
            continue
        try:
            _prctl(_PR_CAPBSET_DROP, capability, f"prctl(PR_CAPBSET_DROP, {capability})")
        except OSError as error:
            if capability == 0:
                raise
            if error.errno != 22:  # EINVAL: beyond the last one this kernel knows
                raise
            return


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags``."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: Optional[str], flags: int, data: str = "") -> None:
    """mount(2)."""
    kind_bytes = kind.encode() if kind is not None else None
    result = _libc.mount(os.fsencode(source), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {target}")


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Give a file's blocks back to the file system, keeping its size. False where that is not supported."""
    mode = ctypes.c_int(_FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE)
    call = getattr(_libc, "fallocate64", None) or _libc.fallocate
    return bool(call(ctypes.c_int(fd), mode, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0)


def reflink(source_fd: int, target_fd: int) -> bool:
    """Share the blocks of a file copy-on-write. False where the file system cannot."""
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError:
        return False
    return True
