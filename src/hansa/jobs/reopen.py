"""Running tasks again that had ended: their results become earlier attempts, set by set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs import store, tallies
from hansa.jobs.model import NEVER_RAN, Again, History
from hansa.jobs.settle import retry_row
from hansa.jobs.tables import attempts, results, retries, task_files
from hansa.jobs.wire import Phase
from hansa.kernel.database import Tx
from hansa.kernel.status import Party

_NOT_DONE = [Phase.FAILED.value, Phase.KILLED.value]


async def reopen(tx: Tx, job: Any, wanted: Sequence[int] | None, now: datetime) -> int:
    """Put failed and killed tasks (of ``wanted``, or all) back into the queue; how many.

    Tasks that were killed with their job before they were ever given out have no rows. Where all are wanted, the cut
    behind which they lie goes away; where some are, those get a row of ``retries``, and the others stay killed.
    """
    chosen = [results.c.job == job.number, results.c.phase.in_(_NOT_DONE)]
    if wanted is not None:
        chosen.append(results.c.index.in_(wanted))
    if job.killed_from is not None and wanted is not None:
        values = await _reopen_some(tx, job, chosen, wanted, now)
    else:
        values = await _reopen_all(tx, job, chosen, now)
    count: int = (job.failed - values["failed"]) + (job.killed - values["killed"])
    if not count:
        return 0
    held = job.held and not Phase(job.phase).is_final  # who retries what has ended wants it to run
    values |= {"held": held, "open": not held and not job.blockers, "wake_at": None, "kill_requested": False}
    if Phase(job.phase).is_final:
        values |= _reopened(count, now) | dict.fromkeys(("files_gone", "logs_gone", "attempts_gone"))
    await store.update_job(tx, job.number, **values)
    return count


async def _reopen_all(tx: Tx, job: Any, chosen: list[Any], now: datetime) -> dict[str, Any]:
    """What was leased runs again; what never was is new again, as if it had never been killed."""
    new = sa.and_(results.c.index >= job.next_index, results.c.attempt == 0)
    fresh = sum((await _tally(tx, [*chosen, new])).values())
    back = await _tally(tx, [*chosen, ~new])
    without_row = 0
    if job.killed_from is not None:
        without_row = job.first + job.count - job.killed_from - await _count_rows(tx, job, job.killed_from)
    await tallies.take_out(tx, job, chosen)
    await _move(tx, job.number, [*chosen, ~new], now)
    await tx.execute(sa.delete(results).where(*chosen, new))
    return {
        "failed": job.failed - back.get(Phase.FAILED.value, 0),
        "killed": job.killed - back.get(Phase.KILLED.value, 0) - fresh - without_row,
        "again": job.again + sum(back.values()),
        "ahead": await _count_rows(tx, job, job.next_index),
        "killed_from": None,
    }


async def _reopen_some(tx: Tx, job: Any, chosen: list[Any], wanted: Sequence[int], now: datetime) -> dict[str, Any]:
    back = await _tally(tx, chosen)
    beyond = sorted({index for index in wanted if index >= job.killed_from})
    has_row = await store.ended_of(tx, job.number, beyond) | set(await store.retries_of(tx, job.number, beyond))
    revived = [index for index in beyond if index not in has_row]
    await tallies.take_out(tx, job, chosen)
    await _move(tx, job.number, chosen, now)
    again = History()
    await store.upsert_retries(tx, [retry_row(job.number, index, Again(again, 0.0, ""), now) for index in revived])
    return {
        "failed": job.failed - back.get(Phase.FAILED.value, 0),
        "killed": job.killed - back.get(Phase.KILLED.value, 0) - len(revived),
        "again": job.again + sum(back.values()) + len(revived),
    }


async def _count_rows(tx: Tx, job: Any, first: int) -> int:
    """How many of the tasks from ``first`` on have a result or an attempt of their own."""
    found = 0
    for table in (results, retries):
        query = sa.select(sa.func.count()).where(table.c.job == job.number, table.c.index >= first)
        found += int((await tx.execute(query.select_from(table))).scalar_one())
    return found


def _reopened(count: int, now: datetime) -> dict[str, Any]:
    return {
        "phase": Phase.WAITING.value,
        "reason": "jobs.retried",
        "message": f"{count:,} tasks wait to run again." if count > 1 else "A task waits to run again.",
        "waiting_on": Party.HANSA.value,
        "since": now,
        "deadline": None,
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
