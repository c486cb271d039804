"""Demand: starts pilots where tasks wait and none is there for them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog

from hansa.jobs import store, store_pilots
from hansa.jobs.controller import PilotRoom
from hansa.jobs.model import PilotPhase, pilots_to_start, start_delay_s
from hansa.jobs.needs import misfit, needs_of_queue
from hansa.jobs.tables import pilots
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.status import Party
from hansa.sites import store as site_store
from hansa.sites.wire import Capacity

log = structlog.get_logger(__name__)
TOPIC = "demand"
_LOOK_AGAIN_S = 5.0
_PILOTS_PER_OWNER = 1  # of the local driver: one pilot runs as many tasks as the computer has cores
_LOCK = 0x48414E5344  # pg_advisory_xact_lock: one server at a time looks at the demand


class Demand:
    """Looks at what waits and inserts pilots; the reconcile engine starts them."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._is_paused = False

    def pause(self) -> None:
        """Start no more pilots: this server is about to be stopped."""
        self._is_paused = True

    async def run(self) -> None:
        """For ever: at every submission, and now and then by itself."""
        with self._database.bells.listen(TOPIC) as bell:
            while True:
                try:
                    await self.look()
                except Fault as fault:  # the database may be away for a while; the loop must outlive that
                    log.warning("demand.waits", error=str(fault))
                await bell.wait(_LOOK_AGAIN_S)

    async def look(self) -> int:
        """One look; the number of pilots that were inserted."""
        if self._is_paused:
            return 0
        async with self._database.read() as tx:
            if not await store.owners_with_work(tx):
                return 0
        now = self._clock.now()
        started = 0
        async with self._database.begin() as tx:
            if tx.dialect == "postgresql":
                await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            for queue in await store.owners_with_work(tx):
                started += await self._serve(tx, queue, now)
            if started:
                tx.ring(PilotRoom.queue.topic)
        return started

    async def _serve(self, tx: Tx, queue: Any, now: datetime) -> int:
        needs = needs_of_queue(queue)
        started = 0
        for site in await site_store.of_owner(tx, queue.owner_id):
            capacity = Capacity(**site.capacity)
            if misfit(needs, site.name, capacity):
                continue
            failures, last = await store_pilots.speechless(tx, site.name, queue.owner_id)
            if last is not None and (now - last).total_seconds() < start_delay_s(failures):
                continue  # the loop looks again by itself
            live = await store_pilots.live_at(tx, site.name, queue.owner_id)
            for _ in range(pilots_to_start(int(queue.waiting), len(live), _PILOTS_PER_OWNER)):
                await self._insert(tx, site, capacity, queue.owner_id, now)
                started += 1
        return started

    async def _insert(self, tx: Tx, site: Any, capacity: Capacity, owner_id: str, now: datetime) -> None:
        pilot_id = new_id("pilot")
        message = f"It is being started at {site.name}."
        values = {
            "id": pilot_id,
            "site": site.name,
            "driver": site.kind,
            "owner_id": owner_id,
            "cores": capacity.cores,
            "memory_mib": capacity.memory_mib,
            "gpus": capacity.gpus,
            "phase": PilotPhase.STARTING.value,
            "reason": "pilots.starting",
            "message": message,
            "waiting_on": Party.SITE.value,
            "since": now,
            "created": now,
            "sequence": 0,
            "running": [],
            "setups": [],
            "tags": capacity.tags,
            "required_tags": capacity.required_tags,
            "due_at": now,
        }
        await tx.execute(sa.insert(pilots), [values])
        await self._events.record(
            tx, Event("hansa", f"pilot/{pilot_id}", "starting", "pilots.starting", message, owner_id)
        )
