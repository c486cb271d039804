"""A few threads for what may take long: downloads, copies, digests, uploads, removing trees."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import stat
import threading
from typing import Callable, Optional

_PRIVATE_DIRECTORY = stat.S_IFDIR | stat.S_IRWXU


class Workers:
    """A fixed number of daemon threads, each with a value of its own (a connection) made on first use."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._threads = 0
        self._idle = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Optional[Callable[[], None]]] = queue.SimpleQueue()

    def do(self, work: Callable[[], None]) -> None:
        """Run it in one of the threads. It must not raise."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._count:
                self._threads += 1
                threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._queue.put(work)

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            work()
            with self._lock:
                self._idle += 1


def remove_tree(path: str) -> None:
    """Remove a directory with everything in it, also what a task has made unwritable. What resists stays."""

    def make_writable(_function: object, failed: str, _info: object) -> None:
        parent = os.path.dirname(failed)
        try:
            os.chmod(parent, stat.S_IRWXU)
            if os.path.isdir(failed) and not os.path.islink(failed):
                os.chmod(failed, stat.S_IRWXU)
                shutil.rmtree(failed, ignore_errors=True)
            else:
                os.unlink(failed)
        except OSError:
            return

    shutil.rmtree(path, onerror=make_writable)
    if os.path.isdir(path) and not os.path.islink(path):
        _open_up(path)
        shutil.rmtree(path, ignore_errors=True)


def _open_up(path: str) -> None:
    """Make every directory below one's own again: overlays leave several without any permission, one in another."""
    for directory, names, _ in os.walk(path):
        for name in names:
            child = os.path.join(directory, name)
            if not os.path.islink(child):
                with contextlib.suppress(OSError):
                    os.chmod(child, stat.S_IRWXU)


def is_clean(base: str) -> bool:
    """Empty a task's directory of its logs. True if it is then like a fresh one: nothing in it, still
    private.

    Most tasks leave nothing. Making and removing three directories costs more on a journalling file system
    than starting a process, so a clean directory serves another task.
    """
    try:
        for path in (base, base + "/work", base + "/tmp"):
            if os.lstat(path).st_mode != _PRIVATE_DIRECTORY:
                return False
        if os.listdir(base + "/work") or os.listdir(base + "/tmp"):
            return False
        for name in ("/stdout", "/stderr"):
            os.unlink(base + name)
        return len(os.listdir(base)) == 2
    except OSError:
        return False
