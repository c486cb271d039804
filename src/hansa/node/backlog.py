"""How many tasks to ask for. Pure."""

from __future__ import annotations

from collections import deque
from typing import Deque, List

WINDOW_S = 1.0
AHEAD_S = 0.5
"""The backlog covers the completions of so long a time: about ten exchanges of a busy pilot."""
BACKLOG_LIMIT = 512


class Rate:
    """Completions per second over the last second, in ten buckets."""

    def __init__(self) -> None:
        self._buckets: Deque[List[float]] = deque()  # [start, count]

    def add(self, count: int, now: float) -> None:
        """Count completions at ``now`` (monotonic seconds)."""
        if self._buckets and now - self._buckets[-1][0] < WINDOW_S / 10:
            self._buckets[-1][1] += count
        else:
            self._buckets.append([now, count])
        self._forget(now)

    def per_second(self, now: float) -> float:
        """The rate now; it follows a burst after a tenth of a second."""
        self._forget(now)
        if not self._buckets:
            return 0.0
        span = max(now - self._buckets[0][0], WINDOW_S / 10)
        return sum(count for _, count in self._buckets) / span

    def _forget(self, now: float) -> None:
        while self._buckets and now - self._buckets[0][0] > WINDOW_S:
            self._buckets.popleft()


def wanted(*, slots: int, queued: int, running: int, asked: int, per_second: float) -> int:
    """The number of one-core tasks to ask for.

    Slow tasks: one waiting for each slot, so that a core never idles for the time of an exchange, and
    no more: they would be missing on another pilot. Fast tasks: what ends in AHEAD_S. ``queued``
    and ``running`` are in cores; ``asked`` is what requests in flight have already asked for.
    """
    slow = 2 * slots - queued - running
    fast = min(BACKLOG_LIMIT, int(per_second * AHEAD_S)) - queued
    return max(0, max(slow, fast) - asked)


def free_soon(*, free: int, used: int, running: int, per_second: float) -> int:
    """What is free, and of what is used the share that will be free within AHEAD_S at the present rate."""
    if running == 0:
        return free + used
    return free + int(used * min(1.0, per_second * AHEAD_S / running))
