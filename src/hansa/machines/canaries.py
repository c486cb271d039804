"""Canaries at clouds: the smallest machine there is, started, seen active, and deleted again.

The same promise as every canary's: of one key there is one, whatever breaks off; what an earlier one left goes before
another is made, so that there are never two. Machines have no key, no address from outside and nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Permanent, Temporary
from hansa.machines import store, sync_store
from hansa.machines.drivers.base import (
    Image,
    Life,
    Machines,
    MachineSpec,
    Observed,
    Progress,
    Refused,
    Size,
    Why,
)
from hansa.machines.places import Builder, Holder
from hansa.machines.sync_model import Phase
from hansa.sites import store as site_store
from hansa.sites.kinds.base import EndpointKind, HasCanaries, Sighting, State, Target, by_themselves
from hansa.sites.model import allows_image
from hansa.sites.views import policy_of
from hansa.sites.wire import Facts, Flavour, SitePolicy, VmImage

PREFIX = "canary-"
LASTS = timedelta(days=1)
"""After this a site may delete one by itself: it is written on it."""
_STEP_S = 1.0
_NO_BLAME = (Why.QUOTA, Why.NO_HOST)
"""A site that is full is not a broken one."""


@dataclass(frozen=True)
class Choice:
    """Of what a canary is made."""

    flavour: Flavour
    image: VmImage


class MachineCanaries:
    """Canaries at endpoints of one kind, by the driver of its machines. Keeps no state."""

    canary_load = "A machine of the smallest flavour, until it is active"

    def __init__(
        self,
        database: Database,
        clock: Clock,
        kind: EndpointKind,
        build: Builder,
        start_s: float,
        patience_s: float = 20.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``start_s``: in which a machine becomes active, where all is well. ``patience_s``: that one look lasts."""
        self._database = database
        self._clock = clock
        self._kind = kind
        self._build = build
        self._start_s = start_s
        self._looks = max(1, round(patience_s / _STEP_S))
        self._sleep = sleep

    async def canary(self, target: Target, vo: str | None, key: str) -> Sighting:
        driver = await self._build(target, Holder(target.holder, vo))
        mine = f"{PREFIX}{key}"
        if await self._are_left(driver, f"{PREFIX}{target.id}-", mine):
            return Sighting(State.WAITS, "An earlier canary is still being deleted.")
        seen = await driver.observe(mine)
        try:
            if seen is None:
                choice = await self._choose(target, vo)
                if isinstance(choice, str):
                    return Sighting(State.WITHDRAWN, choice)
                seen = await driver.ensure(self._spec(choice, vo), mine)
            return await self._watch(driver, mine, seen)
        except Permanent as error:
            is_full = isinstance(error, Refused) and error.why in _NO_BLAME
            said = f"A machine cannot be started: {error}"
            return Sighting(State.WITHDRAWN if is_full else State.FAILED, said, leaves=True)

    async def withdraw(self, target: Target, vo: str | None, key: str) -> None:
        driver = await self._build(target, Holder(target.holder, vo))
        for _ in range(self._looks):
            if await driver.delete(f"{PREFIX}{key}") is Progress.DONE:
                return
            await self._sleep(_STEP_S)
        raise Temporary("The machine is still being deleted.")

    async def _are_left(self, driver: Machines, prefix: str, mine: str) -> bool:
        """Delete what earlier ones left; whether any of it is still there."""
        others = [one for one in await driver.list_keys(prefix) if one != mine]
        return [one for one in others if await driver.delete(one) is Progress.PENDING] != []

    async def _watch(self, driver: Machines, key: str, seen: Observed | None) -> Sighting:
        """Look until it is active, or for as long as a look lasts."""
        for turn in range(self._looks):
            if turn:
                await self._sleep(_STEP_S)
                seen = await driver.observe(key)
            if seen is None:
                return Sighting(State.FAILED, "The machine went while it was being built.", leaves=True)
            if seen.surplus:
                await driver.trim(key)
            if (told := judge(seen, self._clock.now(), self._start_s)).is_over:
                return told
        return told

    async def _choose(self, target: Target, vo: str | None) -> Choice | str:
        """Of what, or why of nothing. Asks the site what it has now."""
        facts = await self._kind.discover(target, vo)
        async with self._database.read() as tx:
            policy, endorsed = await _rules(tx, target, vo)
        return choose(facts, policy, endorsed, target.settings.canary_image, target.settings.canary_flavour)

    def _spec(self, choice: Choice, vo: str | None) -> MachineSpec:
        flavour = choice.flavour
        size = Size(flavour.vcpus, flavour.memory_mib, flavour=flavour.name)
        image = Image(choice.image.digest, provider_id=choice.image.id)
        tags = {"hansa": "canary", "vo": vo or ""}
        return MachineSpec("hansa-canary", image, size, tags=tags, expires=self._clock.now() + LASTS)


