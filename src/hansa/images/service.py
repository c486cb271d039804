"""What people do with the catalogue of VM images: add, look, withdraw, fetch."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hansa.engines.qemu_img import MissingProgramError
from hansa.identity import errors as identity_errors
from hansa.identity import vo_store
from hansa.identity.model import Caller, Membership, Role
from hansa.images import errors, store
from hansa.images.controller import VersionRoom, turn
from hansa.images.depot import Content, Depot
from hansa.images.formats import Format
from hansa.images.model import Phase, usable
from hansa.images.presets import PRESET, PRESETS
from hansa.images.views import image_view
from hansa.images.wire import NewImage, NewVersion, VmImage, VmImagePage
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import INVALID, Fault, Permanent, Temporary
from hansa.kernel.events import Event, EventLog
from hansa.kernel.http import decode_cursor, encode_cursor
from hansa.kernel.ids import new_id
from hansa.kernel.settings import ImageSettings
from hansa.kernel.status import Party

IMAGE_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}")
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ALL = 100_000
_MANAGES = {Role.MANAGER, Role.VM_OPERATOR}


@dataclass(frozen=True)
class Pinned:
    """An image as a machine is started of it: one content, and how to sign in."""

    image_id: str
    version_id: str
    name: str
    version: str
    sha256: str | None
    """None: known by its checksum only, as it has not been fetched yet."""
    checksum: str | None
    format: Format | None
    size_bytes: int | None
    virtual_bytes: int | None
    arch: str
    login: str
    is_ready: bool
    place: str | None = None
    """Where it is kept, if nowhere else: machines of it start there only."""
    provider_id: str | None = None
    scope: str = ""
    """Whose it is: ``preset``, ``vo/NAME``, ``user/ID``."""
    is_for_all: bool = False
    """Operators let everybody see it: its name is not only what its owner calls it."""


class ImageService:
    """The catalogue. Images are private to their owner, or their VO's, or for all."""

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, depot: Depot, settings: ImageSettings
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._depot = depot
        self._settings = settings

    async def ensure_presets(self) -> None:
        """The presets are in the catalogue; called at every start."""
        async with self._database.begin() as tx:
            for preset in PRESETS:
                if await store.find_image(tx, PRESET, preset.name) is None:
                    about = {
                        "title": preset.title, "description": "The distribution's own cloud image.", "os": "Linux",
                        "os_name": preset.os_name, "os_version": preset.os_version, "arch": "x86_64",
                        "licence": preset.licence, "contact": "", "gpu_drivers": [], "login": preset.login,
                    }  # fmt: skip
                    image_id = new_id("image")
                    await store.insert_image(
                        tx, id=image_id, scope=PRESET, name=preset.name, owner_id="hansa", owner_name="hansa", vo=None,
                        visibility="all", about=about, created=self._clock.now(),
                    )  # fmt: skip
                    await self._insert_version(tx, image_id, NewVersion("latest", preset.url, sums=preset.sums), False)

    async def add(self, caller: Caller, new: NewImage) -> VmImage:
        """Add an image with its first version. Of a VO: for its managers and vm-operators."""
        if not IMAGE_NAME.fullmatch(new.name):
            raise Fault(
                INVALID,
                f"{new.name!r} cannot name a VM image.",
                hint="Small letters, digits and . _ - only: debian-12.",
            )
        check_version(new.source)
        scope = f"vo/{new.vo}" if new.vo else f"user/{caller.user_id}"
        about = {
            key: getattr(new, key)
            for key in ("title", "description", "os", "os_name", "os_version", "arch", "licence", "contact", "login")
        } | {"gpu_drivers": list(new.gpu_drivers)}
        async with self._database.begin() as tx:
            if new.vo is not None:
                await allow_vo(tx, caller, new.vo)
            if new.visibility == "all" and not caller.is_operator:
                raise Fault(
                    errors.FORBIDDEN, "Only operators publish VM images for all users.", hint="Use --visibility vo."
                )
            if new.visibility == "vo" and new.vo is None:
                raise Fault(INVALID, "Visibility vo needs a VO.", hint="Say which: --vo NAME.")
            if await store.find_image(tx, scope, new.name) is not None:
                raise Fault(
                    errors.TAKEN,
                    f"There is a VM image {new.name} already.",
                    hint="Add a version to it, or choose a name.",
                )
            image_id = new_id("image")
            await store.insert_image(
                tx, id=image_id, scope=scope, name=new.name, owner_id=caller.user_id, owner_name=caller.name, vo=new.vo,
                visibility=new.visibility, about=about, created=self._clock.now(),
            )  # fmt: skip
            await self._insert_version(tx, image_id, new.source, True)
            message = f"{caller.name} added it."
            await self._record(tx, caller.actor, scope, new.name, "images.added", message, caller.user_id, new.vo)
            return await self._view(tx, await store.get_image(tx, image_id))

    async def add_version(self, caller: Caller, name: str, new: NewVersion) -> VmImage:
        """Add a version; the newest that is ready is what machines are started of."""
        check_version(new)
        async with self._database.begin() as tx:
            image = await self._mine(tx, caller, name)
            if await store.find_version(tx, image.id, new.version) is not None:
                raise Fault(errors.TAKEN, f"{name} has a version {new.version} already; versions never change.")
            await self._insert_version(tx, image.id, new, True)
            message = f"{caller.name} added version {new.version}."
            await self._record(
                tx, caller.actor, image.scope, image.name, "images.version_added", message, image.owner_id, image.vo
            )
            return await self._view(tx, image)

    async def _insert_version(self, tx: Tx, image_id: str, new: NewVersion, wanted: bool) -> None:
        now = self._clock.now()
        phase, reason, message, party = Phase.KNOWN, "images.known", "It will be fetched.", Party.HANSA
        if new.upload:
            phase, reason, party = Phase.UPLOADING, "images.uploading", Party.USER
            message = "Its content has to be uploaded."
        elif not wanted:
            message, party = "It is fetched when it is first used.", Party.NOBODY
        await store.insert_version(
            tx, id=new_id("imgver"), image_id=image_id, version=new.version, source=new.url or "upload", sums=new.sums,
            checksum=new.checksum, declared=new.format, done_bytes=0, wanted=wanted, phase=phase.value, reason=reason,
            message=message, waiting_on=party.value, since=now, created=now, expires=new.expires, due_at=now,
        )  # fmt: skip
        tx.ring(VersionRoom.queue.topic)

    async def upload(
        self, caller: Caller, name: str, version: str, pieces: AsyncIterator[bytes], size: int | None = None
    ) -> VmImage:
        """The content of a version that was added with ``upload``. Checked before it counts.

        ``size``: what the sender says that comes; too much of it is refused before any of it is read.
        """
        async with self._database.read() as tx:
            image = await self._mine(tx, caller, name)
            row = await store.find_version(tx, image.id, version)
        if row is None or row.phase != Phase.UPLOADING or row.source != "upload":
            raise Fault(errors.NOT_FOUND, f"No version {version} of {name} waits for its content.")
        limit = self._settings.limit_bytes
        await asyncio.to_thread(self._depot.check_upload, size, limit)
        content = await self._depot.take(pieces, limit, _format(row.declared), row.checksum)
        return await self.fill(image, row, content, caller.actor)

    async def fill(self, image: Any, version: Any, content: Content, actor: str) -> VmImage:
        """Say that a version has this content, which is in the depot. Raises Fault where it waits for none any more."""
        async with self._database.begin() as tx:
            row: Any = await store.get_version(tx, version.id, lock=True)
            if row.phase != Phase.UPLOADING:  # withdrawn meanwhile, or another upload was quicker
                if not await store.uses_of(tx, content.sha256):
                    self._depot.drop(content.sha256, row.id)
                raise Fault(errors.TAKEN, f"Version {row.version} of {image.name} is {row.phase} already.")
            values = vars(content) | {"format": content.format.value, "done_bytes": content.size_bytes}
            await store.update_version(
                tx, row.id, **values, checksum=row.checksum or f"sha256:{content.sha256}", since=self._clock.now()
            )
            message = f"{content.size_bytes:,} bytes, {content.format}, checked."
            await turn(tx, self._events, row, image, Phase.READY, "images.ready", message, Party.NOBODY, actor)
            return await self._view(tx, image)

    async def list_images(self, caller: Caller, cursor: str | None, limit: int) -> VmImagePage:
        """The images that the caller may see, by name."""
        after = decode_cursor(cursor, str, str) or ["", ""]
        async with self._database.read() as tx:
            reader = await self._reader(tx, caller)
            rows = await store.list_images(tx, reader, (after[0], after[1]), limit)
            items = await self._views(tx, rows)
        return VmImagePage(items, encode_cursor(rows[-1].name, rows[-1].scope) if len(rows) == limit else None)

    async def get(self, caller: Caller, name: str) -> VmImage:
        async with self._database.read() as tx:
            return await self._view(tx, await self.find(tx, caller, name))

    async def withdraw(self, caller: Caller, name: str, version: str, why: str) -> VmImage:
        """Take a version back: nothing new is started of it from now on. What runs goes on."""
        async with self._database.begin() as tx:
            image = await self._mine(tx, caller, name)
            row = await store.find_version(tx, image.id, version)
            if row is None:
                raise Fault(errors.NOT_FOUND, f"{name} has no version {version}.")
            if not Phase(row.phase).is_final:
                message = f"{caller.name} withdrew it{': ' + why if why else '.'}"
                await turn(
                    tx,
                    self._events,
                    row,
                    image,
                    Phase.WITHDRAWN,
                    "images.withdrawn",
                    message,
                    Party.NOBODY,
                    caller.actor,
                )
                await store.update_version(tx, row.id, since=self._clock.now())
                await VersionRoom.queue.poke(tx, self._clock.now(), row.id)
            return await self._view(tx, image)

    async def ask_for(self, tx: Tx, version_id: str, *, hurry: bool = False) -> None:
        """Somebody needs this content: fetch it, unless it is here or on its way.

        ``hurry``: somebody waits for it: where its source did not answer, it is tried at once.
        """
        row: Any = await store.get_version(tx, version_id)
        if not row.wanted:
            await store.update_version(tx, version_id, wanted=True)
            await VersionRoom.queue.changed(tx, self._clock.now(), version_id)
        if hurry and row.reason == "images.source_away":
            await VersionRoom.queue.poke(tx, self._clock.now(), version_id)

    async def find(
        self, tx: Tx, caller: Caller, name: str, vo: str | None = None, mine: Sequence[Membership] | None = None
    ) -> Any:
        """The image that a name means: the caller's own before the VOs', those before presets; ``SCOPE/NAME`` is exact.

        ``vo``: it is meant for this VO, whose images come before those of others. ``mine``: the caller's memberships,
        where they were read already.
        Raises Fault ``images.not_found``, also where two VOs have the name.
        """
        reader = await self._reader(tx, caller, mine)
        scope, _, last = name.rpartition("/")
        rows = [row for row in await store.named(tx, reader, last) if not scope or scope in _scopes(row)]
        if not rows:
            raise Fault(errors.NOT_FOUND, f"There is no VM image {name} for you.", hint="hansa image list")
        best = min(_nearness(row, caller, vo) for row in rows)
        nearest = [row for row in rows if _nearness(row, caller, vo) == best]
        if len(nearest) > 1:
            names = ", ".join(sorted(f"{row.scope}/{row.name}" for row in nearest))
            raise Fault(errors.NOT_FOUND, f"{name} could be {names}.", hint="Say which, with its scope.")
        return nearest[0]

    async def choose(
        self, tx: Tx, caller: Caller, name: str, vo: str | None, mine: Sequence[Membership] | None = None
    ) -> Pinned:
        """What a machine is started of. ``NAME`` or ``NAME@VERSION``.

        In the name of a VO only what it endorses. Raises Fault ``images.not_found``, ``not_endorsed``, ``not_ready``.
        """
        bare, _, asked = name.partition("@")
        image = await self.find(tx, caller, bare, vo, mine)
        now = self._clock.now()
        rows = await store.versions_of(tx, [image.id])
        pinned = None
        if vo is not None:
            endorsement = await store.get_endorsement(tx, vo, image.id)
            if endorsement is None or (endorsement.until is not None and endorsement.until <= now):
                raise Fault(
                    errors.NOT_ENDORSED,
                    f"{vo} has not endorsed the VM image {bare}.",
                    hint=f"Ask a manager of {vo}: hansa image endorse {bare} --vo {vo}. "
                    f"What it endorses: hansa image list --vo {vo}.",
                )
            pinned = endorsement.version_id
        row = _select(rows, asked or None, pinned, now)
        if row is None:
            raise Fault(*_why_not(bare, asked, rows, pinned))
        return _pinned(image, row)

    async def content(self, caller: Caller, name: str, version: str | None, form: Format | None) -> tuple[Path, str]:
        """The file of a version, for download, and a name for it. Raises Fault ``images.not_ready``."""
        async with self._database.read() as tx:
            image = await self.find(tx, caller, name)
            rows = await store.versions_of(tx, [image.id])
        return await self._content(image, _select(rows, version, None, self._clock.now()), form)

    async def content_of(self, caller: Caller, version_id: str) -> tuple[Path, str]:
        """The same by the id that image lists name."""
        async with self._database.read() as tx:
            row = await store.get_version(tx, version_id)
            visible = await store.list_images(tx, await self._reader(tx, caller), ("", ""), _ALL) if row else ()
        image = next((one for one in visible if row is not None and one.id == row.image_id), None)
        if row is None or image is None or not usable(row.phase, row.expires, self._clock.now()):
            raise Fault(errors.NOT_FOUND, f"There is no VM image {version_id} for you.")
        return await self._content(image, row, None)

    async def content_by_id(self, version_id: str) -> tuple[Path, str]:
        """The same for whoever may have it: the caller has seen to that."""
        async with self._database.read() as tx:
            row = await store.get_version(tx, version_id)
            image = await store.get_image(tx, row.image_id) if row is not None else None
        if row is None or not usable(row.phase, row.expires, self._clock.now()):
            raise Fault(errors.NOT_FOUND, f"There is no VM image {version_id[:80]}.")
        return await self._content(image, row, None)

    async def _content(self, image: Any, row: Any | None, form: Format | None) -> tuple[Path, str]:
        name = image.name
        if row is not None and row.place is not None:
            site = row.place.partition("/")[0]
            raise Fault(errors.NOT_READY, f"{name} {row.version} is a snapshot that {site} keeps: it is not here.")
        if row is None or row.phase != Phase.READY or not self._depot.has(row.sha256):
            if row is not None:
                async with self._database.begin() as tx:
                    await self.ask_for(tx, row.id)
            raise Fault(
                errors.NOT_READY,
                f"The content of {name} is not here yet.",
                hint=f"hansa image show {name}",
                retry_after_s=10,
            )
        has = Format(row.format)
        try:
            path = await self._depot.as_format(row.sha256, has, form or has)
        except MissingProgramError as error:
            raise Fault(errors.NO_TOOL, str(error), hint="apt install qemu-utils") from error
        except Permanent as error:
            raise Fault(errors.BAD_CONTENT, f"{name} cannot be had as {form}: {error}") from error
        except Temporary as error:
            raise Fault(errors.NOT_READY, f"{name} cannot be had as {form} now: {error}", retry_after_s=60) from error
        return path, f"{image.name}-{row.version}.{form or has}"

    async def _reader(self, tx: Tx, caller: Caller, mine: Sequence[Membership] | None = None) -> store.Reader | None:
        """Who reads; None: an operator, who sees all."""
        if caller.is_operator:
            return None
        memberships = await vo_store.memberships(tx, caller.user_id) if mine is None else mine
        return store.Reader(caller.user_id, tuple(one.vo for one in memberships))

    async def _mine(self, tx: Tx, caller: Caller, name: str) -> Any:
        """An image that the caller may change. Raises Fault ``images.forbidden``."""
        image = await self.find(tx, caller, name)
        if image.vo is not None:
            await allow_vo(tx, caller, image.vo)
        elif image.owner_id != caller.user_id and not caller.is_operator:
            raise Fault(errors.FORBIDDEN, f"The VM image {name} is {image.owner_name}'s.")
        return image

    async def _view(self, tx: Tx, row: Any) -> VmImage:
        return (await self._views(tx, [row]))[0]

    async def _views(self, tx: Tx, rows: Sequence[Any]) -> list[VmImage]:
        ids = [row.id for row in rows]
        versions = await store.versions_of(tx, ids)
        endorsements = await store.endorsements_of(tx, ids)
        return [image_view(row, versions, endorsements) for row in rows]

    async def _record(
        self, tx: Tx, actor: str, scope: str, name: str, reason: str, message: str, owner_id: str, vo: str | None
    ) -> None:
        event = Event(actor, f"image/{scope}/{name}", "active", reason, message, owner_id, vo)
        await self._events.record(tx, event)


