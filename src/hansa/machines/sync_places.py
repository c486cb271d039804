"""Which places take the VM images of which VOs, and what their sites say against an image. The site's word rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hansa.kernel.database import Tx
from hansa.kernel.wire import decode
from hansa.machines import sync_store as store
from hansa.machines.drivers.base import Can, Machines
from hansa.machines.sync_model import Key, Place
from hansa.sites import store as site_store
from hansa.sites.model import Visibility, allows_image
from hansa.sites.service import LOCAL
from hansa.sites.wire import SitePolicy

NEVER_SENT = frozenset({"libcloud"})
"""Kinds of endpoints whose drivers bring no image of the catalogue there: only the site's own can be started."""
SETTING = "image_sync"
"""Of an endpoint, or of a VO at it. Default: yes, where the site is a VO's. At what somebody keeps for himself nothing
is sent ahead, only what a machine there is started of. No: nothing is sent there, ahead or on demand."""


def is_closed(settings: Mapping[str, Any], vo_settings: Mapping[str, Any]) -> bool:
    """Whether an endpoint takes no VM images from here, for one VO."""
    return {**settings, **vo_settings}.get(SETTING) is False


def closed_words(site: str, endpoint: str, vo: str | None) -> str:
    """That it takes none, for people."""
    for_vo = f" for {vo}" if vo else ""
    return f"{site} takes no VM images from here{for_vo} (image_sync: false of its endpoint {endpoint})."


async def closed(tx: Tx, place: str, vo: str | None) -> str | None:
    """Why nothing may be sent to a place for this VO; None: it may."""
    site, _, endpoint = place.partition("/")
    if site == LOCAL:
        return None
    row = next((one for one in await site_store.endpoints_of(tx, [site]) if one.name == endpoint), None)
    if row is None:
        return None
    access = next((one for one in await site_store.vos_of(tx, [row.id]) if one.vo == vo), None)
    no = is_closed(row.settings, access.settings if access is not None else {})
    return closed_words(site, endpoint, vo) if no else None


async def places(tx: Tx, local: Mapping[str, Machines]) -> list[Place]:
    """Every cloud with the VOs that it serves and takes images of, and this computer's own drivers."""
    vos: dict[str, set[str]] = {}
    for row in await store.endpoints(tx):
        said = (row.settings | row.vo_settings).get(SETTING)
        if said or (said is None and row.visibility != Visibility.OWNER):
            vos.setdefault(f"{row.site}/{row.name}", set()).add(row.vo)
    found = [Place(name, frozenset(members)) for name, members in vos.items()]
    able = [name for name, driver in local.items() if Can.IMAGES in driver.capabilities().can]
    return found + [Place(f"{LOCAL}/{name}", None, on_demand=True) for name in able]


async def formats(tx: Tx, place: str) -> Sequence[str]:
    """The formats of VM images that a place takes; none: whatever."""
    site, _, endpoint = place.partition("/")
    found = () if site == LOCAL else await site_store.endpoints_of(tx, [site])
    return next((one.settings.get("image_formats") or () for one in found if one.name == endpoint), ())


async def refusals(tx: Tx, want: Iterable[Key], versions: Mapping[str, Any]) -> dict[Key, tuple[str, str]]:
    """What sites say against images that would belong there: a code, and a sentence."""
    wanted = [key for key in want if key[0] in versions]
    names = {_site(key) for key in wanted}
    policies = {row.name: decode(SitePolicy, row.policy) for row in await site_store.get_many(tx, sorted(names))}
    bans = {(one.site, one.who): one.why for one in await site_store.bans_of(tx, names) if one.kind == "vo"}
    found: dict[Key, tuple[str, str]] = {}
    for key in wanted:
        site, version = _site(key), versions[key[0]]
        if site in policies and not allows_image(policies[site], *names_of(version)):
            found[key] = ("sites.image_denied", f"{site} does not let this VM image run.")
        elif (site, key[2]) in bans:
            found[key] = ("sites.vo_banned", f"{site} has banned {key[2]}: {bans[site, key[2]]}")
    return found


def names_of(version: Any) -> tuple[Sequence[str], Sequence[str]]:
    """What a version is called for sure, and what its owner calls it, as the policies of sites read it."""
    sums = [f"sha256:{version.sha256}" if version.sha256 else "", version.checksum or ""]
    sure = [f"{version.scope}/{version.image}", *(one for one in sums if one)]
    return ([*sure, version.image], ()) if version.visibility == "all" else (sure, [version.image])


def _site(key: Key) -> str:
    return key[1].partition("/")[0]
