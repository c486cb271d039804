"""Files of jobs by content: uploads, downloads, limits, and who may read what."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Sequence

from hansa.engines.objects import Objects, WrongDigestError
from hansa.identity.model import Caller
from hansa.jobs import errors, store
from hansa.jobs.wire import FileKeys, MissingFiles
from hansa.kernel import errors as kernel_errors
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.settings import FileSettings

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def key_of(digest: str) -> str:
    """Where the object store keeps content. Raises Fault ``kernel.invalid`` on what is not a digest."""
    if not _DIGEST.fullmatch(digest):
        raise Fault(kernel_errors.INVALID, f"{digest[:80]!r} is not a digest: sha256: and 64 hex digits are.")
    value = digest.removeprefix("sha256:")
    return f"files/{value[:2]}/{value}"


class FileService:
    """Job files in the object store. Content belongs to whoever brought it; its digest alone opens nothing."""

    def __init__(self, database: Database, objects: Objects, clock: Clock, settings: FileSettings) -> None:
        self._database = database
        self._objects = objects
        self._clock = clock
        self._settings = settings

    async def missing(self, caller: Caller, asked: FileKeys) -> MissingFiles:
        """Which of these the caller has to upload. Raises Fault ``jobs.file_limit`` before any upload."""
        self.check_sizes([(file.digest, file.size) for file in asked.files])
        for file in asked.files:
            key_of(file.digest)
        async with self._database.read() as tx:
            owned = await store.owned_digests(tx, caller.user_id, [file.digest for file in asked.files])
        return MissingFiles(sorted({file.digest for file in asked.files} - owned.keys()))

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

    async def upload(self, caller: Caller, digest: str, length: int | None, pieces: AsyncIterator[bytes]) -> None:
        """Keep content; its size and digest are checked while it streams. Repeating is harmless."""
        await self.store_stream(digest, length, pieces)
        await self.own(caller.user_id, [(digest, length or 0)])

    async def store_stream(self, digest: str, length: int | None, pieces: AsyncIterator[bytes]) -> None:
        """Store content without saying whose it is (the pilot's exchange says so later)."""
        key = key_of(digest)
        if length is None:
            raise Fault(kernel_errors.INVALID, "An upload needs a Content-Length.")
        if length > self._settings.limit_bytes:
            raise too_large(digest, length, self._settings.limit_bytes)
        free = self._objects.free_bytes()
        if free is not None and free - length < self._settings.free_bytes:
            raise Fault(
                kernel_errors.STORAGE_FULL,
                f"The server has {free:,} bytes free and keeps {self._settings.free_bytes:,} of them; "
                f"{length:,} bytes do not fit.",
                hint="Ask the server's operator to free space (setting files.free_bytes).",
                retry_after_s=60,
            )
        try:
            await self._objects.put_stream(key, _bounded(pieces, length), digest.removeprefix("sha256:"))
        except WrongDigestError as error:
            raise Fault(
                errors.DIGEST,
                f"The content has the digest sha256:{error}, not {digest}.",
                hint="It changed while it was sent, or was damaged on the way: send it again.",
            ) from error

    async def store_inline(self, digest: str, data: str) -> bytes:
        """Store a small output that came inside an exchange. Raises Fault where digest and content differ."""
        try:
            content = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise Fault(kernel_errors.INVALID, "An inline output is not base64.") from error
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise Fault(errors.DIGEST, f"An inline output does not have the digest {digest}.")
        if not await self._objects.has(key_of(digest)):
            await self._objects.put(key_of(digest), content)
        return content

    async def own(self, owner_id: str, found: Sequence[tuple[str, int]]) -> None:
        async with self._database.begin() as tx:
            await store.own_files(tx, owner_id, found, self._clock.now())

    async def has(self, digest: str) -> bool:
        return await self._objects.has(key_of(digest))

    def open(self, digest: str) -> AsyncIterator[bytes]:
        """The content in pieces; the caller's right to it was checked before."""
        return self._objects.stream(key_of(digest))


def too_large(name: str, size: int, limit: int) -> Fault:
    return Fault(
        errors.FILE_LIMIT,
        f"{name} has {size:,} bytes; a file that travels with a job may have {limit:,}.",
        hint="Put large data where the tasks run and name its path there, or split it; "
        "the operator's setting is files.limit_bytes.",
    )


async def _bounded(pieces: AsyncIterator[bytes], length: int) -> AsyncIterator[bytes]:
    """The pieces, as long as they are not more than was announced."""
    seen = 0
    async for piece in pieces:
        seen += len(piece)
        if seen > length:
            raise Fault(kernel_errors.TOO_LARGE, f"More came than the {length:,} bytes announced.")
        yield piece
