"""Generators of bytes that run ahead of their consumer in a thread of their own.

Hashing, decompressing and system calls leave the interpreter's lock, so that the stages of an unpack use two cores.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, Iterable, Iterator, Optional

_DEPTH = 8


class _End:
    def __init__(self, error: Optional[BaseException]) -> None:
        self.error = error


def ahead(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same pieces; up to eight are made before they are asked for. Errors arrive in their place."""
    line: queue.Queue[Any] = queue.Queue(_DEPTH)
    stop = threading.Event()
    thread = threading.Thread(target=_produce, args=(pieces, line, stop), daemon=True)
    thread.start()
    try:
        while True:
            got = line.get()
            if isinstance(got, _End):
                if got.error is not None:
                    raise got.error
                return
            yield got
    finally:
        stop.set()
        while thread.is_alive():
            try:
                line.get(timeout=0.01)
            except queue.Empty:
                pass
        thread.join()


def _produce(pieces: Iterable[bytes], line: Any, stop: threading.Event) -> None:
    end = _End(None)
    source = iter(pieces)
    try:
        for piece in source:
            line.put(piece)
            if stop.is_set():
                break
    except BaseException as error:
        end.error = error
    try:
        close = getattr(source, "close", None)
        if close is not None:
            close()
    except BaseException as error:
        end.error = end.error or error
    line.put(end)


def hashed(pieces: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    """The same pieces, seen by a hash object."""
    for piece in pieces:
        digest.update(piece)
        yield piece
