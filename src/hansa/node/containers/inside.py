"""In the new namespaces, before the program starts: the container's file system, put together and entered.

Everything of the host is opened before the root changes, and mounted after it from ``/proc/self/fd``: so each path of
the container is resolved in the container, wherever its symbolic links point.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Dict, List, Optional, Sequence, Tuple

from .. import linux
from . import calls
from .process import Bind, ProcessSpec, Tree

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx"))
_NOSUID_NODEV = linux.MS_NOSUID | linux.MS_NODEV
_HIDDEN_FILES = ("kcore", "keys", "timer_list", "sysrq-trigger", "latency_stats", "sched_debug")
_HIDDEN_TREES = ("acpi", "scsi")
_READ_ONLY_TREES = ("sys", "irq", "bus", "fs")


_NOBODY = 65534
"""How an owner appears who is not mapped into the namespace."""
_ROOM_NAMES = ("etc", "var", "run", "root", "home", "opt", "srv", "mnt", "media", "proc", "sys", "dev")
_ROOMS = (*((name, 0o755) for name in _ROOM_NAMES), ("tmp", 0o1777), ("var/tmp", 0o1777))


class Sources:
    """What is bound from the host, held open until it is mounted."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.devices: List[Tuple[str, int]] = []
        self.system: Optional[int] = None
        self.proc: Optional[int] = None
        if spec.has_system:
            for name in _DEVICES:
                fd = _open(f"/dev/{name}", is_optional=True)
                if fd is not None:
                    self.devices.append((name, fd))
            self.system = _open("/sys", is_optional=True)
            self.proc = _open("/proc", is_optional=True)
        self.binds: List[Tuple[Bind, int]] = []
        for bind in spec.binds:
            fd = _open(bind.source, is_optional=bind.is_optional)
            if fd is not None:
                self.binds.append((bind, fd))


def _open(path: str, *, is_optional: bool) -> Optional[int]:
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if is_optional:
            return None
        raise OSError(error.errno, f"cannot bind {path}: {os.strerror(error.errno or 0)}") from error


def mount_overlay(tree: Tree) -> None:
    """The layers and the upper directory as one, at ``tree.mount``. Leaves the working directory in /proc.

    The directories are named by their descriptors, relative to /proc/self/fd: a hundred layers fit the one page that
    the kernel takes, and no character in a path needs an escape.
    """
    if any(os.stat(layer).st_uid == _NOBODY for layer in tree.layers):
        _open_up(tree)
    kept = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in reversed(tree.layers)]
    writable = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (tree.upper, tree.work)]
    os.chdir("/proc/self/fd")
    options = f"userxattr,lowerdir={':'.join(map(str, kept))},upperdir={writable[0]},workdir={writable[1]}"
    for volatile in (",volatile", "") if tree.is_throwaway else ("",):
        try:
            _mount_volatile_again(tree, options + volatile)
            break
        except OSError as error:
            if not volatile or error.errno != errno.EINVAL:
                raise
    for fd in kept + writable:
        os.close(fd)


def _open_up(tree: Tree) -> None:
    """Layers of somebody else's (a site's store): the kernel copies none of their directories up for us.

    So those in which programs and mounts need room are made in the upper directory, where they lie over the layers'.
    Other files of the image cannot be changed; for that the image must be in a store of one's own.
    """
    for name, mode in _ROOMS:
        below = [path for path in (os.path.join(layer, name) for layer in tree.layers) if os.path.lexists(path)]
        path = os.path.join(tree.upper, name)
        if os.path.lexists(path) or any(os.path.islink(other) or not os.path.isdir(other) for other in below):
            continue
        os.mkdir(path)
        os.chmod(path, mode)


def _mount_volatile_again(tree: Tree, options: str) -> None:
    """The kernel refuses what was mounted "volatile" before and not unmounted: its launcher was killed.

    Killed, not the machine: what was written is there. So its mark is removed.
    """
    try:
        linux.mount("overlay", tree.mount, "overlay", 0, options)
    except OSError as error:
        mark = os.path.join(tree.work, "work", "incompat")
        if error.errno != errno.EINVAL or not os.path.lexists(mark):
            raise
        from .tree import remove_path

        remove_path(mark)
        linux.mount("overlay", tree.mount, "overlay", 0, options)


def bind_tree(tree: Tree) -> None:
    """An unpacked copy, at its own place: a mount, as pivot_root wants one."""
    linux.mount(tree.upper, tree.mount, None, linux.MS_BIND | linux.MS_REC)


