"""Pages of virtual organisations: what one is and has, what it endorses and follows, and how it is set up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from hansa.identity.model import Membership
from hansa.identity.policy import Permission, VoAct, may_in_vo
from hansa.identity.provider.browser import Browser
from hansa.identity.vos import VoService
from hansa.identity.wire import Vo, VoChange
from hansa.images.endorsing import EndorsementService
from hansa.images.service import ImageService
from hansa.images.wire import ImagePolicy, NewSubscription
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.kernel.texts import _
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
_MOST = 1000


@dataclass(frozen=True)
class Standing:
    """An organisation, and what the reader is in it."""

    vo: Vo
    mine: Membership | None
    manages: bool

    @property
    def head(self) -> dict[str, Any]:
        """What the head of each of its pages needs."""
        return {"vo": self.vo, "manages": self.manages}


async def standing(visit: Visit, vos: VoService, name: str) -> Standing:
    """Raises Fault ``identity.no_such_vo`` where the reader may not even know of it."""
    found = await vos.get(visit.caller, name)
    mine = next((one for one in await vos.list_mine(visit.caller.user_id) if one.vo == name), None)
    return Standing(found, mine, may_in_vo(visit.caller, VoAct.MANAGE, mine))


@router.get("/vos")
async def list_vos(visit: Reader, vos: Vos, portal: Pages, after: str | None = None) -> Response:
    """The reader's organisations; for an operator all."""
    return portal.page(visit, "vos/list.html", page=await vos.list_vos(visit.caller, after, 100))


@router.get("/vos/{vo}")
async def show_vo(
    vo: str, visit: Reader, vos: Vos, sites: Sites, images: Images, grants: Capacities, portal: Pages
) -> Response:
    """One organisation: what it is, what sites grant it, and what it endorses."""
    caller, known = visit.caller, await standing(visit, vos, vo)
    catalogue = (await images.list_images(caller, None, _MOST)).items
    return portal.page(
        visit,
        "vos/show.html",
        **known.head,
        tab="overview",
        endorsed=[(image, one) for image in catalogue for one in image.endorsements if one.vo == vo],
        grants=[one for one in (await grants.list_grants(caller, None, _MOST)).items if one.vo == vo],
        sites=[one.name for one in (await sites.list_sites(caller)).items if one.visibility != "owner"],
    )


@router.get("/vos/{vo}/images")
async def show_images(
    vo: str, visit: Reader, vos: Vos, images: Images, endorsing: Endorsing, portal: Pages
) -> Response:
    """What its members may start: endorsed images, lists that it follows, and what else is allowed."""
    caller, known = visit.caller, await standing(visit, vos, vo)
    catalogue = (await images.list_images(caller, None, _MOST)).items
    return portal.page(
        visit,
        "vos/images.html",
        **known.head,
        tab="images",
        endorsed=[(image, one) for image in catalogue for one in image.endorsements if one.vo == vo],
        policy=await endorsing.policy(caller, vo),
        lists=(await endorsing.subscriptions(caller, vo)).items,
    )


@router.post("/vos/{vo}/images")
async def change_images(vo: str, visit: Manager, endorsing: Endorsing, portal: Pages, browser: Cookies) -> Response:
    """Follow an image list or follow it no more; say what else may be started."""
    form = await own_form(visit, browser)
    match form.get("act"):
        case "policy":
            registries = None if form.get("any_registry") else words(form, "registries")
            wish = ImagePolicy(bool(form.get("site_images")), registries, bool(form.get("public_list")))
            await endorsing.set_policy(visit.caller, vo, wish)
            said = _("What may be started is set.")
        case "follow":
            found = await endorsing.subscribe(visit.caller, vo, read_subscription(form))
            said = _("{vo} follows {url}. It is read now.", vo=vo, url=found.url)
        case "unfollow":
            await endorsing.unsubscribe(visit.caller, vo, form.get("list", "")[:100])
            said = _("It is followed no more. Its images stay until they expire.")
        case _:
            raise Fault(INVALID, _("This is nothing that can be done with the images of an organisation."))
    return portal.redirect(f"/vos/{vo}/images", said)


def read_subscription(form: Mapping[str, str]) -> NewSubscription:
    """The image list of a form. Raises Fault ``kernel.invalid``."""
    url, authorities = form.get("url", "").strip(), form.get("authorities", "").strip()
    if len(url) > 2000 or len(authorities) > 100_000:
        raise Fault(INVALID, _("This is too long for the address of a list, or for its authorities."))
    if authorities and "-----BEGIN CERTIFICATE-----" not in authorities:
        raise Fault(
            INVALID, _("The authorities are no certificates."), hint=_("PEM: -----BEGIN CERTIFICATE----- and so on.")
        )
    endorser = form.get("endorser", "").strip()[:500]
    return NewSubscription(url, authorities + "\n" if authorities else None, endorser or None, not authorities)


@router.get("/vos/{vo}/settings")
async def show_settings(vo: str, visit: Reader, vos: Vos, portal: Pages) -> Response:
    """What it is for, whether it may work, and how to leave it."""
    known = await standing(visit, vos, vo)
    return portal.page(visit, "vos/settings.html", **known.head, tab="settings")


@router.post("/vos/{vo}/act")
async def act_on_vo(vo: str, visit: Manager, vos: Vos, portal: Pages, browser: Cookies) -> Response:
    """Describe it, suspend it or let it work again."""
    form = await own_form(visit, browser)
    caller, why = visit.caller, form.get("why", "").strip()[:500]
    match form.get("act"):
        case "describe":
            await vos.change(caller, vo, VoChange(form.get("description", "").strip()[:2000]))
            said = _("What it is for is written down.")
        case "suspend":
            await vos.suspend(caller, vo, why, suspended=True)
            said = _("Nothing new starts for it. What runs goes on.")
        case "resume":
            await vos.suspend(caller, vo, "", suspended=False)
            said = _("New work starts for it again.")
        case _:
            raise Fault(INVALID, _("This is nothing that can be done with an organisation."))
    return portal.redirect(f"/vos/{vo}/settings", said)


def words(form: Mapping[str, str], name: str) -> list[str]:
    """Words between commas or spaces."""
    return form.get(name, "").replace(",", " ").split()[:100]
