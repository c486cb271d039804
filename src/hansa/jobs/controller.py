"""The controller of pilots: starts them, notices when they die, takes their tasks back, cleans up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hansa.identity.service import IdentityService, renew_pilot_tokens, revoke_pilot_tokens
from hansa.jobs import leases, store_pilots
from hansa.jobs.drivers.base import Life, LoginLapsed, PilotOrder, Seen
from hansa.jobs.drivers.places import Places
from hansa.jobs.model import LOST, STOPPED_BY_SITE, PilotPhase
from hansa.jobs.settle import give_back, suspects
from hansa.jobs.tables import pilots
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.events import Event, EventLog
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Queue, Settle, Settled
from hansa.kernel.settings import JobSettings, PilotSettings
from hansa.kernel.status import Party
from hansa.node.protocol import PREEMPTED
from hansa.sites import store as site_store

_TOKEN_LASTS = timedelta(days=14)
_TOKEN_RENEWED = timedelta(days=1)
"""A pilot that lives keeps its token: each day it lasts for so long again."""
_FORGET = timedelta(days=14)
"""What a pilot left at a site that cannot be reached is looked for so long."""
_EXACT_IDLE_S = 15.0
"""A pilot of exact size does not wait for long for more of such tasks: its nodes cost too much."""
_LONG_OVER = timedelta(hours=1)
_LOOK_LATER = timedelta(seconds=60)

START_FAILED = "pilots.start_failed"
_ORDERLY = ("stopped", "wall_time", "idle", "fault: the server ")
"""How a pilot's last words begin that stopped its tasks by itself, though nobody heard of it: they did not kill it."""
_REQUEUED = "pilots.requeued"
"""The batch system took its place away and would start it anew: it is not waited for, its tasks go elsewhere."""
_CLOCKS_S = 5.0
"""By how much the clocks of two servers may differ."""
_STOPPED = "pilots.stopped"
"""It said itself that a signal had ended it, but not why: that is the batch system's to say."""
START, CANCEL, CLEAN = "start", "cancel", "clean"


@dataclass(frozen=True)
class Verdict(Settle):
    """What the pilot's row should say; None: as it does."""

    phase: PilotPhase | None = None
    message: str = ""
    is_blameless: bool = False
    """Of a loss: none of its tasks can have caused it."""
    seen: Seen | None = None
    """Of a pilot that lives or waits: what the batch system says of it."""


def decide(pilot: Any, seen: Seen, now: datetime, settings: PilotSettings) -> Act | Verdict:
    """What to do about a pilot. Pure."""
    phase = PilotPhase(pilot.phase)
    if phase.is_final:
        if seen.life in (Life.ALIVE, Life.QUEUED):
            return Act(CANCEL, "pilots.surplus")
        if seen.life is Life.ENDED and seen.is_blameless and pilot.reason == _STOPPED and not pilot.stop:
            return Verdict(STOPPED_BY_SITE, now, PilotPhase.ENDED, f"It ended: {seen.message}.")
        return Act(CLEAN, "pilots.clean") if seen.life is Life.ENDED else Verdict("pilots.gone")
    if seen.life is Life.ENDED:
        said = seen.message or "no word was left"
        if pilot.reason == _REQUEUED:
            return Verdict(STOPPED_BY_SITE, None, PilotPhase.LOST, pilot.message, True)
        if seen.is_blameless or seen.message.startswith(_ORDERLY):
            return Verdict(STOPPED_BY_SITE, None, PilotPhase.LOST, f"The site ended it: {said}.", True)
        return Verdict("pilots.died", None, PilotPhase.LOST, f"It died: {said}.")
    if seen.life is Life.ABSENT:
        if phase is PilotPhase.STARTING:
            return Act(START, "pilots.start")
        return Verdict("pilots.vanished", None, PilotPhase.LOST, "The batch system does not know it any more.")
    if _is_queued_again(pilot, seen, now):
        return Act(CANCEL, _REQUEUED, {"why": _REQUEUED})
    silent_s = (now - (pilot.last_seen or pilot.since)).total_seconds()
    if seen.listened_s is not None:
        silent_s = min(silent_s, seen.listened_s)
    if seen.life is Life.ALIVE and silent_s > settings.lost_s:
        return Act(CANCEL, "pilots.silent")
    if pilot.stop == "now" and silent_s > settings.silence_s:
        return Act(CANCEL, "pilots.does_not_stop")
    message = seen.message if phase is PilotPhase.STARTING else ""
    return Verdict("pilots.alive", now + timedelta(seconds=seen.again_s), message=message, seen=seen)