def enter(tree: Tree, spec: ProcessSpec, sources: Sources, *, has_pids: bool, masks: bool) -> None:
    """Make ``tree.mount`` the root and mount all the rest. ``masks``: hide what only real root could misuse."""
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(tree.mount)
    try:
        calls.pivot_root(".", ".")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        os.close(old)
        old = -1
        calls.chroot_by_move()
    # The old root now lies on top of the new one; absolute paths already start in the new one.
    scratch = "/proc" if sources.proc is not None else _scratch()
    if sources.proc is not None:
        _mount_proc(sources.proc, has_pids=has_pids, masks=masks)
    else:
        linux.mount("tmpfs", scratch, "tmpfs", _NOSUID_NODEV, "mode=0755")
    if sources.system is not None:
        _bind(sources.system, _place("/sys", is_directory=True), is_read_only=True)
    if spec.has_system:
        _make_devices(sources.devices)
    for bind, fd in sources.binds:
        _bind(fd, _place(bind.target, is_directory=_is_directory(fd)), is_read_only=bind.is_read_only)
    for path, text in spec.files:
        _write(path, text)
    if old >= 0:
        os.fchdir(old)
        calls.unmount(".")
        os.close(old)
    os.chdir("/")
    for fd in [fd for _, fd in sources.binds] + [fd for _, fd in sources.devices]:
        os.close(fd)


def _scratch() -> str:
    return _place("/proc", is_directory=True)


def _mount_proc(host: int, *, has_pids: bool, masks: bool) -> None:
    target = _place("/proc", is_directory=True)
    if not has_pids:
        # No /proc yet in the new root to name the descriptor by: the way leads through the directory itself.
        os.fchdir(host)
        linux.mount(".", target, None, linux.MS_BIND | linux.MS_REC)
        os.chdir("/")
        return
    linux.mount("proc", target, "proc", _NOSUID_NODEV | linux.MS_NOEXEC)
    if masks:
        _mask_proc(target)


def _mask_proc(target: str) -> None:
    for name in _READ_ONLY_TREES:
        path = f"{target}/{name}"
        if os.path.isdir(path):
            linux.mount(path, path, None, linux.MS_BIND | linux.MS_REC)
            calls.make_read_only(path)
    for name in _HIDDEN_TREES:
        path = f"{target}/{name}"
        if os.path.isdir(path):
            linux.mount("tmpfs", path, "tmpfs", _NOSUID_NODEV | linux.MS_RDONLY, "size=0,mode=0555")
    for name in _HIDDEN_FILES:
        path = f"{target}/{name}"
        if os.path.exists(path):
            linux.mount(f"{target}/version", path, None, linux.MS_BIND)
            calls.make_read_only(path)


def _make_devices(devices: Sequence[Tuple[str, int]]) -> None:
    target = _place("/dev", is_directory=True)
    linux.mount("tmpfs", target, "tmpfs", linux.MS_NOSUID, "mode=0755,size=64k")
    for name, fd in devices:
        path = f"{target}/{name}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        linux.mount(f"/proc/self/fd/{fd}", path, None, linux.MS_BIND)
    for name, link in _LINKS:
        os.symlink(link, f"{target}/{name}")
    os.mkdir(target + "/pts", 0o755)
    flags = linux.MS_NOSUID | linux.MS_NOEXEC
    linux.mount("devpts", target + "/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=0620")
    os.mkdir(target + "/shm", 0o1777)
    linux.mount("shm", target + "/shm", "tmpfs", _NOSUID_NODEV, "mode=1777")


def _bind(fd: int, target: str, *, is_read_only: bool) -> None:
    linux.mount(f"/proc/self/fd/{fd}", target, None, linux.MS_BIND | linux.MS_REC)
    if is_read_only:
        calls.make_read_only(target)


def _is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _place(target: str, *, is_directory: bool) -> str:
    """The mount point, links resolved, made where it is missing."""
    path = os.path.realpath(target)
    if is_directory:
        os.makedirs(path, mode=0o755, exist_ok=True)
    elif not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    return path


def _write(path: str, text: str) -> None:
    real = os.path.realpath(path)
    os.makedirs(os.path.dirname(real), mode=0o755, exist_ok=True)
    with open(real, "w", encoding="utf-8") as stream:
        stream.write(text)


def program_error(argv: Sequence[str], env: Dict[str, str], error: OSError) -> Tuple[int, str]:
    """Exit code and words for a program that could not be started, as Docker's."""
    name = argv[0] if argv else ""
    if error.errno == errno.ENOENT:
        if "/" in name and os.path.exists(name):
            return 127, f"cannot start {name}: the interpreter that it asks for is not in the image"
        where = "" if "/" in name else f" (PATH is {env.get('PATH', os.defpath)})"
        return 127, f"{name}: not found in the container{where}"
    if error.errno == errno.ENOTDIR:
        return 127, f"{name}: not found in the container"
    if error.errno == errno.ENOEXEC:
        return 126, f"cannot start {name}: no program for this machine, nor a script that begins with #!"
    if error.errno in (errno.EACCES, errno.EISDIR, errno.EPERM):
        return 126, f"cannot start {name}: permission denied"
    return 126, f"cannot start {name}: {os.strerror(error.errno or 0)}"
