"""Where a machine may run: sites as placement wants them, wishes as requests, and what each place would give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault
from hansa.kernel.status import Party
from hansa.machines import errors, store, sync_places
from hansa.machines.wire import NewMachine
from hansa.placement import choose as placement
from hansa.placement import filter as fits
from hansa.placement import views
from hansa.placement.model import Candidate, Choice, Measured, Refusal, Request, Work, data_needs
from hansa.sites import capacity
from hansa.sites.capacity_model import Left, NoGrant
from hansa.sites.model import EndpointView, SiteView, allows_image
from hansa.sites.model import Work as SiteWork
from hansa.sites.service import LOCAL

NAMED: Mapping[str, tuple[int, int]] = {
    "tiny": (1, 512),
    "small": (1, 2048),
    "medium": (2, 4096),
    "large": (4, 8192),
    "xlarge": (8, 16_384),
    "2xlarge": (16, 32_768),
}
"""Cores and MiB that these words wish for, wherever a site has no flavour of that name."""
SITE_IMAGE = "site:"
_REJECTED_SHOWN = 10
_USED_UP = "placement.grant_used_up"


@dataclass(frozen=True)
class Wish:
    """What a machine should have, and which of the site's own flavours, if one is named."""

    cores: int
    memory_mib: int
    disk_gib: int = 0
    gpus: int = 0
    gpu_model: str | None = None
    flavour: str | None = None


def wish_of(new: NewMachine) -> Wish:
    """The size that is asked for. Raises Fault ``machines.bad_spec`` where a flavour and a wish contradict."""
    if new.flavour is not None and (new.cores is not None or new.memory_mib is not None):
        raise Fault(
            errors.BAD_SPEC,
            "A flavour says cores and memory already.",
            hint="Either --flavour, or --cpus and --memory.",
        )
    if new.flavour is not None and new.flavour in NAMED:
        cores, memory_mib = NAMED[new.flavour]
        return Wish(cores, memory_mib, new.disk_gib, new.gpus, new.gpu_model)
    if new.flavour is not None:
        return Wish(0, 0, new.disk_gib, new.gpus, new.gpu_model, new.flavour)
    cores = new.cores or 1
    return Wish(cores, new.memory_mib or cores * 1024, new.disk_gib, new.gpus, new.gpu_model)


def says_memory(new: NewMachine) -> bool:
    """Whether a size of memory was asked for, by itself or by the name of a flavour."""
    return new.memory_mib is not None or new.flavour is not None


def request_of(
    new: NewMachine, wish: Wish, vo: str | None, lifetime_s: int, image: Mapping[str, Any] | None
) -> Request:
    """The wish as placement understands it. ``image``: as a machine's row has it; None: it needs none, as a volume."""
    return Request(
        Work.MACHINE,
        cores=wish.cores,
        memory_mib=wish.memory_mib,
        disk_mib=wish.disk_gib * 1024,
        image_disk_mib=(image or {}).get("disk_gib", 0) * 1024,
        wall_time_s=lifetime_s,
        gpus=wish.gpus,
        gpu_model=wish.gpu_model,
        arch=(image or {}).get("arch") or None,
        vm_image=new.image.removeprefix(SITE_IMAGE) if new.image.startswith(SITE_IMAGE) else None,
        flavour=wish.flavour,
        network=new.network,
        needs_public_address=new.public,
        sites=tuple(new.sites),
        preferred_sites=tuple(new.preferred_sites),
        data=data_needs((), new.near_data),
        vo=vo,
    )


def place_of(candidate: Candidate) -> str:
    return f"{candidate.site}/{candidate.endpoint}" if candidate.endpoint else candidate.site


@dataclass(frozen=True)
class ImageNames:
    """What an image is called. ``claimed``: what its owner calls it, which others may call theirs as well."""

    sure: tuple[str, ...]
    claimed: tuple[str, ...] = ()
    is_site_own: bool = False
    is_there: bool = False
    """At its site already, as the site's own are and snapshots that it keeps: nothing has to be sent."""


def names_of(image: Mapping[str, Any]) -> ImageNames:
    """Of an image as a machine's row has it."""
    scope, ids = image.get("scope"), (image["checksum"], image.get("provider_id"))
    known = tuple(name for name in (f"{scope}/{image['name']}" if scope else "", *ids) if name)
    is_there = bool(ids[1])
    if scope is not None and not image.get("is_for_all"):
        return ImageNames(known, (image["name"],), is_there=is_there)
    return ImageNames((image["name"], *known), is_site_own=is_there and not scope, is_there=is_there)


