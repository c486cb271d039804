"""Follows image lists of others: what a list names is in the catalogue and endorsed; what it drops is withdrawn."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hansa.images import errors, hepix, smime, store
from hansa.images.controller import VersionRoom, next_read, turn
from hansa.images.model import Phase
from hansa.images.sources import Sources
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault, Permanent, Temporary
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Queue, Settle, Settled
from hansa.kernel.status import Party

READ = "read"
_UNLISTED = "images.unlisted"
_MOST_LIST_BYTES = 16 * 1024**2
_SIGNED = re.compile(r"^(MIME-Version|Content-Type): ", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Nothing:
    """There is nothing to see of a list before it is read."""


class SubscriptionRoom:
    """The reconcile room of subscriptions: each is read again and again."""

    queue = Queue("vm_image_subscriptions", store.subscriptions, store.subscriptions.c.id)

    def __init__(self, events: EventLog, clock: Clock, sources: Sources) -> None:
        self._events = events
        self._clock = clock
        self._sources = sources

    async def load(self, tx: Tx, key: str) -> Any | None:
        return await store.get_subscription(tx, key)

    async def observe(self, loaded: Any) -> Nothing:  # noqa: ARG002
        return Nothing()

    def decide(self, loaded: Any, seen: Nothing, now: datetime) -> Act | Settle:  # noqa: ARG002
        if loaded.read is not None and loaded.observed_generation == loaded.generation:
            due = next_read(loaded.read, loaded.every_s, loaded.expires)
            if due > now:
                return Settle("images.list_read", due)
        return Act(READ, "images.list_due")

    async def act(self, loaded: Any, intent: Intent) -> hepix.ImageList:  # noqa: ARG002
        text = await self._sources.text(loaded.url, _MOST_LIST_BYTES)
        return await read_list(text, loaded.authorities, loaded.endorser)

    async def apply(self, tx: Tx, loaded: Any, outcome: Outcome[Nothing, hepix.ImageList]) -> Next:
        now = self._clock.now()
        row: Any = await store.get_subscription(tx, loaded.id, lock=True)
        if isinstance(outcome, Failed):
            return await self._failed(tx, row, outcome, now)
        if isinstance(outcome, Acted):
            await self._take(tx, row, outcome.result, now)
            return Next(now, outcome.intent.generation)
        assert isinstance(outcome, Settled)  # noqa: S101
        return Next(outcome.decision.due_at)

    async def _take(self, tx: Tx, row: Any, found: hepix.ImageList, now: datetime) -> None:
        if found.expires <= now:
            await self._lapse(tx, row, found, now)
            return
        known = {(one.name, one.version): one for one in await store.of_subscription(tx, row.id)}
        wanted = _keys(found.images, {key: one.checksum for key, one in known.items()})
        for key, listed in wanted.items():
            if key not in known or _comes_back(known[key]):
                await self._add(tx, row, *key, listed, found.expires, now)
            elif known[key].expires != found.expires:
                await store.update_version(tx, known[key].id, expires=found.expires)
                await VersionRoom.queue.poke(tx, now, known[key].id)
        for key, version in known.items():
            if key not in wanted and not Phase(version.phase).is_final:
                await self._withdraw(tx, version, "The list that endorsed it does not name it any more.", now)
        message = f"{len(wanted)} images, version {found.version}, good until {found.expires:%Y-%m-%d %H:%M} UTC."
        await self._status(tx, row, "active", "images.list_read", message, Party.NOBODY, now)
        await store.update_subscription(
            tx, row.id, identifier=found.identifier, version=found.version, images=len(wanted), expires=found.expires,
            read=now,
        )  # fmt: skip

    async def _lapse(self, tx: Tx, row: Any, found: hepix.ImageList, now: datetime) -> None:
        message = f"The list expired on {found.expires:%Y-%m-%d %H:%M} UTC; its images cannot be started."
        for version in await store.of_subscription(tx, row.id):
            if not Phase(version.phase).is_final:
                await self._withdraw(tx, version, "The list that endorsed it has expired.", now)
        await self._status(tx, row, "expired", "images.list_expired", message, Party.VO_MANAGER, now)
        await store.update_subscription(tx, row.id, expires=found.expires, read=now, images=0)

    async def _add(
        self, tx: Tx, row: Any, name: str, number: str, listed: hepix.ListedImage, expires: datetime, now: datetime
    ) -> None:
        scope = f"vo/{row.vo}"
        image = await store.find_image(tx, scope, name)
        if image is None:
            await store.insert_image(tx, **_image_values(row, scope, name, listed, now))
            image = await store.find_image(tx, scope, name)
        assert image is not None  # noqa: S101
        version = await store.find_version(tx, image.id, number)
        values = _version_values(row, listed, expires, now)
        if version is None:
            await store.insert_version(tx, id=new_id("imgver"), image_id=image.id, version=number, **values)
        elif version.subscription_id == row.id and Phase(version.phase).is_final:
            await store.update_version(
                tx, version.id, **(values | {"sha256": None, "generation": version.generation + 1})
            )
        tx.ring(VersionRoom.queue.topic)
        await store.put_endorsement(tx, row.vo, image.id, version_id=None, by=f"list {row.url}", since=now, until=None)

    async def _withdraw(self, tx: Tx, version: Any, message: str, now: datetime) -> None:
        image = await store.get_image(tx, version.image_id)
        await turn(tx, self._events, version, image, Phase.WITHDRAWN, _UNLISTED, message, Party.VO_MANAGER)
        await store.update_version(tx, version.id, since=now)
        await VersionRoom.queue.poke(tx, now, version.id)

    async def _failed(self, tx: Tx, row: Any, outcome: Failed, now: datetime) -> Next:
        party = Party.SITE if isinstance(outcome.error, Temporary) else Party.VO_MANAGER
        reason = "images.list_away" if party is Party.SITE else "images.list_refused"
        message = f"{outcome.error} What it endorsed before stays until it expires."
        await self._status(tx, row, "failing", reason, message, party, now)
        return Next(outcome.retry_at or next_read(now, row.every_s, None))

    async def _status(
        self, tx: Tx, row: Any, phase: str, reason: str, message: str, party: Party, now: datetime
    ) -> None:
        if (row.phase, row.message) != (phase, message):
            event = Event("hansa", f"image-list/{row.id}", phase, reason, message, row.owner_id, row.vo)
            await self._events.record(tx, event)
        await store.update_subscription(
            tx, row.id, phase=phase, reason=reason, message=message, waiting_on=party.value, since=now
        )


async def read_list(text: str, authorities: str | None, endorser: str | None) -> hepix.ImageList:
    """A list, its signature checked where authorities are given. Raises Permanent."""
    content = text.encode()
    try:
        if authorities is not None:
            signed = await smime.verify(content, authorities)
            if endorser is not None and signed.signer != endorser:
                raise Permanent(f"The list is signed by {signed.signer}, not by {endorser}.")
            content = signed.content
        elif _SIGNED.match(text):
            raise Permanent("The list is signed; give the authorities that its signature is to be checked against.")
        return hepix.parse(json.loads(content))
    except (Fault, hepix.BadListError, ValueError, RecursionError) as error:
        if isinstance(error, Fault) and error.code is errors.NO_TOOL:
            raise Temporary(str(error)) from error
        raise Permanent(f"The list cannot be used: {error}") from error


def _keys(
    images: Sequence[hepix.ListedImage], known: Mapping[tuple[str, str], str | None]
) -> dict[tuple[str, str], hepix.ListedImage]:
    """Names and versions for the catalogue. A version never changes, and names one image: where a list has another
    content under a version that is known, or two images with one title and version, its checksum tells them apart."""
    found: dict[tuple[str, str], hepix.ListedImage] = {}
    for one in images:
        key = _name(one), one.version
        if key in found or known.get(key, one.checksum) not in (one.checksum, None):
            key = key[0], f"{one.version[:40]}-{one.checksum.partition(':')[2][:12]}"
        found[key] = one
    return found


def _comes_back(version: Any) -> bool:
    """Whether a list that names it again brings it back: what the list took away, not what people withdrew."""
    return bool(version.phase == Phase.EXPIRED or (version.phase == Phase.WITHDRAWN and version.reason == _UNLISTED))


def _name(listed: hepix.ListedImage) -> str:
    """A name for the catalogue of a title: ``EGI Debian 12`` becomes ``egi-debian-12``."""
    made = re.sub(r"[^a-z0-9.]+", "-", (listed.title or listed.identifier).lower()).strip("-.")
    return made[:63].strip("-.") or listed.identifier[:63].lower()


def _image_values(row: Any, scope: str, name: str, listed: hepix.ListedImage, now: datetime) -> dict[str, Any]:
    about = {
        "title": listed.title, "description": listed.description, "os": listed.os, "os_name": listed.os_name,
        "os_version": listed.os_version, "arch": listed.arch, "licence": "", "contact": "", "gpu_drivers": [],
        "login": "",
    }  # fmt: skip
    return {
        "id": new_id("image"), "scope": scope, "name": name, "owner_id": row.owner_id, "owner_name": row.by,
        "vo": row.vo, "visibility": "vo", "about": about, "created": now,
    }  # fmt: skip


def _version_values(row: Any, listed: hepix.ListedImage, expires: datetime, now: datetime) -> dict[str, Any]:
    form = listed.format if listed.format in ("qcow2", "raw") else None
    return {
        "source": listed.uri, "sums": None, "checksum": listed.checksum, "declared": form, "done_bytes": 0,
        "size_bytes": listed.size_bytes, "wanted": True, "phase": Phase.KNOWN.value, "reason": "images.known",
        "message": "An image list names it.", "waiting_on": Party.HANSA.value, "since": now, "created": now,
        "expires": expires, "subscription_id": row.id, "due_at": now,
    }  # fmt: skip
