"""Candidates from what is known of sites: the one place where views of sites become what placement chooses from.

Pure. What a site or this server has not said is None, and rejects nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hansa.kernel.errors import Fault
from hansa.placement import model
from hansa.placement.model import Candidate, Gpu, GrantLeft, Measured, Refusal
from hansa.sites import wire
from hansa.sites.capacity_model import Left, NoGrant
from hansa.sites.kinds.base import parse_settings
from hansa.sites.model import (
    EndpointView,
    SiteView,
    Visibility,
    Work,
    allows_image,
    endpoint_refusals,
    is_at_risk,
    site_refusals,
)

LOCAL = "local"
LOCAL_START_S = 1.0
KINDS: Mapping[Work, frozenset[str]] = {
    Work.PILOTS: frozenset({"local", "slurm", "ssh", "machines"}),
    Work.MACHINES: frozenset({"local", "openstack", "libcloud"}),
}
"""The kinds of endpoints at which each kind of work can start."""
BATCH_OVERHEAD_S = 300
"""Of a batch job's time so much is not for tasks: its pilot starts, tidies up, and is given a moment to end."""
MACHINE_OVERHEAD_S = 2 * 3600 + BATCH_OVERHEAD_S
"""So much longer than its tasks may run a machine for jobs must be able to live."""
PILOT_MEMORY_MIB = 128
"""Of a batch job's memory so much is the pilot's own."""
GUEST_MEMORY_MIB = 256
"""Of a machine's memory so much is its system's, and its pilot's."""


@dataclass(frozen=True)
class Platform:
    """What pilots have found on nodes of a site of late: all that they answer to; None: they differ, or were silent."""

    os: frozenset[str] | None = None
    arch: str | None = None
    glibc: str | None = None
    cpu_features: frozenset[str] | None = None


@dataclass(frozen=True)
class _Asked:
    """What is the same for all sites of one look."""

    vo: str | None
    work: Work
    now: datetime
    partition: str | None


def candidates(
    sites: Iterable[SiteView],
    vo: str | None,
    work: Work,
    now: datetime,
    *,
    grants: Mapping[str, Left | NoGrant] | None = None,
    measured: Mapping[str, Measured] | None = None,
    platforms: Mapping[str, Platform] | None = None,
    partition: str | None = None,
) -> list[Candidate]:
    """What may be chosen from, for one user in this VO: each endpoint that does such work, the refusing ones too.

    ``grants``, ``measured`` and ``platforms`` go by the name of the site. ``partition``: another one than the site's
    own choice, where there is a batch system. A site that has no such endpoint is a candidate that refuses.
    """
    asked = _Asked(vo, work, now, partition)
    sites = tuple(sites)
    found: list[Candidate] = []
    for site in sites:
        grant = (grants or {}).get(site.name)
        seen = (measured or {}).get(site.name)
        platform = (platforms or {}).get(site.name, Platform())
        found += _of_site(site, asked, grant, seen, platform)
    return _near(found, {site.name: site.country for site in sites if site.country})


def _near(found: list[Candidate], countries: Mapping[str, str]) -> list[Candidate]:
    """With the data that there is at other places of the same country."""
    there: dict[str, frozenset[str]] = {}
    for one in found:
        if one.data and (country := countries.get(one.site)):
            there[country] = there.get(country, frozenset()) | one.data
    if not there:
        return found
    return [replace(one, near_data=there.get(countries.get(one.site, ""), frozenset()) - one.data) for one in found]


def _of_site(
    site: SiteView, asked: _Asked, grant: Left | NoGrant | None, seen: Measured | None, platform: Platform
) -> Iterator[Candidate]:
    refusals = [_refusal(one) for one in site_refusals(site, asked.vo, asked.work)]
    common: dict[str, Any] = {
        "is_own": site.visibility is Visibility.OWNER,
        "measured": seen,
        "price": site.policy.price_per_core_hour,
        **_granted(site, grant),
    }
    if site.kind == LOCAL:  # nobody else waits for it, and its pilots start at once
        common["measured"] = seen or Measured(start_s=LOCAL_START_S)
        here = {**common, **_computer(site.capacity), **vars(platform)}
        yield Candidate(site.name, "", LOCAL, refusals=tuple(refusals), load=0.0, **here)
    ends = [one for one in site.endpoints if one.kind in KINDS[asked.work] and one.kind != LOCAL]
    if not ends and site.kind != LOCAL:
        what = "jobs" if asked.work is Work.PILOTS else "machines"
        refusals.append(Refusal("placement.no_endpoint", f"It has nothing that runs {what}."))
        yield Candidate(site.name, "", site.kind, refusals=tuple(refusals), **common)
    for end in ends:
        own = [_refusal(one) for one in endpoint_refusals(site, end, asked.vo, asked.now)]
        own += _lacks_cloud(site, end, asked)
        risk = is_at_risk(site, end, asked.now)
        yield Candidate(
            site.name,
            end.name,
            end.kind,
            refusals=(*refusals, *own),
            at_risk=f"It may stop working until {risk.ends:%Y-%m-%d %H:%M} UTC." if risk else "",
            **common,
            **_offer(site, end, asked, platform),
        )


