"""The little of OpenID Connect that a command line needs: discovery, device flow, refresh, revocation.

On http.client, as everything of the client: no redirects are followed, so a secret goes nowhere but where it should.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from hansa.client.errors import NO_LOGIN, NOT_HANSA, SERVER_AWAY, USAGE, HansaError, ServerAway

CLIENT_ID = "hansa-cli"
SCOPE = "openid profile offline_access voperson_id eduperson_entitlement entitlements hansa"
REALM = "/auth/realms/hansa"
TIMEOUT_S = 30.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True)
class Issuer:
    """The endpoints of a server, as it describes them."""

    token_endpoint: str
    device_endpoint: str
    revocation_endpoint: str


@dataclass(frozen=True)
class DeviceCode:
    """What to show to the user, and what to ask with. Times in seconds."""

    secret: str
    user_code: str
    url: str
    complete_url: str
    lasts_s: float
    interval_s: float


@dataclass(frozen=True)
class Tokens:
    """``expires``: seconds since 1970."""

    access: str
    refresh: str | None
    expires: float


class Refused(Exception):
    """The server said no; ``error`` is the code of RFC 6749 or 8628."""

    def __init__(self, error: str, description: str | None) -> None:
        super().__init__(description or error)
        self.error = error


def discover(server: str, ca_file: str | None) -> Issuer:
    """Where a server's endpoints are. Raises HansaError where it is no issuer, or says to be another one."""
    _require_privacy(server)
    status, found = _ask("GET", f"{server}{REALM}/.well-known/openid-configuration", None, ca_file)
    if status != 200 or found.get("issuer") != f"{server}{REALM}":
        said = f": it says to be {found['issuer']}" if found.get("issuer") else ""
        raise HansaError(
            NOT_HANSA,
            f"{server} is not where people sign in to a Hansa server{said}.",
            hint="Give the address that the server calls its own (server.url of its settings).",
        )
    try:
        return Issuer(found["token_endpoint"], found["device_authorization_endpoint"], found["revocation_endpoint"])
    except KeyError as error:
        raise HansaError(NOT_HANSA, f"{server} cannot sign in a command line: it names no {error}.") from error


def start_device(issuer: Issuer, ca_file: str | None) -> DeviceCode:
    """Ask for a code that the user enters in a browser."""
    status, found = _ask("POST", issuer.device_endpoint, {"client_id": CLIENT_ID, "scope": SCOPE}, ca_file)
    if status != 200:
        raise HansaError(NOT_HANSA, f"The server refused to start a sign-in: {_words(found)}.")
    url = found["verification_uri"]
    return DeviceCode(
        found["device_code"],
        found["user_code"],
        url,
        found.get("verification_uri_complete", url),
        float(found["expires_in"]),
        float(found.get("interval", 5)),
    )


def await_device(
    issuer: Issuer, code: DeviceCode, ca_file: str | None, sleep: Callable[[float], None] = time.sleep
) -> Tokens:
    """Wait until the user has said yes. Raises HansaError ``client.no_login`` for a no, or when time is up."""
    interval_s, waited_s = code.interval_s, 0.0
    fields = {"grant_type": _DEVICE, "client_id": CLIENT_ID, "device_code": code.secret}
    while waited_s < code.lasts_s:
        sleep(interval_s)
        waited_s += interval_s
        try:
            return _tokens(issuer.token_endpoint, fields, ca_file)
        except ServerAway:
            interval_s = min(interval_s * 2, 60)  # RFC 8628, 3.5
        except Refused as error:
            if error.error == "slow_down":
                interval_s += 5
            elif error.error != "authorization_pending":
                break
    raise HansaError(NO_LOGIN, "The sign-in was refused, or took too long.", hint="Try again: hansa login SERVER")


def refresh(token_endpoint: str, token: str, ca_file: str | None) -> Tokens:
    """Fresh tokens. The old refresh token is void from then on. Raises Refused."""
    fields = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": token}
    return _tokens(token_endpoint, fields, ca_file)


def narrowed(token_endpoint: str, token: str, scope: str, ca_file: str | None) -> str:
    """An access token that is good for no more than ``scope`` (RFC 8693). Raises Refused."""
    fields = {
        "grant_type": _EXCHANGE,
        "client_id": CLIENT_ID,
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "scope": scope,
    }
    return _tokens(token_endpoint, fields, ca_file).access


def revoke(endpoint: str, token: str, ca_file: str | None) -> None:
    """End a sign-in at the server."""
    _ask("POST", endpoint, {"client_id": CLIENT_ID, "token": token}, ca_file)


def _tokens(endpoint: str, fields: Mapping[str, str], ca_file: str | None) -> Tokens:
    asked = time.time()
    status, found = _ask("POST", endpoint, fields, ca_file)
    if status != 200 or not isinstance(found.get("access_token"), str):
        if status >= 500:
            raise ServerAway(SERVER_AWAY, f"The server has a difficulty (status {status}).")
        raise Refused(str(found.get("error", f"status {status}")), found.get("error_description"))
    return Tokens(found["access_token"], found.get("refresh_token"), asked + float(found.get("expires_in", 60)))


def _ask(method: str, url: str, fields: Mapping[str, str] | None, ca_file: str | None) -> tuple[int, dict[str, Any]]:
    _require_privacy(url)
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        import ssl

        context = ssl.create_default_context(cafile=ca_file)
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    headers = {"Accept": "application/json"}
    if fields is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path, urlencode(fields) if fields is not None else None, headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerAway(SERVER_AWAY, f"{parts.scheme}://{parts.netloc} does not answer: {error}.") from error
    finally:
        connection.close()
    try:
        found = json.loads(body)
    except ValueError:
        found = {}
    return answer.status, found if isinstance(found, dict) else {}


def _require_privacy(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise HansaError(
            USAGE,
            f"{parts.scheme}://{parts.netloc} is not encrypted: whoever listens would get your tokens.",
            hint="Sign in at its https address.",
        )


def _words(found: Mapping[str, Any]) -> str:
    return str(found.get("error_description") or found.get("detail") or found.get("error") or "no explanation")
