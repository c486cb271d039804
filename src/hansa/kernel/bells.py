"""Bells wake those who wait for a change. A bell says "look again", never what has changed.

Ringing is allowed to be lost (another server, a crash): every waiter also looks by itself now and then.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """One listener. Rings are remembered from the moment it was made until the next :meth:`wait` returns."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """True if it rang, False after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Bells:
    """The bells of one process, by topic (``"job/12"``, ``"work"``)."""

    def __init__(self) -> None:
        self._bells: defaultdict[str, set[Bell]] = defaultdict(set)
        self.is_closing = False
        """The server is about to stop: whoever holds a request open for news answers it now."""

    @contextmanager
    def listen(self, *topics: str) -> Iterator[Bell]:
        """A bell that rings with any of ``topics``. Listen first, then look, then wait: nothing is missed."""
        bell = Bell()
        for topic in topics:
            self._bells[topic].add(bell)
        try:
            yield bell
        finally:
            for topic in topics:
                bells = self._bells[topic]
                bells.discard(bell)
                if not bells:
                    del self._bells[topic]

    def ring(self, topic: str) -> None:
        for bell in tuple(self._bells.get(topic, ())):
            bell.ring()

    def close(self) -> None:
        """Wake everybody, for the last time."""
        self.is_closing = True
        for topic in tuple(self._bells):
            self.ring(topic)
