"""Brings the VM images that VOs endorse to the sites that support them, and takes them away again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from hansa.images import store as image_store
from hansa.images.depot import Depot
from hansa.images.formats import Format
from hansa.images.service import ImageService
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import DriverError, Permanent, Temporary
from hansa.kernel.events import Event, EventLog
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Queue, Settle, Settled, Tuning
from hansa.kernel.status import Party
from hansa.machines import sync_places
from hansa.machines import sync_store as store
from hansa.machines.drivers.base import Image, Images, Keeps, Machines, Progress, Why, able, base_of
from hansa.machines.places import Drivers, Holder
from hansa.machines.sync_model import (
    REMOVE,
    Changes,
    Key,
    Phase,
    compare,
    decide,
    described,
    disk_gib,
    format_for,
    wanted,
)
from hansa.sites.service import LOCAL

log = structlog.get_logger(__name__)
TUNING = Tuning(concurrency=4, act_s=6 * 3600.0)
"""An upload may take hours; its lease is renewed meanwhile."""
EVERY_S = 15.0
_STAYS = timedelta(minutes=1)
_RETRY, _SELDOM = timedelta(hours=1), timedelta(days=1)
_TIDY = timedelta(hours=1)
_LOOK_FOR_CREDENTIAL = timedelta(minutes=10)
_LEAVES = "No machine is started of it there any more; it goes when none needs it."
_COMES_BACK = "It is wanted again, and will be made sure of."


@dataclass(frozen=True)
class Loaded:
    """An image at a site, its version (None: forgotten), and whether another VO needs the same content there."""

    row: Any
    version: Any | None
    image: Any | None
    is_shared: bool
    refused: tuple[str, str] | None = None
    """What its site's policy says against it: a code, and a sentence."""


@dataclass(frozen=True)
class Nothing:
    """The site is not looked at before: sending finds again what is there."""


Result = str | Progress | None


