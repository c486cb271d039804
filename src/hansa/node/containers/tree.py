"""A directory tree into which untrusted names are written.

Every step is made relative to an open directory and without following links. Symbolic links inside the tree are
resolved by hand, as for a process that has the tree as its root; one that climbs above it is refused.
"""

from __future__ import annotations

import os
import stat
from typing import Dict, List, Tuple

from .errors import UnsafeArchive

LONGEST_PATH = 4096
DEEPEST = 200
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 64
_MOST_LINKS = 40

Parts = Tuple[bytes, ...]

_IMPLICIT_MODES = {(b"tmp",): 0o1777, (b"var", b"tmp"): 0o1777, (b"root",): 0o700}
"""Directories that an archive does not list get 0755, but for these: in an overlay they cover the ones below."""


def parts_of(name: bytes) -> Parts:
    """The parts of a name from an archive. Raises UnsafeArchive for absolute names, ``..``, NUL and huge ones."""
    if len(name) > LONGEST_PATH or b"\0" in name:
        raise UnsafeArchive(f"the archive has an impossible name, {shown(name)}")
    if name.startswith(b"/"):
        raise UnsafeArchive(f"the archive has the absolute name {shown(name)}")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise UnsafeArchive(f"the archive has the name {shown(name)}, which leaves its directory")
    if len(parts) > DEEPEST:
        raise UnsafeArchive(f"the archive has a name with {len(parts):,} directories in each other")
    return parts


def shown(name: bytes) -> str:
    """A name for a message."""
    return repr(os.fsdecode(name[:200]))


class Tree:
    """An open tree, with a cache of open directories. Only this process may write to it meanwhile."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _DIRECTORY)
        self._open: Dict[Parts, Tuple[int, Parts]] = {}
        self._links = 0
        self.implicit: List[Parts] = []
        """Directories that had to be made without being listed."""

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        os.close(self._root)

    def forget(self) -> None:
        """After something was removed that may have been a directory, or a link to one."""
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()

    def directory(self, parts: Parts, is_made: bool = True) -> int:
        """A descriptor of the directory, valid until the next call. Missing ones are made, or FileNotFoundError."""
        if not parts:
            return self._root
        found = self._open.get(parts)
        if found is not None:
            return found[0]
        if len(self._open) >= _MOST_OPEN:
            self.forget()
        self._links = 0
        return self._enter(parts, is_made)[0]

    def _enter(self, parts: Parts, is_made: bool) -> Tuple[int, Parts]:
        """Descriptor and true place."""
        known = len(parts)
        while known and parts[:known] not in self._open:
            known -= 1
        place = self._open[parts[:known]] if known else (self._root, ())
        for end in range(known + 1, len(parts) + 1):
            place = self._child(place, parts[end - 1], is_made)
            self._open[parts[:end]] = place
        return place

    def _child(self, place: Tuple[int, Parts], name: bytes, is_made: bool) -> Tuple[int, Parts]:
        fd, real = place
        try:
            return os.open(name, _DIRECTORY, dir_fd=fd), (*real, name)
        except FileNotFoundError:
            if not is_made:
                raise
        except NotADirectoryError:
            if stat.S_ISLNK(os.lstat(name, dir_fd=fd).st_mode):
                return self._through_link(os.readlink(name, dir_fd=fd), real, is_made)
            if not is_made:
                raise
            os.unlink(name, dir_fd=fd)  # the later member of an archive is right
        made = (*real, name)
        os.mkdir(name, 0o700, dir_fd=fd)
        os.chmod(name, _IMPLICIT_MODES.get(made, 0o755), dir_fd=fd)
        self.implicit.append(made)
        return os.open(name, _DIRECTORY, dir_fd=fd), made

    def _through_link(self, target: bytes, real: Parts, is_made: bool) -> Tuple[int, Parts]:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise UnsafeArchive(f"the archive goes through more than {_MOST_LINKS} symbolic links in one name")
        at = () if target.startswith(b"/") else real
        for part in target.split(b"/"):
            if part == b"..":
                if not at:
                    raise UnsafeArchive(f"the archive writes through a link to {shown(target)}, outside its directory")
                at = at[:-1]
            elif part not in (b"", b"."):
                at = self._enter((*at, part), is_made)[1]
        if len(at) > DEEPEST:
            raise UnsafeArchive("the archive has too many directories in each other")
        fd = self._enter(at, is_made)[0] if at else self._root
        return os.dup(fd), at


def remove_tree(name: bytes, dir_fd: int) -> None:
    """Remove a file, link or whole directory, also one without permissions, whatever is in it."""
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except (IsADirectoryError, PermissionError):
        pass
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.lstat(name, dir_fd=dir_fd).st_mode):
        os.unlink(name, dir_fd=dir_fd)
        return
    _empty(name, dir_fd)
    os.rmdir(name, dir_fd=dir_fd)


def _empty(name: bytes, dir_fd: int) -> None:
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=dir_fd)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=dir_fd)
        fd = os.open(name, _DIRECTORY, dir_fd=dir_fd)
    try:
        if os.fstat(fd).st_mode & 0o700 != 0o700:
            os.fchmod(fd, 0o700)
        with os.scandir(fd) as listing:
            children = [(os.fsencode(child.name), child.is_dir(follow_symlinks=False)) for child in listing]
        for child, is_directory in children:
            if is_directory:
                _empty(child, fd)
                os.rmdir(child, dir_fd=fd)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)


def remove_path(path: str) -> None:
    """:func:`remove_tree` of an absolute path; what is not there is no error."""
    parent, name = os.path.split(path)
    try:
        fd = os.open(parent, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        remove_tree(os.fsencode(name), fd)
    finally:
        os.close(fd)
