"""Logs of tasks: append-only chunks in the object store, with an index of chunks in the database.

A chunk holds what one exchange brought for one job: a first line of JSON that lists its pieces, then their bytes, all
of it compressed where that is worth it. Pieces carry their offset, so a piece that was sent twice is read once. The
row of a chunk says when it came, and where it has few pieces what they are: an end of a log is read without the rest.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hansa.engines.content import pack, unpack
from hansa.engines.objects import Objects
from hansa.jobs import store
from hansa.jobs.log_search import LONGEST_LINE_BYTES, Wanted, matching
from hansa.jobs.wire import LogLine, LogPiece
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.ids import new_id

_INDEXED = 32
"""Pieces that a row may list."""
_TAIL_LINE_BYTES = 4096
"""A line is guessed to be no longer, when the last ones are looked for; if they are, more is read."""

_OPEN_BYTES = 32 * 1024**2
"""Of lines without an end, of all tasks together, so much is held at a time when an array is searched."""


@dataclass(frozen=True)
class Piece:
    """Bytes of one stream of one attempt of a task."""

    index: int
    attempt: int
    stream: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class _Place:
    """Where a piece is: a chunk, and offset and length in its stream."""

    object: str
    attempt: int
    offset: int
    size: int
    time: datetime | None


@dataclass(frozen=True)
class LogChoice:
    """Which part of a task's output."""

    stream: str = "stdout"
    attempt: int | None = None
    """Default: the last one that wrote anything."""
    tail_bytes: int | None = None
    tail_lines: int | None = None
    since: datetime | None = None
    contains: str | None = None
    """Only lines with this text in them."""
    grep: str | None = None
    """Only lines in which this regular expression is found; ``tail_lines`` then counts those."""


@dataclass(frozen=True)
class OpenLog:
    """What was asked for: of which attempt (0: nothing was written), from which offset on, and the bytes."""

    attempt: int
    start: int
    pieces: AsyncIterator[bytes]


