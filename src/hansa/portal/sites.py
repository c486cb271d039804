"""Pages of sites: the list, one site and what its administrators do with it, joining, capacity grants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from hansa.identity.model import Caller
from hansa.identity.policy import Permission, VoAct, may_in_vo, may_manage_site
from hansa.identity.provider.browser import Browser
from hansa.identity.vos import VoService
from hansa.jobs.service import JobService
from hansa.kernel.clock import SystemClock
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.kernel.texts import _
from hansa.portal import site_form
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor
from hansa.sites.capacity_service import CapacityService
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, Grant
from hansa.sites.checking import CheckService
from hansa.sites.own import OwnSiteService
from hansa.sites.registry import SiteRegistry
from hansa.sites.reports import ReportService
from hansa.sites.service import SiteService
from hansa.sites.steering import SteeringService
from hansa.sites.wire import NewBan, Site

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Jobs = Annotated[JobService, Depends(provided(JobService))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Registry = Annotated[SiteRegistry, Depends(provided(SiteRegistry))]
Steering = Annotated[SteeringService, Depends(provided(SteeringService))]
Reports = Annotated[ReportService, Depends(provided(ReportService))]
Checks = Annotated[CheckService, Depends(provided(CheckService))]
OwnSites = Annotated[OwnSiteService, Depends(provided(OwnSiteService))]
Capacities = Annotated[CapacityService, Depends(provided(CapacityService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
Reader = Annotated[Visit, visitor(Permission.SITES_READ)]
Writer = Annotated[Visit, visitor(Permission.SITES_WRITE)]
Granter = Annotated[Visit, visitor(Permission.GRANTS_WRITE)]
_MOST = 1000
_DAYS = 30
_WEEK = 7
PAGE = 50


@router.get("/sites")
async def list_sites(
    visit: Reader, sites: Sites, reports: Reports, portal: Pages, after: Annotated[str | None, Query()] = None
) -> Response:
    """Where the reader's work can run, and how it was there of late."""
    found = await sites.list_sites(visit.caller, after, PAGE)
    return portal.page(
        visit,
        "sites/_table.html" if visit.is_live else "sites/list.html",
        sites=found.items,
        following=found.next,
        history=await reports.overview(visit.caller, [one.name for one in found.items], _WEEK),
        now=SystemClock().now(),
    )


@router.get("/sites/join")
async def join_page(visit: Writer, portal: Pages) -> Response:
    """A site file to paste."""
    return portal.page(visit, "sites/join.html", text="", fault=None, report=None, example=site_form.EXAMPLE)


@router.post("/sites/join")
async def join(visit: Writer, registry: Registry, checks: Checks, portal: Pages, browser: Cookies) -> Response:
    """Check what the file says, or join."""
    form = await own_form(visit, browser)
    text, fault, report = form.get("text", ""), None, None
    try:
        new = site_form.read_site(text)
        if form.get("act") == "add":
            site = await registry.add(visit.caller, new)
            return portal.redirect(f"/sites/{site.name}", _("{name} has joined.", name=site.name))
        report = await checks.check(visit.caller, new)
    except Fault as found:
        fault = found
    status = 422 if fault is not None else 200
    return portal.page(
        visit, "sites/join.html", status=status, text=text, fault=fault, report=report, example=site_form.EXAMPLE
    )


@router.get("/sites/{site}")
async def show_site(
    site: str,
    visit: Reader,
    sites: Sites,
    steering: Steering,
    reports: Reports,
    grants: Capacities,
    vos: Vos,
    jobs: Jobs,
    portal: Pages,
) -> Response:
    """One site: how it is and was, what it offers and to whom, and the reader's pilots there."""
    caller = visit.caller
    found = await sites.get(caller, site)
    manages = may_steer(caller, found)
    pilots = [one for one in (await jobs.pilots(caller, None, 200, live=True)).items if one.site == site]
    mine = await vos.list_mine(caller.user_id)
    return portal.page(
        visit,
        "sites/show.html",
        site=found,
        manages=manages,
        health=await reports.health(caller, site, _DAYS),
        bans=(await steering.bans(caller, site)).items if manages else [],
        grants=[one for one in (await grants.list_grants(caller, None, _MOST)).items if one.site == site],
        may_ask=[one.vo for one in mine if may_in_vo(caller, VoAct.MANAGE, one)] if found.visibility != "owner" else [],
        pilots=pilots,
    )


