"""The books of a job: what changes its counters, and when it has ended. Always inside a unit of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hansa.jobs import bulk, leases, links, notices, store, store_pilots
from hansa.jobs.model import (
    LOST,
    NEVER_RAN,
    Again,
    Final,
    History,
    Limits,
    ending_message,
    exit_code_of,
    how_it_ended,
    judge,
    phase_of,
)
from hansa.jobs.wire import Counts, Phase
from hansa.kernel.database import Tx
from hansa.kernel.events import Event, EventLog
from hansa.kernel.settings import JobSettings
from hansa.kernel.status import Party

_SAYS_WHY = ("jobs.deadline", links.DOOMED)
"""Reasons of jobs that are being killed whose message is worth keeping."""
_NO_USE = {"wall_s": 0.0, "cpu_s": 0.0, "memory_mib": 0.0, "exit_code": None, "signal": None}


@dataclass
class Change:
    """What one unit of work changes in the books of one job."""

    done: int = 0
    failed: int = 0
    killed: int = 0
    again: int = 0
    series: int = 0
    """Ended attempts of which the use over time is kept."""
    messages: list[str] = field(default_factory=list)

    def add(self, phase: str) -> None:
        setattr(self, phase, getattr(self, phase) + 1)


def counts_of(job: Any, running: int) -> Counts:
    """Tasks by phase; ``running`` as the pilots last said."""
    left = job.count - job.done - job.failed - job.killed
    running = min(running, left)
    return Counts(left - running, running, job.done, job.failed, job.killed)


def limits_of(job: Any, settings: JobSettings) -> Limits:
    spec = job.spec
    return Limits(
        retries=spec.get("retries", 0),
        node_retries=settings.node_retries,
        crash_limit=spec.get("crash_limit") or settings.crash_limit,
        retry_on=tuple(spec.get("retry_on", ())),
        backoff_s=spec.get("backoff_s", 0.0),
    )


async def apply_changes(
    tx: Tx, events: EventLog, changes: Sequence[tuple[Any, Change]], now: datetime, actor: str
) -> None:
    """Write changes of counters, of each job one; end the jobs of which that was the last of the tasks.

    The rows of the jobs are locked, and as they are now.
    """
    ended = {job.number: counts for job, change in changes if (counts := _ended(job, change)) is not None}
    single = [job.number for job, _ in changes if job.number in ended and not job.spec.get("array")]
    how = await store.only_results(tx, single)
    moves = []
    for job, change in changes:
        counts = ended.get(job.number)
        moves.append((job, _counted(job, change) | (_ending(job, counts, how.get(job.number), now) if counts else {})))
    await bulk.change(tx, moves)
    ends = [(job, values, ended[job.number]) for job, values in moves if job.number in ended]
    await _tell_ends(tx, events, ends, now, actor)
    for job, change in changes:
        tx.ring(f"job/{job.number}")
        tx.ring(f"jobs/{job.owner_id}")
        if change.again:
            tx.ring(f"work/{job.owner_id}")


async def _tell_ends(
    tx: Tx, events: EventLog, ends: Sequence[tuple[Any, dict[str, Any], Counts]], now: datetime, actor: str
) -> None:
    """Of jobs that have ended: write the events, let go what waits for them, and tell who asked for it."""
    news, phases = [], {}
    for job, values, counts in ends:
        phases[job.number] = Phase(values["phase"])
        said = (values["phase"], values["reason"], values["message"], job.owner_id, job.vo, _plain(counts))
        news.append(Event(actor, f"job/{job.number}", *said))
    await events.record(tx, *news)
    await links.progress(tx, events, phases, now)
    for job, values, counts in ends:
        code = values["exit_code"]
        await notices.note(tx, job, phases[job.number], values["message"], counts, now, exit_code=code)


def _counted(job: Any, change: Change) -> dict[str, Any]:
    values: dict[str, Any] = {
        "done": job.done + change.done,
        "failed": job.failed + change.failed,
        "killed": job.killed + change.killed,
        "again": job.again + change.again,
        "version": job.version + 1,
    }
    if change.series:
        values["series_kept"] = job.series_kept + change.series
    if change.again and not job.held and not job.blockers:
        values |= {"open": True, "wake_at": None}
    return values


def _ended(job: Any, change: Change) -> Counts | None:
    """The counts of a job that has ended by this."""
    counts = Counts(0, 0, job.done + change.done, job.failed + change.failed, job.killed + change.killed)
    return counts if counts.done + counts.failed + counts.killed >= job.count else None


def _ending(job: Any, counts: Counts, only: Any | None, now: datetime) -> dict[str, Any]:
    """What changes of a job by its end; ``only``: the result of the only task of one that is no array."""
    phase = phase_of(counts, was_leased=True)
    exit_code, how = None, ""
    if only is not None:
        exit_code = exit_code_of(only.outcome, only.exit_code, only.signal)
        how = "" if phase is Phase.DONE else how_it_ended(only.outcome, only.exit_code, only.signal, only.message)
    message = ending_message(counts, (now - job.created).total_seconds(), how)
    if job.reason in _SAYS_WHY and phase is not Phase.DONE:
        message = f"{job.message} {message}"
    return {
        "phase": phase.value,
        "reason": f"jobs.{phase.value}",
        "message": message,
        "waiting_on": Party.NOBODY.value,
        "since": now,
        "ended": now,
        "exit_code": exit_code,
        "open": False,
        "wake_at": None,
    }


def _plain(counts: Counts) -> dict[str, int]:
    return {"done": counts.done, "failed": counts.failed, "killed": counts.killed}


async def suspects(tx: Tx, pilot: Any, held: Sequence[Any]) -> set[tuple[int, int]]:
    """The (lease, index) that may have been running when a pilot died.

    What it said last; if it said nothing of any, the tasks that it would have started first, one for each core: a task
    that kills its pilot at once must be found out, too.
    """
    if pilot.running:
        return {(lease, index) for lease, index in pilot.running}
    first: list[tuple[int, int]] = []
    for lease in sorted(held, key=lambda one: int(one.id)):
        if len(first) >= pilot.cores:
            break
        first += [(lease.id, index) for index in await leases.outstanding(tx, lease)]
    return set(first[: pilot.cores])


async def give_back(
    tx: Tx,
    events: EventLog,
    settings: JobSettings,
    held: Sequence[Any],
    running: set[tuple[int, int]],
    now: datetime,
    why: str,
    outcome: str = LOST,
) -> None:
    """Take leases back from a pilot that is gone. ``running`` are (lease, index) that died with it.

    Tasks that had not started go back as if they had never been away; those that ran are judged by ``outcome``: as
    crashes, unless it says that the place was taken away (``preempted``).
    """
    jobs = await store.get_jobs(tx, sorted({lease.job for lease in held}), lock=True)
    by_job: dict[int, list[Any]] = {}
    for lease in held:
        by_job.setdefault(lease.job, []).append(lease)
    changes = []
    for number, some in sorted(by_job.items()):
        change = Change()
        for lease in some:
            await _give_back_one(tx, settings, jobs[number], lease, running, now, why, outcome, change)
        changes.append((jobs[number], change))
    await leases.delete(tx, [lease.id for lease in held])
    await apply_changes(tx, events, changes, now, "hansa")


async def _give_back_one(
    tx: Tx,
    settings: JobSettings,
    job: Any,
    lease: Any,
    running: set[tuple[int, int]],
    now: datetime,
    why: str,
    outcome: str,
    change: Change,
) -> None:
    indices = await leases.outstanding(tx, lease)
    known = await store.retries_of(tx, job.number, indices)
    limits = limits_of(job, settings)
    again: list[dict[str, Any]] = []
    ended: list[dict[str, Any]] = []
    died: list[dict[str, Any]] = []
    for index in indices:
        history = history_of(known.get(index), lease.attempt)
        base = {"job": job.number, "index": index, "attempt": lease.attempt, "lease": lease.id}
        base |= {"pilot_id": lease.pilot_id, "ended": now}
        verdict: Final | Again = Again(history, 0.0, why)
        if job.kill_requested or index in lease.kill:
            verdict = Final(Phase.KILLED, "Killed on request.")
        elif (lease.id, index) in running:
            verdict = judge(outcome, None, why, history, limits)
        if isinstance(verdict, Final):
            final = LOST if verdict.phase is Phase.FAILED else NEVER_RAN
            said = {"outcome": final, "phase": verdict.phase.value, "message": verdict.message, "fields": None}
            ended.append(base | _NO_USE | said)
            continue
        again.append(retry_row(job.number, index, verdict, now))
        if verdict.history.attempt > lease.attempt:
            said = {"outcome": outcome, "phase": Phase.FAILED.value, "message": verdict.message}
            died.append(base | _NO_USE | said)
    await store_pilots.insert_attempts(tx, died)
    await store.upsert_retries(tx, again)
    for _ in again:
        change.again += 1
    accepted = await store.insert_results(tx, ended, [job])
    await store.delete_retries(tx, job.number, [row["index"] for row in ended])
    for row in ended:
        if (row["job"], row["index"]) in accepted:
            change.add(row["phase"])


def is_attempt_of(retry: Any, lease: Any) -> bool:
    """Whether a lease is for the attempt that a row of ``retries`` is about, and that one has not ended."""
    return bool(retry.leased and retry.attempt == lease.attempt)


def history_of(retry: Any | None, attempt: int) -> History:
    if retry is None:
        return History(attempt=attempt)
    return History(attempt, retry.failures, retry.node_faults, retry.crashes)


def retry_row(job: int, index: int, verdict: Again, now: datetime) -> dict[str, Any]:
    return {
        "job": job,
        "index": index,
        "attempt": verdict.history.attempt,
        "failures": verdict.history.failures,
        "node_faults": verdict.history.node_faults,
        "crashes": verdict.history.crashes,
        "leased": False,
        "not_before": now + timedelta(seconds=verdict.delay_s),
    }
