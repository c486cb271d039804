"""Queries about pilots and earlier attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.accounting.store import Charge, Kind, charge
from hansa.jobs.model import PilotPhase
from hansa.jobs.tables import attempts, jobs, leases, pilots, queues, results
from hansa.kernel.database import Tx, insert_ignore
from hansa.kernel.events import Event, EventLog
from hansa.kernel.status import Party
from hansa.node.protocol import ExchangeRequest
from hansa.sites import capacity
from hansa.sites.service import LOCAL

# Built once: to build a statement costs as much as to execute it.
_GET = sa.select(pilots).where(pilots.c.id == sa.bindparam("this"))
_GET_AND_LOCK = _GET.with_for_update()
_UPDATE = sa.update(pilots).where(pilots.c.id == sa.bindparam("this"))
_RESULTS_LOOKED_AT = 10_000
_FINAL = [phase.value for phase in PilotPhase if phase.is_final]


async def get(tx: Tx, pilot_id: str, *, lock: bool = False) -> Any | None:
    return (await tx.execute(_GET_AND_LOCK if lock else _GET, {"this": pilot_id})).first()


async def insert(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(pilots), [values])


async def update(tx: Tx, pilot_id: str, **values: Any) -> None:
    await tx.execute(_UPDATE, {"this": pilot_id, **values})


async def list_pilots(tx: Tx, owner_id: str | None, *, live: bool, limit: int, before: str | None) -> Sequence[Any]:
    """Pilots, newest first; of one owner, or of everybody."""
    query = sa.select(pilots)
    if owner_id is not None:
        query = query.where(pilots.c.owner_id == owner_id)
    if live:
        query = query.where(pilots.c.phase.not_in(_FINAL))
    if before is not None:
        query = query.where(pilots.c.id < before)
    return (await tx.execute(query.order_by(pilots.c.id.desc()).limit(limit))).all()


async def live_at(tx: Tx, site: str, owner_id: str) -> Sequence[Any]:
    """The pilots of an owner at a site that live, or should."""
    query = sa.select(pilots).where(
        pilots.c.site == site, pilots.c.owner_id == owner_id, pilots.c.phase.not_in(_FINAL), pilots.c.stop.is_(None)
    )
    return (await tx.execute(query)).all()


async def of_job(tx: Tx, job: Any, limit: int) -> Sequence[Any]:
    """Pilots that run tasks of a job, ran some of the last that ended, or were started for it; newest first."""
    running = sa.select(leases.c.pilot_id).where(leases.c.job == job.number)
    ended = sa.select(results.c.pilot_id).where(results.c.job == job.number).order_by(results.c.index.desc())
    some = ended.limit(_RESULTS_LOOKED_AT).subquery()
    mine = sa.or_(
        pilots.c.job == job.number, pilots.c.id.in_(running), pilots.c.id.in_(sa.select(some.c.pilot_id).distinct())
    )
    query = sa.select(pilots).where(pilots.c.owner_id == job.owner_id, mine)
    return (await tx.execute(query.order_by(pilots.c.id.desc()).limit(limit))).all()


async def last_at(tx: Tx, site: str, owner_id: str) -> Any | None:
    """The newest pilot of an owner at a site."""
    query = sa.select(pilots).where(pilots.c.site == site, pilots.c.owner_id == owner_id)
    return (await tx.execute(query.order_by(pilots.c.id.desc()).limit(1))).first()


async def all_live(tx: Tx) -> Sequence[Any]:
    """All pilots that live, or should, and take tasks."""
    query = sa.select(pilots).where(pilots.c.phase.not_in(_FINAL), pilots.c.stop.is_(None))
    return (await tx.execute(query.order_by(pilots.c.id))).all()


async def held_of_live(tx: Tx) -> dict[str, tuple[int, int]]:
    """Cores and memory (MiB) of the tasks that pilots hold, by pilot."""
    cores = sa.func.sum(leases.c.remaining * queues.c.cores)
    memory = sa.func.sum(leases.c.remaining * queues.c.memory_mib)
    source = leases.join(jobs, jobs.c.number == leases.c.job).join(queues, queues.c.id == jobs.c.queue_id)
    query = sa.select(leases.c.pilot_id, cores, memory).select_from(source).group_by(leases.c.pilot_id)
    rows: Sequence[Any] = (await tx.execute(query)).all()
    return {str(row[0]): (int(row[1]), int(row[2])) for row in rows}


async def vos_held(tx: Tx, pilot_ids: Sequence[str]) -> dict[str, list[str]]:
    """The VOs for which these pilots hold tasks, by pilot."""
    source = leases.join(jobs, jobs.c.number == leases.c.job)
    query = sa.select(leases.c.pilot_id, jobs.c.vo).distinct().select_from(source).order_by(jobs.c.vo)
    found: dict[str, list[str]] = {}
    query = query.where(leases.c.pilot_id.in_(pilot_ids), jobs.c.vo.is_not(None))
    rows: Sequence[Any] = (await tx.execute(query)).all()
    for row in rows:
        found.setdefault(str(row[0]), []).append(str(row[1]))
    return found


async def ask_to_stop(tx: Tx, driver: str, how: str) -> int:
    """Tell the live pilots of a driver to stop ("drain" or "now"); how many there are."""
    live = sa.select(pilots.c.id).where(pilots.c.driver == driver, pilots.c.phase.not_in(_FINAL))
    ids = list((await tx.execute(live)).scalars())
    await tx.execute(sa.update(pilots).where(pilots.c.id.in_(ids)).values(stop=how))
    for pilot_id in ids:
        tx.ring(f"pilot/{pilot_id}")
    return len(ids)


async def speechless(tx: Tx, site: str, owner_id: str) -> tuple[int, datetime | None]:
    """How many of an owner's newest pilots at a site in a row were lost before they said a word; when the last was."""
    query = sa.select(pilots.c.phase, pilots.c.last_seen, pilots.c.since).where(
        pilots.c.site == site, pilots.c.owner_id == owner_id
    )
    newest: Sequence[Any] = (await tx.execute(query.order_by(pilots.c.id.desc()).limit(10))).all()
    count = 0
    for row in newest:
        if row.phase != PilotPhase.LOST.value or row.last_seen is not None:
            break
        count += 1
    return count, newest[0].since if count else None


