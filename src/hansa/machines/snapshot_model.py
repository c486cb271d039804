"""Phases of a snapshot, and what is to be done about one now. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from hansa.images.model import Phase as VersionPhase
from hansa.kernel.reconcile import Act, Settle
from hansa.kernel.status import Party
from hansa.machines.model import site_of

TAKE, REMOVE = "take", "remove"
LOOK_S = 60.0
"""Seconds between looks at whether the catalogue still has it, while its site keeps something of it."""


class Phase(StrEnum):
    """Where a snapshot is on its way into the catalogue."""

    TAKING = "taking"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True)
class Row:
    """What decides about a snapshot. ``version``: the phase of its version in the catalogue; None: forgotten.

    ``is_there``: something of it may be at its place. ``is_kept``: the place keeps it, as it is nowhere else.
    """

    phase: Phase
    place: str
    version: VersionPhase | None
    is_there: bool = True
    is_kept: bool = False


@dataclass(frozen=True)
class Turn(Settle):
    """A decision: nothing is to be done in the world; phase or columns change."""

    phase: Phase | None = None
    message: str = ""
    waiting_on: Party = Party.NOBODY
    changes: Mapping[str, Any] = field(default_factory=dict)


def decide(row: Row, now: datetime) -> Act | Settle:
    """The next step of a snapshot, and why."""
    is_withdrawn = row.version is None or row.version.is_final
    if row.phase is Phase.DELETED:
        return Settle("machines.snapshot_deleted")
    if is_withdrawn and row.phase is not Phase.FAILED:
        return _remove(row, now)
    if row.phase is Phase.TAKING:
        return Act(TAKE, "machines.snapshot_taking")
    if row.phase is Phase.FAILED and not row.is_there:
        return Settle("machines.snapshot_failed")
    if row.phase is Phase.FAILED or not row.is_kept:
        if row.is_there:  # its content is in the catalogue, or will never be
            return Act(REMOVE, "machines.snapshot_cleaning")
        return Settle("machines.snapshot_ready", now + timedelta(seconds=10 * LOOK_S))
    return Settle("machines.snapshot_ready", now + timedelta(seconds=LOOK_S))


def _remove(row: Row, now: datetime) -> Act | Settle:
    if not row.is_there:
        said = "It was withdrawn from the catalogue."
        return Turn("machines.snapshot_deleted", None, Phase.DELETED, said, changes={"ended": now})
    if row.phase is not Phase.DELETING:
        said = f"It was withdrawn from the catalogue, and is removed from {site_of(row.place)}."
        return Turn("machines.snapshot_deleting", now, Phase.DELETING, said, Party.SITE)
    return Act(REMOVE, "machines.snapshot_deleting")
