"""Input files: which ones travel with a job, found and checked before anything is sent."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hansa.client.errors import INPUT, INPUT_CHANGED, INPUT_LIMIT, USAGE, HansaError
from hansa.client.units import show_bytes

PIECE_BYTES = 1024 * 1024
ALWAYS_IGNORED = (
    ".git/",
    ".hg/",
    ".svn/",
    ".venv/",
    "venv/",
    "__pycache__/",
    "*.pyc",
    "node_modules/",
    "hansa-*/",
)
IGNORE_FILE = ".hansaignore"
NAMED = 5
"""How many of the missing files a message names."""

Progress = Callable[[str, int, int], None]
"""Hears (what, bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file here, and where it will be in the task's directory. Size and time are of when it was found."""

    path: Path
    dest: str
    size: int
    mtime_ns: int
    executable: bool


def source(path: Path, dest: str) -> Source:
    """Look at a file that is to be sent. Raises HansaError where it cannot be."""
    try:
        found = path.stat()
    except OSError as error:
        raise HansaError(INPUT, f"There is no file {path}: {error.strerror}.") from error
    if not stat.S_ISREG(found.st_mode):
        raise HansaError(INPUT, f"{path} is no regular file, so it cannot be sent.")
    if not os.access(path, os.R_OK):
        raise HansaError(INPUT, f"{path} may not be read by you.", hint=f"Run: chmod u+r {path}")
    return Source(path, dest, found.st_size, found.st_mtime_ns, bool(found.st_mode & 0o100))


def check_dest(dest: str) -> str:
    """A destination below the task's directory, normalised. Raises HansaError for any other."""
    path = PurePosixPath(dest)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\x00" in dest:
        raise HansaError(
            USAGE,
            f"An input file cannot go to {dest!r}.",
            hint="The part after = is a path below the task's directory, as in data/in.csv.",
        )
    return path.as_posix()


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a directory that travel, and what was left out for a reason worth telling."""

    sources: list[Source]
    notes: list[str]

    @property
    def size(self) -> int:
        return sum(found.size for found in self.sources)


def tree(root: Path, prefix: str = "") -> Tree:
    """All files below ``root``, but for what :data:`ALWAYS_IGNORED` and ``.hansaignore`` name."""
    if not root.is_dir():
        raise HansaError(INPUT, f"There is no directory {root}.")
    ignored = ignore_rules(root)
    sources: list[Source] = []
    odd: list[str] = []
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root).as_posix()
        start = "" if here == "." else here + "/"
        links = [name for name in folders if Path(folder, name).is_symlink()]
        odd += [f"{start}{name} (a link to a directory)" for name in links]
        folders[:] = sorted(n for n in folders if n not in links and not ignored(f"{start}{n}/"))
        for name in sorted(files):
            if ignored(start + name) or (not start and name == IGNORE_FILE):
                continue
            path = Path(folder, name)
            if path.is_file():
                sources.append(source(path, prefix + start + name))
            else:
                odd.append(f"{start}{name} (no regular file)")
    notes = [f"not sent from {root}: {', '.join(odd[:NAMED])}{_more(len(odd))}"] if odd else []
    return Tree(sources, notes)


def ignore_rules(root: Path) -> Callable[[str], bool]:
    """Whether a path relative to ``root`` (directories end with ``/``) stays here: rules of .gitignore."""
    import pathspec

    file = root / IGNORE_FILE
    own = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    spec = pathspec.GitIgnoreSpec.from_lines([*ALWAYS_IGNORED, *own])
    return lambda path: bool(spec.match_file(path))


def check_limits(sources: Iterable[Source], limits: dict[str, Any]) -> None:
    """Refuse what the server would refuse, before anything is read. ``limits`` are those of ``/health``."""
    unique = {found.path: found for found in sources}
    one, whole, number = (limits.get(key) for key in ("file_bytes", "job_bytes", "job_files"))
    advice = (
        "Put large data where the site can read it and name it by its absolute path, "
        "or send less (--input, .hansaignore)."
    )
    for found in unique.values():
        if one is not None and found.size > one:
            raise HansaError(
                INPUT_LIMIT,
                f"{found.path} has {show_bytes(found.size)}; this server takes up to {show_bytes(one)}.",
                hint=advice,
            )
    size = sum(found.size for found in unique.values())
    if whole is not None and size > whole:
        raise HansaError(
            INPUT_LIMIT,
            f"The input files have {show_bytes(size)}; this server takes {show_bytes(whole)} with one job.",
            hint=advice,
        )
    if number is not None and len(unique) > number:
        raise HansaError(
            INPUT_LIMIT,
            f"The job has {len(unique):,} input files; this server takes {number:,} with one job.",
            hint="Pack them into an archive and unpack it with --setup, or leave some out by .hansaignore.",
        )


def digest(found: Source, progress: Callable[[int], None] | None = None) -> str:
    """``sha256:`` and the hash of a file. Raises HansaError if it is no longer what was found."""
    hasher = hashlib.sha256()
    try:
        with found.path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                hasher.update(piece)
                if progress is not None:
                    progress(len(piece))
    except OSError as error:
        raise HansaError(INPUT, f"{found.path} cannot be read: {error.strerror}.") from error
    check_unchanged(found)
    return f"sha256:{hasher.hexdigest()}"


def check_unchanged(found: Source) -> None:
    """Raises HansaError if the file has another size or time than when it was found."""
    try:
        now = found.path.stat()
    except OSError as error:
        raise _changed(found, "is gone") from error
    if (now.st_size, now.st_mtime_ns) != (found.size, found.mtime_ns):
        raise _changed(found, "has changed")


def _changed(found: Source, what: str) -> HansaError:
    return HansaError(
        INPUT_CHANGED,
        f"{found.path} {what} while it was sent. Nothing was submitted.",
        hint="Submit again when nothing writes to it any more.",
    )


def missing(paths: list[str]) -> HansaError:
    """The error for input files that are not there."""
    named = ", ".join(paths[:NAMED])
    if len(paths) == 1:
        return HansaError(
            INPUT, f"There is no input file {named}.", hint="Paths are relative to the current directory."
        )
    return HansaError(
        INPUT,
        f"{len(paths):,} input files are not there: {named}{_more(len(paths))}.",
        hint="Paths are relative to the current directory. Nothing was sent.",
    )


def _more(count: int) -> str:
    return f" and {count - NAMED:,} more" if count > NAMED else ""


def merge(groups: Iterable[Iterable[Source]]) -> list[Source]:
    """One file per destination. Two different files for one destination are an error."""
    by_dest: dict[str, Source] = {}
    for found in _flat(groups):
        other = by_dest.setdefault(found.dest, found)
        if other.path.absolute() != found.path.absolute():
            raise HansaError(
                USAGE,
                f"{other.path} and {found.path} would both be {found.dest} in the task's directory.",
                hint="Give one of them another place: --input SRC=DEST.",
            )
    return list(by_dest.values())


def _flat(groups: Iterable[Iterable[Source]]) -> Iterator[Source]:
    for group in groups:
        yield from group
