"""The pages for people: sign in, say yes or no, enter a device's code, use an invitation, sign out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse

from hansa.identity.accounts import AccountService
from hansa.identity.authority import AuthorityService
from hansa.identity.http import public
from hansa.identity.passwords import SHORTEST
from hansa.identity.provider.browser import (
    Browser,
    origin_of,
    parse_fields,
    read_form,
    safe_next,
    stylesheet,
    with_headers,
)
from hansa.identity.provider.service import PROTOCOL, REALM, Ask, Fields, ProviderService, Session
from hansa.identity.upstream.service import UpstreamService
from hansa.identity.vos import VoService
from hansa.kernel.errors import Fault
from hansa.kernel.http import provided
from hansa.kernel.texts import _

router = APIRouter(include_in_schema=False, dependencies=[public()])
Provider = Annotated[ProviderService, Depends(provided(ProviderService))]
Accounts = Annotated[AccountService, Depends(provided(AccountService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Pages = Annotated[Browser, Depends(provided(Browser))]
Authorities = Annotated[AuthorityService, Depends(provided(AuthorityService))]
Upstreams = Annotated[UpstreamService, Depends(provided(UpstreamService))]

AUTH = f"{PROTOCOL}/auth"
_WRONG = _("Name and password do not belong together, or there were too many attempts: then wait a few minutes.")
_STALE = _("This form is too old, or was not made for this browser. Please start again.")
_NO_DEVICE = _("There is no device that waits with this code: it is wrong, used or too old.")
_MEANINGS = {
    "openid": _("know who you are on this server"),
    "profile": _("know your name"),
    "offline_access": _("go on while you are away, until you revoke it"),
    "voperson_id": _("know your lasting identifier"),
    "eduperson_entitlement": _("know your virtual organisations, groups and roles"),
    "entitlements": _("know your virtual organisations, groups and roles"),
    "hansa": _("do on this server all that you may do"),
    "hansa.jobs": _("run jobs for you, and see what is needed for that"),
    "hansa.read": _("see on this server all that you may see"),
}


async def _session(request: Request, provider: Provider, pages: Pages) -> Session | None:
    return await provider.find_session(pages.session_secret(request))


Signed = Annotated[Session | None, Depends(_session)]


@router.get(f"{REALM}/static/hansa.css")
async def css() -> Response:
    """The style sheet."""
    headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return PlainTextResponse(stylesheet(), media_type="text/css", headers=headers)


# --- signing in at a client -------------------------------------------------------------------------------------


@router.get(AUTH)
async def authorize(request: Request, provider: Provider, pages: Pages, session: Signed) -> Response:
    """The authorization endpoint."""
    return await _authorize(request, parse_fields(request.url.query), provider, pages, session)


@router.post(AUTH)
async def authorize_form(request: Request, provider: Provider, pages: Pages, session: Signed) -> Response:
    """The authorization endpoint, by form."""
    return await _authorize(request, await read_form(request), provider, pages, session)


async def _authorize(
    request: Request, fields: Fields, provider: ProviderService, pages: Browser, session: Session | None
) -> Response:
    try:
        ask = await provider.examine(fields, session)
    except Fault as fault:
        return message_page(request, pages, fault, session)
    if not isinstance(ask, Ask):
        return _back(ask)
    if ask.needs_login or session is None:
        return pages.redirect(f"{REALM}/login?{urlencode({'next': f'{AUTH}?{urlencode(_without_prompt(fields))}'})}")
    if ask.needs_consent:
        return pages.page(
            request,
            "consent.html",
            session=session,
            form_ends_at=origin_of(dict(fields).get("redirect_uri")),
            client=ask.client_name,
            wishes=list(dict.fromkeys(_MEANINGS[scope] for scope in ask.scope.split() if scope in _MEANINGS)),
            request_fields=urlencode(fields),
        )
    return _back(await provider.authorize(fields, session, allow=True))


def _without_prompt(fields: Fields) -> Fields:
    """After a fresh login, ``prompt=login`` has been done; consent that was asked for is still to come."""
    kept = [(name, value) for name, value in fields if name != "prompt"]
    return [*kept, ("prompt", "consent")] if any("consent" in v.split() for n, v in fields if n == "prompt") else kept


@router.post(f"{AUTH}/decision")
async def decide(request: Request, provider: Provider, pages: Pages, session: Signed) -> Response:
    """Yes or no to a client."""
    form = dict(await read_form(request))
    if session is None or not pages.is_own_form(request, session, form):
        return stale_page(request, pages, session)
    fields = parse_fields(form.get("request", ""))
    try:
        ask = await provider.examine([pair for pair in fields if pair[0] != "prompt"], session)
        if not isinstance(ask, Ask):
            return _back(ask)
        if ask.needs_login:
            return await _authorize(request, fields, provider, pages, session)
        return _back(await provider.authorize(fields, session, allow=form.get("decision") == "allow"))
    except Fault as fault:
        return message_page(request, pages, fault, session)


def _back(answer: object) -> Response:
    location = getattr(answer, "location", None)
    return with_headers(RedirectResponse(location or "/", 302))


# --- login and logout -------------------------------------------------------------------------------------------


@router.get(f"{REALM}/login")
async def login_page(
    request: Request,
    provider: Provider,
    pages: Pages,
    upstreams: Upstreams,
    next: str | None = None,  # noqa: A002 - the name in the link
) -> Response:
    """The login form, and the issuers where one may sign in instead."""
    return await _login_form(request, provider, pages, upstreams, safe_next(next))


async def _login_form(
    request: Request,
    provider: ProviderService,
    pages: Browser,
    upstreams: UpstreamService,
    target: str,
    error: str | None = None,
    name: str = "",
) -> Response:
    session = await provider.find_session(pages.session_secret(request))
    ends = await _ends_at(provider, target)
    status = 200 if error is None else 401
    return pages.page(
        request,
        "login.html",
        status=status,
        session=session,
        form_ends_at=ends,
        next=target,
        error=error,
        name=name,
        issuers=upstreams.offered,
        passwords=upstreams.offers_passwords,
        query=urlencode({"next": target}),
    )


async def _ends_at(provider: ProviderService, target: str) -> str | None:
    """The origin of the client that the login leads to, if its request is in order."""
    path, _, query = target.partition("?")
    if path != AUTH:
        return None
    fields = parse_fields(query)
    try:
        ask = await provider.examine(fields, None)
    except Fault:
        return None
    return origin_of(dict(fields).get("redirect_uri")) if isinstance(ask, Ask) else None


@router.post(f"{REALM}/login")
async def login(
    request: Request, provider: Provider, accounts: Accounts, pages: Pages, upstreams: Upstreams, session: Signed
) -> Response:
    """Name and password."""
    form = dict(await read_form(request))
    target = safe_next(form.get("next"))
    if not pages.is_own_form(request, session, form):
        return stale_page(request, pages, session)
    name = form.get("name", "")[:200]
    address = request.client.host if request.client else "unknown"
    user_id = await accounts.login(name, form.get("password", ""), address)
    if user_id is None:
        return await _login_form(request, provider, pages, upstreams, target, _WRONG, name)
    if session is not None:
        await provider.close_session(session)
    return pages.signed_in(target, await provider.open_session(user_id))


@router.get(f"{PROTOCOL}/logout")
async def logout(request: Request, provider: Provider, pages: Pages, session: Signed) -> Response:
    """RP-initiated logout; who cannot be told apart from a forged link is asked."""
    return await _logout(request, dict(parse_fields(request.url.query)), provider, pages, session, is_sure=False)


@router.post(f"{PROTOCOL}/logout")
async def logout_form(request: Request, provider: Provider, pages: Pages, session: Signed) -> Response:
    """The same by form; ours says that the user is sure."""
    form = dict(await read_form(request))
    is_sure = pages.is_own_form(request, session, form)
    return await _logout(request, form, provider, pages, session, is_sure=is_sure)


async def _logout(
    request: Request,
    data: dict[str, str],
    provider: ProviderService,
    pages: Browser,
    session: Session | None,
    *,
    is_sure: bool,
) -> Response:
    hinted, uri = await provider.logout_target(
        data.get("id_token_hint"), data.get("client_id"), data.get("post_logout_redirect_uri")
    )
    if session is not None and not is_sure and hinted != session.user_id:
        kept = ("client_id", "post_logout_redirect_uri", "state")
        return pages.page(
            request,
            "logout.html",
            session=session,
            form_ends_at=origin_of(uri),
            fields=[(name, data[name]) for name in kept if name in data],
        )
    if session is not None:
        await provider.close_session(session)
    if uri:
        state = f"{'&' if '?' in uri else '?'}{urlencode({'state': data['state']})}" if "state" in data else ""
        return pages.signed_out(with_headers(RedirectResponse(uri + state, 302)))
    return pages.signed_out(pages.page(request, "message.html", title=_("Signed out"), text=_("You are signed out.")))


@router.get(f"{REALM}/account")
async def account(
    request: Request, pages: Pages, vos: Vos, upstreams: Upstreams, authority: Authorities, session: Signed
) -> Response:
    """Who is signed in, with what, their virtual organisations, and under what Hansa acts for them."""
    if session is None:
        return pages.redirect(f"{REALM}/login?{urlencode({'next': f'{REALM}/account'})}")
    identities = (await upstreams.identities(session.caller)).items
    grants = {one.issuer: one for one in (await authority.list_mine(session.caller)).items}
    return pages.page(
        request,
        "account.html",
        session=session,
        vos=await vos.list_mine(session.user_id),
        issuers=upstreams.offered,
        identities=identities,
        grants=grants,
        linked={one.issuer for one in identities},
    )


# --- devices ----------------------------------------------------------------------------------------------------


@router.get(f"{REALM}/device")
async def device_page(
    request: Request, provider: Provider, pages: Pages, session: Signed, user_code: str = ""
) -> Response:
    """Enter the code that a device shows, or look at it and say yes or no."""
    code = user_code[:20]
    if session is None:
        query = f"?{urlencode({'user_code': code})}" if code else ""
        return pages.redirect(f"{REALM}/login?{urlencode({'next': f'{REALM}/device{query}'})}")
    found = await provider.find_device(code) if code else None
    if found is None:
        error = _NO_DEVICE if code else None
        status = 404 if error else 200
        return pages.page(request, "device.html", status=status, session=session, error=error, code=code)
    device, client = found
    wishes = list(dict.fromkeys(_MEANINGS[scope] for scope in device.scope.split() if scope in _MEANINGS))
    return pages.page(
        request, "device_confirm.html", session=session, code=device.user_code, client=client, wishes=wishes
    )


@router.post(f"{REALM}/device")
async def decide_device(request: Request, provider: Provider, pages: Pages, session: Signed) -> Response:
    """Yes or no to a device."""
    form = dict(await read_form(request))
    if session is None or not pages.is_own_form(request, session, form):
        return stale_page(request, pages, session)
    approved = form.get("decision") == "allow"
    if not await provider.decide_device(form.get("user_code", ""), session, approved=approved):
        return pages.page(request, "message.html", status=404, session=session, title=_("Device"), text=_NO_DEVICE)
    text = _("The device is signed in. You can close this page.") if approved else _("The device was refused.")
    return pages.page(request, "message.html", session=session, title=_("Device"), text=text)


# --- invitations ------------------------------------------------------------------------------------------------


@router.get(f"{REALM}/welcome")
async def welcome(
    request: Request, accounts: Accounts, pages: Pages, session: Signed, invitation: str = ""
) -> Response:
    """The form that sets the first password."""
    return await _welcome(request, accounts, pages, session, invitation)


async def _welcome(
    request: Request,
    accounts: AccountService,
    pages: Browser,
    session: Session | None,
    invitation: str,
    error: str | None = None,
) -> Response:
    try:
        name = await accounts.invited_name(invitation)
    except Fault as fault:
        return message_page(request, pages, fault, session)
    status = 422 if error else 200
    return pages.page(
        request,
        "welcome.html",
        status=status,
        session=session,
        name=name,
        invitation=invitation,
        shortest=SHORTEST,
        error=error,
    )


@router.post(f"{REALM}/welcome")
async def set_password(
    request: Request, provider: Provider, accounts: Accounts, pages: Pages, session: Signed
) -> Response:
    """The first password."""
    form = dict(await read_form(request))
    if not pages.is_own_form(request, session, form):
        return stale_page(request, pages, session)
    invitation, password = form.get("invitation", ""), form.get("password", "")
    if password != form.get("again", ""):
        return await _welcome(request, accounts, pages, session, invitation, _("The two passwords are not the same."))
    try:
        user_id = await accounts.accept_invitation(invitation, password)
    except Fault as fault:
        return await _welcome(request, accounts, pages, session, invitation, fault.detail)
    await provider.end_sign_ins_of(user_id)
    return pages.signed_in(f"{REALM}/account", await provider.open_session(user_id))


@router.get(f"{REALM}/join")
async def join_page(request: Request, vos: Vos, pages: Pages, session: Signed, invitation: str = "") -> Response:
    """Whether to join a virtual organisation."""
    if session is None:
        target = f"{REALM}/join?{urlencode({'invitation': invitation[:200]})}"
        return pages.redirect(f"{REALM}/login?{urlencode({'next': target})}")
    try:
        vo, roles = await vos.invited_to(invitation)
    except Fault as fault:
        return message_page(request, pages, fault, session)
    return pages.page(request, "join.html", session=session, vo=vo, roles=roles, invitation=invitation)


@router.post(f"{REALM}/join")
async def join(request: Request, vos: Vos, pages: Pages, session: Signed) -> Response:
    """Join a virtual organisation."""
    form = dict(await read_form(request))
    if session is None or not pages.is_own_form(request, session, form):
        return stale_page(request, pages, session)
    try:
        await vos.join(session.caller, form.get("invitation", ""))
    except Fault as fault:
        return message_page(request, pages, fault, session)
    return pages.redirect(f"{REALM}/account")


def stale_page(request: Request, pages: Browser, session: Session | None) -> Response:
    return pages.page(request, "message.html", status=403, session=session, title=_("Please start again"), text=_STALE)


def message_page(request: Request, pages: Browser, fault: Fault, session: Session | None) -> Response:
    text = f"{fault.detail} {fault.hint or ''}".strip()
    status = fault.code.status if fault.code.status != 422 else 400
    return pages.page(request, "message.html", status=status, session=session, title=_("This did not work"), text=text)
