"""Makes machines follow their rows: observe, decide, act, apply. The thinking is in ``model.decide``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hansa.identity.authority import RENEW, AuthorityService
from hansa.images import endorsing
from hansa.images import store as image_store
from hansa.images.depot import Depot
from hansa.images.formats import Format
from hansa.images.model import Phase as ImagePhase
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault, Permanent
from hansa.kernel.events import Event, EventLog
from hansa.kernel.reconcile import Act, Acted, Failed, Intent, Next, Outcome, Settle, Settled, Tuning
from hansa.kernel.status import Party, Status
from hansa.machines import accounts, model, store, sync_places, volume_store
from hansa.machines.drivers.base import (
    Addresses,
    Can,
    Capabilities,
    Image,
    Images,
    Machines,
    MachineSpec,
    Observed,
    Opening,
    Ports,
    Power,
    Progress,
    Refused,
    Resizes,
    Volumes,
    Why,
    able,
)
from hansa.machines.drivers.userdata import with_mounts
from hansa.machines.model import QUIET_S, SLOW_POLL_S, TRANSITIONS, Phase, Seen, Turn, Wanted, decide, site_of
from hansa.machines.places import Drivers, Holder
from hansa.machines.sync_model import described, disk_gib, format_for
from hansa.machines.views import decided_of, opening_of, seen_of, size_of
from hansa.placement import failover
from hansa.placement.failover import Course, Try
from hansa.sites import store as site_store
from hansa.sites import views as site_views
from hansa.sites.errors import USED_UP
from hansa.sites.model import Work as SiteWork
from hansa.sites.model import site_refusals

TUNING = Tuning(concurrency=64, act_s=1800.0)
"""A creation may have to bring its image to the provider first; the lease is renewed meanwhile."""
DEFAULT_LIFE = timedelta(days=7)
_ASK_AGAIN = timedelta(seconds=30)
IMAGE_TRIES = 5
_IMAGE_PATIENCE = timedelta(seconds=60)
"""An image whose source fails is waited for so long at least, and until it was tried so often."""
_OTHER_IMAGE = "Start the machine of another one: hansa image list."

Result = Observed | Progress | None


@dataclass(frozen=True)
class Loaded:
    """A machine's row, what decides about it, and its image; ``image_wait``: why that cannot be used yet, and
    ``image_over`` why it is not waited for any longer.

    ``volumes``: ids of the volumes that it is made with, each with the path that it shall have in the guest.
    """

    row: Any
    machine: model.Machine
    image: Image
    image_wait: str | None
    volumes: tuple[tuple[str, str | None], ...] = ()
    image_over: str | None = None
    refused: str | None = None
    """What the site says now against new work of its owner, where it is not made yet."""
    sent_as: Format | None = None
    """The format in which its site takes the content that is here."""

    @property
    def holder(self) -> Holder:
        return Holder(self.row.owner_id, self.row.vo)


class MachineRoom:
    """The reconcile room of machines."""

    queue = store.QUEUE

    def __init__(
        self, drivers: Drivers, events: EventLog, clock: Clock, depot: Depot, authority: AuthorityService
    ) -> None:
        self._drivers = drivers
        self._events = events
        self._clock = clock
        self._depot = depot
        self._authority = authority

    async def load(self, tx: Tx, key: str) -> Loaded | None:
        row = await store.get(tx, key)
        if row is None:
            return None
        machine = decided_of(row)
        image, wait, is_over = await self._image(tx, row, machine.course)
        volumes = await volume_store.of_machine(tx, key) if row.spec.get("volumes") else ()
        paths = tuple((one.id, one.path) for one in volumes)
        site = await site_store.get(tx, site_of(machine.place)) if machine.place is not None else None
        is_new = row.phase in (Phase.WAITING, Phase.CREATING) and row.place and site is not None
        refused = await _refused(tx, row, site) if is_new else None
        machine = replace(machine, site_ends=site_end(site, machine.course))
        place = machine.course.current.place if machine.course.current else row.place
        sent_as = (
            format_for(Format(image.format), await sync_places.formats(tx, place)) if place and image.path else None
        )
        return Loaded(row, machine, image, wait, paths, wait if is_over else None, refused, sent_as)

    async def observe(self, loaded: Loaded) -> Seen:
        """What is at its place. What shall be deleted is not looked at: to delete twice is easier than to look."""
        machine = loaded.machine
        if machine.place is None or machine.wanted is Wanted.DELETED:
            return Seen()
        driver = await self._drivers.at(machine.place, loaded.holder)
        return Seen(await driver.observe(machine.id), loaded.image_wait, loaded.image_over)

    def decide(self, loaded: Loaded, seen: Seen, now: datetime) -> Act | Settle:
        return decide(loaded.machine, seen, now)

    async def act(self, loaded: Loaded, intent: Intent) -> Result:
        key, arguments = loaded.machine.id, intent.arguments
        driver = await self._drivers.at(arguments["place"], loaded.holder)
        match intent.operation:
            case model.CREATE:
                return await self._create(loaded, driver, arguments["place"])
            case model.DELETE:
                return await driver.delete(key)
            case model.TRIM:
                return await driver.trim(key)
            case model.STOP:
                return await able(driver, Power).stop(key)
            case model.START:
                return await able(driver, Power).start(key)
            case model.REBOOT:
                await able(driver, Power).reboot(key, hard=loaded.row.hard)
            case model.RESIZE:
                return await able(driver, Resizes).resize(key, size_of(loaded.row.resize_to))
            case model.ADDRESS:
                await able(driver, Addresses).ensure_address(key)
            case model.PORTS:
                await self._open(driver, key, loaded.row.spec.get("ports", ()))
            case other:
                raise RuntimeError(f"nobody knows how to {other} a machine")
        return None

    async def _create(self, loaded: Loaded, driver: Machines, place: str) -> Result:
        row, image = loaded.row, loaded.image
        if loaded.refused is not None:  # it was banned, or the site drained, since its places were chosen
            raise Refused(Why.REFUSED, loaded.refused)
        if row.spec.get("ports") and not _opens(driver.capabilities()):
            raise Refused(Why.UNABLE, "It can open no ports of its machines besides SSH.")
        if image.provider_id is None and Can.IMAGES in driver.capabilities().can:
            image = await self._as_taken(image, loaded.sent_as)
            found = await able(driver, Images).ensure_image(image, f"{row.image['name']}-{row.image['version']}")
            if found is None:
                return Progress.PENDING
            image = replace(image, provider_id=found)
        spec = row.spec
        wanted = MachineSpec(
            row.name,
            image,
            size_of(row.sizes[place]),
            _user_data(spec.get("user_data", "").encode(), driver, loaded.volumes),
            tuple(spec.get("ssh_keys", ())),
            spec.get("network"),
            {"hansa": "machine", "user": row.owner_name, "vo": row.vo or "", "name": row.name},
            row.expires,
        )
        return await driver.ensure(wanted, row.id)

    async def _as_taken(self, image: Image, form: Format | None) -> Image:
        """The content in the format that the site takes. Raises Permanent where it cannot be converted."""
        if form is None or form == image.format:
            return image
        path = await self._depot.as_format(image.checksum.partition(":")[2], Format(image.format), form)
        return replace(image, path=path, format=form)

    async def _open(self, driver: Machines, key: str, words: Any) -> None:
        """SSH and what was asked for; where nothing is closed, or only SSH was asked for, there is nothing to open."""
        if Can.PORTS in driver.capabilities().can:
            await able(driver, Ports).open_ports(key, [Opening(22, 22), *map(opening_of, words)])

    async def _image(self, tx: Tx, row: Any, course: Course) -> tuple[Image, str | None, bool]:
        """The image as drivers take it, why it cannot be used yet, and whether it is of no use to wait for it."""
        about = row.image
        plain = Image(about["checksum"], None, about.get("provider_id"), about["format"], about["arch"], about["login"])
        if row.phase not in (Phase.WAITING, Phase.CREATING):
            return plain, None, False
        is_own = row.image_version_id is None
        if is_own:
            plain = replace(plain, is_public=not await self._is_at_home(tx, row, course))
        version = None if is_own else await image_store.get_version(tx, row.image_version_id)
        if row.vo is not None and (is_own or version is not None):
            refused = await endorsing.why_not(tx, row.vo, about["name"], version, self._clock.now())
            if refused is not None:
                return plain, f"{refused} {_OTHER_IMAGE}", True
        if is_own:
            return plain, None, False
        if version is None:
            said = f"Its VM image {about['name']} is not in the catalogue any more. {_OTHER_IMAGE}"
            return plain, said, True
        if version.place is not None:
            return replace(plain, provider_id=version.provider_id), None, False
        if version.phase != ImagePhase.READY or not self._depot.has(version.sha256):
            since = course.current.since if course.current else row.created
            return plain, *image_wait(about["name"], version, since, self._clock.now())
        image: Any = await image_store.get_image(tx, version.image_id)
        return replace(
            plain, checksum=f"sha256:{version.sha256}", path=self._depot.path(version.sha256), format=version.format,
            about=described(image.name, version.version, image.about), min_disk_gib=disk_gib(version.virtual_bytes),
        ), None, False  # fmt: skip

    async def _is_at_home(self, tx: Tx, row: Any, course: Course) -> bool:
        """Whether it is for its owner only, at a site of his own: there all images of the project are his."""
        place = course.current.place if course.current else row.place
        site = await site_store.get(tx, site_of(place)) if place and row.vo is None else None
        return site is not None and site.owner_id == row.owner_id

    async def apply(self, tx: Tx, loaded: Loaded, outcome: Outcome[Seen, Result]) -> Next:
        row = await store.get(tx, loaded.row.id, lock=True)
        now = self._clock.now()
        if row is None:
            return Next(None)
        if isinstance(outcome, Failed):
            return await self._failed(tx, row, outcome, now)
        if row.site_ends != loaded.machine.site_ends:
            await store.update(tx, row.id, site_ends=loaded.machine.site_ends)
        await accounts.charge_now(tx, self._events, row, now, is_over=False)
        if isinstance(outcome, Acted):
            return await self._acted(tx, row, outcome, loaded.machine.site_ends, now)
        assert isinstance(outcome, Settled)  # noqa: S101 - the only one left, for the type checker
        if row.generation != loaded.row.generation:
            return Next(now)  # the wish has changed meanwhile: decide anew
        return await self._settled(tx, row, outcome.decision, outcome.seen, now)

    async def _settled(self, tx: Tx, row: Any, verdict: Settle, seen: Seen, now: datetime) -> Next:
        if not isinstance(verdict, Turn):
            return Next(verdict.due_at, row.generation)
        if verdict.starts_at is not None:
            return await self._start_at(tx, row, verdict, now)
        values = dict(verdict.changes)
        if seen.machine is not None:
            values["seen"] = seen_of(seen.machine)
        await self._turn(tx, row, verdict, values, now)
        return Next(verdict.due_at, row.generation)

    async def _start_at(self, tx: Tx, row: Any, verdict: Turn, now: datetime) -> Next:
        """An attempt at a place begins: under a grant of authority, and with the capacity that the site demands."""
        place = verdict.starts_at or ""
        until = row.expires or now + DEFAULT_LIFE
        found = await self._authority.look(tx, row.owner_id, until, vo=row.vo, site=site_of(place))
        if isinstance(found, Status):
            waiting = Turn("identity.grant_expired", now, Phase.WAITING, f"{found.message} {RENEW}", Party.USER)
            await self._turn(tx, row, waiting, {}, now)
            return Next(now + _ASK_AGAIN)
        course = verdict.changes["course"]
        try:
            await accounts.reserve(tx, row, place, now)
        except Fault as fault:
            course = failover.is_cleaned(failover.has_failed(course, place, fault.detail), place)
            said = f"At {site_of(place)}: {fault.detail}"
            if fault.code is USED_UP and failover.is_over(course):  # there is no other place: it waits for this one
                said = f"{said} {fault.hint or ''}".strip()
                await self._turn(tx, row, Turn(fault.code.code, now, Phase.WAITING, said, Party.VO_MANAGER), {}, now)
                return Next(now + _ASK_AGAIN)
            refused = Turn(fault.code.code, now, None, said, Party.VO_MANAGER)
            await self._turn(tx, row, refused, {"course": course}, now)
            return Next(now)
        await self._turn(tx, row, verdict, {"place": place, "ports_open": False, "seen": {}, "course": course}, now)
        return Next(now)

    async def _acted(
        self, tx: Tx, row: Any, outcome: Acted[Seen, Result], site_ends: datetime | None, now: datetime
    ) -> Next:
        operation, result = outcome.intent.operation, outcome.result
        soon = now + timedelta(seconds=min(SLOW_POLL_S, max(0.25, (now - row.since).total_seconds() / 10)))
        if operation == model.DELETE:
            if result is Progress.PENDING:
                return Next(soon)
            await self._deleted(tx, row, outcome.intent, now)
        elif operation == model.RESIZE and result is Progress.DONE:
            sizes = row.sizes | {row.place: row.resize_to}
            await store.update(tx, row.id, resize_to=None, sizes=sizes)
        elif operation == model.REBOOT:
            await store.update(tx, row.id, reboots=max(0, row.reboots - 1))
            await self._say(tx, row, "machines.rebooted", "It was rebooted.")
        elif operation == model.PORTS:
            return await self._opened(tx, row, outcome.seen, site_ends, now)
        elif isinstance(result, Observed):
            return await self._created(tx, row, result, site_ends, now)
        return Next(soon if result is Progress.PENDING else now)

    async def _opened(self, tx: Tx, row: Any, seen: Seen, site_ends: datetime | None, now: datetime) -> Next:
        """Its ports are open. What was seen a moment before that says what comes next, if nothing is to be done."""
        verdict = decide(replace(decided_of(row), wants_ports=False, site_ends=site_ends), seen, now)
        if isinstance(verdict, Turn) and verdict.starts_at is None:
            opened = replace(verdict, changes={**verdict.changes, "ports_open": True})
            return await self._settled(tx, row, opened, seen, now)
        await store.update(tx, row.id, ports_open=True)
        return Next(now)

    async def _created(self, tx: Tx, row: Any, found: Observed, site_ends: datetime | None, now: datetime) -> Next:
        """What a creation answers is an observation as good as any other: most machines need no further step."""
        seen = Seen(found)
        verdict = decide(replace(decided_of(row), site_ends=site_ends), seen, now)
        if isinstance(verdict, Turn) and verdict.starts_at is None:
            return await self._settled(tx, row, verdict, seen, now)
        await store.update(tx, row.id, seen=seen_of(found))
        return Next(now)

    async def _deleted(self, tx: Tx, row: Any, intent: Intent, now: datetime) -> None:
        course, place = store.load_course(row.course), intent.arguments["place"]
        if "why" in intent.arguments:  # to be made anew at the same place
            said = f"It had failed ({intent.arguments['why']}): it is created anew."
            changes = {"course": model.restarted(course, now), "running_since": None, "ports_open": False}
            await self._turn(tx, row, Turn("machines.restarting", now, Phase.CREATING, said, Party.SITE), changes, now)
            return
        await store.update(tx, row.id, course=store.dump_course(failover.is_cleaned(course, place)))

    async def _failed(self, tx: Tx, row: Any, outcome: Failed, now: datetime) -> Next:
        course = store.load_course(row.course)
        intent, said = outcome.intent, str(outcome.error)
        is_final = isinstance(outcome.error, Permanent)
        current = course.current
        if intent is not None and intent.operation == model.DELETE and "why" not in intent.arguments:
            return await self._could_not_delete(tx, row, course, outcome, now)
        if current is not None and current.state is Try.STARTING:
            is_late = (now - current.since).total_seconds() >= course.timeout_s
            if is_final or is_late:
                return await self._attempt_failed(tx, row, course, outcome, now)
            message = f"{site_of(current.place)}: {said} (attempt {outcome.attempt})"
            await self._turn(tx, row, Turn("machines.site_away", now, None, message, Party.SITE), {}, now)
            return Next(outcome.retry_at)
        if is_final and intent is not None:
            return await self._refused(tx, row, intent, said, now)
        message = f"{site_of(row.place or '')} does not answer, or not well: {said}"
        await self._turn(tx, row, Turn("machines.site_away", now, None, message, Party.SITE), {}, now)
        return Next(outcome.retry_at or now + timedelta(seconds=QUIET_S))

    async def _attempt_failed(self, tx: Tx, row: Any, course: Course, outcome: Failed, now: datetime) -> Next:
        """On to the next place; what may be left here is removed."""
        current = course.current
        assert current is not None  # noqa: S101 - asked by the caller
        why = getattr(outcome.error, "why", None)
        said = f"At {site_of(current.place)}: {outcome.error}"
        turn = Turn(why.value if why else "machines.attempt_failed", now, None, said, Party.SITE)
        changes = {"course": failover.has_failed(course, current.place, str(outcome.error))}
        await self._turn(tx, row, turn, changes, now)
        return Next(now)

    async def _could_not_delete(self, tx: Tx, row: Any, course: Course, outcome: Failed, now: datetime) -> Next:
        """Tried again, for ever: nothing is forgotten."""
        assert outcome.intent is not None  # noqa: S101 - asked by the caller
        place = outcome.intent.arguments["place"]
        message = f"It cannot be removed from {site_of(place)} now: {outcome.error} It is tried again."
        changes = {"course": failover.could_not_clean(course, place, now)}
        await self._turn(tx, row, Turn("machines.not_removed", now, None, message, Party.SITE), changes, now)
        return Next(now)

    async def _refused(self, tx: Tx, row: Any, intent: Intent, said: str, now: datetime) -> Next:
        """The site will not do it: the wish is taken back, and its owner told."""
        back: dict[str, dict[str, Any]] = {
            model.RESIZE: {"resize_to": None},
            model.STOP: {"wanted": Wanted.RUNNING.value},
            model.START: {"wanted": Wanted.STOPPED.value},
            model.REBOOT: {"reboots": 0},
        }
        message = f"{site_of(row.place or '')} refused to {intent.operation} it: {said}"
        changes = back.get(intent.operation, {})
        await self._turn(tx, row, Turn("machines.refused", now, None, message, Party.USER), changes, now)
        return Next(now if changes else now + timedelta(seconds=QUIET_S))

    async def _turn(self, tx: Tx, row: Any, turn: Turn, changes: dict[str, Any], now: datetime) -> None:
        """Write a change of a machine, its event and its charges."""
        before = Phase(row.phase)
        phase = turn.phase or before
        if phase is not before and phase not in TRANSITIONS[before]:
            raise RuntimeError(f"a machine that is {before} cannot become {phase}")
        values: dict[str, Any] = {**turn.changes, **changes}
        values |= {
            "phase": phase.value, "reason": turn.reason, "message": turn.message, "waiting_on": turn.waiting_on.value,
        }  # fmt: skip
        if isinstance(values.get("course"), Course):
            values["course"] = store.dump_course(values["course"])
        if phase is not before:
            values["since"] = now
            if before is Phase.RUNNING:
                await accounts.charge_now(tx, self._events, row, now, is_over=True)
                values["charged_until"] = None
            if phase is Phase.RUNNING:
                values["charged_until"] = now
            if phase in (Phase.DELETED, Phase.FAILED):
                await accounts.settle(tx, row)
            await (volume_store.let_go if phase is Phase.DELETED else volume_store.wake)(tx, now, row.id)
        if any(getattr(row, name) != value for name, value in values.items()):
            await store.update(tx, row.id, **values)
        if phase is not before or turn.reason != row.reason:
            await self._say(tx, row, turn.reason, turn.message, phase)

    async def _say(self, tx: Tx, row: Any, reason: str, message: str, phase: Phase | None = None) -> None:
        shown = phase.value if phase else row.phase
        event = Event("hansa", subject_of(row.id), shown, reason, message, row.owner_id, row.vo, {"name": row.name})
        await self._events.record(tx, event)


async def _refused(tx: Tx, row: Any, site: Any) -> str | None:
    """What a machine's site says against new work of its owner, or against being sent what it is started of."""
    words = await site_views.words(tx, [(site.name, row.owner_id)], [site])
    found = site_refusals(words[site.name, row.owner_id], row.vo, SiteWork.MACHINES)
    if found:
        return found[0].message
    return None if row.image.get("provider_id") else await sync_places.closed(tx, row.place, row.vo)


