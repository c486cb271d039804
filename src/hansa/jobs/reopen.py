"""Running tasks again that had ended: their results become earlier attempts, set by set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs import store
from hansa.jobs.tables import attempts, results, retries, task_files
from hansa.jobs.wire import Phase
from hansa.kernel.database import Tx
from hansa.kernel.status import Party

_NOT_DONE = [Phase.FAILED.value, Phase.KILLED.value]


async def reopen(tx: Tx, job: Any, wanted: Sequence[int] | None, now: datetime) -> int:
    """Put failed and killed tasks (of ``wanted``, or all) back into the queue; how many."""
    chosen = [results.c.job == job.number, results.c.phase.in_(_NOT_DONE)]
    if wanted is not None:
        chosen.append(results.c.index.in_(wanted))
    tally = sa.select(results.c.phase, sa.func.count()).where(*chosen).group_by(results.c.phase)
    rows: Sequence[Any] = (await tx.execute(tally)).all()
    counted = {str(row[0]): int(row[1]) for row in rows}
    ended = sum(counted.values())
    never = 0
    if job.killed_from is not None:
        # Tasks that were killed before they were ever given out have no rows: all of them come back, or none.
        if wanted is not None and any(index >= job.killed_from for index in wanted):
            wanted = None
        never = job.first + job.count - job.killed_from if wanted is None else 0
    if ended + never == 0:
        return 0
    if ended:
        await _move(tx, job.number, chosen, now)
    values: dict[str, Any] = {
        "failed": job.failed - counted.get(Phase.FAILED.value, 0),
        "killed": job.killed - counted.get(Phase.KILLED.value, 0) - never,
        "again": job.again + ended,
        "open": True,
        "kill_requested": False,
        "phase": Phase.WAITING.value,
        "reason": "jobs.retried",
        "message": f"{ended + never:,} tasks wait to run again.",
        "waiting_on": Party.HANSA.value,
        "since": now,
        "started": None,
        "ended": None,
        "exit_code": None,
    }
    if never:
        values["killed_from"] = None
    await store.update_job(tx, job.number, **values)
    return ended + never


async def _move(tx: Tx, job: int, chosen: list[Any], now: datetime) -> None:
    names = [column.name for column in attempts.columns]
    ran = sa.select(*(results.c[name] for name in names)).where(*chosen, results.c.attempt > 0)
    await tx.execute(sa.insert(attempts).from_select(names, ran))
    moment = sa.bindparam(None, now, retries.c.not_before.type)
    again = sa.select(
        results.c.job,
        results.c.index,
        results.c.attempt + 1,
        sa.literal(0),
        sa.literal(0),
        sa.literal(0),
        sa.false(),
        moment,
    ).where(*chosen)
    await tx.execute(sa.insert(retries).from_select([column.name for column in retries.columns], again))
    gone = sa.select(results.c.index).where(*chosen)
    await tx.execute(sa.delete(task_files).where(task_files.c.job == job, task_files.c.index.in_(gone)))
    await tx.execute(sa.delete(results).where(*chosen))
