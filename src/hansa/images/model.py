"""Phases of a version of an image, and what is to be done about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from hansa.kernel.reconcile import Act, Settle

PIN = "pin"
FETCH = "fetch"
DROP = "drop"


class Phase(StrEnum):
    """Where a version is in its life."""

    KNOWN = "known"
    """In the catalogue; its content is fetched when somebody needs it."""
    UPLOADING = "uploading"
    """Its content is expected from whoever added it."""
    FETCHING = "fetching"
    READY = "ready"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self in (Phase.REFUSED, Phase.WITHDRAWN, Phase.EXPIRED)


@dataclass(frozen=True)
class Seen:
    """What the depot has of a version."""

    is_here: bool
    """The whole content, under its checksum."""
    partial_bytes: int = 0


@dataclass(frozen=True)
class Turn(Settle):
    """A decision: the phase changes, and nothing is to be done in the world."""

    phase: Phase | None = None
    message: str = ""


def decide(version: Any, seen: Seen, now: datetime) -> Act | Settle:
    """What comes next for a version. It has expired, is to be pinned, fetched, dropped, or all is well."""
    phase = Phase(version.phase)
    if phase.is_final:
        return Act(DROP, "images.unused") if seen.is_here or seen.partial_bytes else Settle("images.ended")
    if version.expires is not None and version.expires <= now:
        message = f"It expired on {version.expires:%Y-%m-%d}: a new version is needed."
        return Turn("images.expired", now, Phase.EXPIRED, message)
    if version.place is not None:
        return Settle("images.kept", version.expires)  # at its site; whoever brought it there removes it
    if phase is Phase.UPLOADING:
        return Settle("images.uploading", version.expires)
    if not version.wanted:
        return Settle("images.known", version.expires)
    if seen.is_here and phase is Phase.READY:
        return Settle("images.ready", version.expires)
    if version.source in ("upload", "snapshot"):
        return Turn("images.lost", None, Phase.REFUSED, "Its content is gone from the server's disk: add it again.")
    if version.checksum is None:
        return Act(PIN, "images.pinning")
    return Act(FETCH, "images.fetching")


def usable(phase: str, expires: datetime | None, now: datetime) -> bool:
    """Whether a machine may be started of it: ready, or known and fetched on first use."""
    return phase in (Phase.READY, Phase.KNOWN, Phase.FETCHING) and (expires is None or expires > now)
