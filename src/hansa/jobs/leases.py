"""Leases: giving tasks to pilots, and taking them back. This is the hot path of matching.

The cost of a match does not grow with the number of waiting tasks: ``matching.py`` finds the next open jobs, and a
lease moves a job's ``next_index``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, get_args

import sqlalchemy as sa

from hansa.jobs import bulk, store
from hansa.jobs.budget import NO_LIMIT, Budget
from hansa.jobs.image_rules import ImageRules
from hansa.jobs.matching import candidates, eligible_queues
from hansa.jobs.model import ranges, split_range
from hansa.jobs.needs import Room, room_left, tasks_wanted, weight
from hansa.jobs.tables import jobs, leases, retries
from hansa.kernel.database import Tx
from hansa.kernel.database.base import DialectName

_MOST_IN_ONE_LEASE = 1024
_HEADS_PER_QUEUE = 64
_MOST_LOOKS = 16
"""How often one exchange looks behind jobs that give nothing; the next one goes on from there."""

# Built once: to build a statement costs as much as to execute it.
_INSERT = sa.insert(leases).returning(leases.c.id, sort_by_parameter_order=True)
_OF_PILOT = sa.select(leases).where(leases.c.pilot_id == sa.bindparam("pilot"))
_DELETE = {
    dialect: sa.delete(leases).where(bulk.among(leases.c.id, dialect, "ids")) for dialect in get_args(DialectName)
}
_UPDATE = sa.update(leases).where(leases.c.id == sa.bindparam("this"))
_DUE = sa.and_(
    jobs.c.owner_id == sa.bindparam("of"), jobs.c.wake_at.is_not(None), jobs.c.wake_at <= sa.bindparam("now")
)
_SOME_DUE = sa.select(jobs.c.number).where(_DUE).limit(1)
_DUE_JOBS = sa.select(jobs.c.number).where(_DUE).limit(1000).with_for_update(skip_locked=True)
_WAKE = sa.update(jobs).where(jobs.c.number == sa.bindparam("this")).values(open=True, wake_at=None)


async def has_due(tx: Tx, owner_id: str, now: datetime) -> bool:
    """Whether a back-off of an owner's job is over."""
    return (await tx.execute(_SOME_DUE, {"of": owner_id, "now": now})).first() is not None


async def wake(tx: Tx, owner_id: str, now: datetime) -> int:
    """Open the owner's jobs whose back-off is over; how many."""
    due = list((await tx.execute(_DUE_JOBS, {"of": owner_id, "now": now})).scalars())
    if due:
        await tx.execute(_WAKE, [{"this": number} for number in due])
    return len(due)


async def take(
    tx: Tx,
    pilot: Any,
    request: Any,
    now: datetime,
    *,
    has_backlog: bool = False,
    budget: Budget | None = None,
    marks: Callable[[Any], dict[str, Any]] = lambda _job: {},
    rules: ImageRules | None = None,
) -> list[dict[str, Any]]:
    """Lease up to ``request.want`` tasks to a pilot; the new lease rows (plain dicts, with the job's row before).

    ``has_backlog``: it holds tasks that it has not started. ``budget``: what the site's grants leave it. ``marks``:
    what else changes of a job of which tasks are leased. ``rules``: what VOs allow now; what they do not is held.
    """
    want = request.want
    taken: list[dict[str, Any]] = []
    moves: list[tuple[Any, dict[str, Any]]] = []
    limit = min(want, _HEADS_PER_QUEUE)
    fit = await eligible_queues(tx, pilot, request, now, budget, limit=limit)
    if not fit and await wake(tx, pilot.owner_id, now):  # else the timers do it
        fit = await eligible_queues(tx, pilot, request, now, budget, limit=limit)
    room = Room(
        pilot.cores,
        pilot.memory_mib,
        request.cores_free,
        request.memory_free_mib,
        request.gpus_free,
        has_backlog=has_backlog,
        is_exact=pilot.is_whole or pilot.nodes > 1,
    )
    are_fresh = True
    for _ in range(_MOST_LOOKS if fit else 0):
        if want <= 0:
            break
        found = await candidates(tx, fit, limit, are_fresh=are_fresh)
        may_run, held = await rules.sort(tx, found) if rules is not None else (found, [])
        moves += held
        is_stale = bool(held)
        for job, needs in may_run:
            paid = NO_LIMIT if budget is None else budget.count(job.vo, job.vo_group, needs)
            if not paid:
                continue  # the grant of its VO has come to its end: of others there may be more
            wanted = min(tasks_wanted(want, needs, room), paid, _MOST_IN_ONE_LEASE)
            if wanted <= 0:
                if needs.gpus:
                    continue
                break  # smaller ones must not keep it waiting for ever: what the pilot has in wait goes first
            new, values = await _take_from(tx, job, wanted, now)
            moves.append((job, values | marks(job) if new else values))
            is_stale = is_stale or not new
            taken += [{"row": job, **lease} for lease in new]
            count = sum(lease["remaining"] for lease in new)
            want -= weight(needs, room) * count
            if budget is not None:
                budget.took(job.vo, job.vo_group, needs, count)
            room = room_left(room, needs, count)
        if not is_stale or taken or len(found) < limit:
            break  # what had nothing due was closed until it has: look behind it
        await _write(tx, moves, [], pilot, request, now)
        moves, are_fresh, limit = [], False, _HEADS_PER_QUEUE
    await _write(tx, moves, taken, pilot, request, now)
    return taken


