"""What a room and the engine say to each other: decisions, outcomes, and the Protocol of a room."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from hansa.kernel.database import Tx
from hansa.kernel.reconcile.queue import Intent, Queue

K_contra = TypeVar("K_contra", contravariant=True)
L = TypeVar("L")
S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True)
class Act:
    """A decision: do this now. ``arguments`` (JSON) are committed with the intent."""

    operation: str
    reason: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settle:
    """A decision: nothing to do now. A room that wants to say more makes a subclass."""

    reason: str
    due_at: datetime | None = None


@dataclass(frozen=True)
class Settled(Generic[S]):
    """An outcome: there was nothing to do."""

    decision: Settle
    seen: S


@dataclass(frozen=True)
class Acted(Generic[S, R]):
    """An outcome: the intent was carried out."""

    intent: Intent
    result: R
    seen: S


@dataclass(frozen=True)
class Failed:
    """An outcome: observing, deciding or acting failed. The room phrases it and says what comes next.

    ``reason`` is ``temporary``, ``permanent`` or ``kernel.bug``. ``retry_at`` is what the engine proposes:
    the back-off, or None after a permanent failure, which only a new generation can mend.
    """

    reason: str
    error: Exception
    attempt: int
    """Failures in a row, this one included."""
    retry_at: datetime | None
    intent: Intent | None
    """What was attempted, perhaps with success; None if nothing was."""


Outcome = Settled[S] | Acted[S, R] | Failed


@dataclass(frozen=True)
class Next:
    """When to look at the row again (None: when poked), and the generation that is now reality."""

    due_at: datetime | None
    observed_generation: int | None = None


class Room(Protocol[K_contra, L, S, R]):
    """What a room tells the engine: how its things are loaded, seen, decided about, changed and noted."""

    queue: Queue

    async def load(self, tx: Tx, key: K_contra) -> L | None:
        """The thing and all that the step needs; None if it is gone. No I/O but ``tx``."""

    async def observe(self, loaded: L) -> S:
        """Look at the world, by tag or name. Raises Temporary or Permanent."""

    def decide(self, loaded: L, seen: S, now: datetime) -> Act | Settle:
        """Pure."""

    async def act(self, loaded: L, intent: Intent) -> R:
        """Carry out one operation. Raises Temporary or Permanent. May be cancelled at its deadline."""

    async def apply(self, tx: Tx, loaded: L, outcome: Outcome[S, R]) -> Next:
        """Write the room's columns and events. Runs only while the lease holds. No I/O but ``tx``."""
