"""Containers that last: several programs at once in one container on one node see one file system.

The kernel allows an upper directory to be mounted only once. So the first program's helper process mounts it, in
namespaces of its own, and those that come while it is mounted take that very mount over from there: what one writes
the others see, and nothing is lost. The mount lives as long as the last of them.

The helpers of a container are files in ``holders`` beside its upper directory, each locked by flock as long as its
process lives. One whose lock is held, but on another node, is a reason to refuse: no two nodes can share a mount.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import List

from .. import linux
from . import calls, inside, launcher
from .process import ProcessSpec, Tree

_PATIENCE_S = 30.0
_OPEN_TREE_CLONE = 1
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100


def run_shared(tree: Tree, spec: ProcessSpec) -> int:
    """As ``launcher.run`` on an overlay, also while others run in the same container."""
    directory = os.path.join(os.path.dirname(tree.upper), "holders")
    os.makedirs(directory, mode=0o700, exist_ok=True)

    def prepare() -> Tree:
        _hold(tree, directory)
        return tree._replace(upper=tree.mount)

    return launcher.run_within(prepare, spec, launcher.Options(is_overlay=False))


def _hold(tree: Tree, directory: str) -> None:
    gate = os.open(os.path.join(directory, "gate"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _lock(gate, directory)
    for pid in _living(directory):
        try:
            _take_over(pid, tree.mount)
            break
        except OSError:
            continue  # it is just ending
    else:
        launcher.enter_own()
        inside.mount_overlay(tree)
        os.chdir("/")
    # Written only now that others can take the mount over. Never closed: the lock is its sign of life.
    own = os.open(os.path.join(directory, f"{os.uname().nodename}.{os.getpid()}"), os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(own, False)
    fcntl.flock(own, fcntl.LOCK_EX)
    os.close(gate)


def _lock(gate: int, directory: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise launcher.LaunchError(125, f"another start in {directory} does not end") from None
            time.sleep(0.002)


def _living(directory: str) -> List[int]:
    """The pids of this node's holders. Files of the dead are removed. LaunchError for a holder on another node."""
    here = os.uname().nodename
    out = []
    for name in os.listdir(directory):
        if name == "gate":
            continue
        node, _, pid = name.rpartition(".")
        path = os.path.join(directory, name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        except BlockingIOError:
            if node != here:
                raise launcher.LaunchError(
                    125, f"the container is in use on {node}: run it there, clone it, or start from the image"
                ) from None
            out.append(int(pid))
        finally:
            os.close(fd)
    return out


def _take_over(pid: int, mount: str) -> None:
    """Put another holder's mount at ``mount`` in namespaces of our own. OSError where that holder is gone."""
    users = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    if not os.path.sameopenfile(users, _own("user")):
        calls.setns(users, calls.CLONE_NEWUSER)
    linux.unshare(calls.CLONE_NEWNS)
    linux.mount("none", "/", None, linux.MS_REC | calls.MS_SLAVE)
    own_mounts = _own("mnt")
    calls.setns(mounts, calls.CLONE_NEWNS)
    libc, number = calls.libc, calls.number
    copy = libc.syscall(number(_SYS_OPEN_TREE), number(_AT_FDCWD), os.fsencode(mount), number(_OPEN_TREE_CLONE))
    if copy < 0:
        calls.fail("open_tree")
    calls.setns(own_mounts, calls.CLONE_NEWNS)
    moved = libc.syscall(
        number(_SYS_MOVE_MOUNT),
        number(copy),
        b"",
        number(_AT_FDCWD),
        os.fsencode(mount),
        number(_MOVE_MOUNT_F_EMPTY_PATH),
    )
    if moved != 0:
        calls.fail("move_mount")
    for fd in (users, mounts, own_mounts, copy):
        os.close(fd)
    os.chdir("/")


def _own(kind: str) -> int:
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