def _refusal(one: Any) -> Refusal:
    return Refusal(one.reason, one.message, "", one.waiting_on)


def _granted(site: SiteView, grant: Left | NoGrant | None) -> dict[str, Any]:
    """A grant is worth something where none is demanded, too: it is the site's promise to the VO."""
    if grant is None or isinstance(grant, NoGrant):
        is_demanded = site.policy.demands_grant
        return {"demands_grant": True, "no_grant": grant.message if grant else ""} if is_demanded else {}
    core_s = None if grant.core_ms is None else grant.core_ms / 1000
    left = GrantLeft(
        core_s, grant.share, grant.cores, grant.memory_mib, grant.gpus, grant.storage_gib, grant.limited_by
    )
    return {"demands_grant": site.policy.demands_grant, "grant": left}


def _offer(site: SiteView, end: EndpointView, asked: _Asked, platform: Platform) -> dict[str, Any]:
    facts = end.facts_of(asked.vo)
    hours = site.policy.vm_lifetime_h
    if asked.work is Work.MACHINES:
        offer: dict[str, Any] = {"wall_time_s": hours * 3600 if hours is not None else None}
        offer |= _cloud(site, facts) if facts is not None else {}
        return offer | ({"vm_images": None} if _has_unlisted_images(end) else {})
    settings = settings_of(end, asked.vo)
    tags = frozenset(getattr(settings, "tags", ()) or ())
    offer = {
        "tags": tags,
        "required_tags": frozenset(getattr(settings, "required_tags", ()) or ()),
        "data": _data(tags),
        **vars(platform),
    }
    if end.kind == "machines":
        lasts_s = max(0, hours * 3600 - MACHINE_OVERHEAD_S) if hours is not None else None
        return offer | _machines(site, end, settings, asked) | {"wall_time_s": lasts_s}
    if end.kind == "slurm":
        return offer | (_cluster(facts, settings, asked.partition) if facts is not None else {})
    capacity = facts.capacity if facts is not None else None
    offer["load"] = facts.load if facts is not None else None
    return (_computer(capacity) if capacity is not None else {"nodes": 1}) | offer


def _has_unlisted_images(end: EndpointView) -> bool:
    """EC2 has more public VM images than anybody lists: whether it has one that is named only it can say."""
    return end.kind == "libcloud" and end.settings.get("provider") == "ec2"


def _clouds(site: SiteView, asked: _Asked) -> list[EndpointView]:
    """The clouds of a site that take machines of this VO now."""
    ends = [one for one in site.endpoints if one.kind in KINDS[Work.MACHINES] and one.kind != LOCAL]
    return [one for one in ends if not endpoint_refusals(site, one, asked.vo, asked.now)]


def _lacks_cloud(site: SiteView, end: EndpointView, asked: _Asked) -> list[Refusal]:
    """Why machines for jobs cannot be made where they would be."""
    if end.kind != "machines" or end.settings.get("here") or _clouds(site, asked):
        return []
    ends = [one for one in site.endpoints if one.kind in KINDS[Work.MACHINES]]
    if not ends:
        return [Refusal("placement.no_endpoint", "It has no cloud in which machines for jobs could run.")]
    return [_refusal(one) for one in endpoint_refusals(site, ends[0], asked.vo, asked.now)]


def _machines(site: SiteView, end: EndpointView, settings: Any, asked: _Asked) -> dict[str, Any]:
    """What tasks find in machines made for them: of each flavour what the guest's own system leaves."""
    if getattr(settings, "here", False):
        facts = end.facts_of(asked.vo)
        if facts is None or facts.capacity is None:
            return {"nodes": 1}
        memory = max(0, facts.capacity.memory_mib - GUEST_MEMORY_MIB)
        return {"nodes": 1, "cores": facts.capacity.cores, "memory_mib": memory, "gpus": ()}
    found = [facts for one in _clouds(site, asked) if (facts := one.facts_of(asked.vo)) is not None]
    if not found:
        return {"nodes": 1}
    flavours = {one.name: one for facts in found for one in map(_flavour, facts.flavours)}
    left = [replace(one, memory_mib=max(0, one.memory_mib - GUEST_MEMORY_MIB)) for one in flavours.values()]
    quota, load = (_cloud(site, found[0])["quota"], _load(found[0])) if len(found) == 1 else (None, None)
    return {"nodes": 1, "flavours": tuple(left), "quota": quota, "load": load}


