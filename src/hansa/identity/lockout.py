"""Guessing passwords is made slow: after a few failures each further one costs a longer wait. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

_FIRST_S = 5.0
_LONGEST_S = 900.0
FORGET_AFTER = timedelta(hours=24)


@dataclass(frozen=True)
class Failures:
    """Failed logins that have something in common: how many, and when the last was."""

    count: int
    last: datetime


def keys_of(name: str, address: str) -> dict[str, int]:
    """What failures are counted by, and how many each has free.

    A person elsewhere is not locked out by somebody who guesses, unless the guesses come from many addresses. Loopback
    is no address to count by: it is a proxy that nobody told us to trust, or a laptop.
    """
    who = name.strip().casefold()
    keys = {f"both:{who}@{address}": 5, f"name:{who}": 50}
    return keys if address in ("127.0.0.1", "::1") else keys | {f"address:{address}": 50}


def wait_s(failures: Mapping[str, Failures], free: Mapping[str, int], now: datetime) -> float:
    """Seconds until the next attempt is looked at; 0: now."""
    return max((_wait_of(failures[key], free[key], now) for key in free if key in failures), default=0.0)


def _wait_of(failures: Failures, free: int, now: datetime) -> float:
    over = failures.count - free
    if over < 0 or now - failures.last > FORGET_AFTER:
        return 0.0
    delay = min(_FIRST_S * 2.0 ** min(over, 20), _LONGEST_S)
    return max(0.0, (failures.last - now).total_seconds() + delay)
