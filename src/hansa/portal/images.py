"""Pages of VM images: the catalogue, one image with its versions, and who may start it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from hansa.identity.model import Role
from hansa.identity.policy import Permission
from hansa.identity.provider.browser import Browser
from hansa.identity.vos import VoService
from hansa.images.endorsing import EndorsementService
from hansa.images.service import ImageService
from hansa.images.wire import NewEndorsement, VmImage
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.kernel.texts import _
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Images = Annotated[ImageService, Depends(provided(ImageService))]
Endorsing = Annotated[EndorsementService, Depends(provided(EndorsementService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
Reader = Annotated[Visit, visitor(Permission.IMAGES_READ)]
Writer = Annotated[Visit, visitor(Permission.IMAGES_WRITE)]
_MOST = 1000
_MANAGES = {Role.MANAGER, Role.VM_OPERATOR}


@router.get("/images")
async def list_images(
    visit: Reader, images: Images, portal: Pages, q: Annotated[str, Query(max_length=200)] = "", vo: str = ""
) -> Response:
    """The catalogue, as cards."""
    every = (await images.list_images(visit.caller, None, _MOST)).items
    vos = sorted({one.vo for image in every for one in image.endorsements})
    shown = [image for image in every if _matches(image, q.strip().lower(), vo)]
    template = "images/_cards.html" if visit.is_live else "images/list.html"
    return portal.page(visit, template, images=shown, q=q, vo=vo, vos=vos)


def _matches(image: VmImage, word: str, vo: str) -> bool:
    about = f"{image.name} {image.title} {image.description} {image.os_name} {image.os_version} {image.scope}"
    return word in about.lower() and (not vo or any(one.vo == vo for one in image.endorsements))


@router.get("/images/show/{name:path}")
async def show_image(name: str, visit: Reader, images: Images, vos: Vos, portal: Pages) -> Response:
    """One image, its versions, and the organisations that let their members start it."""
    image = await images.get(visit.caller, name)
    mine = await vos.list_mine(visit.caller.user_id)
    manages = [one.vo for one in mine if one.is_active and one.roles & _MANAGES]
    if visit.caller.is_operator:
        manages = [one.name for one in (await vos.list_vos(visit.caller, None, _MOST)).items]
    own = {f"user/{visit.caller.name}", *(f"vo/{vo}" for vo in manages)}
    return portal.page(
        visit,
        "images/_versions.html" if visit.is_live else "images/show.html",
        image=image,
        name=f"{image.scope}/{image.name}",
        manages=manages,
        may_change=visit.caller.is_operator or image.scope in own,
    )


@router.post("/images/act/{name:path}")
async def act_on_image(
    name: str, visit: Writer, images: Images, endorsing: Endorsing, portal: Pages, browser: Cookies
) -> Response:
    """Endorse it, take that back, or withdraw a version."""
    form = await own_form(visit, browser)
    caller, vo = visit.caller, form.get("vo", "")
    match form.get("act"):
        case "endorse":
            version = form.get("version", "")
            days = form.get("days", "")
            lasts = int(days) if days.isascii() and days.isdigit() and int(days[:6]) > 0 else None
            wish = NewEndorsement(vo, version or None, follow=not version, lasts_days=lasts)
            await endorsing.endorse(caller, name, wish)
            said = _("Members of {vo} may start it.", vo=vo)
        case "revoke":
            await endorsing.revoke(caller, name, vo)
            said = _("Nothing new is started of it in the name of {vo}. What runs goes on.", vo=vo)
        case "withdraw":
            await images.withdraw(caller, name, form.get("version", ""), form.get("why", "").strip()[:500])
            said = _("The version is withdrawn: nothing new is started of it. What runs goes on.")
        case _:
            raise Fault(INVALID, _("This is nothing that can be done with a VM image."))
    return portal.redirect(f"/images/show/{name}", said)
