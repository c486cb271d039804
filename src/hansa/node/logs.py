"""Following the log files of a task: what is new is read at most up to a limit, the rest is counted.

The file on disk must not grow for ever either. Beyond the limit its blocks are given back to the file system
(a hole is punched, the size stays); where the file system cannot do that, the file grows and is only not
shipped. A task is never killed for talking too much.
"""

from __future__ import annotations

import os
from typing import Optional

from . import linux

PUNCH_BYTES = 4 << 20
"""Beyond the limit, a hole is punched whenever the file has grown by so much."""


class Stream:
    """One log stream of one task. ``offset`` counts what was handed out."""

    __slots__ = ("_last_line", "_punched", "data", "limit", "name", "offset", "path", "size")

    def __init__(self, name: str, path: str, limit: int) -> None:
        self.name = name
        self.path = path
        self.limit = limit
        self.offset = 0
        self.size = 0
        self.data: Optional[bytes] = None  # the rest, if it was taken into memory
        self._punched = limit
        self._last_line: Optional[bytes] = None

    def look(self) -> int:
        """Find out how large the file is; give the disk back what is beyond the limit. Returns `unread`."""
        if self.data is None:
            try:
                self.size = os.lstat(self.path).st_size
            except OSError:
                self.size = max(self.size, self.offset)
            if self.size - self._punched > PUNCH_BYTES:
                self._punch()
        return self.unread

    @property
    def unread(self) -> int:
        """Bytes to hand out."""
        if self.data is not None:
            return len(self.data)
        more = len(self._last_line) if self._last_line else 0
        return max(0, min(self.size, self.limit) - min(self.offset, self.limit)) + more

    def close(self) -> None:
        """The task has ended: from now on the stream ends with a line about what was dropped."""
        self.look()
        dropped = self.size - self.limit
        if dropped > 0:
            text = f"\n[hansa: {dropped:,} bytes dropped, the limit of one stream is {self.limit:,} bytes]\n"
            self._last_line = text.encode()

    def take_into_memory(self) -> None:
        """Read the rest, so that the file is not needed any more."""
        parts = []
        start = self.offset
        while self.unread:
            part = self.read(1 << 20)
            if not part:
                break
            parts.append(part)
        self.offset = start
        self.data = b"".join(parts)

    def read(self, limit: int) -> bytes:
        """The next bytes, at most ``limit``. Nothing if there are none, or the file cannot be read."""
        if self.data is not None:
            out, self.data = self.data[:limit], self.data[limit:]
        elif self.offset < min(self.size, self.limit):
            out = self._read_file(min(limit, min(self.size, self.limit) - self.offset))
            if not out:
                self.size = self.offset  # it was cut short or taken away by the task
        elif self._last_line:
            out, self._last_line = self._last_line[:limit], self._last_line[limit:] or None
        else:
            return b""
        self.offset += len(out)
        return out

    def _read_file(self, length: int) -> bytes:
        try:
            # The task owns the directory: it may have put a link or a fifo here.
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            return os.pread(fd, length, self.offset)
        except OSError:
            return b""
        finally:
            os.close(fd)

    def _punch(self) -> None:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        try:
            linux.punch_hole(fd, self._punched, self.size - self._punched)
            self._punched = self.size
        finally:
            os.close(fd)
