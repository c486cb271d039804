"""What people do with machines: create, look, stop, start, reboot, resize, rename, extend, delete, explain."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hansa.identity import vo_store
from hansa.identity.authority import AuthorityService
from hansa.identity.model import Caller, Membership
from hansa.identity.vos import VoService
from hansa.images.endorsing import read_policy
from hansa.images.service import ImageService
from hansa.kernel import idempotency
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import DriverError, Fault, Temporary
from hansa.kernel.events import Event, EventLog
from hansa.kernel.http import decode_cursor, encode_cursor
from hansa.kernel.ids import new_id
from hansa.kernel.status import Party
from hansa.kernel.wire import encode
from hansa.machines import accounts, claims, errors, explain, placing, store, volume_store
from hansa.machines.controller import site_end, subject_of
from hansa.machines.drivers.base import PROTOCOLS, Can, Capabilities, Consoles, able
from hansa.machines.model import Phase, Wanted
from hansa.machines.places import Drivers, Holder
from hansa.machines.starts import Starts
from hansa.machines.sync_model import disk_gib
from hansa.machines.views import machine_view, opening_of, plan_view
from hansa.machines.wire import (
    DEFAULT_LIFETIME_S,
    USER_DATA_LETTERS,
    ConsoleText,
    Machine,
    MachineChange,
    MachineExplanation,
    MachinePage,
    MachinePlan,
    NewMachine,
    Reboot,
    Resize,
)
from hansa.placement import failover
from hansa.placement.failover import Course
from hansa.placement.model import Candidate, Choice, Request
from hansa.sites import store as site_store
from hansa.sites.model import SiteView
from hansa.sites.service import SiteService

NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+|sk-\S+@openssh\.com) [A-Za-z0-9+/=]+( [^\n]*)?")


@dataclass(frozen=True)
class Limits:
    """How long an attempt at a site may take, and how many sites are tried."""

    start_s: float = 1800.0
    attempts: int = 3


class MachineService:
    """Machines are their owner's alone."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        drivers: Drivers,
        images: ImageService,
        sites: SiteService,
        vos: VoService,
        authority: AuthorityService,
        limits: Limits = Limits(),
        starts: Starts | None = None,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._drivers = drivers
        self._images = images
        self._sites = sites
        self._vos = vos
        self._authority = authority
        self._limits = limits
        self._starts = starts or Starts()

    async def create(
        self, caller: Caller, new: NewMachine, key: str | None = None, *, pilot_id: str | None = None
    ) -> Machine:
        """Have a machine made at the site that suits it best; durable on return. The same ``key``: the same machine.

        ``pilot_id``: it is made for this pilot of the caller's, and what it uses is counted there.

        Raises Fault ``machines.bad_spec``, ``machines.no_site``, ``machines.name_taken``, those of its image
        (``images.not_found``, ``images.not_endorsed``, ``images.not_ready``), of its VO (``identity.no_vo`` …), of the
        grants under which it runs (``identity.grant_expired``, ``capacity.used_up``). Nothing is changed then. Where
        nothing is left of the VO's capacity grants, it waits for the VO's managers.
        """
        wish = placing.wish_of(new)
        _check(new)
        request = idempotency.fingerprint("machines.create", json.dumps(encode(new), sort_keys=True).encode())
        now = self._clock.now()
        async with self._database.begin() as tx:
            before = await idempotency.recall(tx, caller.user_id, key, request)
            if before is not None:
                return machine_view(await own_machine(tx, caller, before))
            mine = await vo_store.memberships(tx, caller.user_id)
            vo = await self._vos.check_may_start(tx, caller, new.vo, mine)
            image, version_id = await self._image(tx, caller, new.image, vo, mine)
            machine_id = new_id("machine")
            lifetime_s = DEFAULT_LIFETIME_S if new.lifetime_s is None else new.lifetime_s
            expires = now + timedelta(seconds=lifetime_s) if lifetime_s else None
            # Of a pilot's machine its tasks are counted, not its life: the grant need not have room for that.
            asked_s = 0 if pilot_id else lifetime_s or DEFAULT_LIFETIME_S
            asked = placing.request_of(new, wish, vo, asked_s, image)
            asking = placing.Asking(
                caller.user_id, caller.name, vo, new.vo_group or "", placing.names_of(image), machine_id,
                says_lifetime=new.lifetime_s not in (None, DEFAULT_LIFETIME_S),
            )  # fmt: skip
            says = placing.says_memory(new)
            found = await self._choice(tx, asking, asked, now, mine, says_memory=says)
            waits = None if pilot_id else placing.at_zero(found)
            choice = waits or placing.chosen(found)
            order, sizes = placing.order(choice, list(self._drivers.local)), placing.sizes(choice, wish)
            fixed = await claims.places(tx, caller.user_id, new.volumes)
            order = placing.only(order, fixed | {place for place in (image.get("place"),) if place})
            row = {
                "id": machine_id, "owner_id": caller.user_id, "owner_name": caller.name, "vo": vo,
                "vo_group": new.vo_group, "name": await self._name(tx, caller, new, image["name"]),
                "spec": encode(new), "image_version_id": version_id, "image": image, "sizes": sizes, "seen": {},
                "wanted": Wanted.RUNNING.value, "created": now, "since": now, "expires": expires, "due_at": now,
                "pilot_id": pilot_id,
            }  # fmt: skip
            made = await store.insert(tx, **row, **await self._beginning(tx, choice, order, now, waits=bool(waits)))
            # The first attempt, in the unit of work of the creation: what it lacks is told at once.
            until = expires or now + timedelta(seconds=DEFAULT_LIFETIME_S)
            await self._authority.require(tx, caller.user_id, until, vo=vo, site=order[0].partition("/")[0])
            if not waits:  # else the controller reserves, as soon as there is something to be had
                await accounts.reserve(tx, made, order[0], now)
            await claims.take(tx, made, new.volumes, now)
            whose = f"It is for jobs of {caller.name}." if pilot_id else f"{caller.name} created it."
            actor = "hansa" if pilot_id else caller.actor
            await self._events.record(
                tx,
                _event(actor, made, "machines.created", f"{whose} {made.message}"),
                *(() if waits else (_event("hansa", made, "machines.placed", placing.why(choice, order)),)),
            )
            await idempotency.remember(tx, self._clock, caller.user_id, key, request, machine_id)
            tx.ring(store.QUEUE.topic)
        return machine_view(made)

    async def _beginning(
        self, tx: Tx, choice: Choice, order: Sequence[str], now: datetime, *, waits: bool
    ) -> dict[str, Any]:
        """How a new machine begins: at the first place of its order, or waiting for what its VO has used up."""
        course = Course(tuple(order), self._limits.attempts, self._limits.start_s)
        site = order[0].partition("/")[0]
        if waits:
            return {
                "course": store.dump_course(course), "place": None, "site_ends": None, "phase": Phase.WAITING.value,
                "reason": "capacity.used_up", "waiting_on": Party.VO_MANAGER.value,
                "message": f"{site}: {placing.why_not(choice)}",
            }  # fmt: skip
        started = failover.has_started(course, order[0], now)
        ends = site_end(await site_store.get(tx, site), started)
        return {
            "course": store.dump_course(started), "place": order[0], "site_ends": ends,
            "phase": Phase.CREATING.value, "reason": "machines.creating", "waiting_on": Party.SITE.value,
            "message": f"It is being created at {site}.",
        }  # fmt: skip

    async def plan(self, caller: Caller, new: NewMachine) -> MachinePlan:
        """What ``create`` would do, and why not elsewhere; nothing is changed, and that no site fits is no error.

        Raises Fault ``machines.bad_spec``, and those of the image and of the VO.
        """
        wish = placing.wish_of(new)
        _check(new)
        now = self._clock.now()
        async with self._database.read() as tx:
            mine = await vo_store.memberships(tx, caller.user_id)
            vo = await self._vos.check_may_start(tx, caller, new.vo, mine)
            image, _ = await self._chosen(tx, caller, new.image, vo, mine)
            asked = placing.request_of(new, wish, vo, new.lifetime_s or DEFAULT_LIFETIME_S, image)
            fixed = await claims.places(tx, caller.user_id, new.volumes)
            fixed |= {place for place in (image.get("place"),) if place}
            asking = placing.Asking(
                caller.user_id, caller.name, vo, new.vo_group or "", placing.names_of(image),
                says_lifetime=new.lifetime_s not in (None, DEFAULT_LIFETIME_S),
            )  # fmt: skip
            sites = await self._sites.serving(tx, caller.user_id, [one.vo for one in mine])
            local = list(self._drivers.local)
            found = await self._candidates(tx, sites, asking, now)
            choice = placing.choose(asked, found, says_memory=placing.says_memory(new))
        order = placing.only(placing.order(choice, local), fixed)
        return plan_view(image, vo, choice, order, placing.sizes(choice, wish))

    async def _places(
        self, tx: Tx, asking: placing.Asking, asked: Request, now: datetime, mine: Sequence[Membership], *,
        says_memory: bool,
    ) -> Choice:  # fmt: skip
        """The places in their order. Raises Fault ``machines.no_site``."""
        return placing.chosen(await self._choice(tx, asking, asked, now, mine, says_memory=says_memory))

    async def _choice(
        self, tx: Tx, asking: placing.Asking, asked: Request, now: datetime, mine: Sequence[Membership], *,
        says_memory: bool,
    ) -> Choice:  # fmt: skip
        """The same, also of no place."""
        vos = [one.vo for one in mine]
        sites = await self._sites.serving(tx, asking.user_id, vos)
        found = await self._candidates(tx, sites, asking, now)
        return placing.choose(asked, found, says_memory=says_memory)

    async def _candidates(
        self, tx: Tx, sites: Sequence[SiteView], asking: placing.Asking, now: datetime
    ) -> list[Candidate]:
        seen = await self._starts.seen(tx, [site.name for site in sites], now)
        return await placing.candidates(tx, sites, list(self._drivers.local), asking, now, seen)

    async def _image(
        self, tx: Tx, caller: Caller, name: str, vo: str | None, mine: Sequence[Membership]
    ) -> tuple[dict[str, Any], str | None]:
        """What it is started of; its content is asked for."""
        image, version_id = await self._chosen(tx, caller, name, vo, mine)
        if version_id is not None:
            await self._images.ask_for(tx, version_id, hurry=True)
        return image, version_id

    async def _chosen(
        self, tx: Tx, caller: Caller, name: str, vo: str | None, mine: Sequence[Membership]
    ) -> tuple[dict[str, Any], str | None]:
        """A pinned version of the catalogue, or where the VO allows it an image of the site."""
        if name.startswith(placing.SITE_IMAGE):
            if not (await read_policy(tx, vo)).site_images:
                raise Fault(
                    errors.BAD_SPEC,
                    f"{vo} lets its members start only the VM images that it endorses.",
                    hint=f"hansa image list --vo {vo}; its managers may allow sites' own: hansa image policy {vo}.",
                )
            own = name.removeprefix(placing.SITE_IMAGE)
            return {
                "name": own, "version": "", "checksum": "", "format": "", "arch": "", "login": "root",
                "provider_id": own,
            }, None  # fmt: skip
        pinned = await self._images.choose(tx, caller, name, vo, mine)
        return {
            "name": pinned.name, "version": pinned.version, "arch": pinned.arch, "login": pinned.login or "root",
            "checksum": f"sha256:{pinned.sha256}" if pinned.sha256 else pinned.checksum or "",
            "format": pinned.format.value if pinned.format else "qcow2", "provider_id": pinned.provider_id,
            "disk_gib": disk_gib(pinned.virtual_bytes), "place": pinned.place, "scope": pinned.scope,
            "is_for_all": pinned.is_for_all,
        }, pinned.version_id  # fmt: skip

    async def _name(self, tx: Tx, caller: Caller, new: NewMachine, image: str) -> str:
        """The name asked for, or the first free one after the image."""
        if new.name is not None:
            await self._check_name(tx, caller, new.name)
            return new.name
        stem = re.sub(r"[^a-z0-9]+", "-", image.lower()).strip("-")[:48] or "machine"
        stem = stem if stem[0].isalpha() else f"m-{stem}"
        taken = await store.names(tx, caller.user_id, stem)
        number = 1
        while f"{stem}-{number}" in taken:
            number += 1
        return f"{stem}-{number}"

    async def _check_name(self, tx: Tx, caller: Caller, name: str) -> None:
        if not NAME.fullmatch(name):
            hint = "Small letters, digits and - only, a letter first: it is the machine's host name."
            raise Fault(errors.BAD_SPEC, f"{name!r} cannot name a machine.", hint=hint)
        if name in await store.names(tx, caller.user_id, name):
            hint = f"Choose another name, or delete that one: hansa machine delete {name}"
            raise Fault(errors.NAME_TAKEN, f"You have a machine {name} already.", hint=hint)

    async def list_machines(
        self, caller: Caller, cursor: str | None, limit: int, site: str | None = None, *, with_deleted: bool = False
    ) -> MachinePage:
        """The caller's machines at all sites, by name. What was last seen of them: no site is asked."""
        after = decode_cursor(cursor, str, str)
        start = (str(after[0]), str(after[1])) if after else None
        async with self._database.read() as tx:
            rows = await store.listed(tx, caller.user_id, start, limit, place=site, with_deleted=with_deleted)
        following = encode_cursor(rows[-1].name, rows[-1].id) if len(rows) == limit else None
        return MachinePage([machine_view(row) for row in rows], following)

    async def search(self, caller: Caller, wanted: store.Search) -> tuple[list[Machine], int]:
        """A page of the caller's machines as a table shows them, and how many match in all."""
        async with self._database.read() as tx:
            rows, number = await store.search(tx, caller.user_id, wanted)
        return [machine_view(row) for row in rows], number

    async def get(self, caller: Caller, name: str) -> Machine:
        """One machine, by name or id."""
        async with self._database.read() as tx:
            return machine_view(await own_machine(tx, caller, name))

    async def stop(self, caller: Caller, name: str) -> Machine:
        """Shut it down. Disk and addresses stay, and so does what its site counts for them."""
        return await self._wish(caller, name, Can.POWER, "stop", {"wanted": Wanted.STOPPED.value})

    async def start(self, caller: Caller, name: str) -> Machine:
        """Start it again. One whose time is over is extended first."""
        async with self._database.begin() as tx:
            row = await own_machine(tx, caller, name, lock=True)
            if row.expires is not None and row.expires <= self._clock.now():
                hint = f"hansa machine extend {name} 7d"
                raise Fault(errors.NOT_NOW, f"The time of {name} was over {row.expires:%Y-%m-%d}.", hint=hint)
        return await self._wish(caller, name, Can.POWER, "start", {"wanted": Wanted.RUNNING.value})

    async def reboot(self, caller: Caller, name: str, how: Reboot) -> Machine:
        """Boot it anew, once for each call."""
        more = {"reboots": store.machines.c.reboots + 1, "hard": how.hard}
        return await self._wish(caller, name, Can.POWER, "reboot", more, only_in=(Phase.RUNNING,))

    async def resize(self, caller: Caller, name: str, wanted: Resize) -> Machine:
        """Give it another size, at the site where it is; it restarts meanwhile."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await own_machine(tx, caller, name, lock=True)
            if row.place is None:
                raise Fault(errors.NOT_NOW, f"{name} is nowhere yet.", hint=f"hansa machine explain {name}")
            image = row.spec["image"]
            new = NewMachine(
                image, flavour=wanted.flavour, cores=wanted.cores, memory_mib=wanted.memory_mib,
                sites=[row.place.partition("/")[0]], network=row.spec.get("network"),
            )  # fmt: skip
            wish = placing.wish_of(new)
            asked = replace(placing.request_of(new, wish, row.vo, 1, row.image), vm_image=None)
            names = replace(placing.names_of(row.image), is_there=True)
            asking = placing.Asking(row.owner_id, row.owner_name, row.vo, row.vo_group or "", names, row.id)
            says = placing.says_memory(new)
            mine = await vo_store.memberships(tx, row.owner_id)
            sizes = placing.sizes(await self._places(tx, asking, asked, now, mine, says_memory=says), wish)
            size = sizes.get(row.place)
        if size is None:
            raise Fault(errors.NO_SITE, f"{row.place} cannot give it that size.", hint="hansa site show")
        size = size | {"gpus": max(size["gpus"], row.sizes[row.place]["gpus"])}
        if size == row.sizes[row.place]:
            return machine_view(row)
        return await self._wish(
            caller, name, Can.RESIZE, "resize", {"resize_to": size}, only_in=(Phase.RUNNING, Phase.STOPPED)
        )

    async def change(self, caller: Caller, name: str, change: MachineChange) -> Machine:
        """Another name, another end, another policy on failures."""
        now = self._clock.now()
        values: dict[str, Any] = {}
        said: list[str] = []
        async with self._database.begin() as tx:
            row = await own_machine(tx, caller, name, lock=True)
            if change.name is not None and change.name != row.name:
                await self._check_name(tx, caller, change.name)
                values["name"] = change.name
                said.append(f"renamed it from {row.name} to {change.name}")
            if change.lifetime_s is not None:
                expires = now + timedelta(seconds=change.lifetime_s) if change.lifetime_s else None
                _check_site_allows(row, expires)
                values |= {"expires": expires, "warned": False}
                said.append(f"keeps it until {expires:%Y-%m-%d %H:%M} UTC" if expires else "keeps it without an end")
            if change.restart is not None:
                values["spec"] = row.spec | {"restart": change.restart}
                said.append(
                    "has it restarted when it fails" if change.restart else "has it stay as it is when it fails"
                )
            if values:
                await store.update(tx, row.id, **values)
                await store.QUEUE.changed(tx, now, row.id)
                row = await store.get(tx, row.id)
                await self._record(tx, caller, row, "machines.changed", f"{caller.name} {', '.join(said)}.")
        return machine_view(row)

    async def delete(self, caller: Caller, name: str, *, why: str = "") -> Machine:
        """Remove it, everywhere, with its addresses; volumes stay. A second time changes nothing.

        ``why``: of Hansa's own accord, for this reason.
        """
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await own_machine(tx, caller, name, lock=True)
            if row.wanted != Wanted.DELETED:
                await store.update(tx, row.id, wanted=Wanted.DELETED.value)
                await store.QUEUE.changed(tx, now, row.id)
                said = why or f"{caller.name} deleted it."
                actor = "hansa" if why else caller.actor
                await self._record(tx, caller, row, "machines.delete_asked", said, actor)
                row = await store.get(tx, row.id)
        return machine_view(row)

    async def console(self, caller: Caller, name: str, lines: int) -> ConsoleText:
        """The last lines of its console, asked of its site now."""
        async with self._database.read() as tx:
            row = await own_machine(tx, caller, name)
        if row.place is None or Phase(row.phase) in (Phase.WAITING, Phase.DELETED):
            raise Fault(errors.NOT_NOW, f"{name} is {row.phase}: it has no console.")
        try:
            driver = await self._drivers.at(row.place, Holder(row.owner_id, row.vo))
            return ConsoleText(await able(driver, Consoles).console_log(row.id, lines))
        except DriverError as error:
            code = errors.SITE_AWAY if isinstance(error, Temporary) else errors.UNABLE
            raise Fault(code, f"{row.place.partition('/')[0]}: {error}") from error

    async def explain(self, caller: Caller, name: str) -> MachineExplanation:
        """Why it is where it is, and as it is."""
        async with self._database.read() as tx:
            row = await own_machine(tx, caller, name)
            timeline = await self._events.timeline(tx, subject_of(row.id), 30)
            volumes = await volume_store.of_machine(tx, row.id)
        return explain.machine(row, volumes, timeline, self._clock.now())

    async def _wish(
        self,
        caller: Caller,
        name: str,
        can: Can,
        verb: str,
        values: Mapping[str, Any],
        only_in: tuple[Phase, ...] = (
            *(Phase.RUNNING, Phase.STOPPED, Phase.STOPPING, Phase.STARTING, Phase.RESIZING, Phase.CREATING),
        ),
    ) -> Machine:
        """Write what is wanted of it, where its site can do that and it is in a state for it."""
        now = self._clock.now()
        async with self._database.read() as tx:
            row = await own_machine(tx, caller, name)
        await self._check_can(row, can, verb)
        async with self._database.begin() as tx:
            row = await own_machine(tx, caller, name, lock=True)
            if Phase(row.phase) not in only_in or row.wanted == Wanted.DELETED:
                hint = f"hansa machine explain {name}"
                raise Fault(errors.NOT_NOW, f"{name} is {row.phase}: it cannot {verb} now.", hint=hint)
            await store.update(tx, row.id, **values)
            await store.QUEUE.changed(tx, now, row.id)
            await self._record(tx, caller, row, f"machines.{verb}_asked", f"{caller.name} asked for: {verb}.")
            row = await store.get(tx, row.id)
        return machine_view(row)

    async def _check_can(self, row: Any, can: Can, verb: str) -> None:
        if row.place is None:
            return
        try:
            driver = await self._drivers.at(row.place, Holder(row.owner_id, row.vo))
        except DriverError as error:
            code = errors.SITE_AWAY if isinstance(error, Temporary) else errors.UNABLE
            raise Fault(code, f"{row.place.partition('/')[0]}: {error}") from error
        able_to: Capabilities = driver.capabilities()
        if can not in able_to.can or not isinstance(driver, PROTOCOLS[can]):
            raise Fault(errors.UNABLE, f"Machines at {row.place.partition('/')[0]} cannot {verb}.", hint=able_to.note)

    async def _record(
        self, tx: Tx, caller: Caller, row: Any, reason: str, message: str, actor: str | None = None
    ) -> None:
        await self._events.record(tx, _event(actor or caller.actor, row, reason, message))


def _event(actor: str, row: Any, reason: str, message: str) -> Event:
    return Event(actor, subject_of(row.id), row.phase, reason, message, row.owner_id, row.vo, {"name": row.name})


async def own_machine(tx: Tx, caller: Caller, name: str, *, lock: bool = False) -> Any:
    """The row of a machine of the caller's, by name or id. Raises Fault ``machines.not_found``."""
    row = await store.find(tx, caller.user_id, name, lock=lock) if caller.pilot is None else None
    if row is None:
        hint = "hansa machine list"
        raise Fault(errors.NOT_FOUND, f"There is no machine {name[:80]} of yours.", hint=hint)
    return row


