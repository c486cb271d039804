"""The pages that send browsers to upstream issuers and receive them, at the addresses that Keycloak has for it."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from hansa.identity.http import public
from hansa.identity.provider.browser import Browser, parse_fields, read_form, safe_next, with_headers
from hansa.identity.provider.pages import Pages, Provider, Signed, Upstreams, message_page, stale_page
from hansa.identity.provider.service import REALM, Session
from hansa.identity.upstream.service import Purpose, UpstreamService
from hansa.kernel.errors import Fault
from hansa.kernel.texts import _

router = APIRouter(include_in_schema=False, dependencies=[public()])
_ACCOUNT = f"{REALM}/account"
_AS_IT_IS = ":/%#?=@[]!$&'()*+,;"
_TEXTS = {
    Purpose.LINK: (_("Link an identity"), _("From then on you may sign in to this account, {name}, with it, too.")),
    Purpose.RENEW: (
        _("While you are away"),
        _("Hansa will go on for you, {name}, until you take it back here or there."),
    ),
}


@router.get(f"{REALM}/broker/{{issuer}}/login")
async def depart(
    request: Request,
    issuer: str,
    upstreams: Upstreams,
    pages: Pages,
    session: Signed,
    next: str | None = None,  # noqa: A002 - the name in the link
) -> Response:
    """To the issuer, to sign in."""
    try:
        leaving = await upstreams.depart(issuer, Purpose.LOGIN, safe_next(next))
    except Fault as fault:
        return message_page(request, pages, fault, session)
    return pages.depart(with_headers(RedirectResponse(leaving.url, 303)), leaving.state, leaving.cookie)


@router.post(f"{REALM}/broker/{{issuer}}/link")
async def link(request: Request, issuer: str, upstreams: Upstreams, pages: Pages, session: Signed) -> Response:
    """To the issuer, to link an identity to the account that is signed in."""
    return await _depart_signed_in(request, issuer, Purpose.LINK, upstreams, pages, session)


@router.post(f"{REALM}/broker/{{issuer}}/renew")
async def renew(request: Request, issuer: str, upstreams: Upstreams, pages: Pages, session: Signed) -> Response:
    """To the issuer, to let Hansa act while the user is away."""
    return await _depart_signed_in(request, issuer, Purpose.RENEW, upstreams, pages, session)


async def _depart_signed_in(
    request: Request,
    issuer: str,
    purpose: Purpose,
    upstreams: UpstreamService,
    pages: Browser,
    session: Session | None,
) -> Response:
    form = dict(await read_form(request))
    if session is None or not pages.is_own_form(request, session, form):
        return stale_page(request, pages, session)
    try:
        leaving = await upstreams.depart(issuer, purpose, _ACCOUNT, session.user_id)
    except Fault as fault:
        return message_page(request, pages, fault, session)
    title, text = _TEXTS[purpose]
    # Not a redirect: browsers hold those that follow a form against the page's form-action, too. This page goes on
    # by itself, so one click is enough; its link is for browsers that do not.
    page = pages.page(
        request,
        "depart.html",
        session=session,
        title=title,
        text=text.format(name=session.name),
        url=leaving.url,
        issuer=leaving.title,
    )
    page.headers["Refresh"] = f"0; url={quote(leaving.url, safe=_AS_IT_IS)}"
    return pages.depart(page, leaving.state, leaving.cookie)


@router.get(f"{REALM}/broker/{{issuer}}/endpoint")
async def arrive(
    request: Request, issuer: str, upstreams: Upstreams, provider: Provider, pages: Pages, session: Signed
) -> Response:
    """Back from the issuer."""
    answer = dict(reversed(parse_fields(request.url.query)))
    state = answer.get("state", "")
    cookie = pages.attempt_cookie(request, state)
    try:
        came = await upstreams.arrive(issuer, answer, cookie, session.user_id if session else None)
    except Fault as fault:
        return pages.forget_attempt(message_page(request, pages, fault, session), state)
    if came.purpose is not Purpose.LOGIN:
        return pages.forget_attempt(pages.redirect(came.target), state)
    if session is not None:
        await provider.close_session(session)
    signed_in = pages.signed_in(came.target, await provider.open_session(came.user_id))
    return pages.forget_attempt(signed_in, state)


@router.get(f"{REALM}/renew")
async def renew_page(pages: Pages, session: Signed) -> Response:
    """Where ``hansa login --renew`` leads: the account page, after a sign-in if need be."""
    return pages.redirect(_ACCOUNT if session else f"{REALM}/login?{urlencode({'next': _ACCOUNT})}")
