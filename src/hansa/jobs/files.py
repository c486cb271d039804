"""Files of jobs by content: uploads, downloads, limits, and who may read what."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from hansa.engines.content import PIECE_BYTES, ContentStore, ShortError, WrongDigestError, WrongOffsetError
from hansa.engines.objects import Objects
from hansa.identity.model import Caller
from hansa.jobs import errors, store, store_files
from hansa.jobs.wire import FileKeys, MissingFiles, Received
from hansa.kernel import errors as kernel_errors
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.settings import FileSettings

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def hex_of(digest: str) -> str:
    """The 64 digits of ``sha256:…``. Raises Fault ``kernel.invalid`` on what is not a digest."""
    if not _DIGEST.fullmatch(digest):
        raise Fault(kernel_errors.INVALID, f"{digest[:80]!r} is not a digest: sha256: and 64 hex digits are.")
    return digest.removeprefix("sha256:")


def session_of(sender: str) -> str:
    """The name under which parts of what somebody sends are kept until all of it is there."""
    return hashlib.sha256(sender.encode()).hexdigest()[:16]


class FileService:
    """Job files in the object store. Content belongs to whoever brought it; its digest alone opens nothing."""

    def __init__(self, database: Database, objects: Objects, clock: Clock, settings: FileSettings) -> None:
        self._database = database
        self._objects = objects
        self._contents = ContentStore(objects)
        self._clock = clock
        self._settings = settings

    async def missing(self, caller: Caller, asked: FileKeys) -> MissingFiles:
        """Which of these the caller has to upload. Raises Fault ``jobs.file_limit`` before any upload."""
        self.check_sizes([(file.digest, file.size) for file in asked.files])
        for file in asked.files:
            hex_of(file.digest)
        async with self._database.read() as tx:
            owned = await store.owned_digests(tx, caller.user_id, [file.digest for file in asked.files])
        absent = {file.digest: file.size for file in asked.files if file.digest not in owned}
        await self._check_quota(caller, sum(absent.values()))
        return MissingFiles(sorted(absent))

    def check_sizes(self, found: Sequence[tuple[str, int]]) -> None:
        """Raise Fault ``jobs.file_limit`` if a file, or all together, are larger than a job may bring."""
        limits = self._settings
        for name, size in found:
            if size > limits.limit_bytes:
                raise too_large(name, size, limits.limit_bytes)
        total = sum(size for _, size in found)
        if total > limits.job_limit_bytes or len(found) > limits.job_limit_files:
            raise Fault(
                errors.FILE_LIMIT,
                f"{len(found):,} files with {total:,} bytes: a job may bring {limits.job_limit_files:,} files "
                f"and {limits.job_limit_bytes:,} bytes.",
                hint="Leave out what the tasks do not read (.hansaignore), or put large data on the site itself.",
            )

    async def _check_quota(self, caller: Caller, more: int) -> None:
        limit = self._settings.user_limit_bytes
        if not limit or not more:
            return
        async with self._database.read() as tx:
            kept = await store_files.kept_bytes(tx, caller.user_id)
        if kept + more > limit:
            raise Fault(
                errors.FILE_QUOTA,
                f"You keep {kept:,} bytes of uploaded files here; {more:,} more are over your {limit:,}.",
                hint="They go some time after the end of the jobs that use them (retention.job_files_days); "
                "put large data on the site itself, or ask the operator (files.user_limit_bytes).",
            )

    async def received(self, caller: Caller, digest: str, size: int) -> Received:
        """Where an upload of the caller's that broke off goes on."""
        name = hex_of(digest)
        async with self._database.read() as tx:
            if await store.owned_digests(tx, caller.user_id, [digest]):
                return Received(size)
        return Received(await self._contents.received(name, size, session_of(caller.user_id)))

    async def received_of(self, sender: str, digest: str, size: int) -> Received:
        """The same for a pilot."""
        return Received(await self._contents.received(hex_of(digest), size, session_of(sender)))

    async def upload(
        self, caller: Caller, digest: str, length: int | None, pieces: AsyncIterator[bytes], offset: int = 0
    ) -> None:
        """Keep content; its size and digest are checked while it streams. Repeating is harmless."""
        await self._check_quota(caller, offset + (length or 0))
        await self.store_stream(caller.user_id, digest, length, pieces, offset)
        async with self._database.begin() as tx:
            await store_files.own(tx, caller.user_id, [(digest, offset + (length or 0))], self._clock.now())

    async def store_stream(
        self, sender: str, digest: str, length: int | None, pieces: AsyncIterator[bytes], offset: int = 0
    ) -> None:
        """Store content without saying whose it is (the pilot's exchange says so later)."""
        name = hex_of(digest)
        if length is None:
            raise Fault(kernel_errors.INVALID, "An upload needs a Content-Length.")
        size = offset + length
        if size > self._settings.limit_bytes:
            raise too_large(digest, size, self._settings.limit_bytes)
        self._check_room(length)
        await self.announce([digest])
        try:
            await self._contents.put_stream(name, size, _bounded(pieces, length), session_of(sender), offset)
        except WrongDigestError as error:
            raise Fault(
                errors.DIGEST,
                f"The content has the digest sha256:{error}, not {digest}.",
                hint="It changed while it was sent, or was damaged on the way: send it again.",
            ) from error
        except WrongOffsetError as error:
            raise Fault(
                errors.OFFSET,
                f"The upload goes on at {error.offset:,}, not at {offset:,}.",
                hint=f"Ask GET /api/v1/files/{digest}/received.",
                offset=error.offset,
            ) from error
        except ShortError as error:
            raise Fault(kernel_errors.INVALID, f"The upload broke off: {error}.", hint="Send the rest.") from error

    def _check_room(self, length: int) -> None:
        free = self._objects.free_bytes()
        if free is not None and free - length < self._settings.free_bytes:
            raise Fault(
                kernel_errors.STORAGE_FULL,
                f"The server has {free:,} bytes free and keeps {self._settings.free_bytes:,} of them; "
                f"{length:,} bytes do not fit.",
                hint="Ask the server's operator to free space (setting files.free_bytes).",
                retry_after_s=60,
            )

    async def announce(self, digests: Iterable[str]) -> None:
        """What is put into the store next is named before, so that it is found again if nobody claims it."""
        async with self._database.begin() as tx:
            await store_files.announce(tx, digests, self._clock.now())

    async def store_inline(self, digest: str, data: str) -> bytes:
        """Store a small output that came inside an exchange and was announced. Raises Fault where they differ."""
        try:
            content = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise Fault(kernel_errors.INVALID, "An inline output is not base64.") from error
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise Fault(errors.DIGEST, f"An inline output does not have the digest {digest}.")
        await self._contents.put(hex_of(digest), content)
        return content

    async def read(self, caller: Caller, digest: str, start: int = 0) -> tuple[int, AsyncIterator[bytes]]:
        """Size of a content that the caller has uploaded, and its bytes from ``start`` on."""
        hex_of(digest)
        async with self._database.read() as tx:
            owned = await store.owned_digests(tx, caller.user_id, [digest])
        if digest not in owned:
            raise Fault(errors.NO_FILE, f"You have no content {digest} here.")
        return owned[digest], self.open(digest, start)

    async def has(self, digest: str) -> bool:
        return await self._contents.has(hex_of(digest))

    def open(self, digest: str, start: int = 0) -> AsyncIterator[bytes]:
        """The content in pieces, from ``start`` on; the caller's right to it was checked before."""
        return self._contents.read(hex_of(digest), start)

    async def adopt(self, folder: Path) -> int:
        """Take in what earlier servers kept there, a file named by its digest each; how many."""
        count = 0
        for path in sorted(folder.glob("*/*")) if folder.is_dir() else []:
            size = path.stat().st_size
            await self.announce([f"sha256:{path.name}"])
            await self._contents.put_stream(path.name, size, _pieces_of(path), "adopted")
            path.unlink()
            count += 1
        return count

    async def delete(self, digest: str) -> None:
        """Nothing is left of it in the store. For what is doomed."""
        await self._contents.delete(hex_of(digest))


def too_large(name: str, size: int, limit: int) -> Fault:
    return Fault(
        errors.FILE_LIMIT,
        f"{name} has {size:,} bytes; a file that travels with a job may have {limit:,}.",
        hint="Put large data where the tasks run and name its path there, or split it; "
        "the operator's setting is files.limit_bytes.",
    )


async def _pieces_of(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece


async def _bounded(pieces: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    """The pieces, as long as they are not more than was announced."""
    seen = 0
    async for piece in pieces:
        seen += len(piece)
        if seen > length:
            raise Fault(kernel_errors.TOO_LARGE, f"More came than the {length:,} bytes announced.")
        yield piece
