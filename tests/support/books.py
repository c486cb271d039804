"""Whether the books of a job are right: every index is in exactly one place, and every counter is what it counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from hansa.jobs import tallies
from hansa.jobs.model import NEVER_RAN, PilotPhase
from hansa.jobs.tables import array_tallies, attempts, jobs, leases, pilots, results, retries
from hansa.jobs.wire import Phase
from hansa.kernel.database import Tx


@dataclass
class Books:
    """Where each index of a job is."""

    ended: dict[int, str] = field(default_factory=dict)
    """Phase by index; those that were killed before they were ever leased included."""
    again: set[int] = field(default_factory=set)
    leased: dict[int, int] = field(default_factory=dict)
    """Lease by index."""
    fresh: set[int] = field(default_factory=set)


async def check_books(tx: Tx, number: int) -> Books:
    """Assert that the books of a job are right, and return them."""
    job: Any = (await tx.execute(sa.select(jobs).where(jobs.c.number == number))).one()
    ends: Any = (await tx.execute(sa.select(results).where(results.c.job == number))).all()
    waiting: Any = (await tx.execute(sa.select(retries).where(retries.c.job == number))).all()
    held: Any = (await tx.execute(sa.select(leases).where(leases.c.job == number))).all()
    earlier: Any = (await tx.execute(sa.select(attempts).where(attempts.c.job == number))).all()
    live = set(
        (
            await tx.execute(
                sa.select(pilots.c.id).where(pilots.c.phase.in_([PilotPhase.STARTING, PilotPhase.RUNNING]))
            )
        ).scalars()
    )
    books = _places(job, ends, waiting, held, earlier)
    _check_counters(job, books, ends, waiting)
    if tallies.is_tallied(job):
        counted = {(end.index // tallies.BLOCK, end.phase) for end in ends}
        kept: Any = (await tx.execute(sa.select(array_tallies).where(array_tallies.c.job == number))).all()
        found = {(row.block, phase): getattr(row, phase) for row in kept for phase in tallies.PHASES}
        assert {key: sum((e.index // tallies.BLOCK, e.phase) == key for e in ends) for key in counted} == {
            key: tasks for key, tasks in found.items() if tasks
        }, f"job {number}: its results are tallied wrong"
    _check_leases(books, held, live)
    for row in earlier:
        final = next((end for end in ends if end.index == row.index), None)
        assert final is None or row.attempt < final.attempt + (final.outcome == NEVER_RAN), (
            f"attempt {row} behind {final}"
        )
    return books


def _places(job: Any, ends: Any, waiting: Any, held: Any, earlier: Any) -> Books:
    name, last = f"job {job.number}", job.first + job.count
    by_index = {row.index: row for row in waiting}
    never = set() if job.killed_from is None else set(range(job.killed_from, last)) - by_index.keys()
    books = Books(dict.fromkeys(never, Phase.KILLED.value))
    for row in ends:
        assert job.first <= row.index < last, f"{name}: a result of {row.index}"
        books.ended[row.index] = row.phase
    for row in waiting:
        tried = [one.attempt for one in earlier if one.index == row.index]
        assert row.attempt > max(tried, default=0), f"{name}: {row.index} runs attempt {row.attempt} after {tried}"
    assert not by_index.keys() & books.ended.keys(), f"{name}: ended, and runs again: {by_index.keys() & books.ended}"
    books.again = {row.index for row in waiting if not row.leased}
    for lease in held:
        for index in range(lease.first, lease.last + 1):
            retry = by_index.get(index)
            if index in books.ended or (retry is not None and (not retry.leased or retry.attempt > lease.attempt)):
                continue
            assert index not in books.leased, f"{name}: {index} is leased twice"
            assert index < job.next_index or retry is not None, f"{name}: {index} is leased, but counts as new"
            books.leased[index] = lease.id
    lost = {row.index for row in waiting if row.leased} - books.leased.keys()
    assert not lost, f"{name}: leased, but in no lease: {lost}"
    books.fresh = set(range(job.next_index, last)) - books.ended.keys() - by_index.keys()
    places = [*books.ended, *books.again, *books.leased, *books.fresh]
    assert sorted(places) == list(range(job.first, last)), f"{name}: lost or double: {_odd(places, job)}"
    return books


def _odd(places: list[int], job: Any) -> dict[int, int]:
    seen = Counter(places)
    return {index: seen[index] for index in range(job.first, job.first + job.count) if seen[index] != 1}


def _check_counters(job: Any, books: Books, ends: Any, waiting: Any) -> None:
    phases = Counter(books.ended.values())
    said = {"done": job.done, "failed": job.failed, "killed": job.killed, "again": job.again}
    counted = {"done": phases["done"], "failed": phases["failed"], "killed": phases["killed"]}
    assert said == counted | {"again": len(books.again)}, f"job {job.number}: its counters say {said}"
    ahead = sum(row.index >= job.next_index for row in [*ends, *waiting]) if job.killed_from is None else 0
    assert job.ahead == ahead, f"job {job.number}: ahead is {job.ahead}, not {ahead}"
    is_over = len(books.ended) == job.count
    assert Phase(job.phase).is_final == is_over, f"job {job.number} is {job.phase}; {len(books.ended)} tasks ended"
    assert (job.ended is not None) == is_over
    may_wait = job.held or job.blockers or (not books.fresh and job.wake_at is not None)
    if (books.fresh or books.again) and not may_wait:
        assert job.open, f"job {job.number} has tasks to lease but is closed"
    if job.held or job.blockers:
        assert not job.open, f"job {job.number} must not start yet, but is open"
    if is_over:
        assert not job.open, f"job {job.number} is over but open"


def _check_leases(books: Books, held: Any, live: set[str]) -> None:
    owed = Counter(books.leased.values())
    for lease in held:
        assert lease.remaining == owed[lease.id], f"lease {lease.id}: {lease.remaining} remain, not {owed[lease.id]}"
        assert lease.remaining > 0, f"lease {lease.id} is empty but there"
        assert lease.pilot_id in live, f"lease {lease.id} belongs to a pilot that is gone"


async def check_all_books(tx: Tx) -> dict[int, Books]:
    """:func:`check_books` for every job."""
    numbers = (await tx.execute(sa.select(jobs.c.number))).scalars().all()
    return {number: await check_books(tx, number) for number in numbers}
