"""Makes the depot follow the catalogue: versions are pinned, fetched, checked, and dropped."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from hansa.images import store
from hansa.images.depot import Content, Depot, WrongChecksumError
from hansa.images.formats import Format
from hansa.images.model import DROP, PIN, Phase, Seen, Turn, decide
from hansa.images.sources import Pinned, Sources
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Permanent
from hansa.kernel.events import Event, EventLog
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Queue, Settle, Settled, Tuning
from hansa.kernel.status import Party

TUNING = Tuning(concurrency=4, act_s=6 * 3600.0)
"""A download may take hours; its lease is renewed meanwhile."""

Result = Pinned | Content | None


@dataclass(frozen=True)
class Loaded:
    """A version, its image, and whether another version has the same content."""

    version: Any
    image: Any
    is_shared: bool


class VersionRoom:
    """The reconcile room of versions."""

    queue = Queue("vm_image_versions", store.versions, store.versions.c.id)

    def __init__(self, database: Database, events: EventLog, clock: Clock, depot: Depot, sources: Sources) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._depot = depot
        self._sources = sources

    async def load(self, tx: Tx, key: str) -> Loaded | None:
        version = await store.get_version(tx, key)
        if version is None:
            return None
        shared = version.sha256 is not None and await store.uses_of(tx, version.sha256) > 0
        return Loaded(version, await store.get_image(tx, version.image_id), shared)

    async def observe(self, loaded: Loaded) -> Seen:
        version = loaded.version
        is_here = version.sha256 is not None and await asyncio.to_thread(self._depot.has, version.sha256)
        if Phase(version.phase).is_final and loaded.is_shared:
            is_here = False  # not ours to drop
        return Seen(is_here, await asyncio.to_thread(self._depot.partial_bytes, version.id))

    def decide(self, loaded: Loaded, seen: Seen, now: datetime) -> Act | Settle:
        return decide(loaded.version, seen, now)

    async def act(self, loaded: Loaded, intent: Intent) -> Result:
        version = loaded.version
        if intent.operation == PIN:
            return await self._sources.pin(version.source, version.sums)
        if intent.operation == DROP:
            self._depot.drop(None if loaded.is_shared else version.sha256, version.id)
            return None
        try:
            return await self._fetch(version)
        except WrongChecksumError:
            pinned = await self._pinned_anew(version)
            if pinned is None:
                raise
            return pinned

    async def _pinned_anew(self, version: Any) -> Pinned | None:
        """Where a file of checksums says something else by now: ``latest`` was replaced while it was fetched.

        None where it says the same, and where the content was here before: a version never changes.
        """
        if version.sums is None or version.sha256 is not None:
            return None
        pinned = await self._sources.pin(version.source, version.sums)
        return pinned if pinned.checksum != version.checksum else None

    async def _fetch(self, version: Any) -> Content:
        await self._note(version.id, Phase.FETCHING, "images.fetching", "It is being fetched.")
        await asyncio.to_thread(self._depot.check_room, version.size_bytes)

        async def progress(done: int, total: int | None) -> None:
            async with self._database.begin() as tx:
                known = {"size_bytes": total} if total is not None else {}
                await store.update_version(tx, version.id, done_bytes=done, **known)

        partial = self._depot.partial(version.id)
        await self._sources.fetch(version.source, version.checksum, partial, progress)
        return await self._depot.publish(
            partial, version.checksum, Format(version.declared) if version.declared else None
        )

    async def _note(self, version_id: str, phase: Phase, reason: str, message: str) -> None:
        async with self._database.begin() as tx:
            row: Any = await store.get_version(tx, version_id, lock=True)
            if row.phase != phase and not Phase(row.phase).is_final:
                await self._turn(tx, row, phase, reason, message, Party.HANSA)

    async def apply(self, tx: Tx, loaded: Loaded, outcome: Outcome[Seen, Result]) -> Next:
        version: Any = await store.get_version(tx, loaded.version.id, lock=True)
        now = self._clock.now()
        if isinstance(outcome, Failed):
            return await self._failed(tx, version, outcome)
        if isinstance(outcome, Acted):
            await self._acted(tx, version, outcome)
            return Next(now, outcome.intent.generation)
        assert isinstance(outcome, Settled)  # noqa: S101 - the only one left, for the type checker
        verdict = outcome.decision
        if isinstance(verdict, Turn) and verdict.phase is not None:
            await self._turn(tx, version, verdict.phase, verdict.reason, verdict.message, Party.VO_MANAGER)
            return Next(now)
        return Next(verdict.due_at)

    async def _acted(self, tx: Tx, version: Any, outcome: Acted[Seen, Result]) -> None:
        result = outcome.result
        if isinstance(result, Pinned):
            await store.update_version(tx, version.id, checksum=result.checksum, size_bytes=result.size_bytes)
        elif isinstance(result, Content):
            found = vars(result) | {"format": result.format.value}
            await store.update_version(tx, version.id, done_bytes=result.size_bytes, **found)
            if not Phase(version.phase).is_final:  # withdrawn meanwhile: the next look drops it
                message = f"{result.size_bytes:,} bytes, {result.format}, checked."
                await self._turn(tx, version, Phase.READY, "images.ready", message, Party.NOBODY)

    async def _failed(self, tx: Tx, version: Any, outcome: Failed) -> Next:
        if Phase(version.phase).is_final:
            return Next(outcome.retry_at)
        if isinstance(outcome.error, Permanent):
            await self._turn(tx, version, Phase.REFUSED, "images.refused", str(outcome.error), Party.VO_MANAGER)
            return Next(self._clock.now())
        message = f"{outcome.error} (attempt {outcome.attempt})"
        values = {"reason": "images.source_away", "message": message, "waiting_on": Party.SITE.value}
        await store.update_version(tx, version.id, since=self._clock.now(), **values)
        return Next(outcome.retry_at)

    async def _turn(self, tx: Tx, version: Any, phase: Phase, reason: str, message: str, party: Party) -> None:
        await turn(
            tx, self._events, version, await store.get_image(tx, version.image_id), phase, reason, message, party
        )
        await store.update_version(tx, version.id, since=self._clock.now())


async def turn(
    tx: Tx,
    events: EventLog,
    version: Any,
    image: Any,
    phase: Phase,
    reason: str,
    message: str,
    party: Party,
    actor: str = "hansa",
) -> None:
    """Give a version another phase, and tell."""
    status = {"phase": phase.value, "reason": reason, "message": message, "waiting_on": party.value}
    await store.update_version(tx, version.id, **status)
    subject = f"image/{image.scope}/{image.name}"
    said = f"Version {version.version}: {message}"
    tx.ring(store.TOPIC)
    await events.record(tx, Event(actor, subject, phase.value, reason, said, image.owner_id, image.vo))


async def expire_endorsements(tx: Tx, now: datetime) -> int:
    """Remove endorsements whose time is over; the number removed."""
    table = store.endorsements
    return (await tx.execute(sa.delete(table).where(table.c.until <= now))).rowcount


def next_read(now: datetime, every_s: int, expires: datetime | None) -> datetime:
    """When a list is read again: regularly, and in any case before it expires."""
    usual = now + timedelta(seconds=every_s)
    if expires is None or expires <= now:
        return usual
    return min(usual, max(now + timedelta(minutes=5), expires - timedelta(hours=1)))
