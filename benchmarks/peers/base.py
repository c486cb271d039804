"""What a peer can do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

Runner = Callable[[int], None]
"""Runs so many tasks, each of which starts /bin/true and succeeds, and returns when all have ended."""


class Peer(Protocol):
    """Somebody else's way to run tasks. ``start`` raises ImportError where it is not installed."""

    @property
    def name(self) -> str: ...

    @property
    def how(self) -> str:
        """How it was used, for whoever wants to check that it was used well."""

    def start(self, cores: int) -> AbstractContextManager[Runner]: ...
