"""The frame of every page: who is signed in, templates, headers, forms, and what a fault looks like."""

from __future__ import annotations

import hashlib
import secrets
import shlex
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from hansa.identity import errors as identity_errors
from hansa.identity.model import Caller
from hansa.identity.policy import POLICY, Permission, permits
from hansa.identity.provider.browser import Browser, read_form
from hansa.identity.provider.service import REALM, ProviderService, Session
from hansa.kernel.errors import Fault
from hansa.kernel.http import invalid, provided
from hansa.kernel.texts import _, english
from hansa.portal.show import FILTERS
from hansa.portal.snippets import of_call

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
STATIC = HERE / "static"
THEMES = ("auto", "light", "dark")
POLICY_OF_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class SignInNeeded(Exception):
    """Nobody is signed in: the browser is sent to the login, and comes back."""


@dataclass(frozen=True)
class Visit:
    """A signed-in person who looks at a page."""

    request: Request
    session: Session

    @property
    def caller(self) -> Caller:
        return self.session.caller

    @property
    def is_live(self) -> bool:
        """Whether the script asks for a part of the page."""
        return self.request.headers.get("hx-request") == "true"


class VisitAllowed:
    """A dependency that finds the browser's session and asks the policy. Carries ``permission`` for the route test."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(
        self,
        request: Request,
        provider: Annotated[ProviderService, Depends(provided(ProviderService))],
        browser: Annotated[Browser, Depends(provided(Browser))],
    ) -> Visit:
        session = await find_session(request, provider, browser)
        if session is None:
            raise SignInNeeded
        if not permits(self.permission, session.caller):
            needed = POLICY[self.permission].value
            raise Fault(
                identity_errors.FORBIDDEN,
                _("Only {needed} may do this ({value}).", needed=needed, value=self.permission.value),
            )
        return Visit(request, session)


def visitor(permission: Permission) -> Any:
    """``Depends`` for a page that needs ``permission``; gives the Visit."""
    return Depends(VisitAllowed(permission))


async def find_session(request: Request, provider: ProviderService, browser: Browser) -> Session | None:
    secret = browser.session_secret(request) if request.cookies else None
    return await provider.find_session(secret) if secret else None


class Portal:
    """Renders pages for one server."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.base = urlsplit(browser.url).path.rstrip("/")

    def page(self, visit: Visit, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page for whoever is signed in."""
        return self._respond(visit.request, visit.session, template, status, values)

    def open_page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """A page for anybody."""
        return self._respond(request, None, template, status, values)

    def error(self, request: Request, session: Session | None, fault: Fault) -> Response:
        """What went wrong, and what to do: as a page, or as a notice where a part of one was asked for."""
        template = "notice.html" if request.headers.get("hx-request") == "true" else "error.html"
        response = self._respond(request, session, template, fault.code.status, {"fault": fault})
        if template == "notice.html":
            response.headers["HX-Retarget"], response.headers["HX-Reswap"] = "#notices", "innerHTML"
        return response

    def redirect(self, path: str, said: str = "") -> Response:
        """To a page of ours; ``said`` is told there once."""
        response = RedirectResponse(self.browser.url + path, 303)
        if said:
            response.set_cookie("hansa_said", quote(said[:300]), max_age=60, path="/", httponly=True, samesite="lax")
        return _with_headers(response)

    def _respond(
        self, request: Request, session: Session | None, template: str, status: int, values: Mapping[str, Any]
    ) -> Response:
        if taken := values.keys() & templates().globals.keys():
            raise RuntimeError(f"{template} would lose its function {min(taken)}")
        visit = self.browser.visit(request) or secrets.token_urlsafe(32)
        theme = request.cookies.get("hansa_theme", "auto")
        said = request.cookies.get("hansa_said", "")
        html = (
            templates()
            .get_template(template)
            .render(
                session=session,
                csrf=self.browser.csrf_token(visit, session),
                base=self.base,
                url=self.browser.url,
                realm=f"{self.base}{REALM}",
                static=f"{self.base}/assets/{assets_version()}",
                path=request.url.path,
                query=defaultdict(str, request.query_params),
                theme=theme if theme in THEMES else "auto",
                said=said,
                **values,
            )
        )
        response = HTMLResponse(html, status)
        self.browser.remember_visit(response, visit)
        if said and template not in ("notice.html",) and request.headers.get("hx-request") != "true":
            response.delete_cookie("hansa_said", path="/")
        return _with_headers(response)


async def own_form(visit: Visit, browser: Browser) -> dict[str, str]:
    """The fields of a form that we made for this browser. Raises Fault for any other."""
    fields = dict(await read_form(visit.request))
    if not browser.is_own_form(visit.request, visit.session, fields):
        raise Fault(
            identity_errors.FORBIDDEN,
            _("This form is too old, or was not made for this browser."),
            hint=_("Go back, load the page again, and send it once more."),
        )
    return fields


class PageRoute(APIRoute):
    """Turns what goes wrong into a page that says so, and sends who is not signed in to the login."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except SignInNeeded:
                return _to_login(request)
            except RequestValidationError as error:
                return await _failed(request, invalid(error.errors()))
            except Fault as fault:
                return await _failed(request, fault)

        return handler


async def _failed(request: Request, fault: Fault) -> Response:
    services = request.app.state.services
    portal: Portal = services[Portal]
    session = await find_session(request, services[ProviderService], portal.browser)
    return portal.error(request, session, fault)


def _to_login(request: Request) -> Response:
    portal: Portal = request.app.state.services[Portal]
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method != "GET" or request.url.path.startswith("/live"):
        target = "/"
    login = f"{portal.browser.url}{REALM}/login?{urlencode({'next': target})}"
    if request.headers.get("hx-request") == "true" or request.url.path.startswith("/live"):
        return _with_headers(Response(status_code=401, headers={"HX-Redirect": login}))
    return _with_headers(RedirectResponse(login, 303))


def _with_headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY_OF_CONTENT
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


@cache
def assets_version() -> str:
    """Part of the assets' address: browsers keep them for ever, and ask anew when they change."""
    digest = hashlib.sha256()
    for file in sorted(STATIC.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@cache
def templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    made.globals["_"] = english()
    made.globals["with_query"] = with_query
    made.globals["call"] = of_call
    made.globals["word"] = shlex.quote
    return made


def with_query(path: str, query: Mapping[str, str], **changed: object) -> str:
    """The address of this page with some of its filters changed; None leaves one out."""
    merged = {**query, **{name: None if value is None else str(value) for name, value in changed.items()}}
    kept = {name: value for name, value in merged.items() if value}
    return path + (f"?{urlencode(kept)}" if kept else "")