async def tasks_running(tx: Tx, site: str | None = None) -> int:
    query = sa.select(sa.func.coalesce(sa.func.sum(leases.c.running), 0))
    if site is not None:
        query = query.join(pilots, pilots.c.id == leases.c.pilot_id).where(pilots.c.site == site)
    return int((await tx.execute(query)).scalar_one())


async def has_kills(tx: Tx, pilot_id: str) -> bool:
    """Whether something that this pilot holds is to be killed."""
    query = sa.select(leases.c.kill, jobs.c.kill_requested).join(jobs, jobs.c.number == leases.c.job)
    rows = (await tx.execute(query.where(leases.c.pilot_id == pilot_id))).all()
    return any(row.kill or row.kill_requested for row in rows)


async def heard(
    tx: Tx,
    pilot: Any,
    request: ExchangeRequest,
    arrival: str,
    now: datetime,
    busy_s: float = 0.0,
    *,
    is_newest: bool,
) -> None:
    """Note what a pilot said of itself; only what changed is written, and only if it is the latest word.

    ``busy_s``: core seconds of the tasks whose end it told.
    """
    values: dict[str, Any] = {"last_seen": now, "arrival": arrival}
    if busy_s:
        values["busy_s"] = pilot.busy_s + busy_s
    if pilot.session != request.session:
        values |= {"session": request.session, "sequence": request.sequence}
    elif request.sequence > pilot.sequence:
        values["sequence"] = request.sequence
    running = [[task.lease, task.index] for task in request.running]
    if is_newest and running != pilot.running:
        values["running"] = running
    if is_newest and request.setups:  # it says only what has changed
        setups = {s["job"]: s for s in pilot.setups}
        setups |= {s.job: asdict(s) for s in request.setups}
        values["setups"] = [s for s in setups.values() if s["state"] == "running"]
    if request.node is not None:
        values["node"] = request.node
    if pilot.phase == PilotPhase.STARTING.value:
        values |= {
            "phase": PilotPhase.RUNNING.value,
            "reason": "pilots.running",
            "message": "It asks for tasks.",
            "waiting_on": Party.NOBODY.value,
            "since": now,
            "started": now,
        }
    await update(tx, pilot.id, **values)


