"""What a container's files look like from inside, without mounting anything; and what changed in it."""

from __future__ import annotations

import os
import stat
import tarfile
from dataclasses import dataclass
from typing import IO, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from .archive import WHITEOUT_PREFIX, Unpacked
from .merge import Part, is_opaque, is_whiteout
from .tree import parts_of

_OPAQUE_NAME = ".wh..wh..opq"


@dataclass(frozen=True)
class Seen:
    """A file as it is seen: where it lies, and owner and mode as its archive had them."""

    path: str
    uid: int
    gid: int
    mode: Optional[int]
    """None: the one on disk."""


View = Dict[str, Seen]
"""By relative path; parents come before their children when sorted."""


def view_of(layers: Sequence[Part], upper: Optional[str] = None) -> View:
    """The merged tree of layers (lowest first) and an upper directory."""
    view: View = {}
    for tree, recorded in layers:
        for name in recorded.opaque:
            _hide(view, name, is_whole=False)
        for name in recorded.whiteouts:
            _hide(view, name, is_whole=True)
        _add(view, tree, "", recorded)
    if upper is not None:
        _add(view, upper, "", None)
    return view


def _hide(view: View, name: str, is_whole: bool) -> None:
    parts_of(os.fsencode(name))
    start = f"{name}/" if name else ""
    for path in [one for one in view if one.startswith(start)]:
        del view[path]
    if is_whole:
        view.pop(name, None)


def _add(view: View, directory: str, inside: str, recorded: Optional[Unpacked]) -> None:
    with os.scandir(directory) as listing:
        children = list(listing)
    for child in children:
        name = f"{inside}/{child.name}" if inside else child.name
        is_directory = child.is_dir(follow_symlinks=False)
        if not is_directory and is_whiteout(child.stat(follow_symlinks=False)):
            _hide(view, name, is_whole=True)
            continue
        before = view.get(name)
        if before is not None and (not is_directory or not _is_directory(before.path)):
            _hide(view, name, is_whole=True)
        elif is_directory and recorded is None and is_opaque(child.path):
            _hide(view, name, is_whole=False)
        view[name] = _seen(child.path, name, recorded, before)
        if is_directory:
            _add(view, child.path, name, recorded)


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _seen(path: str, name: str, recorded: Optional[Unpacked], before: Optional[Seen]) -> Seen:
    if recorded is not None:
        uid, gid, mode = recorded.changed.get(name, (0, 0, None))
        return Seen(path, uid, gid, mode)
    if before is None:
        return Seen(path, 0, 0, None)
    # Changed in the container: owners stay, and so does a mode that is as it was when the layer was unpacked.
    is_same = stat.S_IMODE(os.lstat(before.path).st_mode) == stat.S_IMODE(os.lstat(path).st_mode)
    return Seen(path, before.uid, before.gid, before.mode if is_same else None)


def write_tree(
    view: Mapping[str, Seen], names: Iterable[str], stream: IO[bytes], whiteouts: Iterable[str] = ()
) -> None:
    """Write entries of a view and whiteouts as a tar stream in the pax format, sorted by name."""
    inodes: Dict[Tuple[int, int], str] = {}
    entries: List[Tuple[str, Optional[Seen]]] = [(name, view[name]) for name in names]
    entries += [(name, None) for name in whiteouts]
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
        for name, seen in sorted(entries, key=lambda pair: pair[0].split("/")):
            if seen is None:
                archive.addfile(tarfile.TarInfo(name))
            else:
                _write(archive, name, seen, inodes)


