"""The object store: bytes by key, in a local folder or in a bucket that speaks S3.

Keys are made by Hansa, never by users: letters, digits, ``-``, ``_``, ``.`` and ``/``. An object is a few MiB at
most and appears whole or not at all; what is larger is cut into parts (:mod:`hansa.engines.content`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from hansa.kernel import errors
from hansa.kernel.settings import ObjectSettings

KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_TEMPORARY_S = 86_400.0
"""A file that was begun so long ago belongs to a server that was killed."""


class Objects(Protocol):
    """Bytes by key. All may raise Fault ``kernel.storage_away`` where the store is elsewhere."""

    async def put(self, key: str, data: bytes) -> None:
        """Store bytes; durable on return. The same key again replaces. Raises Fault ``kernel.storage_full``."""

    async def get(self, key: str) -> bytes:
        """All bytes. Raises FileNotFoundError."""

    async def has(self, key: str) -> bool: ...

    async def delete(self, key: str) -> None:
        """Absent is fine."""

    def list(self, prefix: str) -> AsyncIterator[str]:
        """Keys below ``prefix`` (which ends with ``/``), in order."""

    def free_bytes(self) -> int | None:
        """What could still be stored, where that is known."""


def open_objects(settings: ObjectSettings, default: Path) -> Objects:
    """The store that the settings name: ``s3://BUCKET/PREFIX``, or a folder. Raises Fault ``kernel.setting``."""
    if settings.url is None:
        return FolderObjects(default)
    parts = urlsplit(settings.url)
    if parts.scheme == "s3" and parts.netloc:
        from hansa.engines.s3 import S3Objects  # boto3 is large, and an extra

        return S3Objects(parts.netloc, parts.path.strip("/"), settings)
    path = unquote(parts.path) if parts.scheme == "file" else settings.url
    if (parts.scheme in ("", "file")) and Path(path).is_absolute():
        return FolderObjects(Path(path))
    raise errors.Fault(
        errors.SETTING,
        f"objects.url is {settings.url!r}: it is neither s3://BUCKET/PREFIX nor an absolute folder.",
        hint="As in s3://hansa/prod with objects.endpoint, or /srv/hansa/blobs.",
    )


def check_key(key: str) -> str:
    """The key; ValueError for what is none."""
    if not KEY.fullmatch(key):
        raise ValueError(f"not a key: {key!r}")
    return key


class FolderObjects:
    """Objects as files below a folder: each is written beside its place, synced, and renamed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._forget_begun(time.time() - _TEMPORARY_S)

    async def put(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._put, key, data)

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._path(key).read_bytes)

    async def has(self, key: str) -> bool:
        return self._path(key).is_file()

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._delete, key)

    async def list(self, prefix: str) -> AsyncIterator[str]:
        for key in await asyncio.to_thread(lambda: sorted(self._below(prefix))):
            yield key

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self._root).free

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _below(self, prefix: str) -> Iterator[str]:
        start = self._path(prefix.rstrip("/"))
        for folder, _, names in os.walk(start):
            for name in names:
                yield Path(folder, name).relative_to(self._root).as_posix()

    def _put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._new_file() as (file, temporary):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            while True:
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    temporary.rename(path)
                    return
                except FileNotFoundError:
                    if not temporary.exists():
                        raise  # else the folder was emptied and removed just now: make it again

    def _delete(self, key: str) -> None:
        path = self._path(key)
        path.unlink(missing_ok=True)
        folder = path.parent
        while folder != self._root:  # a folder that is empty now goes, too
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _forget_begun(self, before: float) -> None:
        for path in self._temporary.iterdir():
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

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
