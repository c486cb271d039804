"""Unpacking one layer into a directory of its own, ready to be a lower directory of overlayfs.

What becomes of things that an ordinary user in a user namespace with one uid cannot have:

* Owners are those of the user; the ones in the archive are recorded.
* Modes get what the owner needs to read (and, for directories, to write); set-user-ID and set-group-ID bits are taken
  off, because on the host they would work for other users of a shared store. The original is recorded.
* Device nodes are left out and recorded; sockets do not exist in archives; FIFOs are made.
* ``user.*`` attributes are kept, all others (``security.capability``, ``trusted.*``) and ``user.overlay.*`` are not.
* A whiteout becomes what overlayfs makes itself: a character device 0:0, which Linux lets every user make since 5.8
  (unprivileged overlays came with 5.11); an opaque directory gets ``user.overlay.opaque=y``, which mounts with
  ``userxattr`` read. Where the file system of the store refuses one of them, both are only recorded, the result says
  ``needs_merge``, and the store materialises the layer together with those below (see ``merge.py``).

Source: the layer chapter of the OCI image specification; overlayfs.rst of the kernel.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Set, Tuple

from . import tar
from .errors import BadImage, UnsafeArchive
from .tree import Parts, Tree, parts_of, remove_tree, shown

OPAQUE_XATTR = "user.overlay.opaque"
WHITEOUT_PREFIX = b".wh."
_META_PREFIX = b".wh..wh."
_OPAQUE_MARK = b".wh..wh..opq"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_TIMES_LIMIT_NS = 1 << 62


@dataclass(frozen=True)
class Limits:
    """Where a layer is taken for a bomb."""

    bytes: int = 256 << 30
    """Of all files together."""
    entries: int = 5_000_000
    ratio: int = 400
    """Of uncompressed to compressed, looked at beyond 1 GiB."""


@dataclass
class Unpacked:
    """What is known about an unpacked layer besides its files. Paths are relative, without ``./``."""

    bytes: int = 0
    entries: int = 0
    needs_merge: bool = False
    whiteouts: List[str] = field(default_factory=list)
    opaque: List[str] = field(default_factory=list)
    changed: Dict[str, Tuple[int, int, int]] = field(default_factory=dict)
    """Path: uid, gid and mode in the archive, where they differ from 0, 0 and the mode on disk."""
    devices: Dict[str, Tuple[str, int, int, int]] = field(default_factory=dict)
    """Path: kind (``c`` or ``b``), major, minor, mode."""
    implicit: List[str] = field(default_factory=list)

    def to_json(self) -> Dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Unpacked:
        out = cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})
        out.changed = {path: (one[0], one[1], one[2]) for path, one in out.changed.items()}
        return out


def unpack(
    pieces: Iterable[bytes],
    target: str,
    limits: Optional[Limits] = None,
    can_whiteout: bool = True,
    extra_mode: int = 0,
    on_bytes: Optional[Callable[[int], None]] = None,
) -> Unpacked:
    """Unpack an uncompressed tar stream into the existing, empty directory ``target``; read the stream to its end.

    ``extra_mode`` is what others may do, at most what the owner may: 0o050 or 0o055. Raises UnsafeArchive, BadImage,
    and OSError of the disk; the directory is then in any state.
    """
    with Tree(target) as tree:
        return _Unpacker(tree, limits or Limits(), can_whiteout, extra_mode, on_bytes).run(pieces)


class _Unpacker:
    def __init__(
        self,
        tree: Tree,
        limits: Limits,
        can_whiteout: bool,
        extra_mode: int,
        on_bytes: Optional[Callable[[int], None]],
    ) -> None:
        self._tree = tree
        self._limits = limits
        self._can_whiteout = can_whiteout
        self._extra = extra_mode
        self._on_bytes = on_bytes
        self._umask = _umask()
        self._result = Unpacked()
        self._directories: Dict[Parts, Tuple[int, int]] = {}
        self._whiteouts: Set[Parts] = set()
        self._opaque: Set[Parts] = set()

    def run(self, pieces: Iterable[bytes]) -> Unpacked:
        source = tar.Source(pieces)
        reader = tar.Reader(source)
        for entry in reader:
            self._result.entries += 1
            if self._result.entries > self._limits.entries:
                raise UnsafeArchive(f"the archive has more than {self._limits.entries:,} members")
            parts = parts_of(entry.name)
            name = parts[-1] if parts else b""
            if name.startswith(WHITEOUT_PREFIX):
                self._note_whiteout(parts, name)
            elif entry.kind in _ACTIONS:
                try:
                    _ACTIONS[entry.kind](self, entry, parts, reader)
                except OSError as error:
                    _explain(error, entry)
                    raise
        source.drain()
        self._represent()
        self._finish_directories()
        result = self._result
        result.implicit = sorted(_text(parts) for parts in self._tree.implicit)
        return result

    # Members.

    def _file(self, entry: tar.Entry, parts: Parts, reader: tar.Reader) -> None:
        self._result.bytes += entry.size
        if self._result.bytes > self._limits.bytes or entry.real_size > self._limits.bytes:
            raise UnsafeArchive(f"the archive has more than {self._limits.bytes:,} bytes in its files")
        mode = self._recorded_mode(entry, parts, 0o400)
        directory, name = self._place(parts)
        fd = self._create(parts, name, directory, mode)
        try:
            if mode & (self._umask | 0o7000):
                os.fchmod(fd, mode)
            self._write(fd, entry, reader)
            if entry.xattrs:
                _set_xattrs(fd, entry.xattrs)
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)
        if self._on_bytes is not None:
            self._on_bytes(self._result.bytes)

    def _write(self, fd: int, entry: tar.Entry, reader: tar.Reader) -> None:
        if entry.sparse is None:
            for piece in reader.data():
                _write_all(fd, piece)
            return
        os.ftruncate(fd, entry.real_size)
        data = _Slices(reader.data())
        for offset, count in entry.sparse:
            os.lseek(fd, offset, os.SEEK_SET)
            for piece in data.take(count):
                _write_all(fd, piece)

    def _create(self, parts: Parts, name: bytes, directory: int, mode: int) -> int:
        try:
            return os.open(name, _NEW_FILE, mode, dir_fd=directory)
        except FileExistsError:
            return os.open(name, _NEW_FILE, mode, dir_fd=self._replace(parts))

    def _replace(self, parts: Parts) -> int:
        """The later member of a name is right. Returns the directory again: open ones are forgotten."""
        self._tree.forget()
        directory = self._tree.directory(parts[:-1])
        remove_tree(parts[-1], directory)
        self._unlist(parts)
        return directory

    def _place(self, parts: Parts) -> Tuple[int, bytes]:
        if not parts:
            raise UnsafeArchive("the archive replaces its own root by something that is no directory")
        if parts in self._directories:
            return self._replace(parts), parts[-1]
        return self._tree.directory(parts[:-1]), parts[-1]

    def _unlist(self, parts: Parts) -> None:
        """Forget what was to be done at the end with a directory that is gone, and with all in it."""
        count = len(parts)
        for known in [one for one in self._directories if one[:count] == parts]:
            del self._directories[known]
        for marks in (self._whiteouts, self._opaque):
            marks.difference_update([one for one in marks if len(one) > count and one[:count] == parts])
        self._opaque.discard(parts)
        self._tree.implicit = [one for one in self._tree.implicit if one[:count] != parts]

    def _directory(self, entry: tar.Entry, parts: Parts, _reader: tar.Reader) -> None:
        mode = self._recorded_mode(entry, parts, 0o700)
        if parts:
            parent = self._tree.directory(parts[:-1])
            try:
                os.mkdir(parts[-1], 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(parts[-1], dir_fd=parent).st_mode):
                    self._tree.forget()
                    parent = self._tree.directory(parts[:-1])
                    os.unlink(parts[-1], dir_fd=parent)
                    os.mkdir(parts[-1], 0o700, dir_fd=parent)
        if entry.xattrs:
            _set_xattrs(self._tree.directory(parts), entry.xattrs)
        self._directories.pop(parts, None)
        self._directories[parts] = (mode, entry.mtime_ns)

    def _symlink(self, entry: tar.Entry, parts: Parts, _reader: tar.Reader) -> None:
        if b"\0" in entry.link or not entry.link or len(entry.link) > 4095:
            raise UnsafeArchive(f"the archive has an impossible link, {shown(entry.name)}")
        self._note_owner(entry, parts, 0o777)
        directory, name = self._place(parts)
        try:
            os.symlink(entry.link, name, dir_fd=directory)
        except FileExistsError:
            directory = self._replace(parts)
            os.symlink(entry.link, name, dir_fd=directory)
        os.utime(name, ns=_times(entry), dir_fd=directory, follow_symlinks=False)

    def _hard_link(self, entry: tar.Entry, parts: Parts, _reader: tar.Reader) -> None:
        origin = parts_of(entry.link)
        if origin == parts or not origin:
            return
        try:
            source = os.dup(self._tree.directory(origin[:-1], is_made=False))
        except (FileNotFoundError, NotADirectoryError):
            raise BadImage(f"the archive links {shown(entry.name)} to {shown(entry.link)}, which it lacks") from None
        try:
            directory, _ = self._place(parts)
            self._link(origin[-1], source, parts, directory)
        except FileNotFoundError:
            raise BadImage(f"the archive links {shown(entry.name)} to {shown(entry.link)}, which it lacks") from None
        finally:
            os.close(source)
        known = self._result.changed.get(_text(origin))
        if known is not None:
            self._result.changed[_text(parts)] = known

    def _link(self, origin: bytes, source: int, parts: Parts, directory: int) -> None:
        if stat.S_ISDIR(os.lstat(origin, dir_fd=source).st_mode):
            raise UnsafeArchive(f"the archive has a hard link to the directory {shown(origin)}")
        name = parts[-1]
        for _ in range(2):
            try:
                os.link(origin, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
                return
            except FileExistsError:
                directory = self._replace(parts)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP):
                    raise
                _copy_member(origin, source, name, directory)  # a file system without hard links
                return

    def _fifo(self, entry: tar.Entry, parts: Parts, _reader: tar.Reader) -> None:
        mode = self._recorded_mode(entry, parts, 0o600)
        self._place(parts)
        directory, name = self._replace(parts), parts[-1]
        os.mkfifo(name, mode, dir_fd=directory)
        os.chmod(name, mode, dir_fd=directory)

    def _device(self, entry: tar.Entry, parts: Parts, _reader: tar.Reader) -> None:
        kind = "c" if entry.kind == tar.CHARACTER else "b"
        self._result.devices[_text(parts)] = (kind, entry.device[0], entry.device[1], entry.mode)

    # What is recorded.

    def _recorded_mode(self, entry: tar.Entry, parts: Parts, needed: int) -> int:
        """The mode on disk."""
        mode = (entry.mode & 0o1777) | needed
        if self._extra:
            owner = mode & 0o500
            mode |= ((owner >> 3) | (owner >> 6)) & self._extra
        self._note_owner(entry, parts, mode)
        return mode

    def _note_owner(self, entry: tar.Entry, parts: Parts, mode: int) -> None:
        if entry.uid or entry.gid or (mode != entry.mode and entry.kind != tar.SYMLINK):
            self._result.changed[_text(parts)] = (entry.uid, entry.gid, entry.mode)
        else:
            self._result.changed.pop(_text(parts), None)

    def _note_whiteout(self, parts: Parts, name: bytes) -> None:
        if name == _OPAQUE_MARK:
            self._opaque.add(parts[:-1])
        elif not name.startswith(_META_PREFIX):
            hidden = name[len(WHITEOUT_PREFIX) :]
            if hidden in (b"", b".", b".."):
                raise UnsafeArchive(f"the archive has the whiteout {shown(b'/'.join(parts))}")
            self._whiteouts.add((*parts[:-1], hidden))

    # The end.

    def _represent(self) -> None:
        """Whiteouts concern lower layers only: what this layer itself has in their place stays."""
        for parts in sorted(self._whiteouts):
            directory = self._tree.directory(parts[:-1])
            try:
                status = os.lstat(parts[-1], dir_fd=directory)
            except FileNotFoundError:
                self._result.whiteouts.append(_text(parts))
                if self._can_whiteout:
                    os.mknod(parts[-1], stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)
            else:
                if stat.S_ISDIR(status.st_mode):
                    self._opaque.add(parts)
        for parts in sorted(self._opaque):
            self._result.opaque.append(_text(parts))
            directory = self._tree.directory(parts)
            if self._can_whiteout and parts:
                os.setxattr(directory, OPAQUE_XATTR, b"y")
        if b"" in [b"/".join(parts) for parts in self._opaque] or not self._can_whiteout:
            self._result.needs_merge = bool(self._whiteouts or self._opaque)

    def _finish_directories(self) -> None:
        self._tree.implicit = [parts for parts in self._tree.implicit if parts not in self._directories]
        for parts in self._tree.implicit if self._extra else ():
            os.fchmod(self._tree.directory(parts), 0o700 | self._extra)
        for parts, (mode, mtime_ns) in reversed(list(self._directories.items())):
            fd = self._tree.directory(parts)
            os.fchmod(fd, mode)
            when = min(max(mtime_ns, 0), _NEW_TIMES_LIMIT_NS)
            os.utime(fd, ns=(when, when))


_ACTIONS: Dict[bytes, Callable[[_Unpacker, tar.Entry, Parts, tar.Reader], None]] = {
    tar.REGULAR: _Unpacker._file,
    tar.HARD_LINK: _Unpacker._hard_link,
    tar.SYMLINK: _Unpacker._symlink,
    tar.DIRECTORY: _Unpacker._directory,
    tar.FIFO: _Unpacker._fifo,
    tar.CHARACTER: _Unpacker._device,
    tar.BLOCK_DEVICE: _Unpacker._device,
}


class _Slices:
    """Pieces of data, taken in given lengths."""

    def __init__(self, pieces: Iterable[memoryview]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def take(self, count: int) -> Iterable[memoryview]:
        while count > 0:
            if not self._rest:
                self._rest = next(self._pieces, memoryview(b""))
                if not self._rest:
                    raise BadImage("the archive ends in the middle of a sparse file")
            part, self._rest = self._rest[:count], self._rest[count:]
            count -= len(part)
            yield part


def _write_all(fd: int, piece: memoryview) -> None:
    done = os.write(fd, piece)
    while done < len(piece):
        done += os.write(fd, piece[done:])


def _copy_member(origin: bytes, source: int, name: bytes, directory: int) -> None:
    status = os.lstat(origin, dir_fd=source)
    if not stat.S_ISREG(status.st_mode):
        raise BadImage(f"the file system cannot link {shown(origin)}")
    reader = os.open(origin, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        writer = os.open(name, _NEW_FILE, status.st_mode & 0o7777, dir_fd=directory)
        try:
            while True:
                piece = os.read(reader, 1 << 20)
                if not piece:
                    break
                _write_all(writer, memoryview(piece))
            os.utime(writer, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _set_xattrs(fd: int, xattrs: Mapping[str, bytes]) -> None:
    for name, value in xattrs.items():
        if not name.startswith("user.") or name.startswith("user.overlay."):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise


def _times(entry: tar.Entry) -> Tuple[int, int]:
    when = min(max(entry.mtime_ns, 0), _NEW_TIMES_LIMIT_NS)
    return when, when


def _text(parts: Parts) -> str:
    return os.fsdecode(b"/".join(parts))


def _umask() -> int:
    """Of this process, read without changing it."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
            for line in stream:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o777  # unknown: set every mode


def _explain(error: OSError, entry: tar.Entry) -> None:
    """Name the member in errors that the archive causes."""
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
        raise UnsafeArchive(f"the archive has a name that cannot be, {shown(entry.name)}: {error.strerror}") from error


def can_whiteout(directory: str) -> bool:
    """Tried by doing: does the file system take whiteouts and the attribute of opaque directories?"""
    probe = os.path.join(directory, f".probe-{os.getpid()}-{os.urandom(4).hex()}")
    os.mkdir(probe, 0o700)
    try:
        os.setxattr(probe, OPAQUE_XATTR, b"y")
        os.mknod(os.path.join(probe, "w"), stat.S_IFCHR, os.makedev(0, 0))
        return True
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    finally:
        try:
            os.unlink(os.path.join(probe, "w"))
        except OSError:
            pass
        os.rmdir(probe)