class CanaryStarters:
    """Who starts canaries: kinds themselves, and at clouds the drivers of machines."""

    def __init__(self, by_kind: Mapping[str, HasCanaries]) -> None:
        self._by_kind = by_kind

    def __call__(self, kind: EndpointKind) -> HasCanaries | None:
        return self._by_kind.get(kind.name) or by_themselves(kind)


def judge(seen: Observed, now: datetime, start_s: float) -> Sighting:
    """What a machine as it is says. Pure."""
    took_s = max(0.0, (now - seen.created).total_seconds()) if seen.created else None
    after = f" after {took_s:.0f} s" if took_s is not None else ""
    if seen.life is Life.RUNNING:
        said = f"A machine{f' ({seen.flavour})' if seen.flavour else ''} was active{after}."
        return Sighting(State.RAN, said, took_s, leaves=True)
    if seen.life not in (Life.BUILDING, Life.CHANGING):
        why = f": {seen.message[:300]}" if seen.message else ""
        return Sighting(State.FAILED, f"A machine became {seen.life} in place of active{after}{why}.", leaves=True)
    if took_s is not None and took_s > start_s:
        return Sighting(State.FAILED, f"A machine was still not active{after}.", leaves=True)
    return Sighting(State.WAITS, "A machine is being built.")


def choose(
    facts: Facts, policy: SitePolicy, endorsed: Sequence[str], named: str | None = None, flavour: str | None = None
) -> Choice | str:
    """The image that the settings name; else one that the VO endorses (ids at the site); else one that the site offers
    to everybody; the smallest that the site's policy lets run, in the smallest flavour that it fits. Pure."""
    allowed = [one for one in facts.vm_images if allows_image(policy, [one.name, one.id, one.digest])]
    if named is not None:
        images = [one for one in allowed if named in (one.id, one.name)]
    else:
        ours = [one for one in allowed if one.id in endorsed]
        images = ours or [one for one in allowed if one.is_public]
    images.sort(key=lambda one: (one.min_disk_gib, one.min_memory_mib, one.size_bytes, one.name, one.id))
    for image in images:
        fit = [one for one in facts.flavours if _may_be(one, flavour) and _fits(one, image)]
        if image.size_bytes:  # an OpenStack, whose policy lets people start nothing without a disk from an image
            fit = [one for one in fit if one.disk_gib] or fit
        if fit:
            return Choice(min(fit, key=_size), image)
    if not images:
        which = f"VM image {named}" if named else "public or endorsed VM image"
        return f"There is no {which} there of which a canary may be started: see the setting canary_image."
    return f"There is no flavour {flavour or ''} there that the VM image of a canary fits.".replace("  ", " ")


def _may_be(one: Flavour, named: str | None) -> bool:
    return not one.gpus if named is None else named in (one.id, one.name)


def _fits(flavour: Flavour, image: VmImage) -> bool:
    has_disk = flavour.disk_gib == 0 or flavour.disk_gib >= image.min_disk_gib
    return has_disk and flavour.memory_mib >= image.min_memory_mib


def _size(one: Flavour) -> tuple[int, int, int, str]:
    return one.vcpus, one.memory_mib, one.disk_gib, one.name


async def _rules(tx: Tx, target: Target, vo: str | None) -> tuple[SitePolicy, list[str]]:
    """The site's policy, and the ids there of the images that the VO endorses."""
    site = await site_store.get(tx, target.site)
    if site is None:
        raise Permanent(f"There is no site {target.site} any more.")
    endpoint = await site_store.get_endpoint(tx, target.id)
    place = f"{target.site}/{endpoint.name if endpoint else ''}"
    rows: Sequence[Any] = await sync_store.of_vos(tx, [vo]) if vo else ()
    there = [one for one in rows if one.place == place and one.phase == Phase.THERE.value and one.wanted]
    return policy_of(site), [str(one.provider_id) for one in there]


async def started_since(tx: Tx, site: str, endpoint_id: str, since: datetime) -> bool:
    """Whether a machine of anybody's became active there since: then there is no need for a canary."""
    endpoint = await site_store.get_endpoint(tx, endpoint_id)
    place = f"{site}/{endpoint.name}" if endpoint else site
    machines = store.machines.c
    query = sa.select(machines.id).where(machines.place == place, machines.running_since > since).limit(1)
    return (await tx.execute(query)).first() is not None
