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
from hansa.jobs.model import Needs, ranges, split_range, tasks_wanted
from hansa.jobs.tables import jobs, leases, queues, retries
from hansa.kernel.database import Tx

_MOST_IN_ONE_LEASE = 1024
_HEADS_PER_QUEUE = 64
_NO_END_S = 2**31 - 1

# Built once: to build a statement costs as much as to execute it.
_ELIGIBLE = sa.select(queues).where(
    queues.c.owner_id == sa.bindparam("has_owner"),
    queues.c.cores <= sa.bindparam("has_cores"),
    queues.c.memory_mib <= sa.bindparam("has_memory_mib"),
    queues.c.gpus <= sa.bindparam("has_gpus"),
    queues.c.wall_time_s <= sa.bindparam("has_s"),
    (queues.c.site == "") | (queues.c.site == sa.bindparam("has_site")),
    sa.exists().where(jobs.c.queue_id == queues.c.id, jobs.c.open),
)
_END = sa.func.coalesce(jobs.c.killed_from, jobs.c.first + jobs.c.count)
_IS_DUE = sa.exists().where(
    retries.c.job == jobs.c.number, ~retries.c.leased, retries.c.not_before <= sa.bindparam("now")
)
_HEADS = (
    sa.select(jobs)
    .where(jobs.c.queue_id == sa.bindparam("queue"), jobs.c.open, (jobs.c.next_index < _END) | _IS_DUE)
    .order_by(jobs.c.rank, jobs.c.number)
    .limit(sa.bindparam("most", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)
_INSERT = sa.insert(leases).returning(leases.c.id)
_MOVE = sa.update(jobs).where(jobs.c.number == sa.bindparam("this"))
_OF_PILOT = sa.select(leases).where(leases.c.pilot_id == sa.bindparam("pilot"))
_UPDATE = sa.update(leases).where(leases.c.id == sa.bindparam("this"))


async def eligible_queues(tx: Tx, pilot: Any, free: Any) -> list[tuple[int, Needs]]:
    """The owner's queues whose tasks this pilot can run, as it is now."""
    has = {
        "has_owner": pilot.owner_id,
        "has_cores": pilot.cores,
        "has_memory_mib": pilot.memory_mib,
        "has_gpus": len(pilot.gpus),
        "has_site": pilot.site,
        "has_s": _NO_END_S if free.remaining_s is None else int(free.remaining_s),
    }
    found = (await tx.execute(_ELIGIBLE, has)).all()
    return [(q.id, Needs(q.cores, q.memory_mib, q.gpus, q.wall_time_s, q.site or None)) for q in found]


async def _heads(tx: Tx, queue_id: int, limit: int, now: datetime) -> Sequence[Any]:
    """The queue's next jobs; those of which all that is left waits for a back-off are passed over."""
    return (await tx.execute(_HEADS, {"queue": queue_id, "now": now, "most": limit})).all()


async def take(tx: Tx, pilot: Any, request: Any, now: datetime) -> list[dict[str, Any]]:
    """Lease up to ``request.want`` tasks to a pilot; the new lease rows (plain dicts, with the job's row)."""
    want = request.want
    candidates = [
        (job, needs)
        for queue_id, needs in await eligible_queues(tx, pilot, request)
        for job in await _heads(tx, queue_id, min(want, _HEADS_PER_QUEUE), now)
    ]
    candidates.sort(key=lambda pair: (pair[0].rank, pair[0].number))
    taken: list[dict[str, Any]] = []
    for job, needs in candidates:
        wanted = min(tasks_wanted(want, request.cores_free, needs), _MOST_IN_ONE_LEASE)
        if wanted <= 0:
            break
        found = await _take_from(tx, job, wanted, now)
        taken += [{"row": job, **lease} for lease in found]
        want -= needs.cores * sum(lease["remaining"] for lease in found)
    for lease in taken:
        values = {key: value for key, value in lease.items() if key != "row"}
        values |= {"pilot_id": pilot.id, "session": request.session, "sequence": request.sequence, "created": now}
        lease["id"] = (await tx.execute(_INSERT, values)).scalar_one()
    return taken


async def _take_from(tx: Tx, job: Any, wanted: int, now: datetime) -> list[dict[str, Any]]:
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
            gone = await store.indices_with_result(tx, job.number, job.next_index, upto - 1)
        fresh = split_range(job.next_index, upto - 1, gone)
        found += [_lease(job.number, first, last, 1) for first, last in fresh]
    values: dict[str, Any] = {"next_index": upto, "again": job.again - again, "ahead": job.ahead - len(gone)}
    values["open"] = upto < end or job.again > again
    await tx.execute(_MOVE, {"this": job.number, **values})
    return found


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
