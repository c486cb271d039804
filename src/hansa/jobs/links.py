"""Jobs that wait for other jobs. Always inside a unit of work.

A link is met when the job that is needed has started, ended, or is done, as it was asked. The last one opens the job
that waits. A link that can never be met dooms it: the timers kill it, so that a long
chain falls step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

import sqlalchemy as sa

from hansa.identity.model import Caller
from hansa.identity.policy import may_see
from hansa.jobs import errors, store
from hansa.jobs.bulk import among
from hansa.jobs.model import has_more
from hansa.jobs.tables import job_links, jobs
from hansa.jobs.wire import After, Phase
from hansa.kernel.database import Tx
from hansa.kernel.database.base import DialectName
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.status import Party

DOOMED = "jobs.dependency_failed"
_OPEN_LINKS = {
    kind: sa.select(job_links)
    .where(among(job_links.c.needs, kind), ~job_links.c.met)
    .order_by(job_links.c.job, job_links.c.needs)
    for kind in get_args(DialectName)
}


def is_met(how: str, phase: Phase, *, has_started: bool) -> bool | None:
    """Whether a link is met by a job in this phase; None: it never will be. Pure."""
    if how == "started":
        return has_started or phase.is_final
    if how == "any":
        return phase.is_final
    return None if phase in (Phase.FAILED, Phase.KILLED) else phase is Phase.DONE


async def check(tx: Tx, caller: Caller, after: Sequence[After]) -> list[dict[str, Any]]:
    """The links of a job that is submitted, without its number. The needed jobs are locked: none ends meanwhile.

    Raises Fault ``jobs.not_found`` or ``jobs.dependency``.
    """
    found = await store.get_jobs(tx, sorted({one.job for one in after}), lock=True)
    links = []
    for one in {one.job: one for one in after}.values():
        row = found.get(one.job)
        if row is None or not may_see(caller, row.owner_id):
            raise Fault(errors.NOT_FOUND, f"There is no job {one.job} of yours to wait for.", job=one.job)
        met = is_met(one.how, Phase(row.phase), has_started=row.started is not None)
        if met is None:
            raise Fault(
                errors.DEPENDENCY,
                f"Job {one.job} is {row.phase}: a job that waits until it is done would wait for ever.",
                hint=f"hansa job retry {one.job}, or wait for its end however it ends: --after-any {one.job}.",
                job=one.job,
            )
        links.append({"needs": one.job, "how": one.how, "met": met})
    return links


async def insert(tx: Tx, number: int, links: Sequence[dict[str, Any]]) -> None:
    if links:
        await tx.execute(sa.insert(job_links), [{"job": number, **link} for link in links])


async def of_job(tx: Tx, number: int) -> Sequence[Any]:
    """What a job waits for, with the phase of it."""
    query = sa.select(job_links, jobs.c.phase).join(jobs, jobs.c.number == job_links.c.needs)
    return (await tx.execute(query.where(job_links.c.job == number).order_by(job_links.c.needs))).all()


async def progress(tx: Tx, events: EventLog, now_in: Mapping[int, Phase], now: datetime) -> None:
    """Jobs have started or ended: open or doom those that wait for them."""
    if not now_in:
        return
    for link in (await tx.execute(_OPEN_LINKS[tx.dialect], {"numbers": sorted(now_in)})).all():
        number, phase = link.needs, now_in[link.needs]
        met = is_met(link.how, phase, has_started=True)
        if met is False:
            continue
        job = await store.get_job(tx, link.job, lock=True)
        if job is None or Phase(job.phase).is_final:
            continue
        if met is None:
            await _doom(tx, events, job, number, phase, now)
            continue
        here = sa.and_(job_links.c.job == link.job, job_links.c.needs == number)
        await tx.execute(sa.update(job_links).where(here).values(met=True))
        await _unblock(tx, events, job, number, now)


async def _unblock(tx: Tx, events: EventLog, job: Any, needed: int, now: datetime) -> None:
    left = job.blockers - 1
    values: dict[str, Any] = {"blockers": left}
    if left == 0 and not job.held:
        message = f"Job {needed} has let it go; it waits for a pilot."
        values |= {"open": has_more(job), "reason": "jobs.queued", "message": message, "since": now}
        values["waiting_on"] = Party.HANSA.value
        await events.record(
            tx, Event("hansa", f"job/{job.number}", job.phase, "jobs.queued", message, job.owner_id, job.vo)
        )
        tx.ring(f"work/{job.owner_id}")
        tx.ring("demand")
    await store.update_job(tx, job.number, **values)
    tx.ring(f"job/{job.number}")


async def _doom(tx: Tx, events: EventLog, job: Any, needed: int, phase: Phase, now: datetime) -> None:
    message = f"Job {needed}, which had to be done before, is {phase.value}."
    await store.update_job(tx, job.number, reason=DOOMED, message=message, since=now, deadline=now)
    await events.record(tx, Event("hansa", f"job/{job.number}", job.phase, DOOMED, message, job.owner_id, job.vo))
    tx.ring("timers")
