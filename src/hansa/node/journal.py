"""Results on disk while the server is away: they survive the pilot, and need not all be kept in memory.

One JSON document a line: a result, the rest of its logs where that is small, and the directory where it is
not. Nothing is written while the server answers.
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any, Dict, List, Tuple

from .logs import Stream
from .outbox import Item, Speaker

SMALL_LOG_BYTES = 256 * 1024


class Journal:
    """An append-only file. Results in it are at least as old as those in memory."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._read_at = 0
        self.unread = 0  # results on disk only
        self.size = 0
        if os.path.exists(path):
            with open(path, "rb") as stream:
                lines = stream.read().split(b"\n")
            # The last line may be half written: its task will run again.
            self.unread = len(lines) - 1
            self.size = sum(len(line) + 1 for line in lines[:-1])
            os.truncate(path, self.size)

    def append(self, items: List[Item], is_only_copy: bool) -> None:
        """Write results. ``is_only_copy``: they will be read back; else memory has them too. OSError: disk
        full."""
        if not items:
            return
        data = b"".join(_line(item) for item in items)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            os.ftruncate(fd, self.size)
            raise
        finally:
            os.close(fd)
        self.size += len(data)
        if is_only_copy:
            self.unread += len(items)
        else:
            self._read_at = self.size

    def read(self, limit: int) -> List[Item]:
        """The next results that are only on disk."""
        out: List[Item] = []
        if not self.unread:
            return out
        with open(self._path, "rb") as stream:
            stream.seek(self._read_at)
            while self.unread and len(out) < limit:
                line = stream.readline()
                self._read_at += len(line)
                self.unread -= 1
                try:
                    out.append(_item(json.loads(line)))
                except (ValueError, KeyError, TypeError):
                    continue
        return out

    def clear(self) -> None:
        """Everything in it has been acknowledged."""
        if self.size:
            os.unlink(self._path)
            self.size = self._read_at = self.unread = 0


def directories_in(path: str) -> List[str]:
    """The task directories that the journal still needs."""
    out = []
    if os.path.exists(path):
        with open(path, "rb") as stream:
            for line in stream:
                try:
                    directory = json.loads(line).get("directory")
                except ValueError:
                    continue
                if directory:
                    out.append(directory)
    return out


def _line(item: Item) -> bytes:
    inline, files = _logs(item.source)
    document: Dict[str, Any] = {"result": item.result, "logs": inline, "files": files}
    if item.directory is not None:
        document["directory"] = item.directory
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def _logs(source: Speaker) -> Tuple[List[Any], List[Any]]:
    inline: List[Any] = []
    files: List[Any] = []
    for stream in source.streams:
        if stream.data is not None:
            inline.append([stream.name, stream.offset, base64.b64encode(stream.data).decode("ascii")])
        elif stream.unread:
            files.append([stream.name, stream.path, stream.offset, stream.limit])
    return inline, files


def _item(document: Dict[str, Any]) -> Item:
    result = document["result"]
    streams = []
    for name, offset, data in document["logs"]:
        stream = Stream(name, "", 0)
        stream.offset = offset
        stream.data = base64.b64decode(data)
        streams.append(stream)
    for name, path, offset, limit in document["files"]:
        stream = Stream(name, path, limit)
        stream.offset = offset
        stream.close()
        streams.append(stream)
    speaker = Speaker(result["lease"], result["index"], streams)
    item = Item(result, speaker, 0.0, len(json.dumps(result)), document.get("directory"))
    item.is_spilled = True
    return item