async def allow_vo(tx: Tx, caller: Caller, vo: str) -> Membership | None:
    """Raise Fault ``images.forbidden`` unless the caller manages the VO's images; ``identity.no_such_vo``."""
    membership = await vo_store.get_membership(tx, vo, caller.user_id)
    if caller.is_operator:
        await check_vo(tx, vo)
        return membership
    if membership is None or not membership.is_active or not membership.roles & _MANAGES:
        raise Fault(
            errors.FORBIDDEN, f"Only managers and vm-operators of {vo} may do this.", hint=f"hansa vo member list {vo}"
        )
    return membership


async def check_vo(tx: Tx, vo: str) -> None:
    """Raise Fault ``identity.no_such_vo`` where there is none of this name, for who may do everything."""
    if await vo_store.get_vo(tx, vo) is None:
        raise Fault(identity_errors.NO_SUCH_VO, f"There is no VO {vo}.", hint="hansa vo list")


def check_version(new: NewVersion) -> None:
    """Raise Fault ``kernel.invalid`` on a source that could not be pinned."""
    if not VERSION.fullmatch(new.version):
        raise Fault(INVALID, f"{new.version!r} cannot name a version.", hint="Letters, digits and . _ + -.")
    if new.upload == (new.url is not None):
        raise Fault(INVALID, "A version has an address or is uploaded: exactly one of them.")
    if new.checksum is not None and not _CHECKSUM.fullmatch(new.checksum):
        raise Fault(INVALID, f"{new.checksum[:80]!r} is not a checksum.", hint="sha256: or sha512: and hex digits.")
    if new.url is None:
        return
    scheme = urlsplit(new.url).scheme
    if scheme not in ("http", "https", "oci"):
        raise Fault(
            INVALID, f"{new.url[:100]!r} is no address that images come from.", hint="https://, http:// or oci://."
        )
    if scheme != "oci" and new.checksum is None and new.sums is None:
        raise Fault(
            INVALID,
            "An image from the web needs a checksum, or the address of a file of checksums.",
            hint="--checksum sha256:…, or --sums https://…/SHA256SUMS",
        )
    if scheme == "http" and new.checksum is None:
        raise Fault(INVALID, "Over plain http a checksum has to be given: --checksum sha256:….")


