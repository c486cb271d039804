"""Killing jobs and tasks. Always inside a unit of work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hansa.identity.model import Caller
from hansa.jobs import leases, store
from hansa.jobs.model import NEVER_RAN
from hansa.jobs.settle import Change, apply_changes
from hansa.jobs.wire import Phase
from hansa.kernel.database import Tx
from hansa.kernel.events import Event, EventLog


async def kill_all(
    tx: Tx, events: EventLog, job: Any, actor: str, message: str, now: datetime, reason: str = "jobs.killing"
) -> None:
    """Kill a job that has not ended: what waits has ended at once; what pilots have ends when they say so."""
    event = Event(actor, f"job/{job.number}", job.phase, reason, message, job.owner_id, job.vo)
    await events.record(tx, event)
    again = await store.waiting_again(tx, job.number)
    ends = [_never_ran(job.number, row.index, now, row.attempt - 1) for row in again]
    fresh = await store.insert_results(tx, ends, [job])
    await store.delete_retries(tx, job.number, [row.index for row in again])
    is_first = job.killed_from is None
    never = job.first + job.count - job.next_index - job.ahead if is_first else 0
    await store.update_job(
        tx,
        job.number,
        kill_requested=True,
        killed_from=job.next_index,
        ahead=0,
        again=0,
        open=False,
        wake_at=None,
        reason=reason,
        message=message,
        since=now,
    )
    job = await store.get_job(tx, job.number)
    await apply_changes(tx, events, [(job, Change(killed=never + len(fresh)))], now, actor)


async def kill_some(tx: Tx, events: EventLog, job: Any, caller: Caller, indices: Sequence[int], now: datetime) -> None:
    """What waits has ended at once; what a pilot has ends when the pilot says so."""
    with_pilot = await _mark_leased(tx, job, indices)
    end = job.killed_from if job.killed_from is not None else job.first + job.count
    again = await store.retries_of(tx, job.number, [index for index in indices if index not in with_pilot])
    waiting = [index for index in indices if (index < end or index in again) and index not in with_pilot]
    before = {index: row.attempt - 1 for index, row in again.items()}
    ends = [_never_ran(job.number, index, now, before.get(index, 0)) for index in waiting]
    killed = sorted(index for _, index in await store.insert_results(tx, ends, [job]))
    await store.delete_retries(tx, job.number, sorted(again))
    ahead = sum(index >= job.next_index and index not in again for index in killed)
    await store.update_job(tx, job.number, ahead=job.ahead + ahead, again=job.again - len(again))
    if count := len(killed) + len(with_pilot):
        message = f"{caller.name} killed {count:,} {'tasks' if count > 1 else 'task'}."
        await events.record(
            tx,
            Event(caller.actor, f"job/{job.number}", job.phase, "jobs.tasks_killed", message, job.owner_id, job.vo),
        )
    job = await store.get_job(tx, job.number)
    await apply_changes(tx, events, [(job, Change(killed=len(killed)))], now, caller.actor)


async def _mark_leased(tx: Tx, job: Any, indices: Sequence[int]) -> set[int]:
    """Tell pilots to stop those of the tasks that they have; which these are."""
    found: set[int] = set()
    for lease in await leases.of_job(tx, job.number):
        mine = {index for index in indices if lease.first <= index <= lease.last}
        mine &= set(await leases.outstanding(tx, lease)) if mine else set()
        if mine - set(lease.kill):
            await leases.update(tx, lease.id, kill=sorted({*lease.kill, *mine}))
        found |= mine
    return found


def _never_ran(job: int, index: int, now: Any, attempts: int) -> dict[str, Any]:
    """The end of a task that waited, after so many attempts."""
    return {
        "job": job,
        "index": index,
        "attempt": attempts,
        "lease": None,
        "phase": Phase.KILLED.value,
        "outcome": NEVER_RAN,
        "exit_code": None,
        "signal": None,
        "message": "Killed on request.",
        "pilot_id": None,
        "ended": now,
        "wall_s": 0.0,
        "cpu_s": 0.0,
        "memory_mib": 0.0,
        "fields": None,
    }
