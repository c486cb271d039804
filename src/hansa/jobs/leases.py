"""Leases: giving tasks to pilots, and taking them back. This is the hot path of matching.

The cost of a match does not grow with the number of waiting tasks: an index gives each queue's next open job, and
a lease moves that job's ``next_index``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs import store
from hansa.jobs.budget import NO_LIMIT, Budget
from hansa.jobs.model import ranges, split_range
from hansa.jobs.needs import Needs, Room, lacks, needs_of_queue, place_of_pilot, room_left, tasks_wanted, weight
from hansa.jobs.store import HAS_WORK, MAY_RUN, OPEN
from hansa.jobs.tables import jobs, leases, queues, retries
from hansa.kernel.database import Tx

_MOST_IN_ONE_LEASE = 1024
_HEADS_PER_QUEUE = 64
_SLACK = 32
"""How many more jobs are looked at than are wanted: others may have locked what is next."""
_NO_END_S = 2**31 - 1

# Built once: to build a statement costs as much as to execute it.
_ELIGIBLE = sa.select(queues).where(
    queues.c.owner_id == sa.bindparam("has_owner"),
    queues.c.cores <= sa.bindparam("has_cores"),
    queues.c.memory_mib <= sa.bindparam("has_memory_mib"),
    queues.c.gpus <= sa.bindparam("has_gpus"),
    queues.c.wall_time_s <= sa.bindparam("has_s"),
    (queues.c.site == "") | (queues.c.site == sa.bindparam("has_site")),
    HAS_WORK,
    MAY_RUN,
)
_WAITS_IN_QUEUE = sa.and_(jobs.c.queue_id == sa.bindparam("queue"), OPEN)
_IN_ORDER = (jobs.c.rank, jobs.c.number)
_MOST: sa.BindParameter[int] = sa.bindparam("most", type_=sa.Integer)
_HEADS = sa.select(jobs).where(_WAITS_IN_QUEUE).order_by(*_IN_ORDER).limit(_MOST).with_for_update(skip_locked=True)
_KEYS = sa.select(jobs.c.rank, jobs.c.number).where(_WAITS_IN_QUEUE).order_by(*_IN_ORDER).limit(_MOST)
_IN_EACH = (
    sa.select(jobs.c.rank, jobs.c.number)
    .where(jobs.c.queue_id == queues.c.id, OPEN)
    .order_by(*_IN_ORDER)
    .limit(_MOST)
    .lateral("heads")
)
_KEYS_OF_ALL = (  # for PostgreSQL, where every statement is a way to the server and back
    sa.select(_IN_EACH.c.rank, _IN_EACH.c.number)
    .select_from(queues.join(_IN_EACH, sa.true()))
    .where(queues.c.id.in_(sa.bindparam("queues", expanding=True)))
    .order_by(_IN_EACH.c.rank, _IN_EACH.c.number)
    .limit(_MOST)
)
_NAMED = (
    sa.select(jobs)
    .where(jobs.c.number.in_(sa.bindparam("numbers", expanding=True)), OPEN)
    .order_by(*_IN_ORDER)
    .limit(_MOST)
    .with_for_update(skip_locked=True)
)
_INSERT = sa.insert(leases).returning(leases.c.id, sort_by_parameter_order=True)
_MOVE = sa.update(jobs).where(jobs.c.number == sa.bindparam("this"))
_OF_PILOT = sa.select(leases).where(leases.c.pilot_id == sa.bindparam("pilot"))
_UPDATE = sa.update(leases).where(leases.c.id == sa.bindparam("this"))
_DUE = sa.and_(
    jobs.c.owner_id == sa.bindparam("of"), jobs.c.wake_at.is_not(None), jobs.c.wake_at <= sa.bindparam("now")
)
_SOME_DUE = sa.select(jobs.c.number).where(_DUE).limit(1)
_DUE_JOBS = sa.select(jobs.c.number).where(_DUE).limit(1000).with_for_update(skip_locked=True)
_WAKE = sa.update(jobs).where(jobs.c.number == sa.bindparam("this")).values(open=True, wake_at=None)


async def eligible_queues(
    tx: Tx, pilot: Any, free: Any, now: datetime | None = None, budget: Budget | None = None
) -> list[tuple[int, Needs]]:
    """The owner's queues whose tasks this pilot can run, as it is now, and with a budget may."""
    has = {
        "has_owner": pilot.owner_id,
        "has_cores": pilot.cores,
        "has_memory_mib": pilot.memory_mib,
        "has_gpus": len(pilot.gpus),
        "has_site": pilot.site,
        "has_s": _NO_END_S if free.remaining_s is None else int(free.remaining_s),
    }
    rows = (await tx.execute(_ELIGIBLE, has)).all()
    if not rows:
        return []
    place = place_of_pilot(pilot)
    found = [(row, needs_of_queue(row)) for row in rows if pilot.vo is None or row.vo == pilot.vo]
    fit = [(row, needs) for row, needs in found if not lacks(needs, place)]
    if budget is not None and now is not None:
        await budget.look(tx, {(row.vo, row.vo_group) for row, _ in fit}, now)
        fit = [(row, needs) for row, needs in fit if budget.count(row.vo, row.vo_group, needs)]
    return [(row.id, needs) for row, needs in fit]


