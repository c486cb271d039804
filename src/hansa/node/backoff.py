"""When to try again. Pure but for the random number generator, which is given."""

from __future__ import annotations

import random

FIRST_S = 0.2
LONGEST_S = 30.0


class Backoff:
    """Exponential back-off with full jitter in its upper half: 0.2 s, 0.4 s, … 30 s."""

    def __init__(self, rng: random.Random, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._rng = rng
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait after one more failure."""
        ceiling = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return ceiling * (0.5 + 0.5 * self._rng.random())

    def reset(self) -> None:
        """After a success."""
        self._failures = 0
