"""What to run and on what, in plain values: made by ``semantics``, carried out by the engines."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Optional, Tuple


class Bind(NamedTuple):
    """A file or directory of the host inside the container. Paths are absolute."""

    source: str
    target: str
    is_read_only: bool = False
    is_optional: bool = False
    """Left out, not an error, where the source does not exist."""


class ProcessSpec(NamedTuple):
    """One process in a container: everything that an engine needs besides the files."""

    argv: Tuple[str, ...]
    env: Mapping[str, str]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: Tuple[int, ...] = ()
    binds: Tuple[Bind, ...] = ()
    files: Tuple[Tuple[str, str], ...] = ()
    """Files written into the container before it starts: (path, text)."""
    hostname: Optional[str] = None
    """None: the host's, in the host's UTS namespace."""
    has_stdin: bool = True
    has_tty: bool = False
    has_system: bool = True
    """/proc, /sys and /dev are there. Without: a bare tree (udocker's ``--nosysdirs``)."""
    cpus: Optional[Tuple[int, ...]] = None
    status_fd: Optional[int] = None
    """Where our own launcher writes the program's wait status, as a decimal number: 128 + n says less."""
    has_subuids: bool = False
    """Map the caller's subordinate ids too, so that files can belong to other users of the container."""


class Tree(NamedTuple):
    """The files of a container. ``layers``: directories, the lowest first."""

    layers: Tuple[str, ...]
    upper: str
    """Where changes go. For the engine ``copy``, the whole unpacked tree."""
    work: str
    mount: str
    """An empty directory to mount on."""
    is_throwaway: bool = False
    """Nobody reads the upper directory afterwards: nothing needs to reach the disk."""
