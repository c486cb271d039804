"""What tasks must not see: the server's home, and the pilot's token, configuration and journal.

The spawner leaves the user and mount namespaces once, before its first task, and every task inherits them:
no cost per task. Directories to hide are covered by an empty read-only tmpfs. The tasks' own directory
and the store of container images, which may lie inside a hidden one, are bound back at the same paths.

Why tasks cannot undo it: the capability bounding set is emptied (but for one: see linux.py), so that no program they
start gains a capability, also when the pilot is real root; and in a user namespace of their own the inherited mounts
are locked by the kernel. The user namespace also closes the agent's memory, environment and descriptors in ``/proc``.
PR_SET_NO_NEW_PRIVS is not set: with one mapped uid and no capability in reach, set-user-ID programs gain
nothing, and container runtimes that tasks start may count on its absence.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Sequence

from . import linux

NAMESPACES = "user+mount"
MOUNT_ONLY = "mount"
NONE = "none"


@dataclass(frozen=True)
class Isolation:
    """What was achieved (NAMESPACES, MOUNT_ONLY or NONE), and why it was not more."""

    kind: str
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """Absolute paths: directories and files to cover, and the directories that stay reachable."""

    keep: Sequence[str]
    directories: Sequence[str]
    files: Sequence[str]


def make_plan(keep: Sequence[str], directories: Iterable[str], files: Iterable[str]) -> Plan:
    """Resolve links, leave out what does not exist, and what lies inside another covered directory."""
    kept = [os.path.realpath(path) for path in keep if os.path.isdir(path)]
    found = sorted({os.path.realpath(path) for path in directories if os.path.isdir(path)})
    top: List[str] = []
    for path in found:
        if path == "/" or any(is_below(path, other) for other in kept):
            continue  # hiding the root, or the tasks' own files, would hide everything
        if not any(is_below(path, other) for other in top):
            top.append(path)
    single = {os.path.realpath(path) for path in files if os.path.isfile(path)}
    alone = sorted(path for path in single if not any(is_below(path, other) for other in top))
    return Plan(keep=kept, directories=top, files=alone)


def is_below(path: str, directory: str) -> bool:
    """True if ``path`` is ``directory`` or inside it. Both absolute and normal."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def isolate(plan: Plan) -> Isolation:
    """Isolate this process and all that it will start. Call once, single-threaded, with everything imported.

    Each way is tried out in a child process first: half-way there is no way back.
    """
    found = probe_isolation(plan)
    if found.kind != NONE:
        _WAYS[found.kind](plan)
    return found


def probe_isolation(plan: Plan = Plan(keep=(), directories=(), files=())) -> Isolation:
    """What :func:`isolate` would achieve here, tried out in child processes; changes nothing of this one."""
    reasons: List[str] = []
    for kind, enter in _WAYS.items():
        problem = _try_in_child(enter, plan)
        if not problem:
            return Isolation(kind, "; ".join(reasons))
        reasons.append(f"{kind}: {problem}")
    return Isolation(NONE, "; ".join(reasons))


def _try_in_child(enter: Callable[[Plan], None], plan: Plan) -> str:
    """The reason why ``enter`` fails here, or nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            enter(plan)
            status = 0
        except BaseException as error:
            os.write(writer, str(error).encode("utf-8", "replace")[:500])
        finally:
            os._exit(status)
    os.close(writer)
    problem = os.read(reader, 1000).decode("utf-8", "replace")
    os.close(reader)
    _, status = os.waitpid(child, 0)
    return problem or ("" if status == 0 else f"the trial ended with status {status}")


def _enter_user_and_mount(plan: Plan) -> None:
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _cover_all(plan)


def _enter_mount(plan: Plan) -> None:
    linux.unshare(linux.CLONE_NEWNS)
    _cover_all(plan)


def _cover_all(plan: Plan) -> None:
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    os.chdir("/")
    kept = {path: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in plan.keep}
    try:
        for path in plan.files:
            linux.mount("/dev/null", path, None, linux.MS_BIND)
        for path in plan.directories:
            _cover(path, kept)
    finally:
        for fd in kept.values():
            os.close(fd)
    linux.drop_capability_bounds()


def _cover(path: str, kept: Dict[str, int]) -> None:
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("tmpfs", path, "tmpfs", flags, "mode=0755,size=64k")
    for keep, fd in kept.items():
        if is_below(keep, path):
            os.makedirs(keep, mode=0o755, exist_ok=True)
            linux.mount(f"/proc/self/fd/{fd}", keep, None, linux.MS_BIND | linux.MS_REC)
    linux.mount("tmpfs", path, None, linux.MS_REMOUNT | linux.MS_RDONLY | flags, "mode=0755,size=64k")


_WAYS: Dict[str, Callable[[Plan], None]] = {NAMESPACES: _enter_user_and_mount, MOUNT_ONLY: _enter_mount}


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as stream:
        stream.write(text)
