"""Takes disks of machines, and brings them into the catalogue of VM images."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hansa.images import snapshots as catalogue
from hansa.images import store as image_store
from hansa.images.depot import Content, Depot
from hansa.images.formats import Format
from hansa.images.model import Phase as VersionPhase
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.errors import Permanent
from hansa.kernel.events import Event, EventLog
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Settle, Settled, Tuning
from hansa.kernel.status import Party
from hansa.machines import snapshot_model, volume_store
from hansa.machines.drivers.base import Progress, Snapshot, Snapshots, able
from hansa.machines.model import QUIET_S, SLOW_POLL_S, site_of
from hansa.machines.places import Drivers, Holder
from hansa.machines.snapshot_model import Phase, Row, Turn, decide

TUNING = Tuning(concurrency=4, act_s=3600.0)
"""A large disk takes a while; its lease is renewed meanwhile."""


@dataclass(frozen=True)
class Loaded:
    """A snapshot's row, and what decides about it."""

    row: Any
    snapshot: Row


@dataclass(frozen=True)
class Nothing:
    """Its place is not looked at before: to take it finds again what was taken."""


Result = Snapshot | Content | Progress


class SnapshotRoom:
    """The reconcile room of snapshots."""

    queue = volume_store.SNAPSHOT_QUEUE

    def __init__(self, drivers: Drivers, events: EventLog, clock: Clock, depot: Depot) -> None:
        self._drivers = drivers
        self._events = events
        self._clock = clock
        self._depot = depot

    async def load(self, tx: Tx, key: str) -> Loaded | None:
        row = await volume_store.get_snapshot(tx, key)
        if row is None:
            return None
        version = await image_store.get_version(tx, row.image_version_id)
        phase = VersionPhase(version.phase) if version is not None else None
        return Loaded(row, Row(Phase(row.phase), row.place, phase, row.is_there, row.provider_id is not None))

    async def observe(self, loaded: Loaded) -> Nothing:  # noqa: ARG002
        return Nothing()

    def decide(self, loaded: Loaded, seen: Nothing, now: datetime) -> Act | Settle:  # noqa: ARG002
        return decide(loaded.snapshot, now)

    async def act(self, loaded: Loaded, intent: Intent) -> Result:
        row = loaded.row
        driver = able(await self._drivers.at(row.place, Holder(row.owner_id, row.vo)), Snapshots)
        if intent.operation == snapshot_model.REMOVE:
            return await driver.delete_snapshot(row.id)
        taken = await driver.snapshot(row.machine_id, row.id, f"{row.image}-{row.version}")
        if taken.progress is Progress.PENDING or taken.path is None:
            return taken
        return await catalogue.adopt(self._depot, row.image_version_id, taken.path, Format(taken.format))

    async def apply(self, tx: Tx, loaded: Loaded, outcome: Outcome[Nothing, Result]) -> Next:
        row: Any = await volume_store.get_snapshot(tx, loaded.row.id, lock=True)
        now = self._clock.now()
        if isinstance(outcome, Failed):
            return await self._failed(tx, row, outcome, now)
        if isinstance(outcome, Acted):
            return await self._acted(tx, row, outcome, now)
        assert isinstance(outcome, Settled)  # noqa: S101 - the only one left, for the type checker
        verdict = outcome.decision
        if isinstance(verdict, Turn):
            await self._turn(tx, row, verdict, {}, now)
        return Next(verdict.due_at, row.generation)

    async def _acted(self, tx: Tx, row: Any, outcome: Acted[Nothing, Result], now: datetime) -> Next:
        result, version_id = outcome.result, row.image_version_id
        ready = f"Machines start of {row.image}@{row.version}"
        if isinstance(result, Content):
            await catalogue.has_come(tx, self._events, version_id, result, now)
            turn = Turn("machines.snapshot_ready", now, Phase.READY, f"{ready}, at every site.")
            await self._turn(tx, row, turn, {}, now)
            return Next(now)
        if isinstance(result, Snapshot) and result.progress is Progress.DONE:
            provider_id, disk_bytes = result.provider_id or "", result.min_disk_gib * 1024**3
            await catalogue.is_kept(
                tx, self._events, version_id, row.place, provider_id, result.size_bytes, disk_bytes, now
            )
            turn = Turn("machines.snapshot_ready", now, Phase.READY, f"{ready}, at {site_of(row.place)}.")
            await self._turn(tx, row, turn, {"provider_id": provider_id}, now)
            return Next(now)
        if result is Progress.DONE:
            await volume_store.update_snapshot(tx, row.id, is_there=False)
            return Next(now)
        return Next(now + timedelta(seconds=min(SLOW_POLL_S, max(0.25, (now - row.since).total_seconds() / 10))))

    async def _failed(self, tx: Tx, row: Any, outcome: Failed, now: datetime) -> Next:
        site, said = site_of(row.place), str(outcome.error)
        if isinstance(outcome.error, Permanent) and row.phase == Phase.TAKING:
            message = f"No snapshot could be made at {site}: {said}"
            await catalogue.came_to_nothing(tx, self._events, row.image_version_id, message, now)
            failed = Turn("machines.snapshot_failed", now, Phase.FAILED, message, Party.USER, {"ended": now})
            await self._turn(tx, row, failed, {}, now)
            return Next(now)
        message = f"{site} does not answer, or not well: {said} (attempt {outcome.attempt})"
        await self._turn(tx, row, Turn("machines.site_away", None, None, message, Party.SITE), {}, now)
        return Next(outcome.retry_at or now + timedelta(seconds=QUIET_S))

    async def _turn(self, tx: Tx, row: Any, turn: Turn, more: dict[str, Any], now: datetime) -> None:
        phase = turn.phase or Phase(row.phase)
        values: dict[str, Any] = {
            **turn.changes, **more, "phase": phase.value, "reason": turn.reason, "message": turn.message,
            "waiting_on": turn.waiting_on.value,
        }  # fmt: skip
        if phase != row.phase:
            values["since"] = now
        await volume_store.update_snapshot(tx, row.id, **values)
        if phase != row.phase or turn.reason != row.reason:
            subject = subject_of(row.machine_id)
            said = f"Snapshot {row.image}@{row.version}: {turn.message}"
            about = {"name": row.machine, "snapshot": row.id}
            event = Event("hansa", subject, phase.value, turn.reason, said, row.owner_id, row.vo, about)
            await self._events.record(tx, event)


def subject_of(machine_id: str) -> str:
    """Snapshots are told in the timeline of their machine."""
    return f"machine/{machine_id}"
