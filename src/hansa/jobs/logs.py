"""Logs of tasks: append-only chunks in the object store, with an index of chunks in the database.

A chunk holds what one exchange brought for one job: a first line of JSON that lists its pieces, then their bytes.
Pieces carry their offset, so a piece that was sent twice is read once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hansa.engines.objects import Objects
from hansa.jobs import store
from hansa.jobs.wire import LogPiece
from hansa.kernel.database import Database
from hansa.kernel.ids import new_id


@dataclass(frozen=True)
class Piece:
    """Bytes of one stream of one attempt of a task."""

    index: int
    attempt: int
    stream: str
    offset: int
    data: bytes


class LogStore:
    """Writes and reads log chunks."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database = database
        self._objects = objects

    async def write(self, job: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Store a chunk; the row for ``log_chunks``, which the caller inserts in its unit of work."""
        header = [[p.index, p.attempt, p.stream, p.offset, len(p.data)] for p in pieces]
        body = json.dumps(header).encode() + b"\n" + b"".join(p.data for p in pieces)
        key = f"logs/{job}/{new_id('chunk')}"
        await self._objects.put(key, body)
        indices = [p.index for p in pieces]
        return {"job": job, "first": min(indices), "last": max(indices), "object": key, "size": len(body)}

    async def since(self, job: int, after: int, most_bytes: int) -> tuple[list[LogPiece], int]:
        """Pieces of chunks behind ``after``, and the last chunk read: for followers."""
        async with self._database.read() as tx:
            rows = await store.log_chunks_of(tx, job, after=after, limit=64)
        found: list[LogPiece] = []
        size = 0
        for row in rows:
            for piece in _parse(await self._objects.get(row.object)):
                data = base64.b64encode(piece.data).decode()
                found.append(LogPiece(piece.index, piece.attempt, piece.stream, piece.offset, data))
            after = row.id
            size += row.size
            if size >= most_bytes:
                break
        return found, after

    async def read(self, job: int, index: int, stream: str, attempt: int | None) -> AsyncIterator[bytes]:
        """One stream of one task, in order; the latest attempt that wrote anything, unless one is named."""
        if attempt is None:
            attempt = await self._last_attempt(job, index, stream)
        position = 0
        early: list[Piece] = []  # overlapping exchanges may commit a later piece first
        async for piece in self._pieces(job, index):
            if piece.stream != stream or piece.attempt != attempt:
                continue
            early.append(piece)
            early.sort(key=lambda p: p.offset)
            while early and early[0].offset <= position:
                ready = early.pop(0)
                data = ready.data[position - ready.offset :]
                position += len(data)
                if data:
                    yield data
        for piece in early:  # a gap that nothing filled
            yield piece.data

    async def tail(self, job: int, index: int, stream: str, most_bytes: int, attempt: int | None = None) -> bytes:
        """The last bytes of a stream."""
        kept = b""
        async for data in self.read(job, index, stream, attempt):
            kept = (kept + data)[-most_bytes:]
        return kept

    async def _last_attempt(self, job: int, index: int, stream: str) -> int:
        last = 0
        async for piece in self._pieces(job, index):
            if piece.stream == stream:
                last = max(last, piece.attempt)
        return last

    async def _pieces(self, job: int, index: int) -> AsyncIterator[Piece]:
        after = 0
        while True:
            async with self._database.read() as tx:
                rows = await store.log_chunks_of(tx, job, after=after, index=index)
            if not rows:
                return
            for row in rows:
                after = row.id
                for piece in _parse(await self._objects.get(row.object)):
                    if piece.index == index:
                        yield piece


def _parse(body: bytes) -> Iterable[Piece]:
    header, _, rest = body.partition(b"\n")
    start = 0
    for index, attempt, stream, offset, size in json.loads(header):
        yield Piece(index, attempt, stream, offset, rest[start : start + size])
        start += size
