"""Queries about jobs, their rows, results and files. The queries of leases are in ``leases.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

import sqlalchemy as sa

from hansa.identity.store import users
from hansa.identity.vo_store import vo_members, vos
from hansa.jobs import tallies
from hansa.jobs.bulk import among
from hansa.jobs.needs import Needs, needs_text, queue_digest
from hansa.jobs.tables import (
    ROWS_PER_BLOCK,
    files,
    job_marks,
    job_rows,
    jobs,
    leases,
    log_chunks,
    pilots,
    queues,
    results,
    retries,
    task_files,
)
from hansa.jobs.wire import Phase
from hansa.kernel.database import Tx, insert_for, insert_ignore
from hansa.kernel.database.base import DialectName

# Built once: to build a statement costs as much as to execute it.
_DIALECTS = get_args(DialectName)
_JOBS = {kind: sa.select(jobs).where(among(jobs.c.number, kind)).order_by(jobs.c.number) for kind in _DIALECTS}
_JOBS_AND_LOCK = {kind: query.with_for_update() for kind, query in _JOBS.items()}
_UPDATE_JOB = sa.update(jobs).where(jobs.c.number == sa.bindparam("this")).values(version=jobs.c.version + 1)
_RETRIES = sa.select(retries).where(
    retries.c.job == sa.bindparam("of"), retries.c.index.between(sa.bindparam("low"), sa.bindparam("high"))
)
_RETRIES_AT = {
    kind: sa.select(retries).where(among(retries.c.job, kind), retries.c.index == sa.bindparam("at"))
    for kind in _DIALECTS
}
_RESULTS_OF = {kind: sa.select(results).where(among(results.c.job, kind)) for kind in _DIALECTS}
_MOST_IN_RANGE = 2048


OPEN: sa.ColumnElement[bool] = sa.literal_column("jobs.open")
"""Whether something of a job can be leased: without a comparison, or SQLite would not use the index of open jobs."""
ONE: sa.ColumnElement[Any] = sa.literal_column("1")
NONE: sa.ColumnElement[str] = sa.literal_column("''")
"""Written into the statements. As parameters, PostgreSQL would plan such a statement anew each time."""
_IN_VO = sa.exists().where(
    vo_members.c.vo == queues.c.vo,
    vo_members.c.user_id == queues.c.owner_id,
    vo_members.c.suspended.is_(None),
    vo_members.c.vo.in_(sa.select(vos.c.name).where(vos.c.suspended.is_(None))),
)
MAY_RUN = sa.and_(
    sa.or_(queues.c.vo == NONE, _IN_VO), ~sa.exists().where(users.c.id == queues.c.owner_id, users.c.suspended)
)
"""Whether what waits in a queue may start: neither its owner nor the VO, nor the owner there, is suspended."""


def _of_next(column: sa.Column[Any]) -> sa.ScalarSelect[Any]:
    """What a queue's next open job has in a column; none: it has no work."""
    query = sa.select(column).where(jobs.c.queue_id == queues.c.id, OPEN).order_by(jobs.c.rank, jobs.c.number)
    return query.limit(ONE).correlate(queues).scalar_subquery()


HAS_WORK: sa.ColumnElement[bool] = _of_next(jobs.c.number).is_not(None)
"""Whether something waits in a queue: a look at the beginning of the index of open jobs, in every plan. An EXISTS may
be planned as a join that reads all that waits."""
_QUEUE_ID = sa.select(queues.c.id).where(queues.c.digest == sa.bindparam("key"))


async def queue_for(tx: Tx, owner_id: str, needs: Needs, vo: str | None = None, vo_group: str | None = None) -> int:
    """The id of the owner's task queue for these needs and this VO and group; made where there is none."""
    key = {
        "digest": queue_digest(owner_id, vo or "", vo_group or "", needs),
        "vo": vo or "",
        "vo_group": vo_group or "",
        "needs": needs_text(needs),
        "owner_id": owner_id,
        "cores": needs.cores,
        "memory_mib": needs.memory_mib,
        "gpus": needs.gpus,
        "wall_time_s": needs.wall_time_s,
        "site": needs.site or "",
    }
    asked = {"key": key["digest"]}
    found: int | None = (await tx.execute(_QUEUE_ID, asked)).scalar()
    if found is None:
        await tx.execute(insert_ignore(tx, queues), [key])
        found = (await tx.execute(_QUEUE_ID, asked)).scalar_one()
    return found


_NEXT = (
    sa.select(jobs.c.number, jobs.c.created)
    .where(jobs.c.queue_id == sa.bindparam("queue"), OPEN)
    .order_by(jobs.c.rank, jobs.c.number)
    .limit(ONE)
)