def _scopes(row: Any) -> tuple[str, ...]:
    """What stands before the name of an image where that is exact: of a user's the id or, as it is shown, the name."""
    return (row.scope, f"user/{row.owner_name}") if row.scope.startswith("user/") else (row.scope,)


def _nearness(row: Any, caller: Caller, vo: str | None) -> int:
    if row.scope == f"user/{caller.user_id}":
        return 0
    if row.vo is not None:
        return 1 if row.vo == vo else 2
    return 3 if row.scope == PRESET else 4


def _select(rows: Sequence[Any], asked: str | None, pinned: str | None, now: datetime) -> Any | None:
    """The version that is meant: the one asked for or endorsed, else the newest ready, else the newest usable."""
    fit = [
        row
        for row in rows
        if usable(row.phase, row.expires, now)
        and (asked is None or row.version == asked)
        and (pinned is None or row.id == pinned)
    ]
    ready = [row for row in fit if row.phase == Phase.READY]
    return (ready or fit or [None])[0]


def _why_not(name: str, asked: str, rows: Sequence[Any], pinned: str | None) -> tuple[Any, str]:
    meant = [row for row in rows if (not asked or row.version == asked)]
    if not meant:
        return errors.NOT_FOUND, f"The VM image {name} has no version {asked}."
    if pinned is not None and not any(row.id == pinned for row in meant):
        return errors.NOT_ENDORSED, f"The VO has endorsed another version of {name}."
    row = next((row for row in meant if pinned in (None, row.id)), meant[0])
    return errors.NOT_READY, f"Version {row.version} of {name} is {row.phase}: {row.message}"


def _pinned(image: Any, row: Any) -> Pinned:
    return Pinned(
        image.id, row.id, image.name, row.version, row.sha256, row.checksum, _format(row.format), row.size_bytes,
        row.virtual_bytes, image.about["arch"], image.about["login"], row.phase == Phase.READY,
        row.place, row.provider_id, image.scope, image.visibility == "all",
    )  # fmt: skip


def _format(name: str | None) -> Format | None:
    return Format(name) if name else None
