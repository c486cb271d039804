"""Makes volumes follow their rows: observe, decide, act, apply. The thinking is in ``volume_model.decide``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hansa.identity.authority import RENEW, AuthorityService
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault, Permanent
from hansa.kernel.events import Event, EventLog
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Settle, Settled
from hansa.kernel.status import Party, Status
from hansa.machines import accounts, volume_model, volume_store
from hansa.machines import store as machine_store
from hansa.machines.controller import DEFAULT_LIFE
from hansa.machines.drivers.base import Progress, Volume, Volumes, able
from hansa.machines.model import QUIET_S, SLOW_POLL_S, site_of
from hansa.machines.places import Drivers, Holder
from hansa.machines.volume_model import Phase, Row, Turn, decide
from hansa.machines.volume_views import decided_of, seen_of

_ASK_AGAIN = timedelta(seconds=30)

Result = Volume | Progress


@dataclass(frozen=True)
class Loaded:
    """A volume's row, and what decides about it."""

    row: Any
    volume: Row


class VolumeRoom:
    """The reconcile room of volumes."""

    queue = volume_store.QUEUE

    def __init__(self, drivers: Drivers, events: EventLog, clock: Clock, authority: AuthorityService) -> None:
        self._drivers = drivers
        self._events = events
        self._clock = clock
        self._authority = authority

    async def load(self, tx: Tx, key: str) -> Loaded | None:
        row = await volume_store.get(tx, key)
        if row is None:
            return None
        machine = await machine_store.get(tx, row.machine_id) if row.machine_id else None
        return Loaded(row, decided_of(row, machine))

    async def observe(self, loaded: Loaded) -> Volume | None:
        """What is at its place. What shall be deleted is not looked at."""
        volume = loaded.volume
        if volume.place is None or not volume.is_wanted or volume.phase is Phase.DELETED:
            return None
        return await (await self._driver(loaded.row)).observe_volume(volume.id)

    def decide(self, loaded: Loaded, seen: Volume | None, now: datetime) -> Act | Settle:
        return decide(loaded.volume, seen, now)

    async def act(self, loaded: Loaded, intent: Intent) -> Result:
        row = loaded.row
        driver = await self._driver(row)
        match intent.operation:
            case volume_model.CREATE:
                return await driver.ensure_volume(row.id, row.size_gib, row.name)
            case volume_model.ATTACH:
                return await driver.attach(row.id, intent.arguments["machine"], row.path)
            case volume_model.DETACH:
                return await driver.detach(row.id)
            case volume_model.DELETE:
                return await driver.delete_volume(row.id)
            case other:
                raise RuntimeError(f"nobody knows how to {other} a volume")

    async def _driver(self, row: Any) -> Volumes:
        return able(await self._drivers.at(row.place, Holder(row.owner_id, row.vo)), Volumes)

    async def apply(self, tx: Tx, loaded: Loaded, outcome: Outcome[Volume | None, Result]) -> Next:
        row: Any = await volume_store.get(tx, loaded.row.id, lock=True)
        now = self._clock.now()
        if isinstance(outcome, Failed):
            return await self._failed(tx, row, outcome, now)
        if isinstance(outcome, Acted):
            return await self._acted(tx, row, outcome, now)
        assert isinstance(outcome, Settled)  # noqa: S101 - the only one left, for the type checker
        if row.generation != loaded.row.generation:
            return Next(now)  # the wish has changed meanwhile: decide anew
        return await self._settled(tx, row, outcome.decision, outcome.seen, now)

    async def _settled(self, tx: Tx, row: Any, verdict: Settle, seen: Volume | None, now: datetime) -> Next:
        if not isinstance(verdict, Turn):
            return Next(verdict.due_at, row.generation)
        if verdict.takes_place is not None:
            return await self._take_place(tx, row, verdict, verdict.takes_place, now)
        more = {"seen": seen_of(seen)} if seen is not None else {}
        await self._turn(tx, row, verdict, more, now)
        return Next(verdict.due_at, row.generation)

    async def _take_place(self, tx: Tx, row: Any, verdict: Turn, place: str, now: datetime) -> Next:
        """It will be at this place: under a grant of authority, and of the VO's storage there."""
        found = await self._authority.look(tx, row.owner_id, now + DEFAULT_LIFE, vo=row.vo, site=site_of(place))
        if isinstance(found, Status):
            waiting = Turn("identity.grant_expired", None, Phase.WAITING, f"{found.message} {RENEW}", Party.USER)
            await self._turn(tx, row, waiting, {}, now)
            return Next(now + _ASK_AGAIN)
        try:
            await accounts.reserve_volume(tx, row, place, now)
        except Fault as fault:
            await self._turn(
                tx, row, Turn(fault.code.code, None, Phase.WAITING, fault.detail, Party.VO_MANAGER), {}, now
            )
            return Next(now + _ASK_AGAIN)
        await self._turn(tx, row, verdict, {"place": place}, now)
        return Next(now)

    async def _acted(self, tx: Tx, row: Any, outcome: Acted[Volume | None, Result], now: datetime) -> Next:
        operation, result = outcome.intent.operation, outcome.result
        if result is Progress.PENDING:
            return Next(_again(row, now))
        if operation == volume_model.DELETE:
            turn = Turn("machines.volume_deleted", None, Phase.DELETED, "It is deleted.", changes={"ended": now})
            await self._turn(tx, row, turn, {"machine_id": None}, now)
            return Next(None, outcome.intent.generation)
        if isinstance(result, Volume):  # as good as an observation
            await volume_store.update(tx, row.id, seen=seen_of(result))
            if operation == volume_model.ATTACH and result.attached_to is None:
                return Next(_again(row, now))  # it is on its way
        return Next(now)

    async def _failed(self, tx: Tx, row: Any, outcome: Failed, now: datetime) -> Next:
        intent, said = outcome.intent, str(outcome.error)
        operation = intent.operation if intent is not None else ""
        site = site_of(row.place or "")
        if isinstance(outcome.error, Permanent) and operation == volume_model.ATTACH:
            await volume_store.update(tx, row.id, refused=said)
            return Next(now)
        if isinstance(outcome.error, Permanent) and operation == volume_model.CREATE:
            why = getattr(outcome.error, "why", None)
            turn = Turn(why.value if why else "machines.refused", None, Phase.FAILED, f"At {site}: {said}", Party.SITE)
            await self._turn(tx, row, turn, {}, now)
            return Next(now + timedelta(seconds=QUIET_S))
        message = f"{site} does not answer, or not well: {said} (attempt {outcome.attempt})"
        await self._turn(tx, row, Turn("machines.site_away", None, None, message, Party.SITE), {}, now)
        return Next(outcome.retry_at or now + timedelta(seconds=QUIET_S))

    async def _turn(self, tx: Tx, row: Any, turn: Turn, more: dict[str, Any], now: datetime) -> None:
        """Write a change of a volume, its event and its reservation."""
        phase = turn.phase or Phase(row.phase)
        values: dict[str, Any] = {
            **turn.changes, **more, "phase": phase.value, "reason": turn.reason, "message": turn.message,
            "waiting_on": turn.waiting_on.value,
        }  # fmt: skip
        if phase != row.phase:
            values["since"] = now
            if phase is Phase.DELETED:
                await accounts.settle_volume(tx, row)
        if any(getattr(row, name) != value for name, value in values.items()):
            await volume_store.update(tx, row.id, **values)
        if phase != row.phase or turn.reason != row.reason:
            subject = subject_of(row.id)
            event = Event(
                "hansa", subject, phase.value, turn.reason, turn.message, row.owner_id, row.vo, {"name": row.name}
            )
            await self._events.record(tx, event)


def _again(row: Any, now: datetime) -> datetime:
    """When to look at what is on its way: soon, and then less and less often."""
    return now + timedelta(seconds=min(SLOW_POLL_S, max(0.25, (now - row.since).total_seconds() / 10)))


def subject_of(volume_id: str) -> str:
    """How events name a volume: by its id, as names are used again."""
    return f"volume/{volume_id}"
