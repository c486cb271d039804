"""What a person sees of all their jobs at once: counts, what has changed, and the picture of a large array. Reads."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from hansa.identity.model import Caller
from hansa.jobs import leases, tallies
from hansa.jobs.shared_changes import SharedChanges
from hansa.jobs.tables import jobs, log_chunks, results
from hansa.kernel.database import Database, Tx
from hansa.kernel.events import SHARED, EventLog, topic_of

_EVENTS = 200
_KEPT = 1000
_OPEN = ("waiting", "running")


@dataclass(frozen=True)
class Bucket:
    """A stretch of an array: the indices first … last, and how many of them are where."""

    first: int
    last: int
    waiting: int
    running: int
    done: int
    failed: int
    killed: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


async def count_phases(tx: Tx, owner_id: str) -> dict[str, int]:
    """The owner's jobs by phase."""
    query = sa.select(jobs.c.phase, sa.func.count()).where(jobs.c.owner_id == owner_id).group_by(jobs.c.phase)
    rows: Sequence[Any] = (await tx.execute(query)).all()
    return {str(row[0]): int(row[1]) for row in rows}


@dataclass
class _Seen:
    """What readers of one owner share: the open jobs as they are, and the events behind ``floor``."""

    floor: int
    begun: float = -1.0
    versions: dict[int, tuple[int, int]] = field(default_factory=dict)
    events: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    readers: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Changes:
    """What changes of an owner's, for live pages. One look serves all who wait for the same owner."""

    def __init__(self, database: Database, events: EventLog) -> None:
        self._database = database
        self._events = events
        self._seen: dict[str, _Seen] = {}
        self._shared = SharedChanges(database, events)

    async def stream(self, caller: Caller, position: int, beat_s: float) -> AsyncIterator[tuple[int, list[str]] | None]:
        """Position and subjects whenever things change that the caller may see; None after ``beat_s`` of silence.

        Events tell about phases; the counts of an open job change without one, and its version tells. Of what is
        shared (sites, VOs, grants of capacity, VM images) only what the caller may see is told.
        """
        owner_id, bells = caller.user_id, self._database.bells
        seen = self._seen.setdefault(owner_id, _Seen(position))
        seen.readers += 1
        try:
            with bells.listen(topic_of(owner_id), f"jobs/{owner_id}", SHARED) as bell:
                heard = position
                versions = await self._look(owner_id, seen)
                while not bells.is_closing:
                    found = await self._after(owner_id, seen, position)
                    moved = [number for number, version in seen.versions.items() if versions.get(number) != version]
                    versions = seen.versions
                    heard, shared = await self._shared.after(caller, heard)
                    named = [*(subject for _, subject in found), *shared, *(f"job/{number}" for number in moved)]
                    if named:
                        position = found[-1][0] if found else position
                        yield position, list(dict.fromkeys(named))
                    elif not await bell.wait(beat_s):
                        yield None
                    await self._look(owner_id, seen)
        finally:
            seen.readers -= 1
            if not seen.readers and self._seen.get(owner_id) is seen:
                del self._seen[owner_id]

    async def _look(self, owner_id: str, seen: _Seen) -> dict[int, tuple[int, int]]:
        """Look, unless somebody has begun to after this was asked for."""
        asked = time.monotonic()
        async with seen.lock:
            if seen.begun < asked:
                seen.begun = time.monotonic()
                top = seen.events[-1][0] if seen.events else seen.floor
                found = await self._events.after(top, owner_id, _EVENTS)
                for event in found:
                    if len(seen.events) == _KEPT:
                        seen.floor = seen.events[0][0]
                    seen.events.append((event.position or top, event.subject))
                seen.versions = await _open_versions(self._database, owner_id)
        return seen.versions

    async def _after(self, owner_id: str, seen: _Seen, position: int) -> list[tuple[int, str]]:
        if position < seen.floor:  # it was away for long
            found = await self._events.after(position, owner_id, _EVENTS)
            return [(event.position or position, event.subject) for event in found]
        return [one for one in seen.events if one[0] > position]


