"""OpenID clients: who may ask for tokens, with which redirect URIs, for whom. Pure."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hansa.kernel.secrets import token_hash

CODE = "authorization_code"
REFRESH = "refresh_token"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
SERVICE = "client_credentials"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
SCOPES = (
    "openid",
    "profile",
    "offline_access",
    "voperson_id",
    "eduperson_entitlement",
    "entitlements",
    "hansa",
    "hansa.read",
    "hansa.jobs",
)
API_SCOPES = frozenset({"hansa", "hansa.read", "hansa.jobs"})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
BUILT_IN = "hansa-cli"


@dataclass(frozen=True)
class Client:
    """A client, which answers what Authlib asks of one.

    ``secret_hash`` None: a public one. ``api``: its tokens are good for this server's API.
    """

    id: str
    name: str
    secret_hash: str | None = None
    redirect_uris: tuple[str, ...] = ()
    logout_uris: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    api: bool = False
    trusted: bool = False
    introspects: bool = False
    service_user: str | None = None
    """Who a service account is; it signs in by its secret alone, and nobody signs in at it."""
    scopes: tuple[str, ...] = ()
    """The only scopes that its tokens may have; none: whatever such a client may ask for."""

    @property
    def is_public(self) -> bool:
        return self.secret_hash is None

    def audience(self, api: str) -> list[str]:
        """Whom its access tokens are for: always itself, so that they are never good for more than was set up."""
        return [*([api] if self.api else []), *self.audiences, *([] if self.api or self.audiences else [self.id])]

    # What Authlib asks of a client:

    def get_client_id(self) -> str:
        return self.id

    def get_default_redirect_uri(self) -> str | None:
        return None  # OAuth 2.1: always in the request

    def get_allowed_scope(self, scope: str | None) -> str:
        allowed = [name for name in SCOPES if self.api or name not in API_SCOPES]
        if self.service_user is not None:
            scope = scope or " ".join(self.scopes)
            allowed = list(self.scopes)
        return " ".join(name for name in dict.fromkeys((scope or "").split()) if name in allowed)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return any(same_redirect(registered, redirect_uri) for registered in self.redirect_uris)

    def check_client_secret(self, client_secret: str) -> bool:
        return self.secret_hash is not None and hmac.compare_digest(self.secret_hash, token_hash(client_secret))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 - Authlib's signature
        return (method == "none") == self.is_public

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and bool(self.redirect_uris)

    def check_grant_type(self, grant_type: str) -> bool:
        if self.service_user is not None or grant_type == SERVICE:
            return self.service_user is not None and grant_type == SERVICE
        if grant_type == CODE:
            return bool(self.redirect_uris)
        return grant_type in (REFRESH, DEVICE, EXCHANGE)


def built_in() -> Client:
    """The command line's: public, so PKCE and the device flow are what protects it."""
    redirects = ("http://127.0.0.1/callback", "http://[::1]/callback")
    return Client(BUILT_IN, "Hansa's command line", redirect_uris=redirects, api=True, trusted=True)


def client_of(row: Any) -> Client:
    """The client of a row of the database."""
    return Client(
        id=row.id,
        name=row.name,
        secret_hash=row.secret_hash,
        redirect_uris=tuple(row.redirect_uris),
        logout_uris=tuple(row.logout_uris),
        audiences=tuple(row.audiences),
        api=row.api,
        trusted=row.trusted,
        introspects=row.introspects,
        service_user=row.service_user,
        scopes=tuple(row.scopes or ()),
    )


def same_redirect(registered: str, given: str) -> bool:
    """Exactly the same string; only of a program's own loopback address any port will do (RFC 8252, 7.3)."""
    if registered == given:
        return True
    try:
        ours, theirs = urlsplit(registered), urlsplit(given)
        port = theirs.port
    except ValueError:
        return False
    if ours.scheme != "http" or ours.hostname not in LOOPBACK - {"localhost"} or ours.port is not None or port is None:
        return False
    host = f"[{ours.hostname}]" if ":" in ours.hostname else ours.hostname
    return given == f"http://{host}:{port}{ours.path}"


def redirect_problem(uri: str) -> str | None:
    """Why a redirect URI cannot be registered; None where it can."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return "it is no URI"
    if parts.fragment or "#" in uri:
        return "it has a fragment"
    if parts.scheme == "https" and parts.hostname and "*" not in uri and not parts.username:
        return None
    if parts.scheme == "http" and parts.hostname in LOOPBACK:
        return None
    return "it is neither https nor http on loopback"
