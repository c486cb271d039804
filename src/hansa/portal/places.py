"""Pages of sites, virtual organisations, usage, and administration."""

from __future__ import annotations

import csv
import io
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import PlainTextResponse

from hansa.accounting.service import AccountingService
from hansa.identity.accounts import AccountService
from hansa.identity.policy import Permission
from hansa.identity.provider.browser import Browser
from hansa.identity.provider.service import ProviderService
from hansa.identity.vos import VoService
from hansa.identity.wire import MemberChange, NewInvitation, NewUser, NewVo, RoleName
from hansa.jobs.service import JobService
from hansa.kernel.http import provided
from hansa.portal import charts
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor
from hansa.sites.service import SiteService

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Jobs = Annotated[JobService, Depends(provided(JobService))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Accounts = Annotated[AccountService, Depends(provided(AccountService))]
Provider = Annotated[ProviderService, Depends(provided(ProviderService))]
Usage = Annotated[AccountingService, Depends(provided(AccountingService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
SiteReader = Annotated[Visit, visitor(Permission.SITES_READ)]
VoReader = Annotated[Visit, visitor(Permission.VOS_READ)]
VoManager = Annotated[Visit, visitor(Permission.VOS_MANAGE)]
UserAdmin = Annotated[Visit, visitor(Permission.USERS_WRITE)]
UsageReader = Annotated[Visit, visitor(Permission.USAGE_READ)]
ROLES: tuple[RoleName, ...] = ("vm-operator", "manager")


@router.get("/sites")
async def list_sites(visit: SiteReader, sites: Sites, portal: Pages) -> Response:
    """Where the reader's jobs can run."""
    found = await sites.list_sites(visit.caller)
    return portal.page(visit, "sites/_table.html" if visit.is_live else "sites/list.html", sites=found.items)


@router.get("/sites/{site}")
async def show_site(site: str, visit: SiteReader, sites: Sites, jobs: Jobs, portal: Pages) -> Response:
    """One site, and the reader's pilots there."""
    found = await sites.get(visit.caller, site)
    pilots = [one for one in (await jobs.pilots(visit.caller, None, 200, live=True)).items if one.site == site]
    return portal.page(visit, "sites/show.html", site=found, pilots=pilots)


@router.get("/vos")
async def list_vos(visit: VoReader, vos: Vos, portal: Pages, after: str | None = None) -> Response:
    """The reader's organisations; for an operator all."""
    return portal.page(visit, "vos/list.html", page=await vos.list_vos(visit.caller, after, 100))


@router.get("/vos/{vo}")
async def show_vo(vo: str, visit: VoReader, vos: Vos, portal: Pages, after: str | None = None) -> Response:
    """One organisation and its members."""
    found = await vos.get(visit.caller, vo)
    members = await vos.members(visit.caller, vo, after, 100)
    return portal.page(visit, "vos/show.html", vo=found, members=members, roles=ROLES, invitation=None)


@router.post("/vos/{vo}/invite")
async def invite(vo: str, visit: VoManager, vos: Vos, portal: Pages, browser: Cookies) -> Response:
    """A link that lets one person join; shown once."""
    form = await own_form(visit, browser)
    wanted = [role for role in ROLES if form.get(f"role.{role}")]
    made = await vos.invite(visit.caller, vo, NewInvitation(roles=wanted))
    found = await vos.get(visit.caller, vo)
    members = await vos.members(visit.caller, vo, None, 100)
    return portal.page(visit, "vos/show.html", vo=found, members=members, roles=ROLES, invitation=made)


@router.post("/vos/{vo}/members/{member}")
async def act_on_member(vo: str, member: str, visit: VoManager, vos: Vos, portal: Pages, browser: Cookies) -> Response:
    """Change roles, suspend, let in again, or remove."""
    form = await own_form(visit, browser)
    match form.get("act"):
        case "roles":
            wanted = [role for role in ROLES if form.get(f"role.{role}")]
            await vos.change_member(visit.caller, vo, member, MemberChange(roles=wanted))
        case "suspend":
            await vos.suspend_member(visit.caller, vo, member, form.get("why", "")[:500], suspended=True)
        case "resume":
            await vos.suspend_member(visit.caller, vo, member, "", suspended=False)
        case "remove":
            await vos.remove_member(visit.caller, vo, member)
    return portal.redirect(f"/vos/{vo}" if form.get("act") != "remove" or member != visit.caller.user_id else "/vos")


@router.get("/usage")
async def show_usage(visit: UsageReader, usage: Usage, portal: Pages, since: str = "") -> Response:
    """What was used, by organisation and site: bars, and the same as a table."""
    found = await usage.usage(visit.caller, _day(since))
    heights = charts.bars([row.core_s for row in found.items])
    return portal.page(visit, "usage.html", rows=list(zip(found.items, heights, strict=True)), since=since)


@router.get("/usage.csv")
async def usage_csv(visit: UsageReader, usage: Usage, since: str = "") -> Response:
    """The same for spreadsheets."""
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow(["owner", "vo", "site", "tasks", "wall_s", "core_s", "cpu_s"])
    for row in (await usage.usage(visit.caller, _day(since))).items:
        writer.writerow([row.owner, row.vo or "", row.site, row.tasks, row.wall_s, row.core_s, row.cpu_s])
    headers = {"Content-Disposition": 'attachment; filename="usage.csv"', "Cache-Control": "no-store"}
    return PlainTextResponse(output.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


@router.get("/admin")
async def admin(
    visit: UserAdmin,
    accounts: Accounts,
    provider: Provider,
    portal: Pages,
    after: Annotated[str | None, Query()] = None,
) -> Response:
    """Users, OpenID clients, keys."""
    return await _admin(visit, accounts, provider, portal, after)


async def _admin(
    visit: Visit,
    accounts: AccountService,
    provider: ProviderService,
    portal: Portal,
    after: str | None,
    link: str | None = None,
) -> Response:
    users = await accounts.list_users(after, 100)
    clients = await provider.list_clients()
    return portal.page(visit, "admin.html", users=users, clients=clients.items, link=link)


@router.post("/admin/users")
async def act_on_user(
    visit: UserAdmin, accounts: Accounts, provider: Provider, portal: Pages, browser: Cookies
) -> Response:
    """Invite, suspend, let in again."""
    form = await own_form(visit, browser)
    name = form.get("name", "").strip()[:100]
    if form.get("act") == "invite":
        made = await accounts.invite_user(visit.caller, NewUser(name))
        return await _admin(visit, accounts, provider, portal, None, made.link)
    await accounts.suspend_user(visit.caller, name, suspended=form.get("act") == "suspend")
    return portal.redirect("/admin")


@router.post("/admin/vos")
async def add_vo(
    visit: Annotated[Visit, visitor(Permission.VOS_CREATE)], vos: Vos, portal: Pages, browser: Cookies
) -> Response:
    """Create an organisation."""
    form = await own_form(visit, browser)
    made = await vos.create(visit.caller, NewVo(form.get("name", "")[:63], form.get("description", "")[:2000]))
    return portal.redirect(f"/vos/{made.name}")


@router.post("/admin/keys")
async def rotate_key(
    visit: Annotated[Visit, visitor(Permission.KEYS_WRITE)], provider: Provider, portal: Pages, browser: Cookies
) -> Response:
    """Sign tokens with a new key."""
    await own_form(visit, browser)
    made = await provider.rotate_key(visit.caller)
    return portal.redirect("/admin", f"Tokens are signed with the key {made.id} now.")