class LogStore:
    """Writes and reads log chunks."""

    def __init__(self, database: Database, objects: Objects, clock: Clock) -> None:
        self._database = database
        self._objects = objects
        self._clock = clock

    async def write(self, job: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Store a chunk; the row for ``log_chunks``, which the caller inserts in its unit of work."""
        header = [[p.index, p.attempt, p.stream, p.offset, len(p.data)] for p in pieces]
        body = json.dumps(header).encode() + b"\n" + b"".join(p.data for p in pieces)
        key = f"logs/{job}/{new_id('chunk')}"
        await self._objects.put(key, await asyncio.to_thread(pack, body) if len(body) > 65_536 else pack(body))
        indices = [p.index for p in pieces]
        return {
            "job": job,
            "first": min(indices),
            "last": max(indices),
            "object": key,
            "size": len(body),
            "time": self._clock.now(),
            "pieces": header if len(header) <= _INDEXED else None,
        }

    async def since(self, job: int, after: int, most_bytes: int) -> tuple[list[LogPiece], int]:
        """Pieces of chunks behind ``after``, and the last chunk read: for followers."""
        async with self._database.read() as tx:
            rows = await store.log_chunks_of(tx, job, after=after, limit=64)
        found: list[LogPiece] = []
        size = 0
        for row in rows:
            for piece in await self._chunk(row.object):
                data = base64.b64encode(piece.data).decode()
                found.append(LogPiece(piece.index, piece.attempt, piece.stream, piece.offset, data))
            after = row.id
            size += row.size
            if size >= most_bytes:
                break
        return found, after

    async def chunk_before(self, job: int, moment: datetime) -> int:
        """The last chunk that came before a moment: a cursor for :meth:`since`."""
        async with self._database.read() as tx:
            return await store.last_log_chunk(tx, job, before=moment)

    async def open(self, job: int, index: int, wanted: LogChoice) -> OpenLog:
        """One stream of one task, in order; the latest attempt that wrote anything, unless one is named."""
        places = await self._places(job, index, wanted.stream, wanted.attempt)
        if wanted.since is not None:
            places = [place for place in places if place.time is None or place.time >= wanted.since]
        start = places[0].offset if places else 0
        pieces = self._read(places, index, wanted.stream, start)
        lines = [Wanted(wanted.grep)] if wanted.grep is not None else []
        lines += [Wanted.text(wanted.contains)] if wanted.contains is not None else []
        if wanted.tail_bytes is not None or (wanted.tail_lines is not None and not lines):
            start, data = await self._ending(places, index, wanted)
            pieces = _once(data)
        for chosen in lines:
            pieces = matching(pieces, chosen)
        if lines and wanted.tail_lines is not None:
            pieces = _last_lines(pieces, wanted.tail_lines)
        return OpenLog(places[0].attempt if places else 0, start, pieces)

    async def search(
        self, job: int, wanted: Wanted, streams: Sequence[str], since: datetime | None
    ) -> AsyncIterator[list[LogLine]]:
        """Wanted lines of all tasks as they came, chunk by chunk (of many there are none). Each byte is read once."""
        after = await self.chunk_before(job, since) if since is not None else 0
        search = _Search(wanted)
        while True:
            async with self._database.read() as tx:
                rows = await store.log_chunks_of(tx, job, after=after, limit=64)
            if not rows:
                break
            for row in rows:
                after = row.id
                listed = row.pieces is None or any(piece[2] in streams for piece in row.pieces)
                pieces = await self._chunk(row.object) if listed else []
                yield [line for piece in pieces if piece.stream in streams for line in search.add(piece)]
        yield search.end()

    async def read(self, job: int, index: int, stream: str, attempt: int | None = None) -> AsyncIterator[bytes]:
        """All of a stream."""
        async for data in (await self.open(job, index, LogChoice(stream, attempt))).pieces:
            yield data

    async def tail(self, job: int, index: int, stream: str, most_bytes: int, attempt: int | None = None) -> bytes:
        """The last bytes of a stream."""
        found = await self.open(job, index, LogChoice(stream, attempt, tail_bytes=most_bytes))
        return b"".join([data async for data in found.pieces])

    async def _ending(self, places: list[_Place], index: int, wanted: LogChoice) -> tuple[int, bytes]:
        """Offset and bytes of the last lines, or bytes, of these places."""
        lines = wanted.tail_lines
        if lines is None:
            return await self._last_bytes(places, index, wanted.stream, wanted.tail_bytes or 0)
        most = lines * _TAIL_LINE_BYTES
        while True:
            start, data = await self._last_bytes(places, index, wanted.stream, most)
            found = data.splitlines(keepends=True)
            if len(found) > lines or len(data) < most:
                kept = b"".join(found[-lines:])
                return start + len(data) - len(kept), kept
            most *= 8

    async def _last_bytes(self, places: list[_Place], index: int, stream: str, most: int) -> tuple[int, bytes]:
        end = max((place.offset + place.size for place in places), default=0)
        start = max(0, end - most)
        later = [place for place in places if place.offset + place.size > start]
        data = b"".join([data async for data in self._read(later, index, stream, start)])
        return max(start, end - len(data)), data[-most:]

    async def delete(self, key: str) -> None:
        """A chunk's object is not kept any more."""
        await self._objects.delete(key)

    async def _read(self, places: list[_Place], index: int, stream: str, start: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` on, each once: places are in order of offset."""
        position = start
        key, found = "", list[Piece]()
        for place in places:
            if place.object != key:
                key, found = place.object, await self._chunk(place.object)
            for piece in found:
                if (piece.index, piece.stream, piece.attempt, piece.offset) != (
                    index,
                    stream,
                    place.attempt,
                    place.offset,
                ):
                    continue
                data = piece.data[max(0, position - piece.offset) :]
                position = max(position, piece.offset + len(piece.data))
                if data:
                    yield data

    async def _places(self, job: int, index: int, stream: str, attempt: int | None) -> list[_Place]:
        """Where the stream of an attempt (None: the last that wrote) is, in order of offset."""
        found: list[_Place] = []
        after = 0
        while True:
            async with self._database.read() as tx:
                rows = await store.log_chunks_of(tx, job, after=after, index=index)
            if not rows:
                break
            for row in rows:
                after = row.id
                pieces = row.pieces if row.pieces is not None else _heads(await self._chunk(row.object))
                found += [
                    _Place(row.object, piece[1], piece[3], piece[4], row.time)
                    for piece in pieces
                    if piece[0] == index and piece[2] == stream
                ]
        wanted = max((place.attempt for place in found), default=0) if attempt is None else attempt
        return sorted((place for place in found if place.attempt == wanted), key=lambda place: place.offset)

    async def _chunk(self, key: str) -> list[Piece]:
        try:
            body = await self._objects.get(key)
        except FileNotFoundError:  # it is just being deleted: logs are not kept for ever
            return []
        return list(_parse(body if body[:1] == b"[" else unpack(body)))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _last_lines(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """The last of whole lines, and no more than can be held."""
    kept: deque[bytes] = deque(maxlen=most)
    size = 0
    async for piece in pieces:
        for line in piece.splitlines(keepends=True):
            size += len(line) - (len(kept[0]) if len(kept) == most else 0)
            kept.append(line)
            while size > _OPEN_BYTES:
                size -= len(kept.popleft())
    yield b"".join(kept)


class _Search:
    """The lines of many streams whose pieces come in turn."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._ends: dict[tuple[int, int, str], int] = {}
        self._rest: dict[tuple[int, int, str], bytes] = {}
        self._held = 0

    def add(self, piece: Piece) -> list[LogLine]:
        key = (piece.index, piece.attempt, piece.stream)
        end = self._ends.get(key, piece.offset)
        fresh = piece.data[max(0, end - piece.offset) :]
        self._ends[key] = max(end, piece.offset + len(piece.data))
        rest = self._rest.pop(key, b"")
        self._held -= len(rest)
        *lines, rest = (rest + fresh).split(b"\n")
        found = [line for line in lines if self._wanted.has(line)]
        if rest:
            self._rest[key] = rest[-LONGEST_LINE_BYTES:]
            self._held += len(self._rest[key])
        ended = self.end() if self._held > _OPEN_BYTES else []
        return [_line(key, line) for line in found] + ended

    def end(self) -> list[LogLine]:
        """What has no end is taken as it is."""
        found = [_line(key, rest) for key, rest in self._rest.items() if self._wanted.has(rest)]
        self._rest.clear()
        self._held = 0
        return found


def _line(key: tuple[int, int, str], line: bytes) -> LogLine:
    return LogLine(*key, line.decode(errors="replace"))


def _heads(pieces: Iterable[Piece]) -> list[tuple[int, int, str, int, int]]:
    return [(p.index, p.attempt, p.stream, p.offset, len(p.data)) for p in pieces]


def _parse(body: bytes) -> Iterable[Piece]:
    header, _, rest = body.partition(b"\n")
    start = 0
    for index, attempt, stream, offset, size in json.loads(header):
        yield Piece(index, attempt, stream, offset, rest[start : start + size])
        start += size