def _is_queued_again(pilot: Any, seen: Seen, now: datetime) -> bool:
    """Whether a pilot that had begun waits for its turn anew: its process is gone, with all that it ran.

    A look from before its first word says nothing: then it did wait.
    """
    if seen.life is not Life.QUEUED or seen.unborn_s is None or pilot.started is None:
        return False
    return bool(now - timedelta(seconds=seen.unborn_s + _CLOCKS_S) > pilot.started)


def is_over(pilot: Any, now: datetime) -> bool:
    """Whether a pilot of which nothing can be seen must have ended: the time that it was given is long over."""
    if pilot.wall_time_s is None or pilot.last_seen is None:
        return False
    began = pilot.created if pilot.phase == PilotPhase.STARTING.value else pilot.last_seen
    return bool(now > began + timedelta(seconds=pilot.wall_time_s) + _LONG_OVER)


class PilotRoom:
    """Pilots, for the reconcile engine."""

    queue = Queue("pilots", pilots, pilots.c.id)

    def __init__(
        self,
        places: Places,
        identity: IdentityService,
        events: EventLog,
        clock: Clock,
        settings: PilotSettings,
        job_settings: JobSettings,
    ) -> None:
        self._places = places
        self._identity = identity
        self._events = events
        self._clock = clock
        self._settings = settings
        self._job_settings = job_settings

    async def load(self, tx: Tx, key: str) -> Any | None:
        return await store_pilots.get(tx, key)

    async def observe(self, loaded: Any) -> Seen:
        return await (await self._places.of(loaded)).driver.observe(loaded.id)

    def decide(self, loaded: Any, seen: Seen, now: datetime) -> Act | Settle:
        return decide(loaded, seen, now, self._settings)

    async def act(self, loaded: Any, intent: Intent) -> Seen:
        place = await self._places.of(loaded)
        driver = place.driver
        if intent.operation == START:
            token = ""
            if not place.enrols:
                token = await self._identity.issue_pilot_token(loaded.id, loaded.owner_id, _TOKEN_LASTS)
            return await driver.start(self._order(loaded, token, place.options))
        if intent.operation == CANCEL:
            await driver.cancel(loaded.id)
        else:
            await driver.clean(loaded.id)
        return await driver.observe(loaded.id)

    def _order(self, pilot: Any, token: str, options: tuple[str, ...]) -> PilotOrder:
        is_exact = pilot.nodes > 1 or pilot.is_whole
        idle_s = self._settings.idle_timeout_s if pilot.endpoint_id is None else self._settings.batch_idle_timeout_s
        return PilotOrder(
            pilot.id,
            token,
            pilot.cores,
            pilot.memory_mib,
            pilot.gpus,
            min(idle_s, _EXACT_IDLE_S) if is_exact else idle_s,
            pilot.wall_time_s,
            pilot.labels or {},
            pilot.nodes,
            pilot.is_whole,
            (*options, *(pilot.batch or ())),
        )

    async def apply(self, tx: Tx, loaded: Any, outcome: Outcome[Seen, Seen]) -> Next:
        now = self._clock.now()
        pilot: Any = await store_pilots.get(tx, loaded.id, lock=True)
        if isinstance(outcome, Failed):
            return await self._failed(tx, pilot, outcome, now)
        if isinstance(outcome, Acted):
            if outcome.intent.arguments.get("why") == _REQUEUED and not PilotPhase(pilot.phase).is_final:
                said = "The site took its place away and queued it again: its tasks go elsewhere."
                await store_pilots.update(tx, pilot.id, reason=_REQUEUED, message=said)
            return Next(now)  # look at once at what it has led to
        assert isinstance(outcome, Settled)  # noqa: S101 - the only one left, for the type checker
        verdict = outcome.decision
        if isinstance(verdict, Verdict) and verdict.phase and not PilotPhase(pilot.phase).is_final:
            await self._lose(tx, pilot, verdict, now)
            return Next(now)
        if verdict.reason == STOPPED_BY_SITE and isinstance(verdict, Verdict):
            await self._note_cause(tx, pilot, verdict)
        if isinstance(verdict, Verdict) and verdict.seen is not None:
            if now - pilot.created > _TOKEN_RENEWED:
                await renew_pilot_tokens(tx, pilot.id, now + _TOKEN_LASTS - _TOKEN_RENEWED, now + _TOKEN_LASTS)
            await self._note(tx, pilot, verdict.seen, verdict.message)
        return Next(verdict.due_at)

    async def _note(self, tx: Tx, pilot: Any, seen: Seen, said: str) -> None:
        """What the batch system says: its number, its script, and why the pilot waits, in the site's own words."""
        values: dict[str, Any] = {}
        if seen.batch_id and seen.batch_id != pilot.batch_id:
            values["batch_id"] = seen.batch_id
        if seen.script and seen.script != pilot.script:
            values["script"] = seen.script
        if pilot.phase == PilotPhase.STARTING.value:
            if said and said != pilot.message:
                values["message"] = said
            if pilot.reason == START_FAILED:  # it was: now it waits for its turn
                values |= {"reason": "pilots.starting", "waiting_on": Party.SITE.value}
        elif pilot.reason == "pilots.unseen":
            running = {"reason": "pilots.running", "message": "It asks for tasks.", "waiting_on": Party.NOBODY.value}
            values |= running
        if values:
            await store_pilots.update(tx, pilot.id, **values)

    async def _note_cause(self, tx: Tx, pilot: Any, verdict: Verdict) -> None:
        """Who had stopped a pilot that has ended in order."""
        await store_pilots.update(tx, pilot.id, reason=verdict.reason, message=verdict.message)
        event = Event("hansa", f"pilot/{pilot.id}", pilot.phase, verdict.reason, verdict.message, pilot.owner_id)
        await self._events.record(tx, event)

    async def _failed(self, tx: Tx, pilot: Any, outcome: Failed, now: datetime) -> Next:
        has_lapsed = isinstance(outcome.error, LoginLapsed)
        message = str(outcome.error) if has_lapsed else f"{outcome.error} (attempt {outcome.attempt})"
        again = outcome.retry_at or now + _LOOK_LATER
        if PilotPhase(pilot.phase).is_final:
            return Next(again if now < pilot.since + _FORGET else None)
        if outcome.retry_at is None and outcome.intent is not None and outcome.intent.operation == START:
            await self._lose(tx, pilot, Verdict("pilots.refused", None, PilotPhase.LOST, message), now)
            return Next(now)
        if is_over(pilot, now):
            said = f"Its time is over, and nothing can be seen of it: {message}"
            await self._lose(tx, pilot, Verdict("pilots.unseen", None, PilotPhase.LOST, said, True), now)
            return Next(now)
        party = Party.USER if has_lapsed else Party.SITE if outcome.reason != "kernel.bug" else Party.HANSA
        reason = START_FAILED if pilot.phase == PilotPhase.STARTING.value else "pilots.unseen"
        if pilot.reason != reason:
            event = Event("hansa", f"pilot/{pilot.id}", pilot.phase, reason, message, pilot.owner_id)
            await self._events.record(tx, event)
            await store_pilots.update(tx, pilot.id, since=now)
            if has_lapsed:  # its site should know, and get no new work
                await site_store.QUEUE.poke(tx, now, pilot.endpoint_id)
        await store_pilots.update(tx, pilot.id, reason=reason, message=message, waiting_on=party.value)
        return Next(again)

    async def _lose(self, tx: Tx, pilot: Any, verdict: Verdict, now: datetime) -> None:
        held = list((await leases.of_pilot(tx, pilot.id)).values())
        if verdict.is_blameless:  # an attempt of what ran has ended: its checkpoint is there for the next one
            running, why, outcome = {(lease, index) for lease, index in pilot.running}, verdict.message, PREEMPTED
        else:
            running, why, outcome = await suspects(tx, pilot, held), "Its pilot died while it ran.", LOST
        await give_back(tx, self._events, self._job_settings, held, running, now, why, outcome)
        await revoke_pilot_tokens(tx, pilot.id)
        await store_pilots.end(
            tx, self._events, pilot, verdict.phase or PilotPhase.LOST, verdict.reason, verdict.message, now
        )
        tx.ring("demand")
