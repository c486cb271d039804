"""A batch system in memory, with scripted faults: for speed and scale in tests, never the only proof."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from hansa.jobs.drivers.base import Life, PilotOrder, Seen


class FakeBatch:
    """Pilots that live until told otherwise. ``faults`` are raised by the next calls of ``start``, in order."""

    def __init__(self) -> None:
        self.orders: dict[str, PilotOrder] = {}
        self.lives: dict[str, Life] = {}
        self.faults: deque[Exception] = deque()
        self.starts = 0
        self.why_ended: dict[str, str] = {}
        """Of pilots that the site ended: what it says."""

    async def start(self, order: PilotOrder) -> Seen:
        if self.faults:
            raise self.faults.popleft()
        if self.lives.get(order.pilot_id, Life.ABSENT) is Life.ABSENT:
            self.starts += 1
            self.orders[order.pilot_id] = order
            self.lives[order.pilot_id] = Life.ALIVE
        return Seen(self.lives[order.pilot_id])

    async def observe(self, pilot_id: str) -> Seen:
        life = self.lives.get(pilot_id, Life.ABSENT)
        why = self.why_ended.get(pilot_id, "") if life is Life.ENDED else ""
        return Seen(life, why, is_blameless=bool(why))

    async def cancel(self, pilot_id: str) -> None:
        if self.lives.get(pilot_id) in (Life.ALIVE, Life.QUEUED):
            self.lives[pilot_id] = Life.ENDED

    async def clean(self, pilot_id: str) -> None:
        if self.lives.get(pilot_id) is Life.ENDED:
            del self.lives[pilot_id]
            self.orders[pilot_id] = replace(self.orders[pilot_id], token="")
