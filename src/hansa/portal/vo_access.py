"""The page of what acts for an organisation: its credentials at sites, and its service accounts. For its managers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from hansa.identity.authority import AuthorityService
from hansa.identity.policy import Permission
from hansa.identity.provider.browser import Browser
from hansa.identity.services import ServiceAccounts
from hansa.identity.vos import VoService
from hansa.identity.wire import NewService, NewSiteCredential, Service, ServiceScope
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.kernel.texts import _
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor
from hansa.portal.site_form import read_moment
from hansa.portal.vos import standing
from hansa.sites.service import SiteService

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Authorities = Annotated[AuthorityService, Depends(provided(AuthorityService))]
Services = Annotated[ServiceAccounts, Depends(provided(ServiceAccounts))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
Manager = Annotated[Visit, visitor(Permission.VOS_MANAGE)]
SCOPES: tuple[tuple[ServiceScope, str], ...] = (
    ("hansa.jobs", "run jobs"),
    ("hansa.read", "look, and change nothing"),
    ("hansa", "all that a member may"),
)


@router.get("/vos/{vo}/access")
async def show_access(
    vo: str, visit: Manager, vos: Vos, authority: Authorities, services: Services, sites: Sites, portal: Pages
) -> Response:
    """Credentials without their content, and service accounts without their secrets."""
    return await _page(vo, visit, vos, authority, services, sites, portal)


async def _page(
    vo: str,
    visit: Visit,
    vos: VoService,
    authority: AuthorityService,
    services: ServiceAccounts,
    sites: SiteService,
    portal: Portal,
    made: Service | None = None,
) -> Response:
    return portal.page(
        visit,
        "vos/access.html",
        **(await standing(visit, vos, vo)).head,
        tab="access",
        credentials=(await authority.site_credentials(visit.caller, vo)).items,
        services=(await services.list_of(visit.caller, vo)).items,
        sites=[one.name for one in (await sites.list_sites(visit.caller)).items if one.visibility != "owner"],
        scopes=SCOPES,
        made=made,
    )


@router.post("/vos/{vo}/access")
async def change_access(
    vo: str,
    visit: Manager,
    vos: Vos,
    authority: Authorities,
    services: Services,
    sites: Sites,
    portal: Pages,
    browser: Cookies,
) -> Response:
    """Set or take back a credential; add or remove a service account. A secret is shown once and never again."""
    form = await own_form(visit, browser)
    caller, site = visit.caller, form.get("site", "")[:200]
    match form.get("act"):
        case "credential":
            if not site:
                raise Fault(INVALID, _("Say at which site it is."))
            await authority.set_site_credential(caller, vo, site, read_credential(form))
            said = _("{vo} signs in at {site} with it from now on.", vo=vo, site=site)
        case "revoke":
            mine = (await authority.site_credentials(caller, vo)).items
            if all(one.id != form.get("grant") for one in mine):
                raise Fault(INVALID, _("{vo} has no such credential.", vo=vo), hint=_("Load the page again."))
            await authority.revoke(caller, form.get("grant", ""))
            said = _("It is forgotten: nothing new starts under it. What runs goes on.")
        case "service":
            scopes = [scope for scope, _text in SCOPES if form.get(f"scope.{scope}")]
            if not scopes:
                raise Fault(INVALID, _("Say what the service account may do."), hint=_("To run jobs is the usual."))
            made = await services.add(caller, vo, NewService(form.get("name", "").strip()[:32], scopes))
            return await _page(vo, visit, vos, authority, services, sites, portal, made)
        case "remove":
            await services.remove(caller, vo, form.get("service", "")[:200])
            said = _("It is removed, and its tokens are void. What it has started goes on.")
        case _:
            raise Fault(INVALID, _("This is nothing that can be done here."))
    return portal.redirect(f"/vos/{vo}/access", said)


def read_credential(form: Mapping[str, str]) -> NewSiteCredential:
    """The credential of a form: id and secret, and further fields as NAME=value. Raises Fault; says no value back."""
    fields = {name: form[name] for name in ("id", "secret") if form.get(name)}
    for number, line in enumerate(form.get("more", "").splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if line.strip() and not (equals and 0 < len(name.strip()) <= 100):
            raise Fault(INVALID, _("Line {number} of the further fields is not NAME=value.", number=number))
        if line.strip():
            fields[name.strip()] = value.strip()
    if any(len(value) > 20_000 for value in fields.values()):
        raise Fault(INVALID, _("A field of a credential holds 20,000 characters at most."))
    return NewSiteCredential(fields, read_moment(form.get("expires", ""), _("The end")))