@dataclass(frozen=True)
class Asking:
    """Who wants a machine, for which VO, of which image (by all its names)."""

    user_id: str
    user_name: str
    vo: str | None
    vo_group: str
    image: ImageNames | None
    """None: it needs none, as a volume."""
    machine_id: str = ""
    says_lifetime: bool = False
    """Whether it was asked to live so long: else a site may cut it."""


async def candidates(
    tx: Tx,
    sites: Sequence[SiteView],
    local: Sequence[str],
    asking: Asking,
    now: datetime,
    measured: Mapping[str, Measured] | None = None,
) -> list[Candidate]:
    """Every place for machines, with all that speaks for it and against it. ``local``: drivers of this computer;
    ``measured``: how machines started of late, by site."""
    given = await capacity.sites_of(tx, asking.vo) if asking.vo else ()
    grants = {
        site.name: await _grant(tx, site.name, asking, now)
        for site in sites
        if site.policy.demands_grant or site.name in given
    }
    own = {site.name: await _by_policy(tx, site, asking) for site in sites}
    found: list[Candidate] = []
    ends = {(site.name, end.name): end for site in sites for end in site.endpoints}
    for one in views.candidates(sites, asking.vo, SiteWork.MACHINES, now, grants=grants, measured=measured):
        refused = (*own[one.site], *_takes_no_images(one.site, ends.get((one.site, one.endpoint)), asking))
        lasts_s = one.wall_time_s if asking.says_lifetime else None
        here = replace(one, refusals=(*one.refusals, *refused), wall_time_s=lasts_s)
        if one.site == LOCAL:
            found += _local(here, local)
        else:
            found.append(here)
    return found


async def _by_policy(tx: Tx, site: SiteView, asking: Asking) -> list[Refusal]:
    """The site's own rules on images and numbers."""
    found: list[Refusal] = []
    if asking.image is not None and not _allows(site, asking.image, asking.vo):
        found.append(Refusal("sites.image_denied", f"{site.name} does not let this VM image run."))
    most = site.policy.vms_per_user
    if most is not None:
        has = await store.counted(tx, asking.user_id, site.name)
        if has >= most:
            said = f"You have {has} machines at {site.name}; it lets each user have {most}."
            found.append(Refusal("sites.machine_limit", said, "Delete one there.", Party.USER))
    return found


def _takes_no_images(site: str, end: EndpointView | None, asking: Asking) -> list[Refusal]:
    """An endpoint to which nothing may be sent runs what is there already."""
    if end is None or asking.image is None or asking.image.is_there:
        return []
    access = end.vos.get(asking.vo) if asking.vo else None
    if end.kind in sync_places.NEVER_SENT:
        said = f"{site} is sent no VM images: Hansa knows no way to do that at an endpoint of kind {end.kind}."
    elif sync_places.is_closed(end.settings, access.settings if access else {}):
        said = sync_places.closed_words(site, end.name, asking.vo)
    else:
        return []
    remedy = "Start one of the site's own there, where your VO allows those: --image site:NAME."
    return [Refusal("sites.takes_no_images", said, remedy)]


def _allows(site: SiteView, image: ImageNames, vo: str | None) -> bool:
    """By all names that it has: one of the site's own has an id, a name and a digest there, whichever was said."""
    sure = set(image.sure)
    if image.is_site_own:
        facts = [endpoint.facts_of(vo) for endpoint in site.endpoints]
        known = [{one.id, one.name, one.digest} - {""} for each in facts if each for one in each.vm_images]
        sure = sure.union(*(names for names in known if names & sure))
    return allows_image(site.policy, sorted(sure), image.claimed)


async def _grant(tx: Tx, site: str, asking: Asking, now: datetime) -> Left | NoGrant:
    if asking.vo is None:
        return NoGrant("capacity.none", f"{site} wants a VO with a capacity grant.", Party.USER)
    thing = f"machine/{asking.machine_id}"
    who = capacity.Who(asking.vo, site, asking.user_id, asking.user_name, thing, asking.vo_group)
    return await capacity.left(tx, who, now)


def _local(computer: Candidate, drivers: Sequence[str]) -> list[Candidate]:
    """This computer, once for each way in which it runs machines."""
    if not drivers:
        lacks = Refusal("machines.no_driver", "This computer cannot run machines.", "hansa doctor says what it lacks.")
        return [replace(computer, refusals=(*computer.refusals, lacks))]
    return [replace(computer, endpoint=name, gpus=(), has_public_addresses=name == "fake") for name in drivers]


