"""Administration: users, issuers, clients, keys, and what waits for the operator."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from hansa.identity.accounts import AccountService
from hansa.identity.policy import Permission
from hansa.identity.provider.browser import Browser
from hansa.identity.provider.service import ProviderService
from hansa.identity.upstream.service import UpstreamService
from hansa.identity.vos import VoService
from hansa.identity.wire import NewUser, NewVo
from hansa.kernel.http import provided
from hansa.kernel.texts import _
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor
from hansa.sites.capacity_service import CapacityService
from hansa.sites.service import SiteService

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Accounts = Annotated[AccountService, Depends(provided(AccountService))]
Provider = Annotated[ProviderService, Depends(provided(ProviderService))]
Upstreams = Annotated[UpstreamService, Depends(provided(UpstreamService))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Capacities = Annotated[CapacityService, Depends(provided(CapacityService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
Operator = Annotated[Visit, visitor(Permission.USERS_WRITE)]
_MOST = 1000
_SHOWN = 100


@router.get("/admin")
async def admin(
    visit: Operator,
    accounts: Accounts,
    provider: Provider,
    upstreams: Upstreams,
    sites: Sites,
    grants: Capacities,
    portal: Pages,
    after: Annotated[str | None, Query()] = None,
    q: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Users, issuers, drains, requests for capacity, OpenID clients, keys."""
    return await _admin(visit, accounts, provider, upstreams, sites, grants, portal, after, q.strip())


async def _admin(
    visit: Visit,
    accounts: AccountService,
    provider: ProviderService,
    upstreams: UpstreamService,
    sites: SiteService,
    grants: CapacityService,
    portal: Portal,
    after: str | None,
    word: str = "",
    link: str | None = None,
) -> Response:
    granted = (await grants.list_grants(visit.caller, None, _MOST)).items
    return portal.page(
        visit,
        "admin.html",
        users=await accounts.list_users(after, 100, word),
        sought=word,
        clients=(await provider.list_clients()).items,
        issuers=upstreams.issuers,
        drained=[one for one in (await sites.list_sites(visit.caller)).items if one.drained is not None],
        asked=[one for one in granted if one.asked is not None],
        grants=granted[:_SHOWN],
        more_grants=len(granted) > _SHOWN,
        link=link,
    )


@router.post("/admin/users")
async def act_on_user(
    visit: Operator,
    accounts: Accounts,
    provider: Provider,
    upstreams: Upstreams,
    sites: Sites,
    grants: Capacities,
    portal: Pages,
    browser: Cookies,
) -> Response:
    """Invite, suspend, let in again."""
    form = await own_form(visit, browser)
    name = form.get("name", "").strip()[:100]
    if form.get("act") == "invite":
        made = await accounts.invite_user(visit.caller, NewUser(name))
        return await _admin(visit, accounts, provider, upstreams, sites, grants, portal, None, link=made.link)
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
    return portal.redirect("/admin", _("Tokens are signed with the key {id} now.", id=made.id))
