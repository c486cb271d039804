"""A room for tests of the reconcile engine: things at a provider that creates again whenever it is asked.

A thing is wanted present or absent, with a size. The provider is like OpenStack Nova: creation is not idempotent,
but what exists can be searched by our tag.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Moment, Tx, metadata
from hansa.kernel.reconcile import (
    Act,
    Acted,
    Failed,
    Intent,
    Next,
    Outcome,
    Queue,
    Settle,
    Settled,
    reconcile_columns,
)

things = sa.Table(
    "test_things",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("is_wanted", sa.Boolean, nullable=False),
    sa.Column("external_id", sa.Integer),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", Moment),
    sa.Column("written_by", sa.Text),
    *reconcile_columns(),
)
QUEUE = Queue("things", things, things.c.id)
LOOK_AGAIN = timedelta(seconds=30)
WATCHED = timedelta(seconds=60)
"""A thing is looked at for so long after its creation, because an act that was given up may succeed late."""


async def nothing() -> None:
    return None


@dataclass(frozen=True)
class External:
    """What exists at the provider."""

    id: int
    tag: str
    size: int
    appears_at: datetime


@dataclass
class Provider:
    """The world. ``before`` and ``after`` are awaited around every change; ``create_takes`` delays its effect."""

    clock: Clock
    exists: list[External] = field(default_factory=list)
    create_takes: timedelta = timedelta(0)
    calls: list[str] = field(default_factory=list)
    _last: int = 0

    def found(self, tag: str) -> list[External]:
        now = self.clock.now()
        return [one for one in self.exists if one.tag == tag and one.appears_at <= now]

    def create(self, tag: str, size: int) -> int:
        self._last += 1
        self.calls.append(f"create {tag}")
        self.exists.append(External(self._last, tag, size, self.clock.now() + self.create_takes))
        return self._last

    def delete(self, number: int) -> None:
        self.calls.append(f"delete {number}")
        self.exists = [one for one in self.exists if one.id != number]


@dataclass(frozen=True)
class Thing:
    key: str
    size: int
    is_wanted: bool
    external_id: int | None
    generation: int
    created_at: datetime | None


Seen = tuple[External, ...]


def decide(thing: Thing, seen: Seen, now: datetime) -> Act | Settle:
    """One of the right size is adopted; all others go."""
    fit = [one for one in seen if thing.is_wanted and one.size == thing.size]
    adopted = next((one for one in fit if one.id == thing.external_id), fit[0] if fit else None)
    surplus = [one.id for one in seen if one is not adopted]
    if surplus:
        return Act("delete", "thing.surplus", {"numbers": surplus})
    if not thing.is_wanted:
        return Settle("thing.gone", _watch(thing, now))
    if adopted is None:
        return Act("create", "thing.missing", {"size": thing.size})
    return Settle("thing.ready", _watch(thing, now))


def _watch(thing: Thing, now: datetime) -> datetime | None:
    is_young = thing.created_at is None or now < thing.created_at + WATCHED
    return now + LOOK_AGAIN if is_young else None


class Things:
    """The room. The hooks are awaited inside ``observe`` and ``act``: a test may block, crash or fail there."""

    queue = QUEUE

    def __init__(self, provider: Provider, clock: Clock, name: str = "") -> None:
        self.provider = provider
        self.clock = clock
        self.name = name
        self.on_observe: Callable[[], Awaitable[None]] = nothing
        self.before_act: Callable[[], Awaitable[None]] = nothing
        self.after_act: Callable[[], Awaitable[None]] = nothing
        self.on_apply: Callable[[], Awaitable[None]] = nothing
        self.intents: list[Intent] = []
        self.outcomes: list[Any] = []

    async def load(self, tx: Tx, key: str) -> Thing | None:
        row = (await tx.execute(sa.select(things).where(things.c.id == key))).first()
        if row is None:
            return None
        return Thing(row.id, row.size, row.is_wanted, row.external_id, row.generation, row.created_at)

    async def observe(self, loaded: Thing) -> Seen:
        await self.on_observe()
        return tuple(self.provider.found(loaded.key))

    def decide(self, loaded: Thing, seen: Seen, now: datetime) -> Act | Settle:
        return decide(loaded, seen, now)

    async def act(self, loaded: Thing, intent: Intent) -> int | None:
        self.intents.append(intent)
        await self.before_act()
        made: int | None = None
        if intent.operation == "create":
            made = self.provider.create(loaded.key, intent.arguments["size"])
        else:
            for number in intent.arguments["numbers"]:
                self.provider.delete(number)
        await self.after_act()
        return made

    async def apply(self, tx: Tx, loaded: Thing, outcome: Outcome[Seen, int | None]) -> Next:
        self.outcomes.append(outcome)
        values: dict[str, Any] = {"written_by": self.name}
        if isinstance(outcome, Settled):
            following = Next(outcome.decision.due_at, loaded.generation)
            values |= {"phase": "settled", "reason": outcome.decision.reason}
            values["created_at"] = loaded.created_at or self.clock.now()
            values["external_id"] = outcome.seen[0].id if outcome.seen else None
        elif isinstance(outcome, Acted):
            following = Next(self.clock.now())
            values |= {"phase": "working", "reason": outcome.intent.operation}
            if outcome.result is not None:
                values |= {"external_id": outcome.result, "created_at": self.clock.now()}
        else:
            assert isinstance(outcome, Failed)
            following = Next(outcome.retry_at)
            values |= {"phase": "failing", "reason": outcome.reason}
        await self.on_apply()
        await tx.execute(sa.update(things).where(things.c.id == loaded.key).values(values))
        return following


async def wish(tx: Tx, clock: Clock, key: str, size: int = 1) -> None:
    """Write the wish for a new thing, as a service would."""
    row = {
        "id": key,
        "size": size,
        "is_wanted": True,
        "phase": "wanted",
        "reason": "thing.new",
        "due_at": clock.now(),
    }
    await tx.execute(sa.insert(things), row)
    tx.ring(QUEUE.topic)


async def rewish(tx: Tx, clock: Clock, key: str, **values: Any) -> None:
    """Change a wish: ``size`` or ``is_wanted``."""
    await tx.execute(sa.update(things).where(things.c.id == key).values(values))
    await QUEUE.changed(tx, clock.now(), key)


async def check_world(database: Database, provider: Provider) -> None:
    """Exactly one external thing per wanted row, adopted; nothing forgotten; nothing surplus; no debris."""
    async with database.read() as tx:
        rows = (await tx.execute(sa.select(things))).all()
    for row in rows:
        there = [(one.id, one.size) for one in provider.exists if one.tag == row.id]
        assert there == ([(row.external_id, row.size)] if row.is_wanted else []), row.id
        assert (row.phase, row.observed_generation) == ("settled", row.generation)
        assert (row.lease_token, row.lease_until, row.intent, row.due_at) == (None, None, None, None)
