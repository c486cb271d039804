"""Running tasks again that had ended: their results become earlier attempts, set by set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs import store
from hansa.jobs.model import NEVER_RAN
from hansa.jobs.tables import attempts, results, retries, task_files
from hansa.jobs.wire import Phase
from hansa.kernel.database import Tx
from hansa.kernel.status import Party

_NOT_DONE = [Phase.FAILED.value, Phase.KILLED.value]


async def reopen(tx: Tx, job: Any, wanted: Sequence[int] | None, now: datetime) -> int:
    """Put failed and killed tasks (of ``wanted``, or all) back into the queue; how many.

    Tasks that were killed with their job before they were ever given out have no rows: if one of them is wanted,
    all of them come back.
    """
    cut = job.killed_from
    is_mended = cut is not None and (wanted is None or any(index >= cut for index in wanted))
    chosen = [results.c.job == job.number, results.c.phase.in_(_NOT_DONE)]
    if wanted is not None:
        named = results.c.index.in_(wanted)
        chosen.append(named | (results.c.index >= cut) if is_mended else named)
    leased, never_leased = results.c.index < job.next_index, results.c.index >= job.next_index
    back = await _tally(tx, [*chosen, leased])
    new = sum((await _tally(tx, [*chosen, never_leased])).values())
    without_row = job.first + job.count - cut - new if is_mended else 0
    ended = sum(back.values())
    if ended + new + without_row == 0:
        return 0
    await _move(tx, job.number, [*chosen, leased], now)
    await tx.execute(sa.delete(results).where(*chosen, never_leased))  # as if they had never been killed
    values: dict[str, Any] = {
        "failed": job.failed - back.get(Phase.FAILED.value, 0),
        "killed": job.killed - back.get(Phase.KILLED.value, 0) - new - without_row,
        "again": job.again + ended,
        "ahead": 0 if is_mended else job.ahead - new,
        "killed_from": None if is_mended else cut,
        "open": True,
        "kill_requested": False,
    }
    if Phase(job.phase).is_final:
        values |= _reopened(ended + new + without_row, now)
    await store.update_job(tx, job.number, **values)
    return ended + new + without_row


def _reopened(count: int, now: datetime) -> dict[str, Any]:
    return {
        "phase": Phase.WAITING.value,
        "reason": "jobs.retried",
        "message": f"{count:,} tasks wait to run again.",
        "waiting_on": Party.HANSA.value,
        "since": now,
        "started": None,
        "ended": None,
        "exit_code": None,
    }


async def _tally(tx: Tx, chosen: list[Any]) -> dict[str, int]:
    """How many of these results there are, by phase."""
    query = sa.select(results.c.phase, sa.func.count()).where(*chosen).group_by(results.c.phase)
    rows: Sequence[Any] = (await tx.execute(query)).all()
    return {str(row[0]): int(row[1]) for row in rows}


async def _move(tx: Tx, job: int, chosen: list[Any], now: datetime) -> None:
    names = [column.name for column in attempts.columns]
    ran = sa.select(*(results.c[name] for name in names)).where(*chosen, results.c.outcome != NEVER_RAN)
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
