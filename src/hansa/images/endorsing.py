"""What a VO lets its members start: endorsements, its policy, the list it publishes, and the lists it follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.images import errors, hepix, store
from hansa.images.containers import is_allowed, read_places
from hansa.images.model import Phase
from hansa.images.service import ImageService, allow_vo, check_vo
from hansa.images.subscriptions import SubscriptionRoom
from hansa.images.views import subscription_view
from hansa.images.wire import ImagePolicy, NewEndorsement, NewSubscription, Subscription, SubscriptionPage, VmImage
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.status import Party

_LIST_LASTS = timedelta(days=7)


class EndorsementService:
    """Who may start what in the name of a VO."""

    def __init__(self, database: Database, events: EventLog, clock: Clock, images: ImageService, url: str) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._images = images
        self._url = url

    async def endorse(self, caller: Caller, name: str, new: NewEndorsement) -> VmImage:
        """Let the VO's members start an image: a version of it, or what is newest where the VO follows it."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            await allow_vo(tx, caller, new.vo)
            image = await self._images.find(tx, caller, name)
            if new.follow and image.vo is None and image.visibility == "owner":
                raise Fault(
                    errors.FORBIDDEN,
                    f"{name} is {image.owner_name}'s alone, who could add any version to it later.",
                    hint=f"Endorse one version, or add it as the VO's own: hansa image add {name} --vo {new.vo} …",
                )
            version_id = await self._version(tx, image.id, name, new)
            until = now + timedelta(days=new.lasts_days) if new.lasts_days else None
            await store.put_endorsement(
                tx, new.vo, image.id, version_id=version_id, by=caller.name, since=now, until=until
            )
            message = f"{caller.name} endorsed it for {new.vo}."
            event = Event(
                caller.actor,
                f"image/{image.scope}/{image.name}",
                "active",
                "images.endorsed",
                message,
                image.owner_id,
                new.vo,
            )
            await self._events.record(tx, event)
            tx.ring(store.TOPIC)
        return await self._images.get(caller, name)

    async def _version(self, tx: Tx, image_id: str, name: str, new: NewEndorsement) -> str | None:
        if new.follow:
            return None
        rows = [row for row in await store.versions_of(tx, [image_id]) if not Phase(row.phase).is_final]
        meant = [row for row in rows if new.version in (None, row.version)]
        if not meant:
            raise Fault(errors.NOT_FOUND, f"{name} has no version {new.version or ''} that could be endorsed.")
        return str(meant[0].id)

    async def revoke(self, caller: Caller, name: str, vo: str) -> VmImage:
        """Start nothing new of it in the name of the VO. What runs goes on."""
        async with self._database.begin() as tx:
            await allow_vo(tx, caller, vo)
            image = await self._images.find(tx, caller, name)
            if not await store.remove_endorsement(tx, vo, image.id):
                raise Fault(errors.NOT_FOUND, f"{vo} has not endorsed {name}.")
            message = f"{caller.name} took back what {vo} had endorsed."
            event = Event(
                caller.actor,
                f"image/{image.scope}/{image.name}",
                "active",
                "images.revoked",
                message,
                image.owner_id,
                vo,
            )
            await self._events.record(tx, event)
            tx.ring(store.TOPIC)
        return await self._images.get(caller, name)

    async def policy(self, caller: Caller, vo: str) -> ImagePolicy:
        async with self._database.read() as tx:
            await self._allow_member(tx, caller, vo)
            return await read_policy(tx, vo)

    async def set_policy(self, caller: Caller, vo: str, policy: ImagePolicy) -> ImagePolicy:
        """Change it. Raises Fault ``images.bad_registry``."""
        if policy.registries is not None:
            policy = replace(policy, registries=read_places(policy.registries))
        async with self._database.begin() as tx:
            await allow_vo(tx, caller, vo)
            values = {"site_images": policy.site_images, "registries": policy.registries}
            await store.put_policy(tx, vo, **values, is_listed=policy.public_list)
            message = f"{caller.name} changed what may be started: {_in_words(policy)}."
            await self._events.record(
                tx, Event(caller.actor, f"vo/{vo}", "active", "images.policy", message, caller.user_id, vo)
            )
        return policy

    async def publish(self, caller: Caller, vo: str) -> dict[str, Any]:
        """The VO's endorsed images as a HEPiX list, for other systems of its members."""
        async with self._database.read() as tx:
            await self._allow_member(tx, caller, vo)
            return hepix.render(await self.list_of(tx, vo, f"{self._url}/api/v1/vm-images/content"))

    async def list_of(self, tx: Tx, vo: str, base: str) -> hepix.ImageList:
        """What a VO endorses and is here, as a list whose addresses begin with ``base``."""
        now = self._clock.now()
        endorsed = await store.endorsed_by(tx, vo)
        rows = await store.versions_of(tx, [row.id for row in endorsed])
        listed = []
        for image in endorsed:
            fit = [
                row
                for row in rows
                if row.image_id == image.id
                and row.phase == Phase.READY
                and row.place is None
                and image.version_id in (None, row.id)
                and (image.until is None or image.until > now)
            ]
            listed += [_listed(image, row, base) for row in fit[:1]]
        newest = max((row.created for row in rows), default=now)
        return hepix.ImageList(
            identifier=f"{vo}/{self._url}",
            title=f"VM images of {vo}",
            version=f"{newest:%Y%m%d%H%M%S}",
            created=now,
            expires=now + _LIST_LASTS,
            images=tuple(listed),
            source=self._url,
            vo=vo,
            endorser=f"{vo} at {self._url}",
        )

    async def subscribe(self, caller: Caller, vo: str, new: NewSubscription) -> Subscription:
        """Follow a list of others: what it names is added and endorsed, what it drops is withdrawn."""
        if not new.url.startswith(("https://", "http://")):
            raise Fault(INVALID, f"{new.url[:100]!r} is no address of the web.")
        if new.authorities is None and not (new.unsigned and new.url.startswith("https://")):
            raise Fault(
                INVALID,
                "Nobody could tell who wrote this list.",
                hint="Give the authorities of its signature (--authorities FILE.pem), "
                "or trust its https address alone (--unsigned).",
            )
        now = self._clock.now()
        subscription_id = new_id("imglist")
        async with self._database.begin() as tx:
            await allow_vo(tx, caller, vo)
            if any(row.url == new.url for row in await store.subscriptions_of(tx, vo)):
                raise Fault(errors.TAKEN, f"{vo} follows {new.url} already.")
            await store.insert_subscription(
                tx, id=subscription_id, vo=vo, url=new.url, authorities=new.authorities, endorser=new.endorser,
                every_s=new.every_s, by=caller.name, owner_id=caller.user_id, images=0, phase="new",
                reason="images.list_due", message="It will be read.", waiting_on=Party.HANSA.value, since=now,
                due_at=now,
            )  # fmt: skip
            tx.ring(SubscriptionRoom.queue.topic)
            message = f"{caller.name} follows the image list {new.url}."
            await self._record_list(tx, caller, vo, "images.list_followed", message)
            row = await store.get_subscription(tx, subscription_id)
        return subscription_view(row)

    async def subscriptions(self, caller: Caller, vo: str) -> SubscriptionPage:
        async with self._database.read() as tx:
            await self._allow_member(tx, caller, vo)
            return SubscriptionPage([subscription_view(row) for row in await store.subscriptions_of(tx, vo)])

    async def unsubscribe(self, caller: Caller, vo: str, subscription_id: str) -> None:
        """Follow a list no more. Its images stay until they expire, or are withdrawn by hand."""
        async with self._database.begin() as tx:
            await allow_vo(tx, caller, vo)
            row = await store.get_subscription(tx, subscription_id)
            if row is None or row.vo != vo:
                raise Fault(errors.NOT_FOUND, f"{vo} follows no list {subscription_id}.")
            await store.delete_subscription(tx, subscription_id)
            message = f"{caller.name} follows the image list {row.url} no more."
            await self._record_list(tx, caller, vo, "images.list_left", message)

    async def _record_list(self, tx: Tx, caller: Caller, vo: str, reason: str, message: str) -> None:
        await self._events.record(tx, Event(caller.actor, f"vo/{vo}", "active", reason, message, None, vo))

    async def _allow_member(self, tx: Tx, caller: Caller, vo: str) -> None:
        if caller.is_operator:
            return await check_vo(tx, vo)
        if await vo_store.get_membership(tx, vo, caller.user_id) is not None:
            return None
        raise Fault(errors.FORBIDDEN, f"You are not a member of {vo}.")


