"""Content by its sha256: layers as they travel, configurations, manifests. Nothing is given out unchecked."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

from .compression import PIECE_BYTES
from .errors import BadImage, DigestMismatch
from .layout import Layout
from .stack import hex_of

MAX_DOCUMENT_BYTES = 8 << 20
"""Of manifests and configurations."""

OpenAt = Callable[[int], Iterable[bytes]]
"""Gives the content from an offset on."""


def digest_of(data: bytes) -> str:
    """``sha256:…`` of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Blobs:
    """Of one store and those below it."""

    def __init__(self, own: Layout, below: Sequence[Layout]) -> None:
        self._own = own
        self._all = (own, *below)

    def place(self, digest: str) -> Optional[str]:
        """The path of a blob, or None."""
        for layout in self._all:
            path = layout.path("blobs", hex_of(digest))
            if os.path.exists(path):
                return path
        return None

    def size(self, digest: str) -> int:
        """In bytes; -1 if it is not there."""
        path = self.place(digest)
        return os.path.getsize(path) if path is not None else -1

    def document(self, digest: str) -> bytes:
        """A small blob, whole. Raises BadImage if it is missing, DigestMismatch."""
        if self.size(digest) > MAX_DOCUMENT_BYTES:
            raise BadImage(f"{digest} is too large for a manifest or configuration")
        return b"".join(self.pieces(digest))

    def pieces(self, digest: str) -> Iterator[bytes]:
        """The content. DigestMismatch comes after the last piece, and the damaged blob is then out of the store."""
        path = self.place(digest)
        if path is None:
            raise BadImage(f"the store does not hold the blob {digest}", "pull the image again")
        found = hashlib.sha256()
        for piece in read_pieces(path):
            found.update(piece)
            yield piece
        if "sha256:" + found.hexdigest() != digest:
            is_own = self.drop(digest, path)
            raise DigestMismatch(
                f"the blob {digest} in the store {self._root_of(path)} is damaged: it has sha256:{found.hexdigest()}",
                "pull the image again" if is_own else "tell whoever keeps that store",
            )

    def is_good(self, digest: str) -> bool:
        """Hash it. A damaged one is removed (if it is in our store) and False."""
        try:
            for _ in self.pieces(digest):
                pass
        except (DigestMismatch, BadImage):
            return False
        return True

    def drop(self, digest: str, path: Optional[str] = None) -> bool:
        """Remove a blob from our own store. False if it is not there."""
        own = self._own.path("blobs", hex_of(digest))
        if path not in (None, own):
            return False
        try:
            os.unlink(own)
        except FileNotFoundError:
            return False
        return True

    def _root_of(self, path: str) -> str:
        return os.path.dirname(os.path.dirname(path))

    def add(self, data: bytes) -> str:
        """Store some bytes; returns their digest."""
        digest = digest_of(data)
        if self.place(digest) is None or not self.is_good(digest):
            temporary = self._own.path("tmp", os.urandom(8).hex() + ".json")
            with open(temporary, "xb") as stream:
                stream.write(data)
            self._publish(temporary, digest)
        return digest

    def add_stream(self, pieces: Iterable[bytes]) -> Tuple[str, int]:
        """Store a stream; returns digest and size."""
        found = hashlib.sha256()
        size = 0
        with self._own.work_directory() as work:
            temporary = os.path.join(work, "blob")
            with open(temporary, "xb", buffering=0) as stream:
                for piece in pieces:
                    found.update(piece)
                    write_all(stream, piece)
                    size += len(piece)
            digest = "sha256:" + found.hexdigest()
            self._publish(temporary, digest)
        return digest, size

    def _publish(self, temporary: str, digest: str) -> None:
        os.chmod(temporary, 0o400 | (self._own.extra_mode & 0o044))
        os.replace(temporary, self._own.path("blobs", hex_of(digest)))

    # Downloads. The caller holds the lock of the digest.

    def partial_size(self, digest: str) -> int:
        """How much of a download is there, also while another process makes it."""
        try:
            return os.path.getsize(self._own.path("partial", hex_of(digest)))
        except FileNotFoundError:
            return 0

    def incoming(
        self, digest: str, size: int, open_at: OpenAt, origin: str, on_bytes: Callable[[int], None]
    ) -> Iterator[bytes]:
        """The content of a blob that is being fetched, and after the last piece it is in the store.

        Starts with what an earlier try left. Raises DigestMismatch, naming ``origin``; the partial file is then gone.
        """
        partial = self._own.path("partial", hex_of(digest))
        found = hashlib.sha256()
        have = 0
        with open(partial, "a+b", buffering=0) as stream:
            if os.fstat(stream.fileno()).st_size > size:
                stream.truncate(0)
            stream.seek(0)
            for piece in _pieces_of(stream):
                have += len(piece)
                found.update(piece)
                on_bytes(have)
                yield piece
            for piece in open_at(have) if have < size else ():
                have += len(piece)
                if have > size:
                    os.unlink(partial)
                    raise DigestMismatch(f"{origin} sends more than the {size:,} bytes that {digest} has")
                found.update(piece)
                write_all(stream, piece)
                on_bytes(have)
                yield piece
        got = "sha256:" + found.hexdigest()
        if have != size or got != digest:
            os.unlink(partial)
            raise DigestMismatch(
                f"the blob {digest} from {origin} is damaged: {have:,} bytes with {got} arrived, "
                f"{size:,} were announced",
                "tell whoever keeps the registry, or pull again",
            )
        self._publish(partial, digest)


def read_pieces(path: str) -> Iterator[bytes]:
    """A file in pieces."""
    with open(path, "rb", buffering=0) as stream:
        yield from _pieces_of(stream)


def _pieces_of(stream: Any) -> Iterator[bytes]:
    while True:
        piece = stream.read(PIECE_BYTES)
        if not piece:
            return
        yield piece


def write_all(stream: Any, piece: bytes) -> None:
    """An unbuffered file may take less than it is given, when the disk is nearly full."""
    done = stream.write(piece)
    while done < len(piece):
        done += stream.write(memoryview(piece)[done:])


def all_digests(layout: Layout) -> List[str]:
    """The blobs of one store."""
    return ["sha256:" + name for name in os.listdir(layout.path("blobs"))]