def settings_of(end: EndpointView, vo: str | None) -> Any:
    """An endpoint's settings with what differs for the VO; None where its kind does not understand them any more."""
    access = end.vos.get(vo or "")
    try:
        return parse_settings(end.kind, {**end.settings, **(access.settings if access else {})})
    except Fault:
        return None


def _computer(capacity: wire.Capacity) -> dict[str, Any]:
    return {
        "cores": capacity.cores,
        "memory_mib": capacity.memory_mib,
        "gpus": tuple(_gpu(text) for text in capacity.gpus),
        "nodes": 1,
        "tags": frozenset(capacity.tags),
        "required_tags": frozenset(capacity.required_tags),
        "data": _data(capacity.tags),
    }


def _cluster(facts: wire.Facts, settings: Any, name: str | None) -> dict[str, Any]:
    one = partition_of(facts, name or getattr(settings, "partition", None))
    if one is None:
        return {}
    longest = one.max_wall_time_s
    return {
        "cores": one.cores_per_node,
        "memory_mib": max(0, one.memory_mib_per_node - PILOT_MEMORY_MIB),
        "nodes": one.nodes,
        "gpus": tuple(_gpu(model) for model in one.gpus),
        "wall_time_s": None if longest is None else max(0, longest - BATCH_OVERHEAD_S),
        "load": 1.0 - one.idle_cores / one.cores if one.cores else None,
    }


def partition_of(facts: wire.Facts, name: str | None) -> wire.Partition | None:
    """The partition of this name (of several, parted by commas, the first that is known); without one the default."""
    if name:
        return next((one for word in name.split(",") for one in facts.partitions if one.name == word), None)
    return next((one for one in facts.partitions if one.is_default), None)


def _cloud(site: SiteView, facts: wire.Facts) -> dict[str, Any]:
    free = {name: quota.free for name, quota in facts.quotas.items()}
    images = [one for one in facts.vm_images if allows_image(site.policy, [one.name, one.id, one.digest])]
    return {
        "flavours": tuple(_flavour(one) for one in facts.flavours),
        "vm_images": frozenset(word for one in images for word in (one.name, one.id, one.digest) if word),
        "networks": frozenset(word for one in facts.networks for word in (one.name, one.id)),
        "has_public_addresses": any(one.is_external for one in facts.networks) if facts.networks else None,
        "quota": model.Quota(*(free.get(name) for name in ("machines", "cores", "memory_mib", "gpus", "storage_gib"))),
        "load": _load(facts),
    }


def _load(facts: wire.Facts) -> float | None:
    """How much is in use, by what it said itself; else of its quota, by what is scarcest."""
    if facts.load is not None:
        return facts.load
    limited = [one for name in ("machines", "cores", "memory_mib") if (one := facts.quotas.get(name)) and one.limit]
    return max((min(1.0, one.used / one.limit) for one in limited if one.limit), default=None)


def _flavour(one: wire.Flavour) -> model.Flavour:
    disk_mib = one.disk_gib * 1024 if one.disk_gib else None
    gpus = (Gpu(one.gpu_model, one.gpus),) if one.gpus else ()
    return model.Flavour(one.name, one.vcpus, one.memory_mib, disk_mib, gpus)


def _gpu(text: str) -> Gpu:
    """A GPU from ``INDEX, MODEL[, 40960 MiB]``, as nvidia-smi lists them; ``MODEL`` alone will do."""
    parts = [part.strip() for part in text.split(",")]
    sizes = [part.removesuffix("MiB").strip() for part in parts if part.endswith("MiB")]
    names = [part for part in parts if part and not part.isdecimal() and not part.endswith("MiB")]
    memory = int(sizes[0]) if sizes and sizes[0].isdecimal() else None
    return Gpu(names[0] if names else "", 1, memory)


def _data(tags: Iterable[str]) -> frozenset[str]:
    return frozenset(tag.removeprefix("data:") for tag in tags if tag.startswith("data:"))
