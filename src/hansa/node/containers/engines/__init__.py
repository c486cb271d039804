"""The ways of running containers, the best first, and which of them works here.

An engine is chosen by trying it out: the presence of a program or a kernel option says little. What was found is
remembered per node in the store's directory, for this kernel, user and file system; a failure to start forgets it.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..errors import ContainerError
from .base import Engine, Verdict

_WHERE: Dict[str, Tuple[str, str]] = {
    "overlay": ("overlay", "Overlay"),
    "bwrap": ("bwrap", "Bwrap"),
    "fuse": ("fuse", "Fuse"),
    "copy": ("overlay", "Copy"),
    "copy-shared-pids": ("overlay", "CopyWithoutPids"),
    "bwrap-copy": ("bwrap", "BwrapCopy"),
    "runc": ("runc", "Runc"),
    "apptainer": ("apptainer", "Apptainer"),
    "udocker": ("udocker", "Udocker"),
}
NAMES: Tuple[str, ...] = tuple(_WHERE)
"""All engines, in the order in which they are tried."""
_TOOLS = ("bwrap", "fuse-overlayfs", "runc", "apptainer", "singularity", "udocker")
_FORMAT = 1


class NoEngine(ContainerError):
    """No engine works on this node."""

    code = "containers.no_engine"
    exit_code = 125


def engine(name: str) -> Engine:
    """The engine of that name. NoEngine for an unknown name."""
    if name not in _WHERE:
        raise NoEngine(f"there is no engine {name!r}", f"one of: {', '.join(NAMES)}")
    module, kind = _WHERE[name]
    made: Engine = getattr(import_module(f"{__name__}.{module}"), kind)()
    return made


def choose(place: str, wanted: Optional[str] = None) -> Engine:
    """The engine to use for containers in the directory ``place``: the wanted one, or the first that works.

    Raises NoEngine with every engine's reason where none works.
    """
    if wanted:
        return engine(wanted)
    known = _recall(place)
    if known is not None:
        return engine(known)
    from .trial import try_out

    reasons = []
    for name in NAMES:
        candidate = engine(name)
        why = try_out(candidate, place)
        if not why:
            _remember(place, name)
            return candidate
        reasons.append(f"{name}: {why}")
    raise NoEngine("no way of running containers works on this node: " + "; ".join(reasons))


def doctor(place: str) -> List[Verdict]:
    """Try out every engine."""
    from .trial import try_out

    out = []
    for name in NAMES:
        why = try_out(engine(name), place)
        out.append(Verdict(name, not why, why))
    return out


def forget(place: str) -> None:
    """Try out again at the next run."""
    try:
        os.unlink(_memory(place))
    except OSError:
        pass


def _memory(place: str) -> str:
    return os.path.join(place, f".engine-{os.uname().nodename}-{os.geteuid()}.json")


def _recall(place: str) -> Optional[str]:
    try:
        with open(_memory(place), encoding="utf-8") as stream:
            memory = json.load(stream)
    except (OSError, ValueError):
        return None
    if not isinstance(memory, dict) or memory.get("key") != _key(place):
        return None
    name = memory.get("engine")
    if name not in _WHERE:
        return None
    # What is best needs no tool; any other choice is made anew when a tool comes, goes or changes.
    if name != "overlay" and memory.get("tools") != _tools():
        return None
    return str(name)


def _remember(place: str, name: str) -> None:
    import tempfile

    memory: Mapping[str, Any] = {"key": _key(place), "engine": name, "tools": _tools()}
    try:
        fd, path = tempfile.mkstemp(prefix=".engine-", dir=place)
        with open(fd, "w", encoding="utf-8") as stream:
            json.dump(memory, stream)
        os.replace(path, _memory(place))
    except OSError:
        return  # a place that cannot be written: found out again next time


def _key(place: str) -> List[Any]:
    machine = os.uname()
    return [_FORMAT, machine.release, machine.version, machine.machine, os.geteuid(), os.stat(place).st_dev]


def _tools() -> Dict[str, int]:
    import shutil

    out = {}
    for name in _TOOLS:
        path = shutil.which(name)
        if path is not None:
            out[path] = os.stat(path).st_mtime_ns
    return out