def _opens(able_to: Capabilities) -> bool:
    """Whether ports of a machine can be open there."""
    return able_to.is_open or Can.PORTS in able_to.can


def site_end(site: Any | None, course: Course) -> datetime | None:
    """When the policy of the site where a machine is has it deleted; None: never, or it is nowhere."""
    current = course.current
    hours = site.policy.get("vm_lifetime_h") if site is not None else None
    return current.since + timedelta(hours=hours) if current is not None and hours is not None else None


def image_wait(name: str, version: Any, since: datetime, now: datetime) -> tuple[str, bool]:
    """What a machine that was begun then waits for, in a sentence, and whether that is of no use. Pure."""
    if ImagePhase(version.phase).is_final:
        return f"Its VM image {name} is {version.phase}: {version.message} {_OTHER_IMAGE}", True
    if version.reason != "images.source_away":
        total = f" of {version.size_bytes / 1e6:,.0f}" if version.size_bytes else ""
        done = f" {version.done_bytes / 1e6:,.0f}{total} MB are here." if version.done_bytes else ""
        return f"Its VM image {name} is {version.phase}: {version.message}{done}", False
    tried_for_it = version.since > since  # not only for others, before
    if tried_for_it and version.attempt >= IMAGE_TRIES and now - since >= _IMAGE_PATIENCE:
        return (
            f"Its VM image {name} cannot be fetched: {version.message}. Does this server reach its source "
            f"(hansa image show {name})? Without the network: hansa image build, or hansa image add with a file of "
            "yours. Then delete this machine and create it again.",
            True,
        )
    return f"Its VM image {name} is on its way, with trouble: {version.message}. It is tried again.", False


def _user_data(given: bytes, driver: Machines, volumes: tuple[tuple[str, str | None], ...]) -> bytes:
    """What the guest is told. Raises Refused where the provider cannot give it its volumes."""
    if not volumes:
        return given
    able_to = able(driver, Volumes)
    mounts = [(able_to.device(volume_id), path) for volume_id, path in volumes if path is not None]
    return with_mounts(given, [(device, path) for device, path in mounts if device])


def subject_of(machine_id: str) -> str:
    """How events name a machine: by its id, as names are used again."""
    return f"machine/{machine_id}"
