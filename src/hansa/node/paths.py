"""Relative paths that come from outside: which are accepted, and how the globs of outputs match them.
Pure."""

from __future__ import annotations

import re
from typing import Callable, Pattern, Sequence


class UnsafePathError(ValueError):
    """A path that would leave the task's directory."""


def checked(path: str) -> str:
    """The path itself if it is relative, has no empty, ``.`` or ``..`` part and no NUL; else
    UnsafePathError."""
    if not path or path.startswith("/") or "\0" in path:
        raise UnsafePathError(f"path {path!r} is not a relative path below the task's directory")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise UnsafePathError(f"path {path!r} has a part that is empty, '.' or '..'")
    return path


def _class_end(glob: str, start: int) -> int:
    """Index of the bracket that closes the class opened just before ``start``, or -1."""
    at = start
    if at < len(glob) and glob[at] in "!^":
        at += 1
    if at < len(glob) and glob[at] == "]":
        at += 1
    return glob.find("]", at)


def _class_pattern(body: str) -> str:
    body = body.replace("\\", "\\\\")
    if body[0] in "!^":
        return f"(?!/)[^{body[1:]}]"
    return f"(?!/)[{body}]"


def glob_pattern(glob: str) -> Pattern[str]:
    """A compiled expression for one glob.

    ``*`` and ``?`` stay inside one name, ``**`` crosses directories, ``[...]`` is a class. A glob that
    matches a directory matches everything below it. Leading ``./`` and a trailing ``/`` are ignored.
    """
    while glob.startswith("./"):
        glob = glob[2:]
    glob = glob.rstrip("/")
    out = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif glob.startswith("**", at):
            out.append(".*")
            at += 2
        elif glob[at] == "[" and _class_end(glob, at + 1) > 0:
            end = _class_end(glob, at + 1)
            out.append(_class_pattern(glob[at + 1 : end]))
            at = end + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(glob[at], re.escape(glob[at])))
            at += 1
    return re.compile("(?s:" + "".join(out) + ")(?:/(?s:.*))?")


def matcher(globs: Sequence[str]) -> Callable[[str], bool]:
    """A predicate: does a relative path match one of the globs?"""
    if "**" in globs:
        return lambda _path: True
    patterns = [glob_pattern(glob) for glob in globs]
    return lambda path: any(pattern.fullmatch(path) for pattern in patterns)
