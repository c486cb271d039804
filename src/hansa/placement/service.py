"""Plans: where something would run and why, without starting it. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from hansa.identity import vo_store
from hansa.identity.authority import AuthorityService
from hansa.identity.model import Caller
from hansa.identity.vos import VoService
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.settings import JobSettings
from hansa.placement.authority import lapsed_at, of_others, refused
from hansa.placement.choose import choose, explain_all
from hansa.placement.filter import OWN_CHOICE
from hansa.placement.model import Candidate, Measured, Request, Verdict, Work, data_needs
from hansa.placement.views import Platform, candidates
from hansa.placement.wire import Plan, PlanFactor, PlanFinding, PlanItem, PlanRequest
from hansa.sites import capacity
from hansa.sites.capacity_model import Left, NoGrant
from hansa.sites.model import SiteView
from hansa.sites.model import Work as SiteWork
from hansa.sites.service import SiteService

Measure = Callable[[Tx, Sequence[str], datetime], Awaitable[Mapping[str, Measured]]]
"""How starts went of late, by site: what only the rooms that start things know."""
Platforms = Callable[[Tx, Sequence[str]], Awaitable[Mapping[str, Platform]]]
"""What nodes are like, by site."""


class PlanService:
    """Answers "what if"."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        sites: SiteService,
        vos: VoService,
        authority: AuthorityService,
        settings: JobSettings,
        seen: Mapping[str, Measure],
        platforms: Platforms,
    ) -> None:
        """``seen``: by the kind of work."""
        self._database = database
        self._clock = clock
        self._sites = sites
        self._vos = vos
        self._authority = authority
        self._settings = settings
        self._seen = seen
        self._platforms = platforms

    async def plan(self, caller: Caller, asked: PlanRequest) -> Plan:
        """Where it would run now, for this caller. Raises Fault for its VO, as a submission would."""
        now = self._clock.now()
        async with self._database.read() as tx:
            vo = await self._vos.check_may_start(tx, caller, asked.vo)
            mine = [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
            sites = await self._sites.serving(tx, caller.user_id, mine)
            grants = await grants_left(tx, sites, caller.user_id, vo or "", asked.vo_group, caller.name, now)
            names = [site.name for site in sites]
            seen = await self._seen[asked.work](tx, names, now)
            platforms = await self._platforms(tx, names) if asked.work == "job" else {}
            until = now + timedelta(seconds=asked.wall_time_s or 0)
            there = sites if asked.work == "machine" else of_others(sites)
            lapsed = await lapsed_at(tx, self._authority, there, caller.user_id, vo, until)
        work = SiteWork.PILOTS if asked.work == "job" else SiteWork.MACHINES
        found = refused(candidates(sites, vo, work, now, grants=grants, measured=seen, platforms=platforms), lapsed)
        choice = choose(request_of(asked, vo, self._settings), found)
        pairs = list(zip((*choice.order, *choice.rejected), explain_all(choice), strict=True))
        pairs.sort(key=lambda one: _nearness(one[1]))
        return Plan(_sentence([verdict for _, verdict in pairs]), vo, [_item(*one) for one in pairs])


async def grants_left(
    tx: Tx, sites: Iterable[SiteView], user_id: str, vo: str, group: str, user_name: str, now: datetime
) -> dict[str, Left | NoGrant]:
    """What is left to a user of the grants of a VO, at the sites that gave or demand one."""
    found: dict[str, Left | NoGrant] = {}
    if not vo:
        return found
    given = await capacity.sites_of(tx, vo)
    for site in sites:
        if site.name in given or site.policy.demands_grant:
            who = capacity.Who(vo, site.name, user_id, user_name, "", group)
            found[site.name] = await capacity.left(tx, who, now)
    return found


def request_of(asked: PlanRequest, vo: str | None, settings: JobSettings) -> Request:
    """What is asked, with the server's defaults for a job. Pure."""
    is_job = asked.work == "job"
    return Request(
        work=Work.JOB if is_job else Work.MACHINE,
        cores=asked.cores or (settings.cores if is_job else 1),
        memory_mib=asked.memory_mib or (settings.memory_mib if is_job else 0),
        disk_mib=asked.disk_mib,
        wall_time_s=asked.wall_time_s or (settings.wall_time_s if is_job else 0),
        gpus=max(asked.gpus, 1 if asked.gpu_model or asked.gpu_memory_mib else 0),
        gpu_model=asked.gpu_model,
        gpu_memory_mib=asked.gpu_memory_mib,
        count=1 if is_job else asked.count,
        tags=frozenset(asked.tags),
        os=asked.os,
        arch=asked.arch,
        glibc=asked.glibc,
        cpu_features=frozenset(asked.cpu_features),
        vm_image=asked.vm_image,
        flavour=asked.flavour,
        network=asked.network,
        needs_public_address=asked.public_address,
        needs_containers=asked.containers,
        storage_gib=asked.storage_gib,
        sites=tuple(asked.sites),
        banned_sites=tuple(asked.banned_sites),
        preferred_sites=tuple(asked.preferred_sites),
        data=data_needs(asked.data, asked.near_data),
        is_data_required=True,
        vo=vo,
    )


def _nearness(verdict: Verdict) -> tuple[int, bool, int]:
    """The possible ones in their order; then those that lack least, last those that the caller did not want."""
    is_unwanted = any(one.reason in OWN_CHOICE for one in verdict.findings)
    return verdict.rank or 2**31, is_unwanted, len(verdict.findings)


def _sentence(verdicts: Sequence[Verdict]) -> str:
    possible = [one for one in verdicts if one.is_possible]
    if possible:
        first = possible[0]
        size = f" as {first.flavour}" if first.flavour else ""
        more = f"; it could at {len(possible) - 1} more" if len(possible) > 1 else ""
        return f"It would run at {first.site}{size}{more}."
    if not verdicts:
        return "No site serves you: hansa site list"
    near = verdicts[0]
    finding = near.findings[0]
    return f"It can run nowhere now. Nearest to it is {near.site}: {finding.message} {finding.remedy}".rstrip()


def _item(candidate: Candidate, verdict: Verdict) -> PlanItem:
    return PlanItem(
        verdict.site,
        verdict.endpoint,
        candidate.kind,
        verdict.rank,
        round(verdict.score, 4),
        verdict.flavour,
        [PlanFactor(one.name, round(one.value, 4), one.weight, one.message) for one in verdict.factors],
        [PlanFinding(one.reason, one.message, one.remedy, one.waiting_on.value) for one in verdict.findings],
    )
