"""HTTP routes of sites."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import API, provided
from hansa.sites.checking import CheckService
from hansa.sites.own import OwnSiteService
from hansa.sites.registry import SiteRegistry
from hansa.sites.reports import ReportService
from hansa.sites.service import SiteService
from hansa.sites.steering import SteeringService
from hansa.sites.wire import (
    Admins,
    BanPage,
    BanView,
    CheckReport,
    DowntimePage,
    DowntimeView,
    Drain,
    HealthReport,
    ImportReport,
    ImportRequest,
    NewBan,
    NewDowntime,
    NewSite,
    OwnSite,
    Site,
    SitePage,
    SitePolicy,
)

router = APIRouter(prefix=API, tags=["sites"])
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Registry = Annotated[SiteRegistry, Depends(provided(SiteRegistry))]
Steering = Annotated[SteeringService, Depends(provided(SteeringService))]
Reports = Annotated[ReportService, Depends(provided(ReportService))]
Checks = Annotated[CheckService, Depends(provided(CheckService))]
OwnSites = Annotated[OwnSiteService, Depends(provided(OwnSiteService))]
Reader = Annotated[Caller, allowed(Permission.SITES_READ)]
Writer = Annotated[Caller, allowed(Permission.SITES_WRITE)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/sites")
async def list_sites(who: Reader, sites: Sites, after: str | None = None, limit: Limit = 1000) -> SitePage:
    """The sites that serve the caller, and those that the caller administers."""
    return await sites.list_sites(who, after, limit)


@router.post("/sites", status_code=201)
async def add_site(body: NewSite, who: Writer, registry: Registry) -> Site:
    """Join a site: one's own, or as an operator one for others."""
    return await registry.add(who, body)


@router.post("/sites/check")
async def check_site(body: NewSite, who: Writer, checks: Checks) -> CheckReport:
    """Try what works, without joining, and say what the site must allow."""
    return await checks.check(who, body)


@router.post("/sites/own", status_code=201)
async def add_own_site(body: OwnSite, who: Writer, own_sites: OwnSites) -> Site:
    """Add a host of one's own SSH configuration as a site; whether Slurm is there is found out."""
    return await own_sites.add(who, body)


@router.post("/sites/{name}/probe", status_code=202)
async def probe_site(name: str, who: Writer, own_sites: OwnSites) -> None:
    """Look at all its endpoints now."""
    await own_sites.look(who, name)


@router.post("/sites/import")
async def import_sites(body: ImportRequest, who: Writer, registry: Registry) -> ImportReport:
    """Add the sites of the EGI federation's files, or bring them up to date. For operators."""
    return await registry.import_sites(who, body)


@router.get("/sites/{name}")
async def get_site(name: str, who: Reader, sites: Sites) -> Site:
    """One site."""
    return await sites.get(who, name)


@router.put("/sites/{name}")
async def change_site(name: str, body: NewSite, who: Writer, registry: Registry) -> Site:
    """Make a site what its file now says."""
    return await registry.change(who, name, body)


@router.delete("/sites/{name}", status_code=204)
async def remove_site(name: str, who: Writer, registry: Registry) -> None:
    """Forget a site. What runs there is not touched."""
    await registry.remove(who, name)


@router.put("/sites/{name}/policy")
async def set_policy(name: str, body: SitePolicy, who: Writer, steering: Steering) -> Site:
    """The site's own rules, in the place of those there were."""
    return await steering.set_policy(who, name, body)


@router.put("/sites/{name}/admins")
async def set_admins(name: str, body: Admins, who: Writer, steering: Steering) -> Admins:
    """Who administers the site."""
    return await steering.set_admins(who, name, body.users)


@router.post("/sites/{name}/drain")
async def drain_site(name: str, body: Drain, who: Writer, steering: Steering) -> Site:
    """Let no new work start there. What runs goes on."""
    return await steering.drain(who, name, body.why)


@router.post("/sites/{name}/resume")
async def resume_site(name: str, who: Writer, steering: Steering) -> Site:
    """Let new work start there again."""
    return await steering.resume(who, name)


@router.get("/sites/{name}/bans")
async def list_bans(name: str, who: Writer, steering: Steering) -> BanPage:
    """Users and VOs that the site does not serve; for its administrators."""
    return await steering.bans(who, name)


@router.post("/sites/{name}/bans", status_code=201)
async def ban(name: str, body: NewBan, who: Writer, steering: Steering) -> BanView:
    """Let nothing new of a user, or a VO, start there."""
    return await steering.ban(who, name, body)


@router.delete("/sites/{name}/bans/{kind}/{banned}", status_code=204)
async def unban(name: str, kind: Literal["user", "vo"], banned: str, who: Writer, steering: Steering) -> None:
    """Let a user, or a VO, in again."""
    await steering.unban(who, name, kind, banned)


@router.get("/sites/{name}/downtimes")
async def list_downtimes(name: str, who: Reader, steering: Steering, since: datetime | None = None) -> DowntimePage:
    """Downtimes that are on or to come, or were not over at ``since``."""
    return await steering.downtimes(who, name, since)


@router.post("/sites/{name}/downtimes", status_code=201)
async def announce_downtime(name: str, body: NewDowntime, who: Writer, steering: Steering) -> DowntimeView:
    """Announce a downtime."""
    return await steering.announce(who, name, body)


@router.delete("/sites/{name}/downtimes/{downtime}", status_code=204)
async def end_downtime(name: str, downtime: str, who: Writer, steering: Steering) -> None:
    """End a downtime now, or take it back."""
    await steering.end_downtime(who, name, downtime)


@router.get("/sites/{name}/health")
async def site_health(
    name: str, who: Reader, reports: Reports, days: Annotated[int, Query(ge=1, le=400)] = 30
) -> HealthReport:
    """How a site is and was: history, availability and reliability by day and month."""
    return await reports.health(who, name, days)