async def _open_versions(database: Database, owner_id: str) -> dict[int, tuple[int, int]]:
    """Version and last piece of log of the owner's newest open jobs."""
    written = sa.select(sa.func.max(log_chunks.c.id)).where(log_chunks.c.job == jobs.c.number).scalar_subquery()
    query = sa.select(jobs.c.number, jobs.c.version, written.label("written"))
    query = query.where(jobs.c.owner_id == owner_id, jobs.c.phase.in_(_OPEN))
    async with database.read() as tx:
        rows = (await tx.execute(query.order_by(jobs.c.number.desc()).limit(_EVENTS))).all()
    return {int(row.number): (int(row.version), int(row.written or 0)) for row in rows}


async def picture(tx: Tx, job: Any, most: int = 400) -> list[Bucket]:
    """The array in at most ``most`` stretches of equal length, with the tasks of each counted by phase."""
    width, start = -(-job.count // most), job.first
    if tallies.is_tallied(job):
        width += -width % tallies.BLOCK
        start -= start % tallies.BLOCK
    parts = -(-(job.first + job.count - start) // width)
    counts: list[dict[str, int]] = [{} for _ in range(parts)]
    for part, found in await _ended(tx, job, start, width):
        counts[part] |= found
    for index in await _outstanding(tx, job):
        counts[(index - start) // width]["running"] = counts[(index - start) // width].get("running", 0) + 1
    return [_bucket(job, start + number * width, width, found) for number, found in enumerate(counts)]


async def _ended(tx: Tx, job: Any, start: int, width: int) -> list[tuple[int, dict[str, int]]]:
    if tallies.is_tallied(job):
        return await tallies.by_part(tx, job, start, width)
    place = (results.c.index - start) // width  # whole numbers: both dialects divide without a rest
    query = sa.select(place.label("part"), results.c.phase, sa.func.count().label("tasks"))
    rows = (await tx.execute(query.where(results.c.job == job.number).group_by("part", results.c.phase))).all()
    return [(int(row.part), {str(row.phase): int(row.tasks)}) for row in rows]


async def _outstanding(tx: Tx, job: Any) -> list[int]:
    found: list[int] = []
    for lease in await leases.of_job(tx, job.number):
        found += await leases.outstanding(tx, lease)
    return found


def _bucket(job: Any, start: int, width: int, found: dict[str, int]) -> Bucket:
    first = max(start, job.first)
    last = min(start + width, job.first + job.count) - 1
    done, failed, killed = (found.get(phase, 0) for phase in ("done", "failed", "killed"))
    if job.killed_from is not None:  # what was never given out and killed has no row
        ended_there = max(0, last - max(first, job.killed_from) + 1)
        killed = max(killed, ended_there)
    running = min(found.get("running", 0), last - first + 1 - done - failed - killed)
    return Bucket(first, last, last - first + 1 - done - failed - killed - running, running, done, failed, killed)


@dataclass(frozen=True)
class Used:
    """What a task used: seconds of wall time and of CPU, MiB at most."""

    index: int
    phase: str
    wall_s: float
    cpu_s: float
    memory_mib: float


async def sample(tx: Tx, job: Any, most: int) -> list[Used]:
    """Results of at most ``most`` tasks, spread evenly over those that were given out."""
    given = max(1, min(job.next_index, job.first + job.count) - job.first)
    wanted = sorted({job.first + number * given // most for number in range(most)})
    columns = (results.c.index, results.c.phase, results.c.wall_s, results.c.cpu_s, results.c.memory_mib)
    query = sa.select(*columns).where(results.c.job == job.number, results.c.index.in_(wanted))
    rows: Sequence[Any] = (await tx.execute(query.order_by(results.c.index))).all()
    return [Used(int(row[0]), str(row[1]), row[2], row[3], row[4]) for row in rows]