async def check_container(tx: Tx, vo: str | None, image: str) -> None:
    """Raise Fault ``images.registry_refused`` unless a VO lets its jobs take this container image."""
    if said := refusal(vo, await read_policy(tx, vo), image):
        hint = f"Take an image from there, or ask a manager of the VO to allow it: hansa image policy {vo}"
        raise Fault(errors.REGISTRY, said, hint=hint)


def refusal(vo: str | None, policy: ImagePolicy, image: str) -> str:
    """Why a VO with this policy does not let its jobs take a container image; empty: it does. Pure."""
    if is_allowed(policy.registries, image):
        return ""
    places = ", ".join(policy.registries or ()) or "no registry at all"
    return f"{vo} does not let its jobs use the container image {image}: only images of {places}."


async def why_not(tx: Tx, vo: str, name: str, version: Any | None, now: datetime) -> str | None:
    """Why a VO does not let a machine start of this, now; None: it does. ``version`` None: an image of a site's own.

    What was allowed when a machine was asked for may have been taken back before it starts.
    """
    if version is None:
        policy = await read_policy(tx, vo)
        return None if policy.site_images else f"{vo} does not allow the VM images of sites any more, as {name} is one."
    found = await store.get_endorsement(tx, vo, version.image_id)
    if found is None or (found.until is not None and found.until <= now):
        return f"{vo} does not endorse the VM image {name} any more."
    if found.version_id not in (None, version.id):
        return f"{vo} endorses another version of {name} by now, not {version.version}."
    return None


async def read_policy(tx: Tx, vo: str | None) -> ImagePolicy:
    """A VO's policy; without a VO anything goes that the user may see."""
    row = await store.get_policy(tx, vo) if vo is not None else None
    if row is None:
        return ImagePolicy() if vo is not None else replace(ImagePolicy(), site_images=True)
    return ImagePolicy(row.site_images, row.registries, row.is_listed)


def _listed(image: Any, row: Any, base: str) -> hepix.ListedImage:
    about = image.about
    return hepix.ListedImage(
        identifier=row.id,
        title=about["title"] or image.name,
        version=row.version,
        uri=f"{base}/{row.id}",
        checksum=f"sha256:{row.sha256}",
        format=row.format,
        size_bytes=row.size_bytes,
        description=about["description"],
        arch=about["arch"],
        os=about["os"],
        os_name=about["os_name"],
        os_version=about["os_version"],
    )


def _in_words(policy: ImagePolicy) -> str:
    images = "endorsed VM images and the sites' public ones" if policy.site_images else "endorsed VM images only"
    images += ", listed for everybody" if policy.public_list else ""
    if policy.registries is None:
        return f"{images}; containers of any registry"
    return f"{images}; containers of {', '.join(policy.registries) or 'no registry'}"
