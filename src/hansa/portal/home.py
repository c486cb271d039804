"""Home, search, the page of components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from hansa.accounting.service import AccountingService
from hansa.identity.policy import Permission
from hansa.identity.vos import VoService
from hansa.jobs.service import JobService
from hansa.jobs.wire import Phase
from hansa.kernel.errors import Fault
from hansa.kernel.events import EventLog
from hansa.kernel.http import MOST, provided
from hansa.portal import charts
from hansa.portal.frame import PageRoute, Portal, Visit, visitor
from hansa.sites.service import SiteService

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Jobs = Annotated[JobService, Depends(provided(JobService))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Usage = Annotated[AccountingService, Depends(provided(AccountingService))]
Log = Annotated[EventLog, Depends(provided(EventLog))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Reader = Annotated[Visit, visitor(Permission.SELF_READ)]


@dataclass(frozen=True)
class Hit:
    """Something that was found."""

    kind: str
    name: str
    path: str
    about: str


@router.get("/")
async def home(visit: Reader, jobs: Jobs, sites: Sites, vos: Vos, usage: Usage, log: Log, portal: Pages) -> Response:
    """What is mine, how it is going, and what needs me."""
    caller = visit.caller
    counts = await jobs.summary(caller)
    failed = await jobs.list_jobs(caller, phase=Phase.FAILED, limit=5)
    recent = await jobs.list_jobs(caller, limit=8)
    return portal.page(
        visit,
        "_home.html" if visit.is_live else "home.html",
        counts=counts,
        failed=failed.items,
        recent=recent.items,
        sites=(await sites.list_sites(caller)).items,
        memberships=await vos.list_mine(caller.user_id),
        usage=(await usage.usage(caller, None)).items,
        activity=await log.recent(caller.user_id, 12),
    )


@router.get("/search")
async def search(
    visit: Reader, jobs: Jobs, sites: Sites, vos: Vos, portal: Pages, q: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Everything of the reader's with this number or name."""
    word = q.strip()
    hits = await _find(visit, jobs, sites, vos, word) if word else []
    return portal.page(visit, "_hits.html" if visit.is_live else "search.html", hits=hits, q=word)


async def _find(visit: Visit, jobs: JobService, sites: SiteService, vos: VoService, word: str) -> list[Hit]:
    caller, small = visit.caller, word.lower()
    hits: list[Hit] = []
    number = word.removeprefix("#").partition(".")[0]
    if number.isdigit() and int(number[:19]) <= MOST:
        try:
            job = await jobs.get(caller, int(number[:19]))
            hits.append(Hit("job", f"{job.number}", f"/jobs/{job.number}", job.name or " ".join(job.command)[:80]))
        except Fault:
            pass  # it is nobody's, or not the reader's: the same to them
    quoted = '"' + word.replace('"', " ") + '"'
    named = await jobs.list_jobs(caller, query=quoted, limit=10)
    hits += [Hit("job", str(job.number), f"/jobs/{job.number}", job.name or "") for job in named.items]
    for site in (await sites.list_sites(caller)).items:
        if small in site.name.lower():
            hits.append(Hit("site", site.name, f"/sites/{site.name}", site.status.message))
    for vo in (await vos.list_vos(caller, None, 1000)).items:
        if small in vo.name.lower() or small in vo.description.lower():
            hits.append(Hit("organisation", vo.name, f"/vos/{vo.name}", vo.description[:80]))
    return hits


@router.get("/components")
async def components(visit: Reader, portal: Pages) -> Response:
    """Every component that pages are made of, for developers."""
    counts = {"done": 820, "failed": 12, "killed": 3, "running": 64, "waiting": 101}
    return portal.page(visit, "components.html", bar=charts.stack(counts), counts=counts, phases=list(Phase))
