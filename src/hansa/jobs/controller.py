"""The controller of pilots: starts them, notices when they die, takes their tasks back, cleans up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hansa.identity.service import IdentityService, revoke_pilot_tokens
from hansa.jobs import leases, store_pilots
from hansa.jobs.drivers.base import BatchDriver, Life, PilotOrder, Seen
from hansa.jobs.model import PilotPhase
from hansa.jobs.settle import give_back, suspects
from hansa.jobs.tables import pilots
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.events import Event, EventLog
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Queue, Settle, Settled
from hansa.kernel.settings import JobSettings, PilotSettings
from hansa.kernel.status import Party

_LOOK_S = 5.0
_TOKEN_LASTS = timedelta(days=14)

START, CANCEL, CLEAN = "start", "cancel", "clean"


@dataclass(frozen=True)
class Verdict(Settle):
    """What the pilot's row should say; None: as it does."""

    phase: PilotPhase | None = None
    message: str = ""
    is_blameless: bool = False
    """Of a loss: none of its tasks can have caused it."""


def decide(pilot: Any, seen: Seen, now: datetime, settings: PilotSettings) -> Act | Verdict:
    """What to do about a pilot. Pure."""
    phase = PilotPhase(pilot.phase)
    if phase.is_final:
        if seen.life in (Life.ALIVE, Life.QUEUED):
            return Act(CANCEL, "pilots.surplus")
        return Act(CLEAN, "pilots.clean") if seen.life is Life.ENDED else Verdict("pilots.gone")
    if seen.life is Life.ENDED:
        said = seen.message or "no word was left"
        if seen.is_blameless:
            return Verdict("pilots.stopped_by_site", None, PilotPhase.LOST, f"The site ended it: {said}.", True)
        return Verdict("pilots.died", None, PilotPhase.LOST, f"It died: {said}.")
    if seen.life is Life.ABSENT:
        if phase is PilotPhase.STARTING:
            return Act(START, "pilots.start")
        return Verdict("pilots.vanished", None, PilotPhase.LOST, "The batch system does not know it any more.")
    silent_s = (now - (pilot.last_seen or pilot.since)).total_seconds()
    if seen.listened_s is not None:
        silent_s = min(silent_s, seen.listened_s)
    if seen.life is Life.ALIVE and silent_s > settings.lost_s:
        return Act(CANCEL, "pilots.silent")
    if pilot.stop == "now" and silent_s > settings.silence_s:
        return Act(CANCEL, "pilots.does_not_stop")
    message = seen.message if phase is PilotPhase.STARTING else ""
    return Verdict("pilots.alive", now + timedelta(seconds=_LOOK_S), message=message)


class PilotRoom:
    """Pilots, for the reconcile engine."""

    queue = Queue("pilots", pilots, pilots.c.id)

    def __init__(
        self,
        drivers: Mapping[str, BatchDriver],
        identity: IdentityService,
        events: EventLog,
        clock: Clock,
        settings: PilotSettings,
        job_settings: JobSettings,
    ) -> None:
        self._drivers = drivers
        self._identity = identity
        self._events = events
        self._clock = clock
        self._settings = settings
        self._job_settings = job_settings

    async def load(self, tx: Tx, key: str) -> Any | None:
        return await store_pilots.get(tx, key)

    async def observe(self, loaded: Any) -> Seen:
        return await self._drivers[loaded.driver].observe(loaded.id)

    def decide(self, loaded: Any, seen: Seen, now: datetime) -> Act | Settle:
        return decide(loaded, seen, now, self._settings)

    async def act(self, loaded: Any, intent: Intent) -> Seen:
        driver = self._drivers[loaded.driver]
        if intent.operation == START:
            token = await self._identity.issue_pilot_token(loaded.id, loaded.owner_id, _TOKEN_LASTS)
            order = PilotOrder(
                loaded.id, token, loaded.cores, loaded.memory_mib, loaded.gpus, self._settings.idle_timeout_s
            )
            return await driver.start(order)
        if intent.operation == CANCEL:
            await driver.cancel(loaded.id)
        else:
            await driver.clean(loaded.id)
        return await driver.observe(loaded.id)

    async def apply(self, tx: Tx, loaded: Any, outcome: Outcome[Seen, Seen]) -> Next:
        now = self._clock.now()
        pilot: Any = await store_pilots.get(tx, loaded.id, lock=True)
        if isinstance(outcome, Failed):
            return await self._failed(tx, pilot, outcome, now)
        if isinstance(outcome, Acted):
            return Next(now)  # look at once at what it has led to
        assert isinstance(outcome, Settled)  # noqa: S101 - the only one left, for the type checker
        verdict = outcome.decision
        if isinstance(verdict, Verdict) and verdict.phase and not PilotPhase(pilot.phase).is_final:
            await self._lose(tx, pilot, verdict, now)
            return Next(now)
        said = verdict.message if isinstance(verdict, Verdict) else ""
        if said and said != pilot.message and pilot.phase == PilotPhase.STARTING.value:
            await store_pilots.update(tx, pilot.id, message=said)  # why it waits, in the site's own words
        return Next(verdict.due_at)

    async def _failed(self, tx: Tx, pilot: Any, outcome: Failed, now: datetime) -> Next:
        message = f"{outcome.error} (attempt {outcome.attempt})"
        if PilotPhase(pilot.phase).is_final:
            return Next(outcome.retry_at)
        if outcome.retry_at is None:
            await self._lose(tx, pilot, Verdict("pilots.refused", None, PilotPhase.LOST, message), now)
            return Next(now)
        party = Party.SITE if outcome.reason == "temporary" else Party.HANSA
        if pilot.reason != "pilots.start_failed":
            event = Event("hansa", f"pilot/{pilot.id}", pilot.phase, "pilots.start_failed", message, pilot.owner_id)
            await self._events.record(tx, event)
        await store_pilots.update(
            tx, pilot.id, reason="pilots.start_failed", message=message, waiting_on=party.value, since=now
        )
        return Next(outcome.retry_at)

    async def _lose(self, tx: Tx, pilot: Any, verdict: Verdict, now: datetime) -> None:
        held = list((await leases.of_pilot(tx, pilot.id)).values())
        running = set() if verdict.is_blameless else await suspects(tx, pilot, held)
        await give_back(tx, self._events, self._job_settings, held, running, now, "Its pilot died while it ran.")
        await revoke_pilot_tokens(tx, pilot.id)
        await store_pilots.end(
            tx, self._events, pilot, verdict.phase or PilotPhase.LOST, verdict.reason, verdict.message, now
        )
        tx.ring("demand")
