"""Where a machine may run: sites as placement wants them, wishes as requests, and what each place would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault
from hansa.kernel.status import Party
from hansa.machines import errors, store
from hansa.machines.wire import NewMachine
from hansa.placement import choose as placement
from hansa.placement import filter as fits
from hansa.placement.model import Candidate, Choice, Flavour, Gpu, GrantLeft, Quota, Refusal, Request, Work
from hansa.sites import capacity
from hansa.sites.capacity_model import NoGrant
from hansa.sites.model import EndpointView, SiteView, allows_image, endpoint_refusals, is_at_risk, site_refusals
from hansa.sites.model import Refusal as SiteRefusal
from hansa.sites.model import Work as SiteWork
from hansa.sites.service import LOCAL
from hansa.sites.wire import Facts

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


def request_of(new: NewMachine, wish: Wish, vo: str | None, lifetime_s: int, arch: str | None) -> Request:
    """The wish as placement understands it."""
    return Request(
        Work.MACHINE,
        cores=wish.cores,
        memory_mib=wish.memory_mib,
        disk_mib=wish.disk_gib * 1024,
        wall_time_s=lifetime_s,
        gpus=wish.gpus,
        gpu_model=wish.gpu_model,
        arch=arch,
        vm_image=new.image.removeprefix(SITE_IMAGE) if new.image.startswith(SITE_IMAGE) else None,
        flavour=wish.flavour,
        network=new.network,
        needs_public_address=new.public,
        sites=tuple(new.sites),
        vo=vo,
    )


def place_of(candidate: Candidate) -> str:
    return f"{candidate.site}/{candidate.endpoint}" if candidate.endpoint else candidate.site


@dataclass(frozen=True)
class Asking:
    """Who wants a machine, for which VO, of which image (by all its names)."""

    user_id: str
    user_name: str
    vo: str | None
    vo_group: str
    image_names: Sequence[str]
    machine_id: str = ""


async def candidates(
    tx: Tx, sites: Sequence[SiteView], kinds: frozenset[str], local: Mapping[str, bool], asking: Asking, now: datetime
) -> list[Candidate]:
    """Every endpoint that has machines, with all that speaks for it and against it.

    ``kinds``: of endpoints that machines can be started at; ``local``: the drivers of this computer, and whether
    others than its owner may use each.
    """
    found: list[Candidate] = []
    for site in sites:
        against = [_refusal(one) for one in site_refusals(site, asking.vo, SiteWork.MACHINES)]
        against += await _by_policy(tx, site, asking)
        if site.name == LOCAL:
            found += [_local(site, driver, against) for driver in local]
            continue
        ends = [end for end in site.endpoints if end.kind in kinds]
        grant, why = await _grant(tx, site, asking, now) if ends else (None, "")
        for end in ends:
            more = [_refusal(one) for one in endpoint_refusals(site, end, asking.vo, now)]
            here = _candidate(site, end, asking.vo, now)
            found.append(replace(here, refusals=(*against, *more), grant=grant, no_grant=why))
    return found


def _refusal(one: SiteRefusal) -> Refusal:
    return Refusal(one.reason, one.message, waiting_on=one.waiting_on)


async def _by_policy(tx: Tx, site: SiteView, asking: Asking) -> list[Refusal]:
    """The site's own rules on images and numbers."""
    found: list[Refusal] = []
    if not allows_image(site.policy, asking.image_names):
        found.append(Refusal("sites.image_denied", f"{site.name} does not let this VM image run."))
    most = site.policy.vms_per_user
    if most is not None:
        has = await store.counted(tx, asking.user_id, site.name)
        if has >= most:
            said = f"You have {has} machines at {site.name}; it lets each user have {most}."
            found.append(Refusal("sites.machine_limit", said, "Delete one there.", Party.USER))
    return found


async def _grant(tx: Tx, site: SiteView, asking: Asking, now: datetime) -> tuple[GrantLeft | None, str]:
    if asking.vo is None:
        return None, ""
    who = capacity.Who(
        asking.vo, site.name, asking.user_id, asking.user_name, f"machine/{asking.machine_id}", asking.vo_group
    )
    left = await capacity.left(tx, who, now)
    if isinstance(left, NoGrant):
        return None, left.message
    core_s = None if left.core_ms is None else left.core_ms / 1000
    return GrantLeft(core_s, left.share, left.cores, left.memory_mib, left.gpus, left.storage_gib, left.limited_by), ""


def _local(site: SiteView, driver: str, refusals: Sequence[Refusal]) -> Candidate:
    return Candidate(
        LOCAL,
        driver,
        "local",
        is_own=True,
        cores=site.capacity.cores,
        memory_mib=site.capacity.memory_mib,
        gpus=(),
        has_public_addresses=driver == "fake",
        refusals=tuple(refusals),
        measured=None,
    )


def _candidate(site: SiteView, end: EndpointView, vo: str | None, now: datetime) -> Candidate:
    facts = end.facts_of(vo)
    risk = is_at_risk(site, end, now)
    plain = Candidate(
        site.name,
        end.name,
        end.kind,
        is_own=site.visibility == "owner",
        demands_grant=site.policy.demands_grant,
        at_risk=f"It may fail until {risk.ends:%Y-%m-%d %H:%M} UTC: {risk.description}" if risk else "",
        price=site.policy.price_per_core_hour,
    )
    return plain if facts is None else replace(plain, **_known(facts))


def _known(facts: Facts) -> dict[str, Any]:
    """What discovery found, in placement's words."""
    images = {name for one in facts.vm_images for name in (one.name, one.id, one.digest) if name}
    external = any(one.is_external for one in facts.networks)
    quotas = {name: quota.free for name, quota in facts.quotas.items()}
    names = ("machines", "cores", "memory_mib", "gpus", "storage_gib")
    return {
        "flavours": tuple(
            Flavour(
                one.name, one.vcpus, one.memory_mib, one.disk_gib * 1024 or None,
                (Gpu(one.gpu_model, one.gpus),) if one.gpus else (),
            )
            for one in facts.flavours
        ),
        "vm_images": frozenset(images),
        "networks": frozenset(name for one in facts.networks for name in (one.name, one.id)),
        "has_public_addresses": external if facts.networks else None,
        "quota": Quota(**{name: quotas.get(name) for name in names}),
    }  # fmt: skip


def choose(request: Request, found: Sequence[Candidate]) -> Choice:
    """The order of places. Raises Fault ``machines.no_site`` with what speaks against each where there is none."""
    choice = placement.choose(request, found)
    if choice.order:
        return choice
    if not found:
        raise Fault(
            errors.NO_SITE,
            "No site that serves you has machines.",
            hint="hansa site list shows what there is; hansa doctor says what this computer lacks for machines.",
        )
    verdicts = placement.explain_all(choice)
    said = "; ".join(f"{one.site}: {' '.join(two.message for two in one.findings)}" for one in verdicts[:10])
    remedies = dict.fromkeys(two.remedy for one in verdicts for two in one.findings if two.remedy)
    raise Fault(errors.NO_SITE, f"No site can run it. {said}", hint=" ".join(list(remedies)[:3]))


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
