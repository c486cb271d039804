"""What a person sees of all their jobs at once: counts, what has changed, and the picture of a large array. Reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hansa.jobs import leases
from hansa.jobs.tables import jobs, log_chunks, results
from hansa.kernel.database import Database, Tx
from hansa.kernel.events import TOPIC, EventLog

_EVENTS = 200
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


async def changes(
    database: Database, events: EventLog, owner_id: str, position: int, beat_s: float
) -> AsyncIterator[tuple[int, list[str]] | None]:
    """Position and subjects whenever things of the owner change; None after ``beat_s`` of silence.

    Events tell about phases; the counts of an open job change without one, and its version tells.
    """
    versions: dict[int, tuple[int, int]] = {}
    with database.bells.listen(TOPIC, f"jobs/{owner_id}") as bell:
        versions, _ = await _open_versions(database, owner_id, versions)
        while not database.bells.is_closing:
            found = await events.after(position, owner_id, _EVENTS)
            versions, moved = await _open_versions(database, owner_id, versions)
            subjects = list(dict.fromkeys([*(event.subject for event in found), *(f"job/{n}" for n in moved)]))
            if subjects:
                position = found[-1].position or position if found else position
                yield position, subjects
            elif not await bell.wait(beat_s):
                yield None


async def _open_versions(
    database: Database, owner_id: str, before: dict[int, tuple[int, int]]
) -> tuple[dict[int, tuple[int, int]], list[int]]:
    """Version and last piece of log of the open jobs, and which of them are not as before."""
    written = sa.select(sa.func.max(log_chunks.c.id)).where(log_chunks.c.job == jobs.c.number).scalar_subquery()
    query = sa.select(jobs.c.number, jobs.c.version, written.label("written"))
    query = query.where(jobs.c.owner_id == owner_id, jobs.c.phase.in_(_OPEN))
    async with database.read() as tx:
        rows = (await tx.execute(query.order_by(jobs.c.number.desc()).limit(_EVENTS))).all()
    now = {int(row.number): (int(row.version), int(row.written or 0)) for row in rows}
    return now, [number for number, seen in now.items() if before.get(number) != seen]


async def picture(tx: Tx, job: Any, most: int = 400) -> list[Bucket]:
    """The array in at most ``most`` stretches of equal length, with the tasks of each counted by phase."""
    width = -(-job.count // most)
    parts = -(-job.count // width)
    place = (results.c.index - job.first) // width  # whole numbers: both dialects divide without a rest
    counts: list[dict[str, int]] = [{} for _ in range(parts)]
    query = sa.select(place.label("part"), results.c.phase, sa.func.count().label("tasks"))
    for row in (await tx.execute(query.where(results.c.job == job.number).group_by("part", results.c.phase))).all():
        counts[int(row.part)][str(row.phase)] = int(row.tasks)
    for index in await _outstanding(tx, job):
        part = counts[(index - job.first) // width]
        part["running"] = part.get("running", 0) + 1
    return [_bucket(job, number, width, found) for number, found in enumerate(counts)]


async def _outstanding(tx: Tx, job: Any) -> list[int]:
    found: list[int] = []
    for lease in await leases.of_job(tx, job.number):
        found += await leases.outstanding(tx, lease)
    return found


def _bucket(job: Any, number: int, width: int, found: dict[str, int]) -> Bucket:
    first = job.first + number * width
    last = min(first + width, job.first + job.count) - 1
    done, failed, killed = (found.get(phase, 0) for phase in ("done", "failed", "killed"))
    if job.killed_from is not None:  # what was never given out and killed has no row
        ended_there = max(0, last - max(first, job.killed_from) + 1)
        killed = max(killed, ended_there)
    running = min(found.get("running", 0), last - first + 1 - done - failed - killed)
    return Bucket(first, last, last - first + 1 - done - failed - killed - running, running, done, failed, killed)
