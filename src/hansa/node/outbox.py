"""What waits to be told to the server, and how a request is composed from it."""

from __future__ import annotations

import base64
from collections import deque
from typing import Any, Deque, Dict, Iterable, List, Optional

from .logs import Stream
from .protocol import EXCHANGE_LIMIT_BYTES

Json = Dict[str, Any]

CHUNK_BYTES = 192 * 1024
_CHUNK_OVERHEAD = 120
_BUDGET_BYTES = EXCHANGE_LIMIT_BYTES - 256 * 1024
"""The rest is for what is neither result nor log: held leases, running tasks."""
LOG_BUDGET_BYTES = 4 * 1024 * 1024
"""Of encoded log bytes in one request."""


class Item:
    """A result, the rest of its logs, and the directory that is kept until both have arrived."""

    __slots__ = ("directory", "ended_at", "is_spilled", "result", "size", "source")

    def __init__(
        self, result: Json, source: "Speaker", ended_at: float, size: int, directory: Optional[str] = None
    ) -> None:
        self.result = result
        self.source = source
        self.ended_at = ended_at
        self.size = size
        self.directory = directory
        self.is_spilled = False


class Speaker:
    """A task as the origin of log chunks. Chunks in flight hold back its next ones and its result: two requests
    may overtake each other, and who follows the log would never see what came late."""

    __slots__ = ("flying", "index", "lease", "streams")

    def __init__(self, lease: int, index: int, streams: List[Stream]) -> None:
        self.lease = lease
        self.index = index
        self.streams = streams
        self.flying = 0

    @property
    def unread(self) -> int:
        """Bytes of logs to ship."""
        return sum(stream.unread for stream in self.streams)


class Parcel:
    """One request under way: its body, and what is done with once it is answered."""

    __slots__ = ("asked", "body", "is_held", "items", "speakers")

    def __init__(self, body: Json, items: List[Item], speakers: List[Speaker], asked: int, is_held: bool) -> None:
        self.body = body
        self.items = items
        self.speakers = speakers
        self.asked = asked
        self.is_held = is_held


class Content:
    """Results and log chunks of one request, and how much room is left."""

    def __init__(self) -> None:
        self.items: List[Item] = []
        self.chunks: List[Json] = []
        self.speakers: List[Speaker] = []
        self._left = _BUDGET_BYTES
        self._log_left = LOG_BUDGET_BYTES

    def add_logs(self, speaker: Speaker) -> bool:
        """Ship what a speaker has to say. False if some of it has to wait for the next request."""
        for stream in speaker.streams:
            while stream.unread:
                room = min(self._left, self._log_left) - _CHUNK_OVERHEAD
                if room < 4096:
                    return False
                offset = stream.offset
                data = stream.read(min(CHUNK_BYTES, room * 3 // 4))
                if not data:
                    break
                text = base64.b64encode(data).decode("ascii")
                self.chunks.append(
                    {"lease": speaker.lease, "index": speaker.index, "stream": stream.name, "offset": offset,
                     "data": text}
                )  # fmt: skip
                if speaker not in self.speakers:
                    self.speakers.append(speaker)
                self._left -= len(text) + _CHUNK_OVERHEAD
                self._log_left -= len(text) + _CHUNK_OVERHEAD
        return True

    def add_item(self, item: Item) -> bool:
        """Take a result along, with its logs. False if it has to wait."""
        if item.source.flying or (item.source.streams and not self.add_logs(item.source)):
            return False
        if item.size > self._left:
            return False
        self._left -= item.size
        self.items.append(item)
        return True


class Outbox:
    """Finished tasks whose results have not been sent, in order; those under way are in ``flying``."""

    def __init__(self) -> None:
        self.ready: Deque[Item] = deque()
        self.flying: Dict[int, Item] = {}  # by id()

    def add(self, item: Item) -> None:
        self.ready.append(item)

    def __len__(self) -> int:
        return len(self.ready) + len(self.flying)

    def compose(self, live: Iterable[Speaker]) -> Content:
        """Take what fits into one request: results first, then what running tasks have written."""
        content = Content()
        later: List[Item] = []
        while self.ready:
            item = self.ready.popleft()
            if content.add_item(item):
                self.flying[id(item)] = item
            else:
                later.append(item)
                if len(later) > 100:  # what is full stays full; do not look at thousands for nothing
                    break
        self.ready.extendleft(reversed(later))
        for speaker in live:
            if not speaker.flying and not content.add_logs(speaker):
                break
        for speaker in content.speakers:
            speaker.flying += 1
        return content

    def answered(self, parcel: Parcel) -> None:
        """Its content has arrived."""
        for item in parcel.items:
            self.flying.pop(id(item), None)
        for speaker in parcel.speakers:
            speaker.flying -= 1

    def forget_lease(self, lease: int) -> List[Item]:
        """Leave out the results of a lease that is no longer ours; returns those that were not on their
        way."""
        gone = [item for item in self.ready if item.result["lease"] == lease]
        if gone:
            self.ready = deque(item for item in self.ready if item.result["lease"] != lease)
        return gone

    def unanswered(self) -> List[Item]:
        """All results that the server has not acknowledged."""
        return list(self.flying.values()) + list(self.ready)