def idle_core_s(pilot: Any, phase: PilotPhase, now: datetime, busy_s: float) -> float:
    """Core seconds that a pilot had and ran no task on, from its first word to its end, or of a lost one its last."""
    until = now if phase is PilotPhase.ENDED else pilot.last_seen
    if pilot.started is None or until is None:
        return 0.0
    had = pilot.cores * pilot.nodes * (until - pilot.started).total_seconds()
    return float(max(0.0, had - pilot.busy_s - busy_s))


async def _account_idle(tx: Tx, events: EventLog, pilot: Any, idle_s: float, now: datetime) -> None:
    """What nobody used, apart from what was; for whom the pilot was started. On this computer nobody counts it."""
    await capacity.release(tx, f"pilot/{pilot.id}")
    if pilot.site == LOCAL or not idle_s:
        return
    wall_s = idle_s / (pilot.cores * pilot.nodes)
    idle = Charge(pilot.owner_id, pilot.vo, pilot.site, 0, wall_s, idle_s, 0.0, kind=Kind.PILOT_IDLE)
    await charge(tx, now.date(), [idle])
    if pilot.vo:
        who = capacity.Who(pilot.vo, pilot.site, pilot.owner_id, "", f"pilot/{pilot.id}")
        await capacity.spend(tx, events, who, 0, round(idle_s * 1000))


async def end(
    tx: Tx,
    events: EventLog,
    pilot: Any,
    phase: PilotPhase,
    reason: str,
    message: str,
    now: datetime,
    busy_s: float = 0.0,
) -> None:
    """A pilot's life is over. Its row becomes due at once, so that the controller cleans up.

    What it held of capacity grants is free, what it had idle is accounted for. ``busy_s``: of results that came with
    its last word.
    """
    await _account_idle(tx, events, pilot, idle_core_s(pilot, phase, now, busy_s), now)
    await update(
        tx,
        pilot.id,
        phase=phase.value,
        reason=reason,
        message=message,
        waiting_on=Party.NOBODY.value,
        since=now,
        running=[],
        due_at=now,
        generation=pilot.generation + 1,
    )
    await events.record(tx, Event("hansa", f"pilot/{pilot.id}", phase.value, reason, message, pilot.owner_id))
    tx.ring("reconcile/pilots")
    tx.ring("demand")


async def insert_attempts(tx: Tx, rows: list[dict[str, Any]]) -> set[tuple[int, int, int]]:
    """Keep attempts that were not the last; the (job, index, attempt) that are new."""
    if not rows:
        return set()
    statement = insert_ignore(tx, attempts).returning(attempts.c.job, attempts.c.index, attempts.c.attempt)
    return {tuple(row) for row in (await tx.execute(statement, rows)).all()}


_ATTEMPTS = sa.select(
    attempts, pilots.c.site, pilots.c.reason.label("pilot_reason"), pilots.c.message.label("pilot_message")
).select_from(attempts.outerjoin(pilots, pilots.c.id == attempts.c.pilot_id))


async def attempts_of(tx: Tx, job: int, index: int) -> Sequence[Any]:
    """Earlier attempts of a task, with what is known of their pilots."""
    query = _ATTEMPTS.where(attempts.c.job == job, attempts.c.index == index)
    return (await tx.execute(query.order_by(attempts.c.attempt))).all()


async def an_attempt_of(tx: Tx, job: int) -> Any | None:
    """The last earlier attempt of the last task of a job that has any: an example."""
    query = _ATTEMPTS.where(attempts.c.job == job).order_by(attempts.c.index.desc(), attempts.c.attempt.desc())
    return (await tx.execute(query.limit(1))).first()
