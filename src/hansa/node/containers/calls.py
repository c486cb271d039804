"""Linux calls for containers, beside those of ``linux.py``: each raises OSError on failure."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Dict, Optional

from .. import linux

libc = linux._libc
check = linux._check
prctl = linux._prctl

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_MOVE = 8192
MS_SLAVE = 1 << 19
MNT_DETACH = 2

_SIGCHLD = 17
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_NOSUID = 2
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture, as all calls since 424
_SYS_CLOSE_RANGE = 436
_CLOSE_RANGE_CLOEXEC = 4

_SYS_CLONE: Dict[str, int] = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "ppc64le": 120, "ppc64": 120}
_SYS_PIVOT_ROOT: Dict[str, int] = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "ppc64": 203}

KEPT_CAPABILITIES = frozenset((0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))
"""What the container's root keeps, in its own user namespace: the usual set of Docker's.

chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
audit_write, setfcap.
"""


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def is_known_machine() -> bool:
    """True where this module knows the numbers of the system calls."""
    return os.uname().machine in _SYS_CLONE


def clone(flags: int) -> int:
    """fork() into new namespaces: 0 in the child. Single-threaded callers only.

    The kernel's call itself: unshare() and fork() would need a process in between that only waits.
    """
    python = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock, as os.fork does
    python.PyOS_BeforeFork()
    number = _SYS_CLONE[os.uname().machine]
    zero = ctypes.c_ulong(0)
    python.syscall.restype = ctypes.c_long
    pid = int(python.syscall(ctypes.c_long(number), ctypes.c_ulong(flags | _SIGCHLD), zero, zero, zero, zero))
    code = ctypes.get_errno()
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone: {os.strerror(code)}")
    return pid


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    result = libc.syscall(ctypes.c_long(number), os.fsencode(new_root), os.fsencode(put_old))
    check(result, "pivot_root")


def chroot_by_move() -> None:
    """The working directory, a mount, becomes the root: for hosts that run from an initramfs (no pivot_root)."""
    check(libc.mount(b".", b"/", None, ctypes.c_ulong(MS_MOVE), None), "move the root")
    os.chroot(".")
    os.chdir("/")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    check(libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"unmount {target}")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    data = name.encode()
    check(libc.sethostname(data, ctypes.c_size_t(len(data))), "sethostname")


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    check(libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def make_read_only(target: str) -> None:
    """A mount and all below it become read-only."""
    attributes = _MountAttr(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    result = libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(-100),
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    if result != 0 and ctypes.get_errno() == errno.ENOSYS:
        _remount_read_only(target)
        return
    check(result, f"make {target} read-only")


def _remount_read_only(target: str) -> None:
    """Before Linux 5.12: this mount only, and with the flags that it has, which may be locked."""
    flags = os.statvfs(target).f_flag & 0xF | (os.statvfs(target).f_flag & (1024 | 2048))  # ro, nosuid, nodev, noexec
    result = libc.mount(None, os.fsencode(target), None, ctypes.c_ulong(flags | 1 | 32 | 4096), None)
    check(result, f"make {target} read-only")


def die_with_parent(signal_number: int = 9) -> None:
    """Get a signal when the parent ends."""
    prctl(_PR_SET_PDEATHSIG, signal_number, "prctl(PR_SET_PDEATHSIG)")


def forbid_new_privileges() -> None:
    """Programs started from now on gain nothing by set-user-ID bits or file capabilities."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1, "prctl(PR_SET_NO_NEW_PRIVS)")


def drop_capabilities() -> None:
    """Leave the next program started by root no more than KEPT_CAPABILITIES."""
    zero = ctypes.c_ulong(0)
    for capability in range(64):
        if capability in KEPT_CAPABILITIES:
            continue
        option = ctypes.c_int(_PR_CAPBSET_DROP)
        if libc.prctl(option, ctypes.c_ulong(capability), zero, zero, zero) != 0:
            break  # beyond the last one this kernel knows


def close_on_exec_from(first: int) -> None:
    """No descriptor from ``first`` on reaches the next program."""
    result = libc.syscall(
        ctypes.c_long(_SYS_CLOSE_RANGE),
        ctypes.c_uint(first),
        ctypes.c_uint(0xFFFFFFFF),
        ctypes.c_uint(_CLOSE_RANGE_CLOEXEC),
    )
    if result != 0:  # before Linux 5.11
        for name in os.listdir("/proc/self/fd"):
            if int(name) >= first:
                try:
                    os.set_inheritable(int(name), False)
                except OSError:
                    continue  # the listing's own


def mount_kind(path: str) -> Optional[str]:
    """The type of the file system that holds ``path``, from the table of mounts; None if unknown."""
    try:
        device = os.stat(path).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                fields = line.split()
                if fields[2] == wanted:
                    return fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        pass
    return None


def number(value: int) -> ctypes.c_long:
    """An argument of a system call."""
    return ctypes.c_long(value)


def fail(what: str) -> None:
    """Raise the OSError of the call that just failed."""
    code = ctypes.get_errno()
    raise OSError(code, f"{what}: {os.strerror(code)}")
