"""Looking into a tree of layers without mounting it: links followed as in the container, whiteouts respected."""

from __future__ import annotations

import errno
import os
import stat
from typing import List, Optional, Sequence, Tuple

from .inside import program_error
from .process import ProcessSpec

_MOST_LINKS = 40
_OPAQUE = ("user.overlay.opaque", "trusted.overlay.opaque")
Binds = Sequence[Tuple[str, str]]
"""(target in the container, source on the host), the deepest first."""


def find(roots: Sequence[str], path: str, binds: Binds = ()) -> Optional[str]:
    """The host's path of what ``path`` is in the container; ``roots`` from the top down. None where nothing is."""
    parts, missing = _resolve(roots, path, binds)
    return None if missing else _entry(roots, parts, binds)


def place(roots: Sequence[str], path: str) -> str:
    """Where to write ``path`` in the uppermost root, so that it is seen in the container."""
    parts, missing = _resolve(roots, path, ())
    return "/".join([roots[0], *parts, *missing])


def _resolve(roots: Sequence[str], path: str, binds: Binds) -> Tuple[List[str], List[str]]:
    """The components of a path without links, and those that do not exist."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    done: List[str] = []
    links = 0
    while parts:
        part = parts.pop(0)
        if part == "..":
            del done[-1:]
            continue
        here = _entry(roots, [*done, part], binds)
        if here is None:
            return done, [part, *(rest for rest in parts if rest != "..")]
        if os.path.islink(here):
            links += 1
            if links > _MOST_LINKS:
                return done, [part]
            target = os.readlink(here)
            if target.startswith("/"):
                done = []
            parts = [piece for piece in target.split("/") if piece not in ("", ".")] + parts
            continue
        done.append(part)
    return done, []


def _entry(roots: Sequence[str], parts: Sequence[str], binds: Binds) -> Optional[str]:
    """Where the uppermost entry of a path without links is; None if it is not there or whited out."""
    if binds:
        whole = "/" + "/".join(parts)
        for target, source in binds:
            if whole == target or whole.startswith(target + "/"):
                bound = source + whole[len(target) :]
                return bound if os.path.lexists(bound) else None
    for root in roots:
        path = root
        is_opaque = False
        for at, part in enumerate(parts):
            path = f"{path}/{part}"
            try:
                found = os.lstat(path)
            except OSError:
                if is_opaque:
                    return None
                break
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                return None
            if at < len(parts) - 1:
                if not stat.S_ISDIR(found.st_mode):
                    return None
                is_opaque = is_opaque or _is_opaque(path)
        else:
            return path
    return None


def _is_opaque(path: str) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(path, name) == b"y":
                return True
        except OSError:
            continue
    return False


def read_text(roots: Sequence[str], path: str) -> Optional[str]:
    """The text of a regular file in the container, or None."""
    found = find(roots, path)
    if found is None or not os.path.isfile(found):
        return None
    try:
        with open(found, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


def check_program(roots: Sequence[str], spec: ProcessSpec, binds: Binds) -> Optional[Tuple[int, str]]:
    """For engines that do not say why a program did not start: exit code and words, or None if it should."""
    name = spec.argv[0]
    if "/" in name:
        candidates = [name if name.startswith("/") else f"{spec.cwd}/{name}"]
    else:
        path = spec.env.get("PATH", os.defpath)
        candidates = [f"{directory}/{name}" for directory in path.split(":") if directory]
    refused = None
    for candidate in candidates:
        found = find(roots, candidate, binds)
        if found is None:
            continue
        if os.path.isfile(found) and os.stat(found).st_mode & 0o111:
            return None
        refused = OSError(errno.EACCES, "")
    return program_error(spec.argv, dict(spec.env), refused or OSError(errno.ENOENT, ""))
