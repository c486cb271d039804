"""What tasks used: of one over its time, of many how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

from hansa.identity.model import Caller
from hansa.jobs import errors, leases, overview, store, store_pilots, store_series
from hansa.jobs.access import check_index, own_job
from hansa.jobs.overview import Used
from hansa.jobs.wire import JobUsage, Phase, TaskUsage, UsageBin, UsageSpread
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.settings import JobSettings
from hansa.node.series import SHORTEST_S

_SAMPLE = 1000
_BINS = 20
_LISTED = 200
SHORT_S = 0.1
"""Clocks of processes tick a hundred times a second: of a shorter task nobody knows how many cores were busy."""


class UsageService:
    """Reads only."""

    def __init__(self, database: Database, settings: JobSettings) -> None:
        self._database = database
        self._limit = settings.usage_series_limit

    async def of_task(self, caller: Caller, number: int, index: int | None, attempt: int | None = None) -> TaskUsage:
        """One attempt of a task, the newest by default; without an index of the job's first task.

        Raises Fault ``jobs.not_found``, ``jobs.no_task``.
        """
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
            index = job.first if index is None else index
            check_index(job, index)
            rows = await store_series.of_task(tx, number, index)
            result = await store.get_result(tx, number, index)
            earlier = {int(row.attempt): row for row in await store_pilots.attempts_of(tx, number, index)}
            running = 0 if result is not None else await _running_attempt(tx, job, index)
        ended = earlier if result is None or not result.attempt else earlier | {int(result.attempt): result}
        known = sorted({*rows, *ended, *([running] if running else [])})
        if attempt is None:
            attempt = known[-1] if known else 0
        elif attempt not in known:
            raise Fault(errors.NO_TASK, f"Task {number}.{index} has had no attempt {attempt}.", job=number)
        end, row = ended.get(attempt), rows.get(attempt)
        return self._view(job, index, attempt, known, end or (result if not attempt else None), row, running)

    def _view(
        self, job: Any, index: int, attempt: int, known: list[int], end: Any | None, row: Any | None, running: int
    ) -> TaskUsage:
        needs = job.spec["requirements"]
        is_running = bool(running) and attempt == running
        phase = Phase(end.phase) if end is not None else Phase.RUNNING if is_running else Phase.WAITING
        series = dict(row.series) if row is not None else {}
        started = None
        if end is not None and end.wall_s:
            started = end.ended - timedelta(seconds=end.wall_s)
        elif row is not None:
            started = row.seen - timedelta(seconds=series["span_s"])
        return TaskUsage(
            job=job.number,
            index=index,
            attempt=attempt,
            attempts=known,
            phase=phase,
            cores_asked=needs["cores"],
            memory_asked_mib=needs["memory_mib"],
            gpus_asked=needs.get("gpus", 0),
            wall_time_asked_s=needs["wall_time_s"],
            started=started,
            seen=row.seen if row is not None else None,
            message="" if row is not None else why_none(job, end, self._limit, is_running=is_running),
            **series,
        )

    async def of_job(self, caller: Caller, number: int) -> JobUsage:
        """How the tasks of a job differ. Raises Fault ``jobs.not_found``."""
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
            used = [one for one in await overview.sample(tx, job, _SAMPLE) if one.wall_s > 0]
            listed = await store_series.some_of_job(tx, number, _LISTED)
        ended = job.done + job.failed + job.killed
        return JobUsage(number, ended, len(used), spreads_of(used, job.spec["requirements"]), listed)


async def _running_attempt(tx: Tx, job: Any, index: int) -> int:
    """The attempt that a pilot says it is running; 0 for none."""
    for lease in await leases.of_job(tx, job.number):
        if lease.first <= index <= lease.last:
            pilot = await store_pilots.get(tx, lease.pilot_id)
            if pilot is not None and [lease.id, index] in [list(one) for one in pilot.running]:
                return int(lease.attempt)
    return 0


def why_none(job: Any, end: Any | None, limit: int, *, is_running: bool) -> str:
    """Why an attempt has no use over time. Pure."""
    if end is None:
        if is_running:
            return "It has just started: the first figures come after a few seconds."
        return "It has not started yet."
    if job.files_gone is not None:
        return "What its tasks used over time is not kept any more."
    if not end.wall_s:
        return "It never ran."
    if end.wall_s < SHORTEST_S:
        return f"It ran for {end.wall_s:.2g} s: only of tasks that run for {SHORTEST_S:g} s or longer is more kept."
    if job.series_kept >= limit:
        return f"Of one job the use over time of {limit:,} tasks is kept, and this job has more."
    return "Its pilot told nothing of its use over time: it is of an earlier version, or was lost."


def spreads_of(used: Sequence[Used], needs: dict[str, Any]) -> list[UsageSpread]:
    """Wall time, busy cores and memory of tasks; nothing for none. Pure."""
    if not used:
        return []
    found: list[tuple[Literal["wall_s", "cores", "memory_mib"], float, list[float]]] = [
        ("wall_s", needs["wall_time_s"], [one.wall_s for one in used]),
        ("cores", needs["cores"], [one.cpu_s / max(one.wall_s, SHORT_S) for one in used]),
        ("memory_mib", needs["memory_mib"], [one.memory_mib for one in used]),
    ]
    return [spread_of(name, asked, values) for name, asked, values in found]


def spread_of(
    name: Literal["wall_s", "cores", "memory_mib"], asked: float, values: Sequence[float], bins: int = _BINS
) -> UsageSpread:
    """Least, middle and most of some values, and how many lie where; at least one value. Pure."""
    ordered = sorted(values)
    last = len(ordered) - 1
    at = (ordered[0], ordered[last // 2], ordered[round(last * 0.9)], ordered[-1])
    return UsageSpread(name, float(asked), *at, bins_of(ordered, bins))


def bins_of(values: Sequence[float], most: int) -> list[UsageBin]:
    """Stretches of equal width from the least to the most, with how many values lie in each."""
    low, high = min(values), max(values)
    width = (high - low) / most
    if width <= 0 or low + width == low:  # all the same, as far as numbers can tell
        return [UsageBin(low, high, len(values))]
    counts = [0] * most
    for value in values:
        counts[min(most - 1, int((value - low) / width))] += 1
    edges = [low + width * number for number in range(most)] + [high]
    return [UsageBin(edges[number], edges[number + 1], count) for number, count in enumerate(counts)]
