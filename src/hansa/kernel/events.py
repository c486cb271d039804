"""Events: every change of phase, once. Timeline of a thing, live pages and audit log are this one table.

``position`` orders the stream. It is given after commit, so that a reader who has seen position n never misses
a smaller one that commits late. SQLite has one writer, so there the insert itself may give it; on PostgreSQL
:meth:`EventLog.sequence` does, one server at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from hansa.kernel import errors
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Document, Moment, Tx, metadata

log = structlog.get_logger(__name__)
TOPIC = "events"
SHARED = f"{TOPIC}/shared"
"""The bell of what concerns more people than its owner."""
_SHARED_KINDS = ("site", "vo", "grant", "image")
_SEQUENCER_LOCK = 0x48414E5341  # "HANSA": pg_advisory_xact_lock
_LOOK_AGAIN_S = 15.0

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("position", sa.BigInteger, unique=True),
    sa.Column("time", Moment, nullable=False, index=True),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, index=True),
    sa.Column("owner_id", sa.Text, index=True),
    sa.Column("vo", sa.Text),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("data", Document, nullable=False),
    sa.Index("ix_events_unsequenced", "id", postgresql_where=sa.text("position IS NULL")),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True)
class Event:
    """A change: who did it, of what (``"job/12"``), and why (a stable code and a sentence)."""

    actor: str
    subject: str
    phase: str
    reason: str
    message: str
    owner_id: str | None = None
    vo: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredEvent:
    """An event as readers see it. ``position`` is None for a moment after its commit on PostgreSQL."""

    position: int | None
    time: datetime
    actor: str
    subject: str
    phase: str
    reason: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True)
class SharedChange:
    """That something has changed which several people may see: what, of whom, and for which VO."""

    position: int
    subject: str
    owner_id: str | None
    vo: str | None


_LAST = sa.select(sa.func.max(events.c.position))
_INSERT = sa.insert(events)


class EventLog:
    """Writes events in units of work; reads them back in order."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(self, tx: Tx, *new: Event) -> None:
        """Write events; they exist if and only if the unit commits."""
        if not new:
            return
        start: Any = None
        if tx.dialect == "sqlite":
            start = ((await tx.execute(_LAST)).scalar() or 0) + 1
        now = self._clock.now()
        rows = [
            {
                "position": None if start is None else start + offset,
                "time": now,
                "actor": event.actor,
                "subject": event.subject,
                "owner_id": event.owner_id,
                "vo": event.vo,
                "phase": event.phase,
                "reason": event.reason,
                "message": event.message,
                "data": event.data,
            }
            for offset, event in enumerate(new)
        ]
        await tx.execute(_INSERT, rows)
        _ring(tx, new if tx.dialect == "sqlite" else ())

    async def timeline(self, tx: Tx, subject: str, limit: int = 200) -> Sequence[StoredEvent]:
        """The newest events of one thing, oldest first."""
        query = sa.select(events).where(events.c.subject == subject).order_by(events.c.id.desc()).limit(limit)
        return [_stored(row) for row in reversed((await tx.execute(query)).all())]

    async def recent(self, owner_id: str, limit: int = 20) -> Sequence[StoredEvent]:
        """The newest events of one owner, newest first."""
        query = sa.select(events).where(events.c.owner_id == owner_id).order_by(events.c.id.desc()).limit(limit)
        async with self._database.read() as tx:
            return [_stored(row) for row in (await tx.execute(query)).all()]

    async def after(self, position: int, owner_id: str | None, limit: int = 500) -> Sequence[StoredEvent]:
        """Events behind ``position`` in stream order; ``owner_id`` None means everybody's."""
        query = sa.select(events).where(events.c.position > position)
        if owner_id is not None:
            query = query.where(events.c.owner_id == owner_id)
        async with self._database.read() as tx:
            rows = (await tx.execute(query.order_by(events.c.position).limit(limit))).all()
        return [_stored(row) for row in rows]

    async def shared_after(self, position: int, limit: int = 500) -> Sequence[SharedChange]:
        """Changes of sites, VOs, grants of capacity and VM images behind ``position``, whoever owns them."""
        kinds = sa.or_(*(events.c.subject.startswith(f"{kind}/") for kind in _SHARED_KINDS))
        query = sa.select(events.c.position, events.c.subject, events.c.owner_id, events.c.vo)
        query = query.where(events.c.position > position, kinds).order_by(events.c.position).limit(limit)
        async with self._database.read() as tx:
            rows = (await tx.execute(query)).all()
        return [SharedChange(row.position, row.subject, row.owner_id, row.vo) for row in rows]

    async def last_position(self) -> int:
        async with self._database.read() as tx:
            return (await tx.execute(sa.select(sa.func.max(events.c.position)))).scalar() or 0

    async def stream(
        self, position: int, owner_id: str | None, idle_s: float = _LOOK_AGAIN_S
    ) -> AsyncIterator[StoredEvent | None]:
        """Events behind ``position``, each once, in order; None after ``idle_s`` of silence. Ends with the server."""
        with self._database.bells.listen(TOPIC) as bell:
            while not self._database.bells.is_closing:
                batch = await self.after(position, owner_id)
                for event in batch:
                    position = event.position or position
                    yield event
                if not batch and not await bell.wait(idle_s):
                    yield None

    async def sequence(self, limit: int = 1000) -> int:
        """Give positions to committed events that have none (PostgreSQL); the number given."""
        async with self._database.begin() as tx:
            await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_SEQUENCER_LOCK)))
            waiting = sa.select(events.c.id, events.c.owner_id, events.c.subject).where(events.c.position.is_(None))
            found: Sequence[Any] = (await tx.execute(waiting.order_by(events.c.id).limit(limit))).all()
            if not found:
                return 0
            top = (await tx.execute(sa.select(sa.func.max(events.c.position)))).scalar() or 0
            update = (
                sa.update(events).where(events.c.id == sa.bindparam("event")).values(position=sa.bindparam("place"))
            )
            await tx.execute(update, [{"event": row.id, "place": top + n} for n, row in enumerate(found, 1)])
            _ring(tx, found)
        return len(found)

    async def run_sequencer(self) -> None:
        """Sequence for ever; every server of a federation may run it."""
        if self._database.dialect == "sqlite":
            return
        with self._database.bells.listen(TOPIC) as bell:
            while True:
                try:
                    given = await self.sequence()
                except errors.Fault as fault:  # live pages must outlive a restart of PostgreSQL
                    log.warning("events.sequencer_waits", error=str(fault))
                    await asyncio.sleep(fault.retry_after_s or 1)
                    continue
                if not given:
                    await bell.wait(_LOOK_AGAIN_S)

    async def forget(self, older_than: timedelta) -> int:
        """Delete events older than the retention; the number deleted."""
        old = events.c.time < self._clock.now() - older_than
        # The last one stays: it remembers the position, and one that is used twice would be skipped by readers.
        last = sa.select(sa.func.max(events.c.position)).scalar_subquery()
        async with self._database.begin() as tx:
            gone = await tx.execute(sa.delete(events).where(old, events.c.position < last))
        return gone.rowcount


def topic_of(owner_id: str) -> str:
    """The bell of one owner's events: it rings when they can be read, not for everybody's."""
    return f"{TOPIC}/{owner_id}"


def _ring(tx: Tx, readable: Collection[Any]) -> None:
    """For events, or rows of them, that can be read now."""
    tx.ring(TOPIC)
    for owner_id in {one.owner_id for one in readable if one.owner_id is not None}:
        tx.ring(topic_of(owner_id))
    if any(one.subject.partition("/")[0] in _SHARED_KINDS for one in readable):
        tx.ring(SHARED)


def _stored(row: Any) -> StoredEvent:
    return StoredEvent(row.position, row.time, row.actor, row.subject, row.phase, row.reason, row.message, row.data)
