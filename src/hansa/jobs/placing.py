"""Tasks as requests to placement, and the sites that could run them: what submission, demand and explanations share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs.batch import option_of
from hansa.jobs.needs import Needs, version_key
from hansa.jobs.tables import pilots
from hansa.kernel.database import Tx
from hansa.kernel.status import Status
from hansa.placement import choose
from hansa.placement.authority import refused
from hansa.placement.model import Candidate, Choice, Request, data_needs
from hansa.placement.views import LOCAL, Platform, candidates, settings_of
from hansa.sites.capacity_model import Left, NoGrant
from hansa.sites.model import EndpointView, SiteView, Work

FIRM = frozenset(
    {
        "sites.user_banned", "sites.vo_banned", "sites.user_not_listed", "sites.no_pilots", "sites.vo_not_served",
        "placement.no_endpoint",
    }
)  # fmt: skip
"""Refusals that waiting does not change; the others pass."""
MACHINES = "machines"
_LOOKED_AT = 40


@dataclass(frozen=True)
class Offer:
    """A place where pilots can start: what placement knows of it, and what starting one there needs."""

    candidate: Candidate
    site: SiteView
    endpoint: EndpointView | None
    settings: Any
    """Of the endpoint's kind, with what differs for the VO; None at the embedded site."""

    @property
    def vo_alone(self) -> bool:
        """Whether a pilot here serves one VO: it comes in as that VO, spends its grant, or runs what it endorsed."""
        return (
            self.is_machine
            or self.site.policy.demands_grant
            or (self.endpoint is not None and self.endpoint.is_for_vos)
        )

    @property
    def is_machine(self) -> bool:
        """Whether a machine is made for each pilot."""
        return self.candidate.kind == MACHINES

    @property
    def place(self) -> str:
        return self.endpoint.id if self.endpoint is not None else self.site.name


@dataclass(frozen=True)
class Known:
    """What this server knows of sites besides their own word, by site."""

    measured: Mapping[str, Any]
    platforms: Mapping[str, Platform]


def request_of(needs: Needs, vo: str | None) -> Request:
    """What one task asks of a place."""
    return Request(
        cores=needs.cores,
        memory_mib=needs.memory_mib,
        disk_mib=needs.disk_mib,
        wall_time_s=needs.wall_time_s,
        gpus=needs.gpus,
        gpu_model=needs.gpu_model,
        gpu_memory_mib=needs.gpu_memory_mib,
        tags=frozenset(needs.tags),
        os=needs.os,
        arch=needs.arch,
        glibc=needs.glibc,
        cpu_features=frozenset(needs.cpu_features),
        sites=_sites(needs),
        banned_sites=needs.banned_sites,
        preferred_sites=needs.preferred_sites,
        data=data_needs(needs.data, needs.near_data),
        is_data_required=True,
        vo=vo,
        nodes=needs.nodes,
        needs_batch_system=bool(needs.batch),
    )


def _sites(needs: Needs) -> tuple[str, ...]:
    if needs.site is None:
        return needs.sites
    return (needs.site,) if not needs.sites or needs.site in needs.sites else ("",)  # never both: none will do


def choice_for(
    needs: Needs,
    vo: str | None,
    sites: Iterable[SiteView],
    now: datetime,
    known: Known,
    grants: Mapping[str, Left | NoGrant] | None = None,
    lapsed: Mapping[str, Status] | None = None,
) -> Choice:
    """Where a task could run, the best first; and why not elsewhere. ``lapsed``: sites at which this server may not act
    for the owner, and why."""
    found = candidates(
        sites,
        vo,
        Work.PILOTS,
        now,
        grants=grants,
        measured=known.measured,
        platforms=known.platforms,
        partition=option_of(needs.batch, "partition"),
    )
    return choose.choose(request_of(needs, vo), refused(found, lapsed or {}))


def offer_of(candidate: Candidate, sites: Mapping[str, SiteView], vo: str | None) -> Offer:
    """What stands behind a candidate that is not refused."""
    site = sites[candidate.site]
    if candidate.kind == LOCAL:
        return Offer(candidate, site, None, None)
    end = next(one for one in site.endpoints if one.name == candidate.endpoint)
    return Offer(candidate, site, end, settings_of(end, vo))


def why_never(choice: Choice) -> list[str]:
    """Why no site can ever run it, a sentence for each; none: one can, if perhaps not now."""
    again = choose.choose(choice.request, [_lasting(one) for one in (*choice.order, *choice.rejected)], choice.weights)
    return [] if again.order else [said_of(again, one) for one in again.rejected]


def _lasting(candidate: Candidate) -> Candidate:
    """A candidate without the refusals that pass: a drain, a downtime, a login that has lapsed, a used-up grant."""
    firm = tuple(one for one in candidate.refusals if one.reason in FIRM)
    return replace(candidate, refusals=firm, demands_grant=False)


def said_of(choice: Choice, candidate: Candidate) -> str:
    """``local: 64 cores asked, 4 there``."""
    found = choose.explain(choice, candidate).findings
    return f"{candidate.site}: {', '.join(finding.message.rstrip('.') for finding in found)}"


async def platforms_of(tx: Tx, sites: Sequence[str]) -> dict[str, Platform]:
    """What the newest pilots of these sites have found on their nodes."""
    age = sa.func.row_number().over(partition_by=pilots.c.site, order_by=pilots.c.id.desc()).label("age")
    told = pilots.c.session.is_not(None)
    newest = sa.select(pilots.c.site, pilots.c.node, age).where(pilots.c.site.in_(sites), told).subquery()
    rows: Sequence[Any] = (await tx.execute(sa.select(newest).where(newest.c.age <= _LOOKED_AT))).all()
    nodes: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.node:
            nodes.setdefault(row.site, []).append(row.node)
    return {site: platform_of(some) for site, some in nodes.items()}


def platform_of(nodes: Sequence[Mapping[str, Any]]) -> Platform:
    """What some node of a site answers to. Nodes differ: what one has is enough to try it."""
    names = {str(name) for node in nodes for name in node.get("os") or ()}
    archs = {str(node["machine"]) for node in nodes if node.get("machine")}
    libraries = [str(node["glibc"]) for node in nodes if node.get("glibc")]
    features = {str(name) for node in nodes for name in node.get("cpu_features") or ()}
    return Platform(
        frozenset(names) or None,
        archs.pop() if len(archs) == 1 else None,
        max(libraries, key=version_key, default=None),
        frozenset(features) or None,
    )