class SyncRoom:
    """The reconcile room of images at sites. Only VOs' and sites' own credentials are used."""

    queue = Queue("vm_image_places", store.places, store.places.c.id)

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, depot: Depot, images: ImageService, drivers: Drivers
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._depot = depot
        self._images = images
        self._drivers = drivers
        self._tidied = clock.now()

    async def run(self) -> None:
        """Write down what belongs where, as soon as that changes and again and again."""
        with self._database.bells.listen(image_store.TOPIC) as bell:
            while True:
                await self.plan()
                await self.tidy()
                await bell.wait(EVERY_S)

    async def tidy(self) -> None:
        """Remove from this computer what nothing may be started of any more, and no machine uses; now and then."""
        now = self._clock.now()
        if now - self._tidied < _TIDY:
            return
        self._tidied = now
        async with self._database.read() as tx:
            sums = await store.checksums(tx)
        kept = {base_of(Image(one)) for one in sums}
        for name, driver in self._drivers.local.items():
            try:
                gone = [one for one in await driver.bases() if one not in kept] if isinstance(driver, Keeps) else []
                for one in gone:
                    await driver.remove_base(one)  # type: ignore[attr-defined]
            except DriverError as error:  # the next time
                log.warning("images.not_tidied", driver=name, error=str(error))

    async def plan(self) -> None:
        """Rows for what belongs somewhere and is not known yet; what no longer belongs there is to go."""
        now = self._clock.now()
        async with self._database.read() as tx:
            changes, _, _ = await self._look(tx, now)
        if changes == Changes():
            return
        async with self._database.begin() as tx:  # looked at again: another server may have been quicker
            changes, names, refused = await self._look(tx, now)
            for key in changes.missing:
                if key in names:
                    await store.insert(tx, key, names[key], refused.get(key), now)
            for row in changes.extra:
                await store.update(tx, row.id, wanted=False)
                await self._tell(tx, row, Phase.LEAVING, "images.leaving", _LEAVES, Party.HANSA, now)
            for row in changes.back:
                await store.update(tx, row.id, wanted=True)
                await self._tell(tx, row, Phase.WAITING, "images.waiting", _COMES_BACK, Party.HANSA, now)
            for row in changes.judged:
                why = refused.get((row.version_id, row.place, row.vo))
                reason, said = why or ("images.waiting", _COMES_BACK)
                phase, party = (Phase.LEAVING, Party.SITE) if why else (Phase.WAITING, Party.HANSA)
                await self._tell(tx, row, phase, reason, said, party, now)
            touched = [row.id for row in (*changes.extra, *changes.back, *changes.judged)]
            await self.queue.changed(tx, now, *touched)

    async def _look(self, tx: Tx, now: datetime) -> tuple[Changes, dict[Key, Any], dict[Key, tuple[str, str]]]:
        """What has to change; the versions, with their names; and what sites say against them."""
        endorsed = await store.endorsements(tx)
        versions: dict[str, list[Any]] = {}
        for row in await image_store.versions_of(tx, sorted({one.image_id for one in endorsed})):
            versions.setdefault(row.image_id, []).append(row)
        want = wanted(endorsed, versions, await sync_places.places(tx, self._drivers.local), now)
        known = {(row.version_id, row.place, row.vo): row for row in await store.all_rows(tx)}
        named = await store.named_versions(tx, {key[0] for key in want})
        refused = await sync_places.refusals(tx, want, named)
        names = {key: named[key[0]] for key in want if key[0] in named}
        return compare(want, refused, known), names, refused

    async def load(self, tx: Tx, key: str) -> Loaded | None:
        row = await store.get(tx, key)
        if row is None:
            return None
        version = await image_store.get_version(tx, row.version_id)
        image = await image_store.get_image(tx, version.image_id) if version is not None else None
        what = (row.version_id, row.place, row.vo)
        named = await store.named_versions(tx, [row.version_id])
        refused = (await sync_places.refusals(tx, [what], named)).get(what)
        is_shared = row.checksum is not None and await store.others(tx, row) > 0
        return Loaded(row, version, image, is_shared, refused)

    async def observe(self, loaded: Loaded) -> Nothing:  # noqa: ARG002
        return Nothing()

    def decide(self, loaded: Loaded, seen: Nothing, now: datetime) -> Act | Settle:  # noqa: ARG002
        return decide(loaded.row, now, is_refused=loaded.refused is not None)

    async def act(self, loaded: Loaded, intent: Intent) -> Result:
        row = loaded.row
        if intent.operation == REMOVE:
            return await self._remove(loaded)
        version = loaded.version
        if version is None or loaded.image is None:
            raise Permanent("The catalogue does not have it any more.")
        if version.phase != "ready" or not self._depot.has(version.sha256):
            async with self._database.begin() as tx:
                await self._images.ask_for(tx, version.id)
            raise Temporary("Its content is being fetched to this server first.", 10)
        driver = await self._drivers.at(row.place, Holder("hansa", row.vo))
        image = await self._content(row.place, version, loaded.image)
        return await able(driver, Images).ensure_image(image, f"{row.name}-{row.version}")

    async def _content(self, place: str, version: Any, image: Any) -> Image:
        """The content in a format that the place takes."""
        has = Format(version.format)
        async with self._database.read() as tx:
            form = format_for(has, await sync_places.formats(tx, place))
        path = await self._depot.as_format(version.sha256, has, form)
        about = image.about
        said = described(image.name, version.version, about)
        return Image(
            f"sha256:{version.sha256}", path, None, form, about["arch"], about["login"] or "root", said,
            disk_gib(version.virtual_bytes),
        )  # fmt: skip

    async def _is_known(self, place: str) -> bool:
        """Whether the place is still registered; with a site go all its images."""
        if place.partition("/")[0] == LOCAL:
            return True
        async with self._database.read() as tx:
            return any(f"{row.site}/{row.name}" == place for row in await store.endpoints(tx))

    async def _remove(self, loaded: Loaded) -> Progress:
        row, sha256 = loaded.row, loaded.version.sha256 if loaded.version is not None else None
        checksum = f"sha256:{sha256}" if sha256 else row.checksum
        was_never_sent = row.wanted and row.provider_id is None and row.observed_generation == 0
        if loaded.is_shared or checksum is None or was_never_sent or not await self._is_known(row.place):
            return Progress.DONE
        # Also where nothing was noted down: whoever sent it may have died before he could.
        driver: Machines = await self._drivers.at(row.place, Holder("hansa", row.vo))
        return await able(driver, Images).delete_image(checksum)

    async def apply(self, tx: Tx, loaded: Loaded, outcome: Outcome[Nothing, Result]) -> Next:
        row: Any = await store.get(tx, loaded.row.id, lock=True)
        now = self._clock.now()
        if isinstance(outcome, Failed):
            return await self._failed(tx, row, outcome, now)
        if isinstance(outcome, Settled):
            return Next(outcome.decision.due_at)
        assert isinstance(outcome, Acted)  # noqa: S101 - the only one left, for the type checker
        if outcome.intent.operation == REMOVE:
            if outcome.result is Progress.DONE and row.wanted and loaded.refused is not None:
                await self._tell(tx, row, Phase.REFUSED, *loaded.refused, Party.SITE, now)
                await store.update(tx, row.id, provider_id=None)
                return Next(None, outcome.intent.generation)
            if outcome.result is Progress.DONE:
                await self._tell(tx, row, Phase.LEAVING, "images.gone", "It is gone from there.", Party.NOBODY, now)
                await store.delete(tx, row.id)
                return Next(None, outcome.intent.generation)
            await self._tell(tx, row, Phase.LEAVING, "images.in_use", "Machines there still use it.", Party.USER, now)
            return Next(now + _STAYS, outcome.intent.generation)
        if outcome.result is None:
            await self._tell(tx, row, Phase.SENDING, "images.sending", "The site takes it in.", Party.SITE, now)
            return Next(now + timedelta(seconds=10))
        sha256 = loaded.version.sha256 if loaded.version is not None else None
        checksum = f"sha256:{sha256}" if sha256 else row.checksum
        await store.update(tx, row.id, provider_id=str(outcome.result), checked=now, checksum=checksum)
        await self._tell(tx, row, Phase.THERE, "images.there", "Machines can be started of it.", Party.NOBODY, now)
        return Next(now + timedelta(hours=6), outcome.intent.generation)

    async def _failed(self, tx: Tx, row: Any, outcome: Failed, now: datetime) -> Next:
        """What passes is tried soon. A site that says no is asked again, ever more seldom; what it said is shown."""
        if isinstance(outcome.error, Temporary):
            again = f" (attempt {outcome.attempt})" if outcome.attempt > 1 else ""
            message = f"{outcome.error}{again}"
            await self._tell(tx, row, Phase(row.phase), "images.waiting", message, Party.HANSA, now)
            return Next(outcome.retry_at or now + _RETRY)
        if getattr(outcome.error, "why", None) is Why.SIGN_IN:
            site = row.place.partition("/")[0]
            said = f"{outcome.error} Images are sent with a credential of {row.vo} or of the site only:"
            message = f"{said} hansa vo credential set {row.vo} {site}"
            await self._tell(tx, row, Phase.FAILED, "images.no_credential", message, Party.VO_MANAGER, now)
            return Next(now + _LOOK_FOR_CREDENTIAL)
        await self._tell(tx, row, Phase.FAILED, "images.refused_there", str(outcome.error), Party.SITE, now)
        return Next(now + min(_SELDOM, max(_RETRY, now - row.since)))

    async def _tell(
        self, tx: Tx, row: Any, phase: Phase, reason: str, message: str, party: Party, now: datetime
    ) -> None:
        if (row.phase, row.reason) != (phase, reason):
            subject, said = f"image/{row.name}@{row.version}", f"{row.place}, for {row.vo}: {message}"
            await self._events.record(tx, Event("hansa", subject, phase.value, reason, said, "hansa", row.vo))
        status: Mapping[str, Any] = {"phase": phase.value, "reason": reason, "message": message}
        since = row.since if row.phase == phase else now
        await store.update(tx, row.id, waiting_on=party.value, since=since, **status)
