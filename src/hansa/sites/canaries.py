"""Canaries: the smallest thing that a site can run, really started now and then where the site agreed. All pure.

A canary tells what no list tells: that work starts, and how long that takes. One is due where nothing else was started
for a while, and again soon after one that failed. Two in a row that fail are a finding of the probe, until one runs.

How one ended is written down before what it left is removed, so that whatever breaks off in between, it is removed and
not started again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hansa.sites.health import FAILURES
from hansa.sites.kinds.base import Answer, Finding, Sighting, Stage, State

START = "canary"
WITHDRAW = "canary.withdraw"
LOOK_S = 30.0
"""Seconds between two looks at one that waits or runs."""


@dataclass(frozen=True)
class Canary:
    """What an endpoint remembers of its canaries. ``number`` is of the one that is out, or comes next."""

    number: int = 1
    since: datetime | None = None
    """When the one that is out was sent; None: none is."""
    again_at: datetime | None = None
    """Before it, none is due. None: at once."""
    failures: int = 0
    """In a row."""
    message: str = ""
    """How the last one ended."""
    vo: str | None = None
    """As whom the one that is out was sent."""
    ended: str | None = None
    """How the one that is out ended, while what it left is removed; None: it goes on."""
    waited_s: float | None = None

    def store(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "since": self.since and self.since.isoformat(),
            "again_at": self.again_at and self.again_at.isoformat(),
            "failures": self.failures,
            "message": self.message,
            "vo": self.vo,
            "ended": self.ended,
            "waited_s": self.waited_s,
        }

    @classmethod
    def load(cls, found: Mapping[str, Any]) -> Canary:
        times = {name: datetime.fromisoformat(found[name]) for name in ("since", "again_at") if found.get(name)}
        return cls(**{**found, **times})


@dataclass(frozen=True)
class Rules:
    """How often, and how long."""

    every_s: float
    wait_s: float
    """Seconds after which one that still waits is taken back: the site is busy, which is no fault."""


def operation(canary: Canary, seen: Finding, now: datetime, rules: Rules, *, may_start: bool) -> str | None:
    """What to do about canaries after a probe; None: nothing. One that is out is seen to its end whatever changed."""
    if seen.answer is not Answer.UP or seen.stage is not Stage.LIST:
        return None
    if canary.since is not None:
        is_late = now - canary.since > timedelta(seconds=rules.wait_s)
        return WITHDRAW if is_late or not may_start or canary.ended else START
    is_due = canary.again_at is None or canary.again_at <= now
    return START if may_start and is_due else None


def after(canary: Canary, sighting: Sighting, now: datetime, rules: Rules) -> Canary:
    """What to remember after a look at the canary that is out."""
    since = canary.since or now
    if sighting.is_over and sighting.leaves:
        return replace(
            canary, since=since, ended=sighting.state.value, message=sighting.message, waited_s=sighting.waited_s
        )
    if not sighting.is_over:
        return replace(canary, since=since, message=canary.message if canary.ended else sighting.message)
    failures = canary.failures
    if sighting.state is State.RAN:
        failures = 0
    elif sighting.state is State.FAILED:
        failures += 1
    wait_s = min(rules.every_s, LOOK_S * 2.0 ** min(failures, 20)) if failures else rules.every_s
    return Canary(canary.number + 1, None, now + timedelta(seconds=wait_s), failures, sighting.message)


def withdrawn(canary: Canary) -> Sighting:
    """What to say of a canary of which nothing is left: how it ended before, or that it was taken back."""
    if canary.ended is not None:
        return Sighting(State(canary.ended), canary.message, canary.waited_s)
    said = "It waited so long that it was taken back, or the site takes no new work now."
    return Sighting(State.WITHDRAWN, said)


def overlaid(seen: Finding, canary: Canary | None) -> Finding:
    """The finding of a probe, with what canaries told: listing may work where starting does not."""
    if canary is None or canary.failures == 0 or seen.answer is not Answer.UP:
        return seen
    if canary.failures < FAILURES:
        return replace(seen, message=f"{seen.message} The last canary failed; another one will tell. {canary.message}")
    message = f"{canary.failures} canaries in a row failed. {canary.message}"
    return Finding(Answer.DOWN, Stage.CANARY, message, "sites.canary_failed", seen.took_ms)
