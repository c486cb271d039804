"""What happens to jobs by the clock: back-offs end, deadlines pass, jobs fall whose dependency failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog

from hansa.jobs import leases, store
from hansa.jobs.kills import kill_all
from hansa.jobs.links import DOOMED
from hansa.jobs.tables import jobs
from hansa.jobs.wire import Phase
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.events import EventLog

log = structlog.get_logger(__name__)
TOPIC = "timers"
_TICK_S = 1.0
_AT_ONCE = 200
_OWNERS_DUE = sa.select(jobs.c.owner_id).where(jobs.c.wake_at.is_not(None), jobs.c.wake_at <= sa.bindparam("now"))
_PAST = sa.select(jobs.c.number).where(jobs.c.deadline.is_not(None), jobs.c.deadline <= sa.bindparam("now"))


class Timers:
    """A loop over what is due. Several servers may run it: each takes what no other one has."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    async def run(self) -> None:
        """For ever, once a second."""
        with self._database.bells.listen(TOPIC) as bell:
            while True:
                try:
                    await self.tick()
                except Fault as fault:  # the database may be away for a while; the loop must outlive that
                    log.warning("timers.wait", error=str(fault))
                await bell.wait(_TICK_S)

    async def tick(self) -> int:
        """All that is due now; how many jobs it changed."""
        now = self._clock.now()
        async with self._database.read() as tx:
            owners = set((await tx.execute(_OWNERS_DUE, {"now": now})).scalars())
            past = list((await tx.execute(_PAST.order_by(jobs.c.deadline).limit(_AT_ONCE), {"now": now})).scalars())
        count = 0
        for owner_id in sorted(owners):
            count += await self._wake(owner_id, now)
        for number in past:
            count += await self._end(number, now)
        return count + (await self.tick() if past and count else 0)  # what falls may make others fall

    async def _wake(self, owner_id: str, now: datetime) -> int:
        async with self._database.begin() as tx:
            count = await leases.wake(tx, owner_id, now)
            tx.ring(f"work/{owner_id}")
            tx.ring("demand")
        return count

    async def _end(self, number: int, now: datetime) -> int:
        """Kill a job whose time is over."""
        async with self._database.begin() as tx:
            job = await store.get_job(tx, number, lock=True)
            if job is None or job.deadline is None or job.deadline > now:
                return 0  # another server was faster
            await store.update_job(tx, number, deadline=None)
            if Phase(job.phase).is_final or job.kill_requested:
                return 1
            doomed = job.reason == DOOMED
            message = job.message if doomed else f"Its deadline, {job.deadline:%Y-%m-%d %H:%M:%S} UTC, has passed."
            reason = DOOMED if doomed else "jobs.deadline"
            await kill_all(tx, self._events, await store.get_job(tx, number), "hansa", message, now, reason)
            held: Sequence[Any] = await leases.of_job(tx, number)
            for lease in held:
                tx.ring(f"pilot/{lease.pilot_id}")
        return 1
