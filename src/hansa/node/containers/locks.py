"""Locks between processes, by flock: the kernel gives them back however their holder ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager
from typing import Callable, Iterator, Optional

from .errors import StoreBusy, StoreUnusable

_LOOK_S = 0.05


@contextmanager
def locked(
    path: str,
    is_shared: bool = False,
    timeout_s: Optional[float] = None,
    while_waiting: Optional[Callable[[], None]] = None,
) -> Iterator[int]:
    """Hold the lock of a file, which is made where it is missing. Gives its descriptor.

    ``while_waiting`` is called again and again until it is had. Raises StoreBusy after ``timeout_s``.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(fd, path, is_shared, timeout_s, while_waiting)
        yield fd
    finally:
        os.close(fd)


def _acquire(
    fd: int, path: str, is_shared: bool, timeout_s: Optional[float], while_waiting: Optional[Callable[[], None]]
) -> None:
    if try_lock(fd, is_shared):
        return
    if timeout_s is None and while_waiting is None:
        fcntl.flock(fd, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX)
        return
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not try_lock(fd, is_shared):
        if deadline is not None and time.monotonic() >= deadline:
            raise StoreBusy(f"{os.path.basename(path)} is held by another process for more than {timeout_s:g} s")
        if while_waiting is not None:
            while_waiting()
        time.sleep(_LOOK_S)


def try_lock(fd: int, is_shared: bool = False) -> bool:
    """Lock an open file or directory now, or say False. Raises StoreUnusable where the file system cannot lock."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise StoreUnusable(
                "the file system of the store has no locks",
                "put the store on a local file system, or mount with locks (Lustre: -o flock)",
            ) from error
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
