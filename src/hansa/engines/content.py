"""Content by its SHA-256, of any size: compressed, in parts, each part durable before the next.

An object ``content/ab/HEX`` is a byte that says how it is kept, then the bytes as they are (``RAW``) or by zstd
(``ZSTD``), or the names of its parts (``PARTS``). Parts of an upload that broke off stay; whoever sends the rest goes
on behind them. The name of a part is never used twice, so what was checked cannot change afterwards; and no request
removes parts, so what another one counts on stays. :meth:`ContentStore.delete` takes them all.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import zstandard

from hansa.engines.objects import Objects

PART_BYTES = 8 * 1024**2
PIECE_BYTES = 1024**2
_RAW, _ZSTD, _PARTS = b"\x00", b"\x01", b"\x02"
_LEVEL = 1
_WORTH_BYTES = 256
"""Less is not worth compressing."""


class WrongDigestError(Exception):
    """The content is not what its digest says; carries the digest it has."""


class WrongOffsetError(Exception):
    """The upload does not go on where the last one ended; carries the offset that it should have."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the upload goes on at {offset:,}")
        self.offset = offset


class ShortError(Exception):
    """Less came than was announced; what came in whole parts is kept."""


@dataclass(frozen=True)
class _Manifest:
    size: int
    part_bytes: int
    parts: list[str]


