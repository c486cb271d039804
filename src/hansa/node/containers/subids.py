"""Subordinate user and group ids: ranges that an administrator lends to a user in /etc/subuid and /etc/subgid."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from typing import List, Optional, Tuple


def find_range(path: str, user: str, uid: int) -> Optional[Tuple[int, int]]:
    """The first range of a user in a file like /etc/subuid: (first, count), or None."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[0] in (user, str(uid)):
                    return int(fields[1]), int(fields[2])
    except (OSError, ValueError):
        pass
    return None


def reason_against() -> str:
    """Why subordinate ids cannot be used here; empty if they can."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid} has no name in the password database"
    for tool in ("newuidmap", "newgidmap"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (package uidmap or shadow-utils)"
    for path in ("/etc/subuid", "/etc/subgid"):
        if find_range(path, name, uid) is None:
            return f"{path} has no range for {name}: an administrator adds one with usermod --add-subuids"
    return ""


def extents(wanted: int, own: int, lent: Tuple[int, int]) -> List[int]:
    """The map in triples (inside, outside, count): ``wanted`` is the caller, all other numbers are lent."""
    first, count = lent
    out: List[int] = []
    below = min(wanted, count)
    if below:
        out += [0, first, below]
    out += [wanted, own, 1]
    if count > below:
        out += [wanted + 1, first + below, count - below]
    return out


def write_maps(pid: int, uid: int, gid: int) -> None:
    """Map both kinds of ids of a process. OSError says why not."""
    why = reason_against()
    if why:
        raise OSError(why)
    own, own_group = os.getuid(), os.getgid()
    name = pwd.getpwuid(own).pw_name
    for tool, path, wanted, mine in (
        ("newuidmap", "/etc/subuid", uid, own),
        ("newgidmap", "/etc/subgid", gid, own_group),
    ):
        lent = find_range(path, name, own)
        if lent is None:
            raise OSError(f"{path} has no range for {name}")
        words = [tool, str(pid), *map(str, extents(wanted, mine, lent))]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{tool}: {done.stderr.strip()}")
