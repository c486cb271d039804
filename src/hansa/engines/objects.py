"""The object store: bytes by key, in a local folder.

Keys are made by Hansa, never by users: letters, digits, ``-``, ``_``, ``.`` and ``/``. An object appears whole or
not at all: it is written beside its place, synced, and renamed.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from hansa.kernel import errors

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_PIECE = 1024 * 1024


class WrongDigestError(Exception):
    """The content is not what its digest says; carries the digest it has."""


class Objects(Protocol):
    """Bytes by key."""

    async def put(self, key: str, data: bytes) -> None:
        """Store bytes; durable on return. The same key again replaces."""

    async def put_stream(self, key: str, pieces: AsyncIterator[bytes], digest: str) -> int:
        """Store a stream whose SHA-256 (hex) must be ``digest``; its size. Raises WrongDigestError."""

    async def get(self, key: str) -> bytes:
        """All bytes. Raises FileNotFoundError."""

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """The bytes in pieces. Raises FileNotFoundError at the first."""

    async def has(self, key: str) -> bool: ...

    async def delete(self, key: str) -> None:
        """Absent is fine."""

    def free_bytes(self) -> int | None:
        """What could still be stored, where that is known."""


class FolderObjects:
    """Objects as files below a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def put(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._put, key, data)

    async def put_stream(self, key: str, pieces: AsyncIterator[bytes], digest: str) -> int:
        hasher, size = hashlib.sha256(), 0
        with self._new_file() as (file, temporary):
            batch: list[bytes] = []
            held = 0
            async for piece in pieces:
                batch.append(piece)
                held += len(piece)
                if held >= _PIECE:
                    size += await asyncio.to_thread(_write, file, hasher, batch)
                    batch, held = [], 0
            size += await asyncio.to_thread(_write, file, hasher, batch)
            if hasher.hexdigest() != digest:
                raise WrongDigestError(hasher.hexdigest())
            await asyncio.to_thread(self._publish, file, temporary, key)
        return size

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._path(key).read_bytes)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        with await asyncio.to_thread(self._path(key).open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece

    async def has(self, key: str) -> bool:
        return self._path(key).is_file()

    async def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self._root).free

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key: {key!r}")
        return self._root / key

    def _put(self, key: str, data: bytes) -> None:
        with self._new_file() as (file, temporary):
            file.write(data)
            self._publish(file, temporary, key)

    def _publish(self, file: BinaryIO, temporary: Path, key: str) -> None:
        file.flush()
        os.fsync(file.fileno())
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(path)

    @contextmanager
    def _new_file(self) -> Iterator[tuple[BinaryIO, Path]]:
        temporary = self._temporary / secrets.token_hex(16)
        try:
            with temporary.open("xb") as file:
                yield file, temporary
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise errors.Fault(
                    errors.STORAGE_FULL,
                    "The server's disk is full; nothing was kept of this upload.",
                    hint="Ask the server's operator to free space, then send it again.",
                    retry_after_s=60,
                ) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)


def _write(file: BinaryIO, hasher: hashlib._Hash, batch: list[bytes]) -> int:
    size = 0
    for piece in batch:
        hasher.update(piece)
        file.write(piece)
        size += len(piece)
    return size
