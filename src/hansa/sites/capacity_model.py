"""Capacity grants: what is left of one, and for whom. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from hansa.kernel.status import Party, Status
from hansa.sites.capacity_wire import GrantCaps, GrantTerms

MS_PER_HOUR = 3_600_000
WARN_AT = 0.8


class GrantPhase(StrEnum):
    """Where a grant is. Whether an agreed one is in force is a matter of dates and hours: :func:`status_of`."""

    ASKED = "asked"
    AGREED = "agreed"
    REFUSED = "refused"


@dataclass(frozen=True)
class Held:
    """What is taken now by things that run: core milliseconds are promised, not used yet."""

    core_ms: int = 0
    cores: int = 0
    memory_mib: int = 0
    gpus: int = 0
    storage_gib: int = 0


@dataclass(frozen=True)
class Taken:
    """What was used and is reserved of a grant: by all, by the one who asks, and by that one's group."""

    used_ms: int = 0
    held: Held = field(default_factory=Held)
    user_ms: int = 0
    group_ms: int = 0


@dataclass(frozen=True)
class Left:
    """What somebody can still start. None: not limited. ``limited_by``: whose cap it is, where not the grant's."""

    core_ms: int | None = None
    cores: int | None = None
    memory_mib: int | None = None
    gpus: int | None = None
    storage_gib: int | None = None
    share: float = 1.0
    limited_by: str = ""


@dataclass(frozen=True)
class NoGrant:
    """Why there is none in force: a code and a sentence."""

    reason: str
    message: str
    waiting_on: Party


@dataclass(frozen=True)
class GrantState:
    """A grant as it is stored."""

    vo: str
    site: str
    phase: GrantPhase
    terms: GrantTerms
    caps: GrantCaps = field(default_factory=GrantCaps)
    message: str = ""
    since: datetime | None = None


def hours_ms(hours: float | None) -> int | None:
    return None if hours is None else round(hours * MS_PER_HOUR)


def in_force(grant: GrantState | None, vo: str, site: str, now: datetime) -> NoGrant | None:
    """Why a grant is not in force now; None: it is."""
    if grant is None:
        return NoGrant("capacity.none", f"{vo} has no capacity grant at {site}.", Party.VO_MANAGER)
    if grant.phase is GrantPhase.ASKED:
        return NoGrant("capacity.asked", f"{vo} has asked {site} for capacity; it has not answered yet.", Party.SITE)
    if grant.phase is GrantPhase.REFUSED:
        return NoGrant("capacity.refused", f"{site} refused {vo} a grant: {grant.message}", Party.VO_MANAGER)
    starts, ends = grant.terms.starts, grant.terms.ends
    if starts is not None and now < starts:
        said = f"The grant of {vo} at {site} begins {starts:%Y-%m-%d %H:%M} UTC."
        return NoGrant("capacity.early", said, Party.NOBODY)
    if ends is not None and now >= ends:
        said = f"The grant of {vo} at {site} ended {ends:%Y-%m-%d %H:%M} UTC."
        return NoGrant("capacity.ended", said, Party.VO_MANAGER)
    return None


def left_of(grant: GrantState, taken: Taken, user: tuple[str, str], group: str = "") -> Left:
    """What ``user`` (id and name) in ``group`` can still start under a grant that is in force."""
    terms, held = grant.terms, taken.held
    limits: list[tuple[int, str]] = []
    granted = hours_ms(terms.core_hours)
    share = 1.0
    if granted is not None:
        left = granted - taken.used_ms - held.core_ms
        limits.append((left, ""))
        share = max(0.0, left / granted) if granted else 0.0
    cap = _cap_of(grant.caps, user)
    if cap is not None:
        limits.append((round(cap * MS_PER_HOUR) - taken.user_ms, "your cap"))
    if group in grant.caps.groups:
        limits.append((round(grant.caps.groups[group] * MS_PER_HOUR) - taken.group_ms, f"the cap of the group {group}"))
    core_ms, whose = min(limits, default=(None, ""), key=lambda limit: limit[0])
    return Left(
        None if core_ms is None else max(0, core_ms),
        _minus(terms.cores, held.cores),
        _minus(terms.memory_mib, held.memory_mib),
        _minus(terms.gpus, held.gpus),
        _minus(terms.storage_gib, held.storage_gib),
        min(1.0, share),
        whose,
    )


def _cap_of(caps: GrantCaps, user: tuple[str, str]) -> float | None:
    return next((caps.users[word] for word in user if word in caps.users), caps.each_user)


def _minus(granted: int | None, held: int) -> int | None:
    return None if granted is None else max(0, granted - held)


def lacks(left: Left, wish: Held) -> list[str]:
    """What of a wish is more than is left, in words; none: it can start."""
    rows: tuple[tuple[int, int | None, str], ...] = (
        (wish.cores, left.cores, "cores"),
        (wish.memory_mib, left.memory_mib, "MiB of memory"),
        (wish.gpus, left.gpus, "GPUs"),
        (wish.storage_gib, left.storage_gib, "GiB of storage"),
    )
    found = [
        f"{asked:,} {unit} asked, {free:,} left" for asked, free, unit in rows if free is not None and asked > free
    ]
    if left.core_ms is not None and wish.core_ms > left.core_ms:
        found.append(f"{wish.core_ms / MS_PER_HOUR:,.1f} core hours asked, {left.core_ms / MS_PER_HOUR:,.1f} left")
    return found


def is_mostly_used(terms: GrantTerms, used_ms: int) -> bool:
    """Whether it is time for a warning: at 80 %."""
    granted = hours_ms(terms.core_hours)
    return granted is not None and used_ms >= WARN_AT * granted


def status_of(grant: GrantState, used_ms: int, held_ms: int, now: datetime) -> Status:
    """How a grant is."""
    since = grant.since or now
    missing = in_force(grant, grant.vo, grant.site, now)
    if missing is not None:
        phase = missing.reason.removeprefix("capacity.")
        return Status(phase, missing.reason, missing.message, missing.waiting_on, since)
    granted = hours_ms(grant.terms.core_hours)
    if granted is not None and used_ms + held_ms >= granted:
        said = (
            f"All of its {grant.terms.core_hours:,.0f} core hours are used or reserved: new starts wait for a manager "
            f"of {grant.vo} to get more."
        )
        return Status("used_up", "capacity.used_up", said, Party.VO_MANAGER, since)
    return Status("in_force", "capacity.in_force", grant.message or "It is in force.", Party.NOBODY, since)


def by_user(rows: Mapping[tuple[str, str], int], user_id: str, group: str) -> tuple[int, int]:
    """Of sums by (user, group): those of one user in all groups, and of one group."""
    mine = sum(value for (user, _), value in rows.items() if user == user_id)
    ours = sum(value for (_, name), value in rows.items() if group and name == group)
    return mine, ours