async def next_of_queue(tx: Tx, queue_id: int) -> tuple[int | None, datetime | None]:
    """Number of the job that is next in a queue, and when it was submitted."""
    row = (await tx.execute(_NEXT, {"queue": queue_id})).first()
    return (row.number, row.created) if row is not None else (None, None)


_TOLD = 100


async def set_standing(tx: Tx, queue_id: int, standing: dict[str, Any] | None) -> None:
    """Write how a queue stands, and wake whoever follows one of its next jobs."""
    await tx.execute(sa.update(queues).where(queues.c.id == queue_id).values(standing=standing or sa.null()))
    query = sa.select(jobs.c.number, jobs.c.owner_id).where(jobs.c.queue_id == queue_id, OPEN)
    rows: Sequence[Any] = (await tx.execute(query.order_by(jobs.c.rank, jobs.c.number).limit(_TOLD))).all()
    for row in rows:
        await update_job(tx, row.number)
        tx.ring(f"job/{row.number}")
    for owner_id in {row.owner_id for row in rows}:
        tx.ring(f"jobs/{owner_id}")


async def standings(tx: Tx, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """How queues stand, of those of which something can be said."""
    query = sa.select(queues.c.id, queues.c.standing).where(queues.c.id.in_(set(ids)), queues.c.standing.is_not(None))
    rows: Sequence[Any] = (await tx.execute(query)).all() if ids else []
    return {row.id: row.standing for row in rows if row.standing}


async def insert_job(tx: Tx, values: dict[str, Any], rows: Sequence[dict[str, Any]] | None) -> int:
    """Insert a job and its rows; the job's number."""
    number: int = (await tx.execute(sa.insert(jobs).values(**values).returning(jobs.c.number))).scalar_one()
    if rows:
        starts = range(0, len(rows), ROWS_PER_BLOCK)
        blocks = [
            {"job": number, "block": block, "rows": list(rows[start : start + ROWS_PER_BLOCK])}
            for block, start in enumerate(starts)
        ]
        await tx.execute(sa.insert(job_rows), blocks)
    return number


async def mark(tx: Tx, owner_id: str, numbers: Sequence[int], kind: str, marks: Mapping[str, str]) -> None:
    """Make jobs findable by these names and values of a kind."""
    each = [{"owner_id": owner_id, "kind": kind, "name": name, "value": value} for name, value in marks.items()]
    if rows := [one | {"job": number} for number in numbers for one in each]:
        await tx.execute(insert_ignore(tx, job_marks), rows)


async def get_job(tx: Tx, number: int, *, lock: bool = False) -> Any | None:
    query = sa.select(jobs).where(jobs.c.number == number)
    return (await tx.execute(query.with_for_update() if lock else query)).first()


async def get_jobs(tx: Tx, numbers: Sequence[int], *, lock: bool = False) -> dict[int, Any]:
    """Jobs by number; locked in order of number, so that two exchanges never wait for each other in a circle."""
    if not numbers:
        return {}
    rows = (await tx.execute((_JOBS_AND_LOCK if lock else _JOBS)[tx.dialect], {"numbers": numbers})).all()
    return {row.number: row for row in rows}


async def running_counts(tx: Tx, numbers: Sequence[int]) -> dict[int, int]:
    """Started tasks by job, as the pilots last said."""
    if not numbers:
        return {}
    query = (
        sa.select(leases.c.job, sa.func.sum(leases.c.running)).where(leases.c.job.in_(numbers)).group_by(leases.c.job)
    )
    rows: Sequence[Any] = (await tx.execute(query)).all()
    return {int(row[0]): int(row[1]) for row in rows}


async def update_job(tx: Tx, number: int, **values: Any) -> None:
    """Change a job; every change counts its version up."""
    await tx.execute(_UPDATE_JOB, {"this": number, **values})


async def rows_of(tx: Tx, job: Any, first: int, last: int) -> list[dict[str, Any]]:
    """The TaskRows (plain dicts) of the indices first … last of an array."""
    begin, end = first - job.first, last - job.first
    blocks = sa.select(job_rows.c.rows).where(
        job_rows.c.job == job.number,
        job_rows.c.block.between(begin // ROWS_PER_BLOCK, end // ROWS_PER_BLOCK),
    )
    found = (await tx.execute(blocks.order_by(job_rows.c.block))).scalars().all()
    flat = [row for block in found for row in block]
    offset = begin % ROWS_PER_BLOCK
    return flat[offset : offset + end - begin + 1]


async def indices_with_result(tx: Tx, job: int, first: int, last: int) -> list[int]:
    query = sa.select(results.c.index).where(results.c.job == job, results.c.index.between(first, last))
    return list((await tx.execute(query.order_by(results.c.index))).scalars())


async def indices_with_row(tx: Tx, job: int, first: int, last: int) -> list[int]:
    """Tasks of a range that have a result or an attempt of their own: they are not new."""
    query = sa.select(retries.c.index).where(retries.c.job == job, retries.c.index.between(first, last))
    again = set((await tx.execute(query)).scalars())
    return sorted(again.union(await indices_with_result(tx, job, first, last)))


async def next_retry(tx: Tx, job: int) -> datetime | None:
    """When the first of the tasks that wait to run again may; None if none waits."""
    query = sa.select(sa.func.min(retries.c.not_before)).where(retries.c.job == job, ~retries.c.leased)
    found: datetime | None = (await tx.execute(query)).scalar()
    return found


async def ended_of(tx: Tx, job: int, indices: Sequence[int]) -> set[int]:
    """Which of these tasks have a result."""
    found: set[int] = set()
    for start in range(0, len(indices), 500):
        part = indices[start : start + 500]
        query = sa.select(results.c.index).where(results.c.job == job, results.c.index.in_(part))
        found |= set((await tx.execute(query)).scalars())
    return found


async def insert_results(tx: Tx, rows: list[dict[str, Any]], of: Iterable[Any]) -> set[tuple[int, int]]:
    """Accept final results of these jobs; the (job, index) that are new. What has a result already keeps it."""
    if not rows:
        return set()
    statement = insert_ignore(tx, results).returning(results.c.job, results.c.index)
    new: Sequence[Any] = (await tx.execute(statement, rows)).all()
    accepted = {(int(row[0]), int(row[1])) for row in new}
    await tallies.add(tx, of, (row for row in rows if (row["job"], row["index"]) in accepted))
    return accepted


async def insert_task_files(tx: Tx, rows: list[dict[str, Any]]) -> None:
    if rows:
        await tx.execute(insert_ignore(tx, task_files), rows)


async def owned_digests(tx: Tx, owner_id: str, digests: Sequence[str]) -> dict[str, int]:
    """Which of these digests the owner has here, with their sizes."""
    found: dict[str, int] = {}
    for start in range(0, len(digests), 500):
        part = digests[start : start + 500]
        query = sa.select(files.c.digest, files.c.size).where(files.c.owner_id == owner_id, files.c.digest.in_(part))
        rows: Sequence[Any] = (await tx.execute(query)).all()
        found |= {str(row[0]): int(row[1]) for row in rows}
    return found


async def results_page(tx: Tx, number: int, *, phase: str | None, after: int | None, limit: int) -> Sequence[Any]:
    """Results with their pilots' site and node, by index."""
    query = (
        sa.select(results, pilots.c.site, pilots.c.node)
        .outerjoin(pilots, pilots.c.id == results.c.pilot_id)
        .where(results.c.job == number)
    )
    if phase:
        query = query.where(results.c.phase == phase)
    if after is not None:
        query = query.where(results.c.index > after)
    return (await tx.execute(query.order_by(results.c.index).limit(limit))).all()


async def get_result(tx: Tx, number: int, index: int) -> Any | None:
    found = await results_page(tx, number, phase=None, after=index - 1, limit=1)
    return found[0] if found and found[0].index == index else None


async def failed_results(tx: Tx, number: int, limit: int) -> Sequence[Any]:
    return await results_page(tx, number, phase=Phase.FAILED.value, after=None, limit=limit)


async def task_files_page(
    tx: Tx, number: int, *, index: int | None, after: tuple[int, str] | None, limit: int
) -> Sequence[Any]:
    query = sa.select(task_files).where(task_files.c.job == number)
    if index is not None:
        query = query.where(task_files.c.index == index)
    if after is not None:
        query = query.where(sa.tuple_(task_files.c.index, task_files.c.path) > sa.tuple_(*map(sa.literal, after)))
    return (await tx.execute(query.order_by(task_files.c.index, task_files.c.path).limit(limit))).all()


async def task_file(tx: Tx, number: int, index: int, path: str) -> Any | None:
    query = sa.select(task_files).where(
        task_files.c.job == number, task_files.c.index == index, task_files.c.path == path
    )
    return (await tx.execute(query)).first()


async def retries_of(tx: Tx, number: int, indices: Sequence[int]) -> dict[int, Any]:
    """The retry rows of these tasks, by index."""
    if not indices:
        return {}
    first, last = min(indices), max(indices)
    if last - first < _MOST_IN_RANGE:  # the common case: what one pilot reports lies close together
        near: Sequence[Any] = (await tx.execute(_RETRIES, {"of": number, "low": first, "high": last})).all()
        wanted = set(indices)
        return {row.index: row for row in near if row.index in wanted}
    found: dict[int, Any] = {}
    for start in range(0, len(indices), 500):
        part = indices[start : start + 500]
        query = sa.select(retries).where(retries.c.job == number, retries.c.index.in_(part))
        rows: Sequence[Any] = (await tx.execute(query)).all()
        found |= {row.index: row for row in rows}
    return found


async def retries_at(tx: Tx, numbers: Sequence[int], index: int) -> dict[int, Any]:
    """The retry rows of the task with this index in each of these jobs, by job."""
    rows = (await tx.execute(_RETRIES_AT[tx.dialect], {"numbers": numbers, "at": index})).all() if numbers else []
    return {row.job: row for row in rows}


async def only_results(tx: Tx, numbers: Sequence[int]) -> dict[int, Any]:
    """The results of jobs that have one task each, by job."""
    rows = (await tx.execute(_RESULTS_OF[tx.dialect], {"numbers": numbers})).all() if numbers else []
    return {row.job: row for row in rows}


async def upsert_retries(tx: Tx, rows: list[dict[str, Any]]) -> None:
    """Set what these tasks wait for."""
    if not rows:
        return
    insert = insert_for(tx, retries)
    names = ("attempt", "failures", "node_faults", "crashes", "leased", "not_before")
    await tx.execute(
        insert.on_conflict_do_update(index_elements=["job", "index"], set_={n: insert.excluded[n] for n in names}), rows
    )


async def waiting_again(tx: Tx, number: int) -> Sequence[Any]:
    """The rows of ``retries`` of tasks that wait to run again."""
    query = sa.select(retries).where(retries.c.job == number, ~retries.c.leased).order_by(retries.c.index)
    return (await tx.execute(query)).all()


async def delete_retries(tx: Tx, number: int, indices: Sequence[int]) -> None:
    """Forget what went wrong with these tasks before: they have ended."""
    query = sa.delete(retries).where(retries.c.job == number)
    for start in range(0, len(indices), 500):
        await tx.execute(query.where(retries.c.index.in_(indices[start : start + 500])))


async def add_log_chunks(tx: Tx, rows: list[dict[str, Any]]) -> None:
    if rows:
        await tx.execute(sa.insert(log_chunks), rows)


async def delete_log_chunks(tx: Tx, ids: Sequence[int]) -> None:
    await tx.execute(sa.delete(log_chunks).where(log_chunks.c.id.in_(ids)))


async def log_chunks_of(
    tx: Tx, number: int, *, after: int = 0, index: int | None = None, limit: int = 1000
) -> Sequence[Any]:
    query = sa.select(log_chunks).where(log_chunks.c.job == number, log_chunks.c.id > after)
    if index is not None:
        query = query.where(log_chunks.c.first <= index, log_chunks.c.last >= index)
    return (await tx.execute(query.order_by(log_chunks.c.id).limit(limit))).all()


async def last_log_chunk(tx: Tx, number: int, before: datetime | None = None) -> int:
    query = sa.select(sa.func.max(log_chunks.c.id)).where(log_chunks.c.job == number)
    if before is not None:
        query = query.where(log_chunks.c.time < before)
    return (await tx.execute(query)).scalar() or 0


async def phase_totals(tx: Tx) -> dict[str, int]:
    """Jobs by phase, of the whole server; and the tasks of the open ones that wait."""
    query = sa.select(jobs.c.phase, sa.func.count()).group_by(jobs.c.phase)
    rows: Sequence[Any] = (await tx.execute(query)).all()
    return {str(row[0]): int(row[1]) for row in rows}


_COUNTED = 2000
_LEFT = (
    sa.select((jobs.c.first + jobs.c.count - jobs.c.next_index + jobs.c.again).label("tasks"))
    .where(jobs.c.queue_id == queues.c.id, OPEN)
    .order_by(jobs.c.rank, jobs.c.number)
    .limit(_COUNTED)
    .correlate(queues)
    .subquery()
)
_WITH_WORK = sa.select(
    queues,
    sa.select(sa.func.sum(_LEFT.c.tasks)).correlate(queues).scalar_subquery().label("waiting"),
    _of_next(jobs.c.rank).label("rank"),
).where(HAS_WORK, MAY_RUN)


async def owners_with_work(tx: Tx) -> Sequence[Any]:
    """Queues that have something to lease, with the number of waiting tasks and the rank of what is next.

    Of each queue 2,000 jobs are counted: who starts pilots need not know of more, and its cost must not grow with
    what waits.
    """
    return (await tx.execute(_WITH_WORK)).all()