class ContentStore:
    """What an object store holds by digest (64 hex digits). Who may do what is decided elsewhere."""

    def __init__(self, objects: Objects, part_bytes: int = PART_BYTES) -> None:
        self._objects = objects
        self._part_bytes = part_bytes

    async def put(self, digest: str, data: bytes) -> None:
        """Keep small content whose digest was checked; nothing is done where it is there."""
        if not await self.has(digest):
            await self._objects.put(_key(digest), await asyncio.to_thread(pack, data))

    async def put_stream(
        self, digest: str, size: int, pieces: AsyncIterator[bytes], session: str, offset: int = 0
    ) -> None:
        """Keep what comes: ``size`` bytes in all, of which ``offset`` came before under the same ``session``.

        Raises WrongDigestError (nothing is kept), WrongOffsetError, ShortError; whatever ``pieces`` raises.
        """
        arrival = _Arrival(self, digest, size, session)
        await arrival.go_on(offset, await self._parts(digest, session) if offset else [])
        await arrival.take(pieces)

    async def received(self, digest: str, size: int, session: str) -> int:
        """How many bytes are there of an upload that broke off. Says nothing of what others have sent."""
        return min(size, len(await self._parts(digest, session)) * self._part_bytes)

    async def has(self, digest: str) -> bool:
        return await self._objects.has(_key(digest))

    async def read(self, digest: str, start: int = 0) -> AsyncIterator[bytes]:
        """The content from ``start`` on, in pieces. Raises FileNotFoundError at the first."""
        manifest, data = await self._open(digest)
        if manifest is None:
            for at in range(start, len(data), PIECE_BYTES):
                yield data[at : at + PIECE_BYTES]
            return
        names = manifest.parts[start // manifest.part_bytes :]
        skip = start % manifest.part_bytes
        following = asyncio.create_task(self._part(digest, names[0])) if names else None
        try:
            for number in range(len(names)):
                assert following is not None  # noqa: S101 - there is one for each name
                part = await following
                more = number + 1 < len(names)
                following = asyncio.create_task(self._part(digest, names[number + 1])) if more else None
                for at in range(skip, len(part), PIECE_BYTES):
                    yield part[at : at + PIECE_BYTES]
                skip = 0
        finally:
            if following is not None and not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def delete(self, digest: str) -> None:
        """Nothing is left of it, nor of uploads of it that broke off. Absent is fine."""
        await self._objects.delete(_key(digest))
        async for key in self._objects.list(_folder(digest)):
            await self._objects.delete(key)

    async def _open(self, digest: str) -> tuple[_Manifest | None, bytes]:
        data = await self._objects.get(_key(digest))
        if data[:1] == _PARTS:
            return _Manifest(**json.loads(data[1:])), b""
        return None, await asyncio.to_thread(unpack, data)

    async def _part(self, digest: str, name: str) -> bytes:
        return await asyncio.to_thread(unpack, await self._objects.get(_folder(digest) + name))

    async def _parts(self, digest: str, session: str) -> list[str]:
        """Names of the whole parts of a session, from the first on without a gap."""
        by_number: dict[int, str] = {}
        async for key in self._objects.list(await self._place(digest, session)):
            name = key.removeprefix(_folder(digest))
            by_number.setdefault(int(name.rpartition("/")[2].partition("-")[0]), name)
        names: list[str] = []
        while len(names) in by_number:
            names.append(by_number[len(names)])
        return names

    async def _place(self, digest: str, session: str) -> str:
        """Where a session's parts go: a new folder each time that they turned out to be wrong."""
        wrong = [key async for key in self._objects.list(f"{_folder(digest)}{session}-wrong/")]
        return f"{_folder(digest)}{session}-{len(wrong)}/"


class _Arrival:
    """One request that brings content, or the rest of it."""

    def __init__(self, store: ContentStore, digest: str, size: int, session: str) -> None:
        self._store = store
        self._digest = digest
        self._size = size
        self._session = session
        self._hasher = hashlib.sha256()
        self._names: list[str] = []
        self._place = ""
        self._done = 0

    async def go_on(self, offset: int, parts: list[str]) -> None:
        """Behind what is there: it is read once more, for the digest of the whole."""
        limit = self._store._part_bytes
        there = min(self._size, len(parts) * limit)
        if offset > there or (offset % limit and offset != self._size):
            raise WrongOffsetError(there)
        for name in parts[: -(-offset // limit)]:
            part = await self._store._part(self._digest, name)
            await asyncio.to_thread(self._hasher.update, part)
            self._names.append(name)
            self._done += len(part)
        if self._done != offset:
            raise WrongOffsetError(0)

    async def take(self, pieces: AsyncIterator[bytes]) -> None:
        is_there = await self._store.has(self._digest)  # then it is only checked: to know a digest proves nothing
        self._place = "" if self._is_single else await self._store._place(self._digest, self._session)
        last = b""
        working: asyncio.Task[None] | None = None
        try:
            async for part in _parts_of(pieces, self._store._part_bytes):
                if self._done + len(part) > self._size:
                    raise ValueError("more came than was announced")
                if working is not None:
                    await working
                is_last = self._done + len(part) == self._size
                if len(part) < self._store._part_bytes and not is_last:
                    break  # it broke off inside a part
                self._done += len(part)
                last = part
                working = asyncio.create_task(self._keep(part, is_kept=not is_there and not self._is_single))
        finally:
            if working is not None:
                await asyncio.gather(working, return_exceptions=True)
        if working is not None:
            await working
        if self._done != self._size:
            raise ShortError(f"{self._done:,} of {self._size:,} bytes came")
        await self._end(last, is_there=is_there)

    @property
    def _is_single(self) -> bool:
        return self._size <= self._store._part_bytes

    async def _keep(self, part: bytes, *, is_kept: bool) -> None:
        hashing = asyncio.to_thread(self._hasher.update, part)
        if not is_kept:
            await hashing
            return
        packed, _ = await asyncio.gather(asyncio.to_thread(pack, part), hashing)
        key = f"{self._place}{len(self._names):06d}-{secrets.token_hex(4)}"
        await self._store._objects.put(key, packed)
        self._names.append(key.removeprefix(_folder(self._digest)))

    async def _end(self, last: bytes, *, is_there: bool) -> None:
        objects, digest = self._store._objects, self._digest
        if self._hasher.hexdigest() != digest:
            if self._names:
                await objects.put(f"{_folder(digest)}{self._session}-wrong/{secrets.token_hex(8)}", b"")
            raise WrongDigestError(self._hasher.hexdigest())
        if is_there:
            return
        if self._is_single:
            await objects.put(_key(digest), await asyncio.to_thread(pack, last))
        elif not await self._store.has(digest):
            manifest = {"size": self._size, "part_bytes": self._store._part_bytes, "parts": self._names}
            await objects.put(_key(digest), _PARTS + json.dumps(manifest).encode())


def pack(data: bytes) -> bytes:
    """Data as it is kept: compressed where that saves a tenth."""
    if len(data) >= _WORTH_BYTES:
        small = zstandard.ZstdCompressor(level=_LEVEL).compress(data)
        if len(small) < len(data) * 0.9:
            return _ZSTD + small
    return _RAW + data


def unpack(data: bytes) -> bytes:
    """What :func:`pack` was given."""
    if data[:1] == _ZSTD:
        return zstandard.ZstdDecompressor().decompress(memoryview(data)[1:])
    return data[1:]


def _key(digest: str) -> str:
    return f"content/{digest[:2]}/{digest}"


def _folder(digest: str) -> str:
    return f"parts/{digest[:2]}/{digest}/"


async def _parts_of(pieces: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """The same bytes in parts of one size; the last one may be shorter."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
