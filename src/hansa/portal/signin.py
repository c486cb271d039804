"""Sign-in: by a code that whoever holds a token may ask for, else by the provider's login. And the look of pages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from hansa.identity import errors as identity_errors
from hansa.identity.http import allowed, public
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.identity.provider.browser import Browser, read_form, safe_next
from hansa.identity.provider.service import SIGN_IN_CODE, ProviderService
from hansa.kernel.clock import SystemClock
from hansa.kernel.errors import Fault
from hansa.kernel.http import API, provided
from hansa.kernel.texts import _
from hansa.portal.frame import STATIC, THEMES, PageRoute, Portal, Visit, own_form, visitor
from hansa.portal.wire import SignIn

router = APIRouter(include_in_schema=False, route_class=PageRoute)
v1_router = APIRouter(prefix=API, tags=["portal"])
Provider = Annotated[ProviderService, Depends(provided(ProviderService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".map": "application/json"}


@v1_router.post("/portal/sign-ins", status_code=201)
async def open_portal(
    who: Annotated[Caller, allowed(Permission.PORTAL_OPEN)], provider: Provider, browser: Cookies
) -> SignIn:
    """A link that signs a browser in as the caller, once, within a minute."""
    code = await provider.lend_session(who)
    return SignIn(f"{browser.url}/sign-in#{code}", SystemClock().now() + SIGN_IN_CODE)


@router.get("/sign-in", dependencies=[public()])
async def sign_in_page(request: Request, portal: Pages) -> Response:
    """Where the link leads: the script takes the code from behind the #; without it one can be typed."""
    return portal.open_page(request, "sign_in.html")


@router.post("/sign-in", dependencies=[public()])
async def sign_in(request: Request, provider: Provider, browser: Cookies) -> Response:
    """Sign this browser in with a code."""
    form = dict(await read_form(request))
    if not browser.is_own_form(request, None, form):
        raise Fault(
            identity_errors.FORBIDDEN, _("This form was not made for this browser."), hint=_("Run: hansa portal")
        )
    user_id = await provider.use_code(form.get("code", "").strip())
    if user_id is None:
        raise Fault(
            identity_errors.BAD_TOKEN,
            _("This code is wrong, was used before, or is older than a minute."),
            hint=_("Run hansa portal again: it makes a new one."),
        )
    return browser.signed_in(safe_next(form.get("next")), await provider.open_session(user_id))


@router.post("/sign-out")
async def sign_out(
    visit: Annotated[Visit, visitor(Permission.SELF_READ)], provider: Provider, portal: Pages, browser: Cookies
) -> Response:
    """Sign this browser out."""
    await own_form(visit, browser)
    await provider.close_session(visit.session)
    return browser.signed_out(portal.open_page(visit.request, "signed_out.html"))


@router.post("/look")
async def choose_look(
    visit: Annotated[Visit, visitor(Permission.SELF_READ)], portal: Pages, browser: Cookies
) -> Response:
    """Light, dark, or as the system has it: a preference of this browser."""
    form = await own_form(visit, browser)
    theme = form.get("theme", "auto")
    response = portal.redirect(safe_next(form.get("next")))
    response.set_cookie(
        "hansa_theme",
        theme if theme in THEMES else "auto",
        max_age=365 * 86_400,
        path="/",
        httponly=True,
        samesite="lax",
    )
    return response


@router.get("/assets/{version}/{name}", dependencies=[public()])
async def asset(version: str, name: str) -> Response:  # noqa: ARG001 - it only makes the address new
    """A style sheet, script or picture of ours."""
    found = next((file for file in STATIC.iterdir() if file.name == name), None)
    if found is None:
        return Response(status_code=404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(found.read_bytes(), media_type=_KINDS.get(found.suffix, "text/plain"), headers=headers)
