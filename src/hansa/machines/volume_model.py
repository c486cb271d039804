"""Phases of a volume, and what is to be done about one now. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from hansa.kernel.reconcile import Act, Settle
from hansa.kernel.status import Party
from hansa.machines.drivers.base import Volume
from hansa.machines.model import MISSING_S, QUIET_S, SLOW_POLL_S, WATCH_S, site_of

CREATE, ATTACH, DETACH, DELETE = "create", "attach", "detach", "delete"


class Phase(StrEnum):
    """Where a volume is in its life."""

    WAITING = "waiting"
    """For the machine that it was asked for with: it is made where that runs."""
    CREATING = "creating"
    AVAILABLE = "available"
    """It is there, and no machine has it."""
    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    FAILED = "failed"
    """It came to nothing, or is lost. It stays to be looked at until it is deleted."""
    DELETING = "deleting"
    DELETED = "deleted"


@dataclass(frozen=True)
class Target:
    """The machine that shall have it. ``provider_id``: what its site calls it; None: nothing is known there yet."""

    id: str
    name: str
    place: str | None
    provider_id: str | None
    is_there: bool
    """Whether it runs, or is stopped: volumes can be given to it."""


@dataclass(frozen=True)
class Row:
    """What decides about a volume."""

    id: str
    phase: Phase
    is_wanted: bool
    place: str | None
    size_gib: int
    created: datetime
    since: datetime
    target: Target | None = None
    was_made: bool = False
    missing_since: datetime | None = None
    refused: str | None = None
    """Why its machine cannot have it, in the site's words: not tried again before somebody asks."""


@dataclass(frozen=True)
class Turn(Settle):
    """A decision: nothing is to be done in the world; phase or columns change. ``phase`` None: it stays."""

    phase: Phase | None = None
    message: str = ""
    waiting_on: Party = Party.NOBODY
    changes: Mapping[str, Any] = field(default_factory=dict)
    takes_place: str | None = None
    """A place where it is about to be made: for grants and reservations."""


def decide(row: Row, seen: Volume | None, now: datetime) -> Act | Settle:
    """The next step of a volume, and why. ``seen``: what its place has of it."""
    if row.phase is Phase.DELETED:
        return Settle("machines.volume_deleted")
    if not row.is_wanted:
        return _remove(row, now)
    if row.place is None:
        return _place(row, now)
    if seen is None:
        return _make(row, now)
    if seen.surplus:
        return Act(CREATE, "machines.volume_surplus")
    if seen.failed:
        said = f"At {site_of(row.place)}: {seen.failed}"
        return Turn("machines.volume_failed", now + timedelta(seconds=QUIET_S), Phase.FAILED, said, Party.USER)
    if not seen.is_ready:
        said = f"{site_of(row.place)} is making it."
        return Turn("machines.volume_creating", _soon(row, now), Phase.CREATING, said, Party.SITE)
    return _attachment(row, seen, now)


def _remove(row: Row, now: datetime) -> Act | Settle:
    if row.place is None:
        return Turn("machines.volume_deleted", None, Phase.DELETED, "It was never made.", changes={"ended": now})
    if row.phase is not Phase.DELETING:
        return Turn("machines.volume_deleting", now, Phase.DELETING, "It is being deleted.", Party.SITE)
    return Act(DELETE, "machines.volume_deleting")


def _place(row: Row, now: datetime) -> Settle:
    """It belongs where its machine is."""
    target = row.target
    if target is None:
        said = "It was never made, as its machine never was."
        return Turn("machines.volume_deleted", None, Phase.DELETED, said, changes={"ended": now})
    if target.is_there and target.place is not None:
        said = f"It is being made at {site_of(target.place)}, for {target.name}."
        return Turn("machines.volume_creating", now, Phase.CREATING, said, Party.SITE, takes_place=target.place)
    return Turn("machines.volume_waits", None, Phase.WAITING, f"It is made when {target.name} runs.", Party.HANSA)


def _make(row: Row, now: datetime) -> Act | Settle:
    site = site_of(row.place or "")
    if not row.was_made:
        return Act(CREATE, "machines.volume_creating")
    if row.missing_since is None:
        again = now + timedelta(seconds=MISSING_S / 4)
        return Turn("machines.volume_missing", again, None, f"{site} does not know it now.", Party.SITE,
                    {"missing_since": now})  # fmt: skip
    if (now - row.missing_since).total_seconds() < MISSING_S:
        return Settle("machines.volume_missing", now + timedelta(seconds=MISSING_S / 4))
    said = f"{site} does not know it any more: somebody deleted it there, or it is lost."
    return Turn("machines.volume_lost", now + timedelta(seconds=QUIET_S), Phase.FAILED, said, Party.USER)


def _attachment(row: Row, seen: Volume, now: datetime) -> Act | Settle:
    """It is there: give it to whom it belongs, or take it back."""
    target, has = row.target, seen.attached_to
    known = {"missing_since": None}
    if has is not None and (target is None or has != target.provider_id):
        if row.phase is not Phase.DETACHING:
            said = "It is being taken from the machine that has it."
            return Turn("machines.volume_detaching", now, Phase.DETACHING, said, Party.SITE, known)
        return Act(DETACH, "machines.volume_detaching")
    site = site_of(row.place or "")
    age_s = (now - row.created).total_seconds()
    again = now + timedelta(seconds=WATCH_S / 4 if age_s < WATCH_S else QUIET_S)
    if target is None:
        said = f"It is at {site}, and no machine has it."
        return Turn("machines.volume_available", again, Phase.AVAILABLE, said, changes=known)
    if has is not None:
        where = f" as {seen.device}" if seen.device else ""
        said = f"{target.name} has it{where}."
        return Turn("machines.volume_attached", again, Phase.ATTACHED, said, changes=known)
    if row.refused is not None:
        said = f"{target.name} cannot have it: {row.refused}"
        return Turn("machines.volume_refused", again, Phase.AVAILABLE, said, Party.USER, known)
    if not target.is_there:
        said = f"It is given to {target.name} when that runs."
        return Turn("machines.volume_waits", again, Phase.AVAILABLE, said, Party.HANSA, known)
    if row.phase is not Phase.ATTACHING:
        said = f"It is being given to {target.name}."
        return Turn("machines.volume_attaching", now, Phase.ATTACHING, said, Party.SITE, known)
    return Act(ATTACH, "machines.volume_attaching", {"machine": target.id})


def _soon(row: Row, now: datetime) -> datetime:
    return now + timedelta(seconds=min(SLOW_POLL_S, max(0.25, (now - row.since).total_seconds() / 10)))
