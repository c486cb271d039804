"""How an endpoint is, and how it was: damping of probes, history in spans, availability and reliability. All pure.

Availability and reliability are ARGO's: of the time whose state is known, the part that it was up; reliability leaves
out planned downtime as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

from hansa.sites.kinds.base import Answer
from hansa.sites.model import Downtime, Health, Severity

FAILURES = 2
"""Failed probes in a row after which an endpoint counts as down."""
SUCCESSES = 2
"""Good ones after which it counts as up again."""
FLAPS = 3
"""Changes within :data:`FLAP_WINDOW` after which it flaps."""
FLAP_WINDOW = timedelta(hours=1)
STEADY = timedelta(minutes=15)
"""How long one that flapped must stay up before it gets work again."""
AGAIN_S = 30.0
"""Seconds until a second look where one more decides."""


@dataclass(frozen=True)
class Damping:
    """What has to be remembered from probe to probe: results in a row, and when it went up or down of late."""

    failures: int = 0
    successes: int = 0
    changes: tuple[datetime, ...] = ()

    def store(self) -> dict[str, Any]:
        changes = [one.isoformat() for one in self.changes]
        return {"failures": self.failures, "successes": self.successes, "changes": changes}

    @classmethod
    def load(cls, found: Mapping[str, Any]) -> Damping:
        changes = tuple(datetime.fromisoformat(one) for one in found.get("changes", ()))
        return cls(found.get("failures", 0), found.get("successes", 0), changes)


@dataclass(frozen=True)
class Verdict:
    """How it is now, what to remember, and when to look again (seconds)."""

    health: Health
    damping: Damping
    again_s: float


def judge(health: Health, damping: Damping, answer: Answer, now: datetime, every_s: float) -> Verdict:
    """One more probe: what it changes. One bad probe changes nothing yet but the time of the next."""
    soon_s = min(AGAIN_S, every_s)
    recent = tuple(one for one in damping.changes if now - one < FLAP_WINDOW)
    if answer is Answer.UNKNOWN:
        return Verdict(Health.UNKNOWN, Damping(0, 0, recent), every_s)
    if answer is Answer.LOGIN:
        return Verdict(Health.LOGIN, Damping(0, 0, recent), every_s)
    if answer is Answer.DOWN:
        failures = damping.failures + 1
        if health is Health.DOWN or (health.takes_work and failures < FAILURES and health is not Health.UNKNOWN):
            return Verdict(health, Damping(failures, 0, recent), every_s if health is Health.DOWN else soon_s)
        changes = recent if health is Health.UNKNOWN else (*recent, now)
        return Verdict(Health.DOWN, Damping(failures, 0, changes), every_s)
    successes = damping.successes + 1
    if health is Health.DOWN:
        if successes < SUCCESSES:
            return Verdict(health, Damping(0, successes, recent), soon_s)
        changes = (*recent, now)
        after = Health.FLAPPING if len(changes) >= FLAPS else Health.UP
        return Verdict(after, Damping(0, successes, changes), every_s)
    if health is Health.FLAPPING and recent and now - recent[-1] < STEADY:
        return Verdict(health, Damping(0, successes, recent), every_s)
    return Verdict(Health.UP, Damping(0, successes, recent), every_s)


class State(StrEnum):
    """What a stretch of time counts as."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"
    DOWNTIME = "downtime"


@dataclass(frozen=True)
class Span:
    """A time over which all probes gave the same answer."""

    begins: datetime
    ends: datetime
    answer: Answer


@dataclass(frozen=True)
class Piece:
    """A stretch of time in one state."""

    begins: datetime
    ends: datetime
    state: State


@dataclass(frozen=True)
class Figures:
    """Seconds in each state within a period."""

    up_s: float = 0.0
    down_s: float = 0.0
    unknown_s: float = 0.0
    downtime_s: float = 0.0

    @property
    def availability(self) -> float | None:
        """up / (total - unknown); None where nothing is known."""
        return _part(self.up_s, self.up_s + self.down_s + self.downtime_s)

    @property
    def reliability(self) -> float | None:
        """up / (total - unknown - planned downtime); None where nothing is left."""
        return _part(self.up_s, self.up_s + self.down_s)


def _part(some_s: float, all_s: float) -> float | None:
    return some_s / all_s if all_s > 0 else None