def why(choice: Choice, order: Sequence[str]) -> str:
    """Why the first of the order was chosen, and what spoke against the places that were left out."""
    site, _, endpoint = order[0].partition("/")
    best = next(one for one in choice.order if one.key == (site, endpoint))
    also = f", before {len(order) - 1} more" if len(order) > 1 else ""
    lines = [f"Chosen: {site}{also}. {placement.why(choice, best)}"]
    lines += [f"Not {one.site}: {placement.why_not(choice, one)}" for one in choice.rejected[:_REJECTED_SHOWN]]
    more = len(choice.rejected) - _REJECTED_SHOWN
    return " ".join(lines) + (f" Nor {more} more." if more > 0 else "")


def why_not(choice: Choice) -> str:
    """What keeps it from running at the first place of a choice of :func:`at_zero`, and what would change that."""
    return placement.why_not(choice, choice.order[0])


def choose(request: Request, found: Sequence[Candidate], *, says_memory: bool = True) -> Choice:
    """The order of places; ``says_memory``: whether its memory was asked for, and does not only follow from its cores.

    Where no place will do, wishes that nobody had are not what it fails for, unless it fails for nothing else.
    """
    choice = placement.choose(request, found)
    if choice.order or says_memory:
        return choice
    as_said = placement.choose(replace(request, memory_mib=0), found)
    return choice if as_said.order else as_said


def chosen(choice: Choice) -> Choice:
    """The same. Raises Fault ``machines.no_site`` with what speaks against each place where there is none."""
    if choice.order:
        return choice
    found = choice.rejected
    if not found:
        raise Fault(errors.NO_SITE, "No site serves you.", hint="hansa site list shows what there is.")
    verdicts = placement.explain_all(choice)
    sites = [one.site for one in verdicts]
    names = [f"{one.site} ({one.endpoint})" if sites.count(one.site) > 1 else one.site for one in verdicts]
    words = [" ".join(two.message for two in one.findings) for one in verdicts]
    said = "; ".join(f"{name}: {word}" for name, word in list(zip(names, words, strict=True))[:10])
    remedies = dict.fromkeys(two.remedy for one in verdicts for two in one.findings if two.remedy)
    raise Fault(errors.NO_SITE, f"No site can run it. {said}", hint=" ".join(list(remedies)[:3]))


def at_zero(choice: Choice) -> Choice | None:
    """Where nothing but used-up grants keep it from running: those places, in which it waits for its VO's managers.

    A grant of which something is left refuses at once: a smaller or shorter machine may do."""
    waits = [one for one in choice.rejected if _is_at_zero(choice, one)]
    return None if choice.order or not waits else replace(choice, order=tuple(waits))


def _is_at_zero(choice: Choice, one: Candidate) -> bool:
    left = one.grant
    if left is None or 0 not in (left.core_s, left.cores, left.memory_mib):
        return False
    return [found.reason for found in fits.findings(choice.request, one)] == [_USED_UP]


def order(choice: Choice, local: Sequence[str]) -> list[str]:
    """The places, the best first. Of the ways of this computer the one that its settings prefer comes first."""
    ways = iter(sorted((one for one in choice.order if one.site == LOCAL), key=lambda one: local.index(one.endpoint)))
    return [place_of(next(ways) if one.site == LOCAL else one) for one in choice.order]


def only(order: Sequence[str], fixed: Iterable[str]) -> list[str]:
    """Those of the places where a volume or a snapshot of the machine already is. Raises Fault ``machines.no_site``."""
    kept = [place for place in order if all(place == one for one in fixed)]
    if order and not kept:
        there = ", ".join(sorted(fixed))
        said = f"What it is made of is at {there}, and it cannot run there."
        raise Fault(errors.NO_SITE, said, hint="hansa machine plan says why; other volumes or images may be elsewhere.")
    return kept


def sizes(choice: Choice, wish: Wish) -> dict[str, dict[str, Any]]:
    """What the machine gets at each of its places: the smallest flavour that fits, or the wish itself."""
    found: dict[str, dict[str, Any]] = {}
    for candidate in choice.order:
        flavour = fits.fitting_flavour(choice.request, candidate)
        size = {
            "cores": flavour.cores if flavour else max(1, wish.cores),
            "memory_mib": flavour.memory_mib if flavour else wish.memory_mib or 1024,
            "disk_gib": wish.disk_gib,
            "gpus": sum(gpu.count for gpu in flavour.gpus) if flavour else wish.gpus,
            "flavour": flavour.name if flavour else None,
        }
        found[place_of(candidate)] = size
    return found
