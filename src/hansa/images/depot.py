"""The depot: contents of images on the server's disk, by SHA-256, and what qemu-img makes of them.

It is a cache of what the catalogue pins: what is lost is fetched again, but uploads and snapshots have no other home.
A content appears whole or not at all.
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
from dataclasses import dataclass
from pathlib import Path

from hansa.engines import qemu_img
from hansa.images import errors
from hansa.images.formats import HEAD_BYTES, Format, Inspected, UnsafeImageError, inspect
from hansa.kernel.errors import STORAGE_FULL, Fault, Permanent, Temporary

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIECE = 4 * 1024**2


class WrongChecksumError(Permanent):
    """A content is not the one that was wanted."""


@dataclass(frozen=True)
class Content:
    """What was stored."""

    sha256: str
    size_bytes: int
    format: Format
    virtual_bytes: int


class Depot:
    """Image contents below one folder. Blocking work happens in threads."""

    def __init__(self, root: Path, free_bytes: int) -> None:
        self._root = root
        self._free_bytes = free_bytes

    def path(self, sha256: str, form: Format | None = None) -> Path:
        """Where a content is, or its conversion."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"not a SHA-256: {sha256!r}")
        return self._root / "content" / (f"{sha256}.{form}" if form else sha256)

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def partial(self, version_id: str) -> Path:
        """Where a download is collected; it survives restarts."""
        folder = self._root / "partial"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder / version_id

    def partial_bytes(self, version_id: str) -> int:
        try:
            return self.partial(version_id).stat().st_size
        except FileNotFoundError:
            return 0

    def check_room(self, size: int | None) -> None:
        """Raise Temporary where a content of this size would fill the disk."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(self._root).free
        if free - (size or 0) < self._free_bytes:
            raise Temporary(
                f"The server has {free:,} bytes free and keeps {self._free_bytes:,}; the image needs {size or 0:,}.",
                300,
            )

    def check_upload(self, size: int | None, limit: int) -> None:
        """Raise Fault ``images.bad_content`` or ``kernel.storage_full`` on an upload that is not worth its beginning.

        A sparse file is sent with all its zeros, for days if need be.
        """
        if size is not None and size > limit:
            said = f"It has {size:,} bytes; {limit:,} is the most (setting images.limit_bytes)."
            hint = "A sparse file is sent whole: qemu-img convert -O qcow2 writes down only what is in it."
            raise Fault(errors.BAD_CONTENT, said, hint=hint)
        try:
            self.check_room(size)
        except Temporary as error:
            raise Fault(STORAGE_FULL, str(error), hint="Ask the server's operator to free space.") from error

    async def publish(self, partial: Path, checksum: str | None, declared: Format | None) -> Content:
        """Check a whole file and move it to its place.

        Raises Permanent where it has not the checksum (``sha256:…``, ``sha512:…``) or may not be started; then the
        file is gone.
        """
        return await asyncio.to_thread(self._publish, partial, checksum, declared)

    def _publish(self, partial: Path, checksum: str | None, declared: Format | None) -> Content:
        algorithm, _, wanted = (checksum or "").partition(":")
        try:
            found, sums = _look(partial, declared, {"sha256", algorithm} - {""})
        except UnsafeImageError as error:
            partial.unlink(missing_ok=True)
            raise Permanent(str(error)) from error
        if wanted and sums[algorithm] != wanted:
            partial.unlink(missing_ok=True)
            raise WrongChecksumError(
                f"The content has the {algorithm} {sums[algorithm][:16]}…, and {wanted[:16]}… is wanted: "
                "it was changed at its source, or on the way."
            )
        size = partial.stat().st_size
        target = self.path(sums["sha256"])
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o400)
        partial.rename(target)
        return Content(sums["sha256"], size, found.format, found.virtual_bytes)

    async def take(
        self, pieces: AsyncIterator[bytes], limit: int, declared: Format | None, checksum: str | None = None
    ) -> Content:
        """Store what is uploaded, where it has the checksum.

        Raises Fault ``images.bad_content`` or ``kernel.storage_full``.
        """
        partial = self.partial(f"upload-{secrets.token_hex(8)}")
        size = 0
        try:
            with partial.open("xb") as file:
                async for piece in pieces:
                    size += len(piece)
                    if size > limit:
                        raise Fault(
                            errors.BAD_CONTENT, f"It is larger than {limit:,} bytes (setting images.limit_bytes)."
                        )
                    await asyncio.to_thread(file.write, piece)
            return await self.publish(partial, checksum, declared)
        except Permanent as error:
            raise Fault(errors.BAD_CONTENT, str(error)) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Fault(STORAGE_FULL, "The server's disk is full; nothing was kept of the image.") from error
            raise
        finally:
            partial.unlink(missing_ok=True)

    def drop(self, sha256: str | None, version_id: str) -> None:
        """Remove a content with its conversions, and what was fetched of a version. Absent is fine."""
        self.partial(version_id).unlink(missing_ok=True)
        if sha256 is not None:
            self.path(sha256).unlink(missing_ok=True)
            for form in Format:
                self.path(sha256, form).unlink(missing_ok=True)

    async def as_format(self, sha256: str, has: Format, wanted: Format) -> Path:
        """The content in a format; converted once. Raises Permanent (``MissingProgramError``) or Temporary."""
        if has is wanted:
            return self.path(sha256)
        target = self.path(sha256, wanted)
        if not target.is_file():
            made = await qemu_img.convert(self.path(sha256), has, wanted, target.parent)
            made.rename(target)
        return target

    async def stream(self, path: Path) -> AsyncIterator[bytes]:
        """A file in pieces."""
        with await asyncio.to_thread(path.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece


def _look(path: Path, declared: Format | None, algorithms: set[str]) -> tuple[Inspected, dict[str, str]]:
    """What a file is, and its checksums, in one reading."""
    hashers = {name: hashlib.new(name) for name in algorithms}
    size, head = path.stat().st_size, b""
    for piece in _pieces(path):
        head = head or piece[:HEAD_BYTES]
        for hasher in hashers.values():
            hasher.update(piece)
    return inspect(head, size, declared), {name: hasher.hexdigest() for name, hasher in hashers.items()}


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
