"""What a site's administrators said since pilots started there: those that run for whom it serves no more are told.

Demand sees to it that nothing new starts. A pilot that runs would still take task after task to the end of its time:
it is told to take no new ones. What it runs goes on to its end; then it ends too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from hansa.jobs import store_pilots
from hansa.jobs.controller import PilotRoom
from hansa.jobs.model import PilotPhase
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.status import Party
from hansa.node.protocol import DRAIN
from hansa.sites import views
from hansa.sites.model import Refusal, Work, site_refusals
from hansa.sites.steering import TOPIC

log = structlog.get_logger(__name__)
_LOOK_AGAIN_S = 10.0


class Steered:
    """Makes running pilots follow the word of their sites. Several servers may run it."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    async def run(self) -> None:
        """For ever: whenever a site's administrators have said something, and now and then by itself."""
        with self._database.bells.listen(TOPIC) as bell:
            while True:
                try:
                    await self.look()
                except Fault as fault:  # the database may be away for a while; the loop must outlive that
                    log.warning("steered.waits", error=str(fault))
                await bell.wait(_LOOK_AGAIN_S)

    async def look(self) -> int:
        """One look; how many pilots were told."""
        async with self._database.read() as tx:
            if not await _refused(tx):
                return 0
        async with self._database.begin() as tx:
            refused = await _refused(tx)
            for pilot, refusal in refused:
                await self._tell(tx, pilot.id, refusal)
            if refused:
                tx.ring(PilotRoom.queue.topic)
        return len(refused)

    async def _tell(self, tx: Tx, pilot_id: str, refusal: Refusal) -> None:
        pilot: Any = await store_pilots.get(tx, pilot_id, lock=True)
        if pilot is None or pilot.stop or PilotPhase(pilot.phase).is_final:
            return  # it ended meanwhile, or another server was faster
        if pilot.phase == PilotPhase.STARTING.value:
            said = f"It is not started: {refusal.message}"
            await store_pilots.end(tx, self._events, pilot, PilotPhase.ENDED, refusal.reason, said, self._clock.now())
            return
        said = f"It takes no new tasks, and ends with those that it runs: {refusal.message}"
        await store_pilots.update(
            tx, pilot.id, stop=DRAIN, reason=refusal.reason, message=said, waiting_on=Party.NOBODY.value
        )
        event = Event("hansa", f"pilot/{pilot.id}", pilot.phase, refusal.reason, said, pilot.owner_id)
        await self._events.record(tx, event)
        tx.ring(f"pilot/{pilot.id}")


async def _refused(tx: Tx) -> list[tuple[Any, Refusal]]:
    """Pilots that take tasks where their owner's are not wanted any more, each with why."""
    live: Sequence[Any] = await store_pilots.all_live(tx)
    words = await views.words(tx, {(one.site, one.owner_id) for one in live})
    steered = [(one, word) for one in live if (word := words.get((one.site, one.owner_id))) is not None]
    wide = [one.id for one, word in steered if one.vo is None and word.banned_vos]
    held = await store_pilots.vos_held(tx, wide) if wide else {}
    found: list[tuple[Any, Refusal]] = []
    for pilot, word in steered:
        vos = (pilot.vo, *held.get(pilot.id, ()))  # one for all VOs gives back what it has not started of a banned one
        refusals = [one for vo in vos for one in site_refusals(word, vo, Work.PILOTS)]
        found += [(pilot, one) for one in refusals[:1]]
    return found