_OF_ANSWER = {Answer.UP: State.UP, Answer.DOWN: State.DOWN}
_EITHER = (State.UP, State.DOWN, State.UNKNOWN, State.DOWNTIME)
"""Of endpoints of one kind, where either will do: the first of these that one of them is in."""
_ALL = (State.DOWNTIME, State.DOWN, State.UNKNOWN, State.UP)
"""Of different kinds, all of which belong to a working site."""


def timeline(spans: Iterable[Span], downtimes: Iterable[Downtime], start: datetime, end: datetime) -> list[Piece]:
    """The states of one endpoint, without gaps. Planned outages rule; what no probe saw is unknown."""
    seen = [Piece(one.begins, one.ends, _OF_ANSWER.get(one.answer, State.UNKNOWN)) for one in spans]
    down = [
        Piece(one.starts, one.ends, State.DOWNTIME)
        for one in downtimes
        if one.is_planned and one.severity is Severity.OUTAGE
    ]
    pieces: list[Piece] = []
    cuts = _cuts([*seen, *down], start, end)
    for (begins, ends), state in zip(cuts, _along(seen, cuts), strict=True):
        is_off = any(_covers(one, begins, ends) for one in down)
        pieces.append(Piece(begins, ends, State.DOWNTIME if is_off else state))
    return _joined(pieces)


def combine(of_kinds: Mapping[str, Sequence[Sequence[Piece]]], start: datetime, end: datetime) -> list[Piece]:
    """The states of a site: of endpoints of a kind either will do, of kinds all are needed."""
    everything = [piece for lines in of_kinds.values() for line in lines for piece in line]
    cuts = _cuts(everything, start, end)
    known = [[_along(line, cuts) for line in lines] for lines in of_kinds.values() if lines]
    pieces = []
    for at, (begins, ends) in enumerate(cuts):
        states = [_first(_EITHER, [line[at] for line in lines]) for lines in known]
        pieces.append(Piece(begins, ends, _first(_ALL, states) if states else State.UNKNOWN))
    return _joined(pieces)


def figures(pieces: Iterable[Piece], start: datetime, end: datetime) -> Figures:
    """How long it was in which state, within start and end."""
    seconds = dict.fromkeys(State, 0.0)
    for one in pieces:
        seconds[one.state] += max(0.0, (min(one.ends, end) - max(one.begins, start)).total_seconds())
    return Figures(seconds[State.UP], seconds[State.DOWN], seconds[State.UNKNOWN], seconds[State.DOWNTIME])


def days(start: datetime, end: datetime) -> list[tuple[str, datetime, datetime]]:
    """The days (UTC) that start to end touches: ``2026-11-25``, begin, end; the last one may be cut short."""
    found = []
    day = start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while day < end:
        found.append((f"{day:%Y-%m-%d}", max(day, start), min(day + timedelta(days=1), end)))
        day += timedelta(days=1)
    return found


def months(start: datetime, end: datetime) -> list[tuple[str, datetime, datetime]]:
    """The months (UTC) that start to end touches: ``2026-11``, begin, end; the last one may be cut short."""
    found = []
    first = start.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while first < end:
        following = (first + timedelta(days=32)).replace(day=1)
        found.append((f"{first:%Y-%m}", max(first, start), min(following, end)))
        first = following
    return found


def _cuts(pieces: Iterable[Piece], start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    times = {start, end} | {time for one in pieces for time in (one.begins, one.ends) if start < time < end}
    ordered = sorted(times)
    return list(pairwise(ordered)) if start < end else []


def _covers(piece: Piece, begins: datetime, ends: datetime) -> bool:
    return piece.begins <= begins and ends <= piece.ends


def _along(line: Sequence[Piece], cuts: Sequence[tuple[datetime, datetime]]) -> list[State]:
    """The state in each of these stretches. The pieces do not overlap; both are the oldest first."""
    found, at = [], 0
    for begins, ends in cuts:
        while at < len(line) and line[at].ends <= begins:
            at += 1
        found.append(line[at].state if at < len(line) and _covers(line[at], begins, ends) else State.UNKNOWN)
    return found


def _first(order: Sequence[State], states: Sequence[State]) -> State:
    return next(one for one in order if one in states)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for one in pieces:
        if found and found[-1].state is one.state and found[-1].ends == one.begins:
            found[-1] = Piece(found[-1].begins, one.ends, one.state)
        else:
            found.append(one)
    return found