def _check(new: NewMachine) -> None:
    """Raise Fault ``machines.bad_spec`` on what no machine can be."""
    claims.check(new.volumes)
    for word in new.ports:
        try:
            opening_of(word)
        except ValueError as error:
            hint = "As in 443, 8000-8010 or 53/udp."
            raise Fault(errors.BAD_SPEC, f"{word!r} is no port.", hint=hint) from error
    for key in new.ssh_keys:
        if not _KEY.fullmatch(key.strip()):
            hint = "A line as in ~/.ssh/id_ed25519.pub."
            raise Fault(errors.BAD_SPEC, f"{key[:40]!r} is no public SSH key.", hint=hint)
    if len(new.user_data) > USER_DATA_LETTERS:
        said = f"User data for cloud-init has {USER_DATA_LETTERS:,} letters at most, not {len(new.user_data):,}."
        raise Fault(errors.BAD_SPEC, said, hint="Let it fetch what is larger: #include, or a script with curl.")
    if "\0" in new.user_data:
        raise Fault(errors.BAD_SPEC, "User data for cloud-init is text.", hint="#cloud-config, or a script.")


def _check_site_allows(row: Any, expires: datetime | None) -> None:
    """Raises Fault ``machines.bad_spec`` where its site deletes it before."""
    ends = row.site_ends
    if ends is not None and (expires is None or expires > ends):
        said = (
            f"{row.place.partition('/')[0]} lets it live until {ends:%Y-%m-%d %H:%M} UTC at most, then it is deleted."
        )
        hint = "What is to stay longer belongs on a volume, or on a machine at another site."
        raise Fault(errors.BAD_SPEC, said, hint=hint)
