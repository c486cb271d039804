"""Streams of bytes, compressed and not. Which compression it is, is seen from the first bytes, never from a name.

zstd is read by the interpreter (3.14 and later) or by a ``zstd`` or ``unzstd`` of the host.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import shutil
import subprocess
import threading
import zlib
from typing import Any, Callable, Iterable, Iterator, List, Optional

from .errors import BadImage, UnsafeArchive, Unsupported

PIECE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"
_LONGEST_MAGIC = 6
_HARMLESS_BYTES = 1 << 30
"""Below this nobody minds how well something was compressed."""


def kind_of(beginning: bytes) -> str:
    """``gzip``, ``zstd``, ``bzip2``, ``xz`` or nothing."""
    for magic, kind in ((_GZIP, "gzip"), (_ZSTD, "zstd"), (_BZIP2, "bzip2"), (_XZ, "xz")):
        if beginning.startswith(magic):
            return kind
    if len(beginning) >= 4 and 0x50 <= beginning[0] <= 0x5F and beginning[1:4] == b"\x2a\x4d\x18":
        return "zstd"  # a skippable frame comes first
    return ""


def decompressed(pieces: Iterable[bytes], max_ratio: int = 0) -> Iterator[bytes]:
    """The content of a stream that may be compressed.

    Raises UnsafeArchive when more than 1 GiB comes out, and over ``max_ratio`` times of what went in (0: no limit);
    BadImage where the stream is broken, Unsupported where nothing here can read it.
    """
    source = iter(pieces)
    beginning = b""
    for piece in source:
        beginning += piece
        if len(beginning) >= _LONGEST_MAGIC:
            break
    counted = _Counted(beginning, source)
    kind = kind_of(beginning)
    produced = 0
    for piece in _expand(kind, counted):
        produced += len(piece)
        if max_ratio and produced > _HARMLESS_BYTES and produced > max_ratio * counted.count:
            raise UnsafeArchive(f"{counted.count:,} compressed bytes become more than {produced:,}: refused as a bomb")
        yield piece


class _Counted:
    def __init__(self, beginning: bytes, rest: Iterator[bytes]) -> None:
        self._beginning = beginning
        self._rest = rest
        self.count = 0

    def __iter__(self) -> Iterator[bytes]:
        if self._beginning:
            self.count = len(self._beginning)
            yield self._beginning
        for piece in self._rest:
            self.count += len(piece)
            yield piece


def _expand(kind: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    if kind == "gzip":
        return _gunzip(pieces)
    if kind == "zstd":
        return _unzstd(pieces)
    if kind == "bzip2":
        return _members(pieces, bz2.BZ2Decompressor, "bzip2")
    if kind == "xz":
        return _members(pieces, lzma.LZMADecompressor, "xz")
    return iter(pieces)


def _gunzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    engine = zlib.decompressobj(31)
    is_inside = False
    try:
        for piece in pieces:
            data = piece
            while data:
                if not is_inside:
                    if not data.strip(b"\0"):
                        break  # padding after the last member
                    is_inside = True
                out = engine.decompress(data, PIECE_BYTES)
                if out:
                    yield out
                data = engine.unconsumed_tail
                if engine.eof:
                    data = engine.unused_data
                    engine = zlib.decompressobj(31)
                    is_inside = False
                elif not data and len(out) == PIECE_BYTES:
                    yield from _rest_of(engine)
    except zlib.error as error:
        raise BadImage(f"the gzip stream is broken: {error}") from error
    if is_inside:
        raise BadImage("the gzip stream ends in the middle")


def _rest_of(engine: Any) -> Iterator[bytes]:
    """What an engine holds back after a full piece although all its input is taken."""
    while not engine.eof:
        out = engine.decompress(b"", PIECE_BYTES)
        if not out:
            return
        yield out


def _members(pieces: Iterable[bytes], make: Callable[[], Any], kind: str) -> Iterator[bytes]:
    """For decompressors with the interface of bz2, lzma and zstd of the standard library."""
    engine = make()
    is_inside = False
    try:
        for piece in pieces:
            data = piece
            while data or (is_inside and not engine.needs_input):
                if not is_inside and not data.strip(b"\0"):
                    break
                is_inside = True
                out = engine.decompress(data, PIECE_BYTES)
                data = b""
                if out:
                    yield out
                if engine.eof:
                    data = engine.unused_data
                    engine = make()
                    is_inside = False
    except (OSError, EOFError, lzma.LZMAError, _zstd_error()) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadImage(f"the {kind} stream is broken: {error}") from error
    if is_inside:
        raise BadImage(f"the {kind} stream ends in the middle")


def _zstd_module() -> Optional[Any]:
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return None


def _zstd_error() -> Any:
    module = _zstd_module()
    return module.ZstdError if module is not None else EOFError


def zstd_reader() -> str:
    """What reads zstd here: ``python``, a program's path, or nothing."""
    if _zstd_module() is not None:
        return "python"
    return shutil.which("zstd") or shutil.which("unzstd") or ""


def _unzstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    reader = zstd_reader()
    if reader == "python":
        module: Any = _zstd_module()
        return _members(pieces, module.ZstdDecompressor, "zstd")
    if not reader:
        raise Unsupported(
            "the layer is compressed with zstd, which nothing on this node can read",
            "install the package 'zstd', use Python 3.14 or later, or take an image with gzip layers",
        )
    return _piped([reader, "-d", "-c", "-q", "-"], pieces, "zstd")


def _piped(command: List[str], pieces: Iterable[bytes], kind: str) -> Iterator[bytes]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=True
    )
    problem: List[BaseException] = []
    feeder = threading.Thread(target=_feed, args=(process, pieces, problem), daemon=True)
    feeder.start()
    is_done = False
    try:
        assert process.stdout is not None
        while True:
            out = process.stdout.read(PIECE_BYTES)
            if not out:
                break
            yield out
        is_done = True
    finally:
        if not is_done:
            process.kill()
        feeder.join()
        said = process.stderr.read(500).decode("utf-8", "replace").strip() if process.stderr else ""
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        status = process.wait()
    if problem:
        raise problem[0]
    if status != 0:
        raise BadImage(f"the {kind} stream is broken: {said or f'status {status}'}")


def _feed(process: Any, pieces: Iterable[bytes], problem: List[BaseException]) -> None:
    try:
        for piece in pieces:
            process.stdin.write(piece)
    except BrokenPipeError:
        pass  # it says why by its status
    except BaseException as error:
        problem.append(error)
        process.kill()
    finally:
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
