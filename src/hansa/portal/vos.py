"""Pages of virtual organisations: members, roles, groups, invitations, VM images, balances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from hansa.identity.policy import Permission, VoAct, may_in_vo
from hansa.identity.provider.browser import Browser
from hansa.identity.vos import VoService
from hansa.identity.wire import Invitation, MemberChange, MemberPage, NewInvitation, RoleName, VoChange
from hansa.images.endorsing import EndorsementService
from hansa.images.service import ImageService
from hansa.images.wire import ImagePolicy
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor
from hansa.sites.capacity_service import CapacityService
from hansa.sites.service import SiteService

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Images = Annotated[ImageService, Depends(provided(ImageService))]
Endorsing = Annotated[EndorsementService, Depends(provided(EndorsementService))]
Capacities = Annotated[CapacityService, Depends(provided(CapacityService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
Reader = Annotated[Visit, visitor(Permission.VOS_READ)]
Manager = Annotated[Visit, visitor(Permission.VOS_MANAGE)]
ROLES: tuple[RoleName, ...] = ("vm-operator", "manager")
_MOST = 1000


@router.get("/vos")
async def list_vos(visit: Reader, vos: Vos, portal: Pages, after: str | None = None) -> Response:
    """The reader's organisations; for an operator all."""
    return portal.page(visit, "vos/list.html", page=await vos.list_vos(visit.caller, after, 100))


@router.get("/vos/{vo}")
async def show_vo(
    vo: str,
    visit: Reader,
    vos: Vos,
    sites: Sites,
    images: Images,
    endorsing: Endorsing,
    grants: Capacities,
    portal: Pages,
    after: str | None = None,
) -> Response:
    """One organisation: its members, what it endorses, what sites grant it."""
    values = await _about(visit, vo, vos, sites, images, endorsing, grants, after)
    return portal.page(visit, "vos/show.html", invitation=None, **values)


async def _about(
    visit: Visit,
    vo: str,
    vos: VoService,
    sites: SiteService,
    images: ImageService,
    endorsing: EndorsementService,
    grants: CapacityService,
    after: str | None = None,
) -> dict[str, Any]:
    caller = visit.caller
    found = await vos.get(caller, vo)
    mine = next((one for one in await vos.list_mine(caller.user_id) if one.vo == vo), None)
    sees_members = may_in_vo(caller, VoAct.SEE_MEMBERS, mine)
    catalogue = (await images.list_images(caller, None, _MOST)).items
    endorsed = [(image, one) for image in catalogue for one in image.endorsements if one.vo == vo]
    return {
        "vo": found,
        "manages": may_in_vo(caller, VoAct.MANAGE, mine),
        "members": await vos.members(caller, vo, after, 100) if sees_members else MemberPage([]),
        "roles": ROLES,
        "endorsed": endorsed,
        "policy": await endorsing.policy(caller, vo),
        "grants": [one for one in (await grants.list_grants(caller, None, _MOST)).items if one.vo == vo],
        "sites": [one.name for one in (await sites.list_sites(caller)).items if one.visibility != "owner"],
    }


@router.post("/vos/{vo}/invite")
async def invite(
    vo: str,
    visit: Manager,
    vos: Vos,
    sites: Sites,
    images: Images,
    endorsing: Endorsing,
    grants: Capacities,
    portal: Pages,
    browser: Cookies,
) -> Response:
    """A link that lets one person join; shown once."""
    form = await own_form(visit, browser)
    days = form.get("days", "")
    lasts_s = int(days) * 86_400 if days.isascii() and days.isdigit() and 0 < len(days) < 3 else None
    made: Invitation = await vos.invite(visit.caller, vo, NewInvitation(_roles(form), _words(form, "groups"), lasts_s))
    values = await _about(visit, vo, vos, sites, images, endorsing, grants)
    return portal.page(visit, "vos/show.html", invitation=made, **values)


@router.post("/vos/{vo}/act")
async def act_on_vo(
    vo: str, visit: Manager, vos: Vos, endorsing: Endorsing, portal: Pages, browser: Cookies
) -> Response:
    """Describe it, add a group, change its image policy, suspend it or let it work again."""
    form = await own_form(visit, browser)
    caller, why = visit.caller, form.get("why", "").strip()[:500]
    match form.get("act"):
        case "describe":
            await vos.change(caller, vo, VoChange(form.get("description", "").strip()[:2000]))
        case "group":
            await vos.add_group(caller, vo, form.get("group", "").strip()[:200])
        case "policy":
            registries = None if form.get("any_registry") else _words(form, "registries")
            before = await endorsing.policy(caller, vo)
            wanted = ImagePolicy(bool(form.get("site_images")), registries, before.public_list)
            await endorsing.set_policy(caller, vo, wanted)
        case "suspend":
            await vos.suspend(caller, vo, why, suspended=True)
        case "resume":
            await vos.suspend(caller, vo, "", suspended=False)
        case _:
            raise Fault(INVALID, "This is nothing that can be done with an organisation.")
    return portal.redirect(f"/vos/{vo}")


@router.post("/vos/{vo}/members/{member}")
async def act_on_member(vo: str, member: str, visit: Manager, vos: Vos, portal: Pages, browser: Cookies) -> Response:
    """Change roles and groups, suspend, let in again, or remove."""
    form = await own_form(visit, browser)
    match form.get("act"):
        case "roles":
            change = MemberChange(roles=_roles(form), groups=_words(form, "groups"))
            await vos.change_member(visit.caller, vo, member, change)
        case "suspend":
            await vos.suspend_member(visit.caller, vo, member, form.get("why", "")[:500], suspended=True)
        case "resume":
            await vos.suspend_member(visit.caller, vo, member, "", suspended=False)
        case "remove":
            await vos.remove_member(visit.caller, vo, member)
    is_gone = form.get("act") == "remove" and member == visit.caller.user_id
    return portal.redirect("/vos" if is_gone else f"/vos/{vo}")


def _roles(form: Mapping[str, str]) -> list[RoleName]:
    return [role for role in ROLES if form.get(f"role.{role}")]


def _words(form: Mapping[str, str], name: str) -> list[str]:
    """Words between commas or spaces."""
    return form.get(name, "").replace(",", " ").split()[:100]
