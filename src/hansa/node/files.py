"""Input files: a cache by content, and copies of it in tasks' directories."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
from typing import Callable, Dict, Iterable, Optional, Protocol, Set, Tuple

from . import linux
from .backoff import Backoff
from .paths import checked
from .protocol import File
from .transport import Refused, Unreachable

_DIGEST_LENGTH = len("sha256:") + 64
_CORRUPT_TRIES = 3


class InputError(Exception):
    """An input cannot be had; the message says which and why."""


class Source(Protocol):
    """Where the content comes from."""

    def get(self, path: str, write: Callable[[bytes], object]) -> int: ...


Stamp = Tuple[int, int, int]
"""Size, mtime in ns, inode: an input with the same stamp after the task was not changed."""


class Cache:
    """Files by digest in one directory. Thread-safe: of several who want a digest, one fetches it."""

    def __init__(self, directory: str, path_of: Callable[[str], str]) -> None:
        self._directory = directory
        self._path_of = path_of
        self._lock = threading.Lock()
        self._fetching: Dict[str, threading.Event] = {}

    def place(self, digest: str) -> str:
        """Where the file is, or would be."""
        return os.path.join(self._directory, digest.partition(":")[2])

    def make_room(self, limit_bytes: int, needed: Callable[[], Set[str]]) -> int:
        """Where more than ``limit_bytes`` are kept: remove files, the longest unused first, but none that is needed.

        Returns the bytes that went. Call it from the thread that decides what is needed.
        """
        with os.scandir(self._directory) as entries:
            found = [(entry.stat(), entry.path) for entry in entries if not entry.name.endswith(".part")]
        over = sum(status.st_size for status, _ in found) - limit_bytes
        if over <= 0:
            return 0
        kept = {self.place(digest) for digest in needed()}
        gone = 0
        for status, path in sorted(found, key=lambda one: one[0].st_mtime_ns):
            if gone >= over:
                break
            if path not in kept:
                os.unlink(path)
                gone += status.st_size
        return gone

    def used(self, file: File) -> None:
        """Note that a file was used now."""
        with contextlib.suppress(OSError):
            os.utime(self.place(file.digest))

    def missing(self, files: Iterable[File]) -> bool:
        """True if a fetch is needed for one of them."""
        return any(not os.path.exists(self.place(file.digest)) for file in files)

    def fetch(self, file: File, source: Source, backoff: Backoff, pause: Callable[[float], bool]) -> None:
        """Bring a file here and check it. Repeats while the server is away and ``pause`` says True.

        Raises InputError when the server refuses, when the content is wrong three times, or on a full disk.
        """
        _check_digest(file)
        while True:
            with self._lock:
                if os.path.exists(self.place(file.digest)):
                    return
                event = self._fetching.get(file.digest)
                mine = event is None
                if event is None:
                    event = self._fetching[file.digest] = threading.Event()
            if not mine:
                event.wait()
                continue  # there now, or the other one failed and it is our turn
            try:
                self._fetch(file, source, backoff, pause)
                return
            finally:
                with self._lock:
                    del self._fetching[file.digest]
                event.set()

    def _fetch(self, file: File, source: Source, backoff: Backoff, pause: Callable[[float], bool]) -> None:
        corrupt = 0
        while True:
            try:
                self._download(file, source)
                return
            except Unreachable as error:
                problem = str(error)
            except Refused as error:
                raise InputError(f"input {file.path} ({file.digest}): {error}") from error
            except InputError as error:
                corrupt += 1
                problem = str(error)
                if corrupt >= _CORRUPT_TRIES:
                    raise
            except OSError as error:
                raise InputError(f"input {file.path} cannot be stored on this node: {error.strerror}") from error
            if not pause(backoff.next_s()):
                raise InputError(f"input {file.path}: the pilot ends, and {problem}")

    def _download(self, file: File, source: Source) -> None:
        """What came stays when the connection breaks, and the next try goes on there."""
        temporary = self.place(file.digest) + ".part"
        try:
            digest = hashlib.sha256()
            with open(temporary, "a+b") as stream:
                stream.seek(0)
                offset = 0
                for piece in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(piece)
                    offset += len(piece)

                def write(piece: bytes) -> None:
                    digest.update(piece)
                    stream.write(piece)

                path = self._path_of(file.digest)
                size = offset + source.get(f"{path}?offset={offset}" if offset else path, write)
            got = "sha256:" + digest.hexdigest()
            if got != file.digest:
                raise InputError(
                    f"input {file.path} arrived corrupted: {size:,} bytes with {got}, not "
                    f"{file.size:,} bytes with {file.digest}"
                )
            os.chmod(temporary, 0o400)
            os.rename(temporary, self.place(file.digest))
        except BaseException as error:
            if not isinstance(error, Unreachable):
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            raise


def _check_digest(file: File) -> None:
    kind, _, digits = file.digest.partition(":")
    if kind != "sha256" or len(file.digest) != _DIGEST_LENGTH or not set(digits) <= set("0123456789abcdef"):
        raise InputError(f"input {file.path}: {file.digest!r} is not a sha256 digest")


def lay_out(cache: Cache, files: Iterable[File], directory: str) -> Dict[str, Stamp]:
    """Copy inputs from the cache into a fresh directory that only this process writes to.

    Returns their stamps. Raises InputError for unsafe paths and two files in one place; OSError of the disk.
    """
    stamps: Dict[str, Stamp] = {}
    for file in files:
        try:
            target = os.path.join(directory, checked(file.path))
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            copy(cache.place(file.digest), target, 0o700 if file.executable else 0o600)
            cache.used(file)
        except ValueError as error:
            raise InputError(f"input {file.path!r}: {error}") from error
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise InputError(f"input {file.path!r} is in the place of another input") from error
        status = os.lstat(target)
        stamps[file.path] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return stamps


def copy(source: str, target: str, mode: int) -> None:
    """Copy a file to a new place: shared blocks where the file system can, else by the kernel, else by hand.

    Never a hard link: the task may write to it.
    """
    with open(source, "rb") as reader:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(fd, "wb") as writer:
            size = os.fstat(reader.fileno()).st_size
            if size == 0 or linux.reflink(reader.fileno(), fd):
                return
            if not _copy_in_kernel(reader.fileno(), fd, size):
                shutil.copyfileobj(reader, writer, 1 << 20)


def _copy_in_kernel(source: int, target: int, size: int) -> bool:
    done = 0
    while done < size:
        try:
            count: Optional[int] = os.copy_file_range(source, target, size - done)
        except OSError as error:
            if done == 0 and error.errno in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                return False
            raise
        if not count:
            return False if done == 0 else _short(done, size)
        done += count
    return True


def _short(done: int, size: int) -> bool:
    raise OSError(errno.EIO, f"copied {done} of {size} bytes")