def may_steer(caller: Caller, site: Site) -> bool:
    """Whether to show what only administrators of a site may do; the services ask again."""
    is_private = site.visibility == "owner"
    return may_manage_site(caller, is_own="owner" in site.my_roles, is_private=is_private, is_admin=bool(site.my_roles))


@router.post("/sites/{site}/act")
async def act_on_site(
    site: str,
    visit: Writer,
    steering: Steering,
    registry: Registry,
    own_sites: OwnSites,
    portal: Pages,
    browser: Cookies,
) -> Response:
    """Drain, resume, ban, let in again, announce or end a downtime, look now, remove."""
    form = await own_form(visit, browser)
    act = form.get("act", "")
    if act == "remove":
        if form.get("sure") != site:
            raise Fault(
                INVALID, _("The site stays: its name was not typed."), hint=_("Type {site} to remove it.", site=site)
            )
        await registry.remove(visit.caller, site)
        return portal.redirect("/sites", _("{site} is forgotten. What runs there is not touched.", site=site))
    return portal.redirect(f"/sites/{site}", await _steer(visit.caller, site, act, form, steering, own_sites))


async def _steer(
    caller: Caller, site: str, act: str, form: Mapping[str, str], steering: SteeringService, own_sites: OwnSiteService
) -> str:
    why, who = form.get("why", "").strip()[:500], form.get("who", "").strip()[:200]
    match act:
        case "drain":
            await steering.drain(caller, site, why)
            return _("No new work starts there now. What runs goes on.")
        case "resume":
            await steering.resume(caller, site)
            return _("New work starts there again.")
        case "ban":
            if not who:
                raise Fault(INVALID, _("Say whom the site is not to serve."))
            await steering.ban(caller, site, NewBan("vo" if form.get("kind") == "vo" else "user", who, why))
            return _("Nothing new of {who} starts there.", who=who)
        case "unban":
            await steering.unban(caller, site, form.get("kind", "user"), who)
            return _("{who} is let in again.", who=who)
        case "announce":
            await steering.announce(caller, site, site_form.read_downtime(form))
            return _("The downtime is announced.")
        case "end-downtime":
            await steering.end_downtime(caller, site, form.get("downtime", ""))
            return _("The downtime is over.")
        case "probe":
            await own_sites.look(caller, site)
            return _("Its endpoints are looked at now.")
    raise Fault(INVALID, _("{act} is nothing that can be done with a site.", act=repr(act[:40])))


@router.post("/grants/act")
async def act_on_grant(visit: Granter, grants: Capacities, portal: Pages, browser: Cookies) -> Response:
    """Ask for capacity, agree, agree to other terms, refuse, or share out what was granted."""
    form = await own_form(visit, browser)
    vo, site, note = form.get("vo", ""), form.get("site", ""), form.get("note", "").strip()[:2000]
    caller = visit.caller
    match form.get("act"):
        case "ask":
            found: Grant = await grants.ask(caller, AskGrant(vo, site, site_form.read_terms(form), note))
        case "agree":
            found = await grants.agree(caller, vo, site, AgreeGrant(None, note))
        case "change":
            found = await grants.agree(caller, vo, site, AgreeGrant(site_form.read_terms(form), note))
        case "refuse":
            if not note:
                raise Fault(INVALID, _("Say why, for those who asked."))
            found = await grants.refuse(caller, vo, site, note)
        case "cap":
            await grants.cap(caller, vo, site, site_form.read_caps(form))
            return portal.redirect(f"/vos/{vo}", _("The hours at {site} are shared out so.", site=site))
        case _:
            raise Fault(INVALID, _("Ask, agree or refuse: nothing else can be done with a grant."))
    back = form.get("back", "")
    return portal.redirect(f"/vos/{vo}" if back == "vo" else f"/sites/{site}", found.status.message)