def _write(archive: tarfile.TarFile, name: str, seen: Seen, inodes: Dict[Tuple[int, int], str]) -> None:
    status = os.lstat(seen.path)
    if stat.S_ISSOCK(status.st_mode) or stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return
    info = tarfile.TarInfo(name)
    info.uid, info.gid = seen.uid, seen.gid
    info.mode = stat.S_IMODE(status.st_mode) if seen.mode is None else seen.mode
    info.mtime = int(status.st_mtime)
    attributes = {f"SCHILY.xattr.{key}": value for key, value in _attributes(seen.path).items()}
    info.pax_headers = attributes
    if stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(seen.path)
    elif stat.S_ISFIFO(status.st_mode):
        info.type = tarfile.FIFOTYPE
    elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in inodes:
        info.type, info.linkname = tarfile.LNKTYPE, inodes[(status.st_dev, status.st_ino)]
    else:
        inodes[(status.st_dev, status.st_ino)] = name
        info.size = status.st_size
        with open(seen.path, "rb") as content:
            archive.addfile(info, content)
        return
    archive.addfile(info)


def _attributes(path: str) -> Dict[str, str]:
    found = {}
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith("user.") and not name.startswith("user.overlay."):
                found[name] = os.getxattr(path, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
    except OSError:
        pass
    return found


@dataclass(frozen=True)
class Changes:
    """Between an image and a container made of it: what a new layer holds."""

    view: Mapping[str, Seen]
    names: Tuple[str, ...]
    """Added or changed, with their parent directories."""
    whiteouts: Tuple[str, ...]
    """Names of whiteout entries, ``etc/.wh.motd``."""

    @property
    def is_empty(self) -> bool:
        """True if nothing changed."""
        return not self.names and not self.whiteouts


def changes_in_upper(layers: Sequence[Part], upper: str, left_out: Iterable[str] = ()) -> Changes:
    """From overlayfs's upper directory. ``left_out`` are relative paths, such as mount points."""
    view = view_of(layers, upper)
    skipped = tuple(left_out)
    names: List[str] = []
    whiteouts: List[str] = []
    _walk_upper(upper, "", skipped, names, whiteouts)
    return Changes(view, tuple(names), tuple(whiteouts))


def _walk_upper(directory: str, inside: str, skipped: Sequence[str], names: List[str], whiteouts: List[str]) -> None:
    for child in sorted(os.listdir(directory)):
        name = f"{inside}/{child}" if inside else child
        path = os.path.join(directory, child)
        if name in skipped:
            continue
        status = os.lstat(path)
        if is_whiteout(status):
            prefix = os.fsdecode(WHITEOUT_PREFIX)
            whiteouts.append(f"{inside}/{prefix}{child}" if inside else prefix + child)
            continue
        names.append(name)
        if stat.S_ISDIR(status.st_mode):
            if is_opaque(path):
                whiteouts.append(f"{name}/{_OPAQUE_NAME}")
            _walk_upper(path, name, skipped, names, whiteouts)


def changes_in_copy(layers: Sequence[Part], root: str, left_out: Iterable[str] = ()) -> Changes:
    """From an unpacked copy (``Store.flatten``) in which a container ran: by kind, size, time, mode and link target."""
    before = view_of(layers)
    now: View = {}
    _add(now, root, "", None)
    skipped = tuple(left_out)
    names = {name for name, seen in now.items() if name not in skipped and _is_changed(before.get(name), seen)}
    gone = [name for name in before if name not in now and name not in skipped]
    whiteouts = []
    for name in gone:
        parent, _, last = name.rpartition("/")
        if parent and parent not in now:
            continue  # its directory is gone as a whole
        prefix = os.fsdecode(WHITEOUT_PREFIX)
        whiteouts.append(f"{parent}/{prefix}{last}" if parent else prefix + last)
    for name in [*names, *whiteouts]:
        names.update(_parents(name))
    view = {name: _seen(now[name].path, name, None, before.get(name)) for name in names}
    return Changes(view, tuple(sorted(names)), tuple(sorted(whiteouts)))


def _parents(name: str) -> List[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _is_changed(before: Optional[Seen], now: Seen) -> bool:
    if before is None:
        return True
    old, new = os.lstat(before.path), os.lstat(now.path)
    if old.st_mode != new.st_mode:
        return True
    if stat.S_ISREG(new.st_mode):
        return (old.st_size, old.st_mtime_ns) != (new.st_size, new.st_mtime_ns)
    return stat.S_ISLNK(new.st_mode) and os.readlink(before.path) != os.readlink(now.path)