async def has_due(tx: Tx, owner_id: str, now: datetime) -> bool:
    """Whether a back-off of an owner's job is over."""
    return (await tx.execute(_SOME_DUE, {"of": owner_id, "now": now})).first() is not None


async def wake(tx: Tx, owner_id: str, now: datetime) -> int:
    """Open the owner's jobs whose back-off is over; how many."""
    due = list((await tx.execute(_DUE_JOBS, {"of": owner_id, "now": now})).scalars())
    if due:
        await tx.execute(_WAKE, [{"this": number} for number in due])
    return len(due)


async def _heads(tx: Tx, queue_id: int, limit: int) -> Sequence[Any]:
    """The queue's next jobs."""
    return (await tx.execute(_HEADS, {"queue": queue_id, "most": limit})).all()


async def _candidates(tx: Tx, fit: Sequence[tuple[int, Needs]], limit: int) -> list[tuple[Any, Needs]]:
    """The next jobs of these queues, locked, in order of priority and age.

    Of several queues only the keys are read at first: rows are large. Where others have locked all that is next, each
    queue gives what it has.
    """
    needs = dict(fit)
    rows: list[Any] = []
    if len(fit) > 1:
        numbers = await _next_numbers(tx, list(needs), limit + _SLACK)
        rows = list((await tx.execute(_NAMED, {"numbers": numbers, "most": limit})).all()) if numbers else []
    if not rows:
        rows = [row for queue in needs for row in await _heads(tx, queue, limit)]
        rows.sort(key=lambda row: (row.rank, row.number))
    return [(row, needs[row.queue_id]) for row in rows]


async def _next_numbers(tx: Tx, ids: Sequence[int], limit: int) -> list[int]:
    """The numbers of the jobs that are next in these queues, in order, whoever has locked them."""
    if tx.dialect == "postgresql":
        rows: Sequence[Any] = (await tx.execute(_KEYS_OF_ALL, {"queues": ids, "most": limit})).all()
    else:
        found = [(await tx.execute(_KEYS, {"queue": queue, "most": limit})).all() for queue in ids]
        rows = sorted(tuple(row) for some in found for row in some)[:limit]
    return [row[1] for row in rows]


async def take(
    tx: Tx, pilot: Any, request: Any, now: datetime, *, has_backlog: bool = False, budget: Budget | None = None
) -> list[dict[str, Any]]:
    """Lease up to ``request.want`` tasks to a pilot; the new lease rows (plain dicts, with the job's row).

    ``has_backlog``: it holds tasks that it has not started. ``budget``: what the site's grants leave it.
    """
    fit = await eligible_queues(tx, pilot, request, now, budget)
    if not fit and await wake(tx, pilot.owner_id, now):  # else the timers do it
        fit = await eligible_queues(tx, pilot, request, now, budget)
    want, taken, moves = request.want, [], []
    room = Room(
        pilot.cores,
        pilot.memory_mib,
        request.cores_free,
        request.memory_free_mib,
        request.gpus_free,
        has_backlog=has_backlog,
    )
    while fit and want > 0:
        limit = min(want, _HEADS_PER_QUEUE)
        candidates = await _candidates(tx, fit, limit)
        is_stale = False
        for job, needs in candidates:
            paid = NO_LIMIT if budget is None else budget.count(job.vo, job.vo_group, needs)
            if not paid:
                continue  # the grant of its VO has come to its end: of others there may be more
            wanted = min(tasks_wanted(want, needs, room), paid, _MOST_IN_ONE_LEASE)
            if wanted <= 0:
                if needs.gpus:
                    continue
                break  # smaller ones must not keep it waiting for ever: what the pilot has in wait goes first
            found, values = await _take_from(tx, job, wanted, now)
            moves.append({"this": job.number, **values})
            is_stale = is_stale or not found
            taken += [{"row": job, **lease} for lease in found]
            count = sum(lease["remaining"] for lease in found)
            want -= weight(needs, room) * count
            if budget is not None:
                budget.took(job.vo, job.vo_group, needs, count)
            room = room_left(room, needs, count)
        for values in moves:
            await tx.execute(_MOVE, values)
        moves.clear()
        if not is_stale or taken or len(candidates) < limit:
            break  # what had nothing due was closed until it has: look behind it
    await _insert(tx, taken, pilot, request, now)
    return taken


async def _insert(tx: Tx, taken: list[dict[str, Any]], pilot: Any, request: Any, now: datetime) -> None:
    to = {"pilot_id": pilot.id, "session": request.session, "sequence": request.sequence, "created": now}
    rows = [{key: value for key, value in lease.items() if key != "row"} | to for lease in taken]
    if rows:
        ids = (await tx.execute(_INSERT, rows)).scalars()
        for lease, lease_id in zip(taken, ids, strict=True):
            lease["id"] = lease_id


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
        await tx.execute(sa.delete(leases).where(leases.c.id.in_(ids)))


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