async def _write(
    tx: Tx, moves: bulk.Moves, taken: list[dict[str, Any]], pilot: Any, request: Any, now: datetime
) -> None:
    """Write what has changed of the jobs, and the leases; each gets its id."""
    to = {"pilot_id": pilot.id, "session": request.session, "sequence": request.sequence, "created": now}
    rows = [{**{key: value for key, value in lease.items() if key != "row"}, **to} for lease in taken]
    if not rows:
        await bulk.change(tx, moves)
        return
    if tx.dialect == "postgresql":
        ids = await _move_and_lease(tx, bulk.filled(moves), rows)
    else:
        await bulk.change(tx, moves)
        ids = list((await tx.execute(_INSERT, rows)).scalars())
    for lease, lease_id in zip(taken, ids, strict=True):
        lease["id"] = lease_id


async def _move_and_lease(tx: Tx, moves: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[int]:
    """Both in one statement; the ids of the leases."""
    words = {"moves": bulk.as_text(moves), "rows": bulk.as_text(rows)}
    found: Sequence[Any] = (await tx.execute(_moving(tuple(moves[0])), words)).all()
    ids = {(row.job, row.first): row.id for row in found}
    return [ids[row["job"], row["first"]] for row in rows]


@lru_cache(maxsize=16)
def _moving(names: tuple[str, ...]) -> Any:
    """PostgreSQL's statement that changes these columns of jobs and inserts leases, both given as JSON."""
    new = bulk.records("rows", [column for column in leases.c if column.name != "id"])
    insert = sa.insert(leases).from_select(list(new.c.keys()), sa.select(*new.c))
    insert = insert.add_cte(bulk.changing(names).cte("moved"))
    return insert.returning(leases.c.id, leases.c.job, leases.c.first)


async def _take_from(tx: Tx, job: Any, wanted: int, now: datetime) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """New leases of a job, and what of the job's row changes by them."""
    found: list[dict[str, Any]] = []
    again = 0
    if job.again:
        found = await _take_retries(tx, job, wanted, now)
        again = sum(lease["remaining"] for lease in found)
    end = job.killed_from if job.killed_from is not None else job.first + job.count
    upto = min(job.next_index + wanted - again, end)
    gone: list[int] = []
    if upto > job.next_index:
        if job.ahead:
            gone = await store.indices_with_row(tx, job.number, job.next_index, upto - 1)
        fresh = split_range(job.next_index, upto - 1, gone)
        found += [_lease(job.number, first, last, 1) for first, last in fresh]
    values: dict[str, Any] = {"next_index": upto, "again": job.again - again, "ahead": job.ahead - len(gone)}
    values["open"], values["wake_at"] = upto < end or job.again > again, None
    if upto >= end and job.again > again and again < wanted:  # all the rest backs off
        earliest = await store.next_retry(tx, job.number)
        values |= {"open": earliest is None or earliest <= now, "wake_at": earliest}
    return found, values


async def _take_retries(tx: Tx, job: Any, wanted: int, now: datetime) -> list[dict[str, Any]]:
    query = (
        sa.select(retries.c.index, retries.c.attempt)
        .where(retries.c.job == job.number, ~retries.c.leased, retries.c.not_before <= now)
        .order_by(retries.c.index)
        .limit(wanted)
    )
    due: Sequence[Any] = (await tx.execute(query)).all()
    if not due:
        return []
    indices = [row.index for row in due]
    await tx.execute(
        sa.update(retries).where(retries.c.job == job.number, retries.c.index.in_(indices)).values(leased=True)
    )
    by_attempt: dict[int, list[int]] = {}
    for row in due:
        by_attempt.setdefault(row.attempt, []).append(row.index)
    return [
        _lease(job.number, first, last, attempt)
        for attempt, some in sorted(by_attempt.items())
        for first, last in ranges(some)
    ]


def _lease(job: int, first: int, last: int, attempt: int) -> dict[str, Any]:
    size = last - first + 1
    return {
        "job": job,
        "first": first,
        "last": last,
        "attempt": attempt,
        "remaining": size,
        "running": 0,
        "kill": [],
    }


async def of_pilot(tx: Tx, pilot_id: str) -> dict[int, Any]:
    """The leases that a pilot holds, by id."""
    rows = (await tx.execute(_OF_PILOT, {"pilot": pilot_id})).all()
    return {row.id: row for row in rows}


async def of_job(tx: Tx, number: int) -> Sequence[Any]:
    return (await tx.execute(sa.select(leases).where(leases.c.job == number).order_by(leases.c.id))).all()


async def granted_by(tx: Tx, pilot_id: str, session: str, sequence: int) -> Sequence[Any]:
    """The leases that an earlier arrival of this very request was given."""
    query = sa.select(leases).where(
        leases.c.pilot_id == pilot_id, leases.c.session == session, leases.c.sequence == sequence
    )
    return (await tx.execute(query.order_by(leases.c.id))).all()


async def update(tx: Tx, lease_id: int, **values: Any) -> None:
    await tx.execute(_UPDATE, {"this": lease_id, **values})


async def delete(tx: Tx, ids: Sequence[int]) -> None:
    if ids:
        await tx.execute(_DELETE[tx.dialect], {"ids": ids})


async def outstanding(tx: Tx, lease: Any) -> list[int]:
    """The indices of a lease that the pilot still owes."""
    have = await store.indices_with_result(tx, lease.job, lease.first, lease.last)
    waiting = sa.select(retries.c.index).where(
        retries.c.job == lease.job,
        retries.c.index.between(lease.first, lease.last),
        (retries.c.attempt > lease.attempt) | ~retries.c.leased,
    )
    gone = set(have) | set((await tx.execute(waiting)).scalars())
    return [index for index in range(lease.first, lease.last + 1) if index not in gone]
