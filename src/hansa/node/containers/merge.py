"""Several layers as one plain tree: for nodes without overlays, and file systems that cannot hold whiteouts."""

from __future__ import annotations

import errno
import os
import stat
from typing import Optional, Sequence, Tuple

from ..files import copy
from .archive import OPAQUE_XATTR, Unpacked
from .tree import parts_of, remove_path

Part = Tuple[str, Unpacked]
"""A layer's tree and what was recorded of it."""


def merge(layers: Sequence[Part], target: str, is_linked: bool) -> None:
    """Put layers (lowest first) into ``target``, which exists and is empty.

    Files are hard links (``is_linked``: nobody may write to the result) or copies, by reflink where possible.
    """
    for number, (tree, recorded) in enumerate(layers):
        if number:
            _hide(recorded, target)
        _lay_over(tree, target, is_linked)


def _hide(recorded: Unpacked, target: str) -> None:
    """Remove what a layer hides of those below."""
    for name in recorded.opaque:
        path = _inside(target, name)
        if path is not None and os.path.isdir(path) and not os.path.islink(path):
            for child in os.listdir(path):
                remove_path(os.path.join(path, child))
    for name in recorded.whiteouts:
        path = _inside(target, name)
        if path is not None:
            remove_path(path)


def _inside(target: str, name: str) -> Optional[str]:
    """The path, if no part of the way is a link: a whiteout below a link concerns nothing."""
    at = target
    parts = parts_of(os.fsencode(name))
    for part in parts[:-1]:
        at = os.path.join(at, os.fsdecode(part))
        if os.path.islink(at) or not os.path.isdir(at):
            return None
    return os.path.join(at, os.fsdecode(parts[-1])) if parts else target


def _lay_over(source: str, target: str, is_linked: bool) -> None:
    with os.scandir(source) as listing:
        children = list(listing)
    for child in children:
        there = os.path.join(target, child.name)
        if child.is_dir(follow_symlinks=False):
            if os.path.islink(there) or not os.path.isdir(there):
                remove_path(there)
                os.mkdir(there, 0o700)
            else:
                os.chmod(there, 0o700)
            _lay_over(child.path, there, is_linked)
        elif not is_whiteout(child.stat(follow_symlinks=False)):
            remove_path(there)
            _put(child.path, there, child.stat(follow_symlinks=False), is_linked)
    status = os.lstat(source)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def is_whiteout(status: os.stat_result) -> bool:
    """The character device 0:0 of overlayfs."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: str) -> bool:
    """True for a directory of an overlay that hides what is below."""
    try:
        return os.getxattr(path, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError:
        return False


def copy_upper(source: str, target: str) -> None:
    """Copy a container's own files into the new directory ``target``, with whiteouts and opaque directories."""
    os.mkdir(target, 0o700)
    with os.scandir(source) as listing:
        children = list(listing)
    for child in children:
        there = os.path.join(target, child.name)
        status = child.stat(follow_symlinks=False)
        if child.is_dir(follow_symlinks=False):
            copy_upper(child.path, there)
        elif is_whiteout(status):
            os.mknod(there, stat.S_IFCHR, os.makedev(0, 0))
        else:
            _put(child.path, there, status, is_linked=False)
    if is_opaque(source):
        os.setxattr(target, OPAQUE_XATTR, b"y")
    status = os.lstat(source)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _put(source: str, target: str, status: os.stat_result, is_linked: bool) -> None:
    if is_linked:
        try:
            os.link(source, target, follow_symlinks=False)
            return
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP):
                raise
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(status.st_mode):
        copy(source, target, mode)
        os.chmod(target, mode)
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(target, mode)
    else:
        return  # sockets, and devices that only root could have made
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)
