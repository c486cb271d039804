"""What every page for browsers needs: cookies, CSRF tokens, headers, templates, and where one may be sent."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from hansa.identity.provider.service import REALM, Fields, Session
from hansa.kernel.errors import INVALID, TOO_LARGE, Fault
from hansa.kernel.texts import english

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent
_FORM_BYTES = 64 * 1024
_FORM_FIELDS = 100
_HOME = "/"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/_.-]+")


async def read_form(request: Request) -> Fields:
    """The fields of a form, in their order, doubles too. Raises Fault for what is no form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Fault(INVALID, "A form is expected (application/x-www-form-urlencoded).")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _FORM_BYTES:
            raise Fault(TOO_LARGE, f"A form may have {_FORM_BYTES:,} bytes.")
    return parse_fields(bytes(body).decode("utf-8", "replace"))


def parse_fields(query: str) -> Fields:
    """Name and value pairs of a query or a form; those without a value count as absent (RFC 6749, 3.1)."""
    try:
        return parse_qsl(query, max_num_fields=_FORM_FIELDS)
    except ValueError as error:
        raise Fault(INVALID, "The request has too many fields.") from error


def safe_next(value: str | None) -> str:
    """Where a browser goes after a login: a page of ours, whatever the link said. Never another site."""
    if not value or len(value) > 8000 or any(ord(letter) <= 32 or letter in "\\\x7f" for letter in value):
        return _HOME
    try:
        parts = urlsplit(value)
    except ValueError:
        return _HOME
    if parts.scheme or parts.netloc or not _PLAIN_PATH.fullmatch(parts.path) or not _is_page(parts.path):
        return _HOME
    if "//" in parts.path or any(part in (".", "..") for part in parts.path.split("/")):
        return _HOME
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _is_page(path: str) -> bool:
    """Whether this is one of the provider's pages, or of the portal: whatever is neither the API nor a protocol."""
    return path.startswith(f"{REALM}/") or (path.startswith("/") and not path.startswith(("/api/", "/auth/")))


def origin_of(uri: str | None) -> str | None:
    """The origin of a redirect URI, for the form-action of a page whose form ends there."""
    parts = urlsplit(uri or "")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", parts.netloc)
    ):
        return None
    return f"{parts.scheme}://{parts.netloc}"


class Browser:
    """Makes pages and cookies for one server."""

    def __init__(self, url: str, csrf_key: bytes) -> None:
        self.url = url
        self._is_secure = url.startswith("https://")
        self._prefix = "__Host-" if self._is_secure else ""
        self._csrf_key = csrf_key

    def session_secret(self, request: Request) -> str | None:
        return request.cookies.get(f"{self._prefix}hansa_session")

    def visit(self, request: Request) -> str | None:
        """What tells this browser from others, signed in or not; CSRF tokens are bound to it."""
        return request.cookies.get(f"{self._prefix}hansa_visit")

    def remember_visit(self, response: Response, visit: str) -> None:
        self._set_cookie(response, "hansa_visit", visit)

    def csrf_token(self, visit: str, session: Session | None) -> str:
        """Bound to this browser and to who is signed in."""
        bound = f"{visit}|{session.hash if session else ''}"
        return hmac.new(self._csrf_key, bound.encode(), "sha256").hexdigest()

    def is_own_form(self, request: Request, session: Session | None, fields: Mapping[str, str]) -> bool:
        """Whether a form was made by us for this very browser."""
        visit = request.cookies.get(f"{self._prefix}hansa_visit")
        return bool(visit) and hmac.compare_digest(
            self.csrf_token(visit or "", session).encode(), fields.get("csrf", "").encode()
        )

    def page(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        session: Session | None = None,
        form_ends_at: str | None = None,
        **values: Any,
    ) -> Response:
        """A page. ``form_ends_at``: the origin that its form may lead to by redirects."""
        visit = request.cookies.get(f"{self._prefix}hansa_visit") or secrets.token_urlsafe(32)
        html = (
            _templates()
            .get_template(template)
            .render(
                csrf=self.csrf_token(visit, session),
                session=session,
                base=f"{urlsplit(self.url).path}{REALM}",
                home=f"{urlsplit(self.url).path.rstrip('/')}/",
                **values,
            )
        )
        response = HTMLResponse(html, status)
        self._set_cookie(response, "hansa_visit", visit)
        return with_headers(response, form_ends_at)

    def redirect(self, path: str) -> Response:
        """To a page of ours."""
        return with_headers(RedirectResponse(self.url + path, 303))

    def signed_in(self, path: str, secret: str) -> Response:
        """To a page of ours, signed in: with new cookies, so that none from before is worth anything."""
        response = self.redirect(path)
        self._set_cookie(response, "hansa_session", secret)
        self._set_cookie(response, "hansa_visit", secrets.token_urlsafe(32))
        return response

    def attempt_cookie(self, request: Request, state: str) -> str | None:
        """What this browser keeps of a login elsewhere that it began; one cookie for each, as tabs are many."""
        return request.cookies.get(f"{self._prefix}{_attempt_name(state)}")

    def depart(self, response: Response, state: str, sealed: str) -> Response:
        """Give the browser what it must bring back from a login elsewhere."""
        self._set_cookie(response, _attempt_name(state), sealed)
        return response

    def forget_attempt(self, response: Response, state: str) -> Response:
        """A login elsewhere is over, well or not: its cookie is worth nothing more."""
        name = f"{self._prefix}{_attempt_name(state)}"
        response.delete_cookie(name, path="/", secure=self._is_secure, httponly=True, samesite="lax")
        return response

    def signed_out(self, response: Response) -> Response:
        for name in ("hansa_session", "hansa_visit"):
            response.delete_cookie(
                f"{self._prefix}{name}", path="/", secure=self._is_secure, httponly=True, samesite="lax"
            )
        return response

    def _set_cookie(self, response: Response, name: str, value: str) -> None:
        response.set_cookie(
            f"{self._prefix}{name}", value, path="/", secure=self._is_secure, httponly=True, samesite="lax"
        )


def _attempt_name(state: str) -> str:
    return f"hansa_login_{hashlib.sha256(state.encode()).hexdigest()[:12]}"


def with_headers(response: Response, form_ends_at: str | None = None) -> Response:
    """No scripts, no frames, no caches, no referrer: links here hold secrets."""
    ends = f" {form_ends_at}" if form_ends_at else ""
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'self'; form-action 'self'{ends}; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined)
    made.globals["_"] = english()
    return made


@cache
def stylesheet() -> str:
    return (_HERE / "static" / "hansa.css").read_text(encoding="utf-8")
