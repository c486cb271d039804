"""Is an unpacked layer still what its archive says?"""

from __future__ import annotations

import os
import stat
from typing import Dict, Iterable, List

from . import tar
from .archive import WHITEOUT_PREFIX
from .compression import decompressed
from .tree import Parts, Tree, parts_of, shown

_ENOUGH = 20


def differences(pieces: Iterable[bytes], root: str) -> List[str]:
    """Sentences about files that are missing or have other content; at most 20. Reads ``pieces`` to their end."""
    source = tar.Source(decompressed(pieces))
    reader = tar.Reader(source)
    found: Dict[Parts, str] = {}
    with Tree(root) as tree:
        for entry in reader:
            parts = parts_of(entry.name)
            if not parts or parts[-1].startswith(WHITEOUT_PREFIX) or len(found) >= _ENOUGH:
                continue
            found.pop(parts, None)  # of two members with a name, the later counts
            problem = _difference(tree, parts, entry, reader)
            if problem:
                found[parts] = f"{shown(b'/'.join(parts))} {problem}"
        source.drain()
    return list(found.values())


def _difference(tree: Tree, parts: Parts, entry: tar.Entry, reader: tar.Reader) -> str:
    if entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
        return ""
    try:
        directory = tree.directory(parts[:-1], is_made=False)
        status = os.lstat(parts[-1], dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if entry.kind == tar.REGULAR:
        return _content_differs(parts[-1], directory, status, entry, reader)
    if entry.kind == tar.SYMLINK:
        is_same = stat.S_ISLNK(status.st_mode) and os.readlink(parts[-1], dir_fd=directory) == entry.link
        return "" if is_same else "points elsewhere"
    if entry.kind == tar.DIRECTORY and not stat.S_ISDIR(status.st_mode):
        return "is no directory"
    return ""


def _content_differs(name: bytes, directory: int, status: os.stat_result, entry: tar.Entry, reader: tar.Reader) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if status.st_size != entry.real_size:
        return f"has {status.st_size:,} bytes instead of {entry.real_size:,}"
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if entry.sparse is not None:
            return _sparse_differs(fd, entry, reader)
        return "" if all(_reads(fd, piece) for piece in reader.data()) else "has other content"
    finally:
        os.close(fd)


def _sparse_differs(fd: int, entry: tar.Entry, reader: tar.Reader) -> str:
    data = b"".join(bytes(piece) for piece in reader.data())
    at = 0
    for offset, count in entry.sparse or ():
        os.lseek(fd, offset, os.SEEK_SET)
        if not _reads(fd, memoryview(data)[at : at + count]):
            return "has other content"
        at += count
    return ""


def _reads(fd: int, wanted: memoryview) -> bool:
    at = 0
    while at < len(wanted):
        piece = os.read(fd, len(wanted) - at)
        if not piece or piece != wanted[at : at + len(piece)]:
            return False
        at += len(piece)
    return True
