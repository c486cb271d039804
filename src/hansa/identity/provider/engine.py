"""The provider of one request: Authlib's server between a desk and a key ring. No input and output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Payload, OAuth2Request, TokenEndpoint
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from authlib.oauth2.rfc9207 import IssuerParameter
from authlib.oidc.core.util import create_half_hash

from hansa.identity.access import ACCESS_TYPE, access_claims, sign
from hansa.identity.keys import ALGORITHM, KeyRing
from hansa.identity.model import Subject, entitlements
from hansa.identity.provider import desk as d
from hansa.identity.provider.clients import SCOPES, Client
from hansa.identity.provider.grants import (
    METHODS,
    CodeGrant,
    DeviceEndpoint,
    DeviceGrant,
    ExchangeGrant,
    IdTokens,
    Pkce,
    RefreshGrant,
    ServiceGrant,
)
from hansa.kernel.ids import new_id
from hansa.kernel.secrets import new_token, token_hash

ID_TYPE = "JWT"


@dataclass
class Answer:
    """What goes back over HTTP."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def location(self) -> str | None:
        return self.headers.get("Location")

    @location.setter
    def location(self, value: str) -> None:
        self.headers["Location"] = value


class _Payload(OAuth2Payload):  # type: ignore[misc, unused-ignore]
    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._data: dict[str, str] = {}
        self._lists: dict[str, list[str]] = {}
        for name, value in fields:
            self._data.setdefault(name, value)
            self._lists.setdefault(name, []).append(value)

    @property
    def data(self) -> dict[str, str]:
        return self._data

    @property
    def datalist(self) -> Any:
        return self._lists


class Request(OAuth2Request):  # type: ignore[misc, unused-ignore]
    """A request as Authlib reads it. TLS is the business of the server and of proxies before it, not ours."""

    def __init__(self, method: str, fields: list[tuple[str, str]], headers: Mapping[str, str]) -> None:
        super().__init__(method, "https://hansa.invalid/", headers=_Headers(headers))
        self.payload = _Payload(fields)
        self.server: Any = None

    @property
    def args(self) -> dict[str, str]:
        return self.payload.data if self.method == "GET" else {}

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data if self.method == "POST" else {}


class _Headers(dict[str, str]):
    """Headers by any case of their names."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__({name.lower(): value for name, value in headers.items()})

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).lower())


class Provider(AuthorizationServer):  # type: ignore[misc, unused-ignore]
    """Answers one request; what it decides is in ``desk.effects``."""

    def __init__(self, desk: d.Desk, ring: KeyRing) -> None:
        super().__init__(scopes_supported=SCOPES)
        self.desk = desk
        self.grant: d.Grant | None = None
        self._ring = ring
        for grant, extensions in (
            (CodeGrant, [Pkce(required=True), IdTokens()]),
            (RefreshGrant, [IdTokens()]),
            (DeviceGrant, [IdTokens()]),
            (ExchangeGrant, []),
            (ServiceGrant, []),
        ):
            self.register_grant(grant, extensions)
        for endpoint in (DeviceEndpoint, Introspection, Revocation):
            self.register_endpoint(endpoint)
        self.register_extension(_Issuer())

    # What Authlib asks of a server:

    def query_client(self, client_id: str) -> Client | None:
        client = self.desk.client
        return client if client is not None and client.id == client_id else None

    def validate_requested_scope(self, scope: str | None) -> None:
        """Scopes that nobody here knows are left out of the answer, as OpenID Connect Core 3.1.2.1 wants."""

    def create_oauth2_request(self, request: Any) -> Any:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> Answer:
        return Answer(status, body, dict(headers))

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def generate_token(
        self,
        grant_type: str,  # noqa: ARG002 - Authlib's signature
        client: Client,
        user: Subject | None = None,
        scope: str | None = None,
        expires_in: int | None = None,  # noqa: ARG002
        include_refresh_token: bool = True,
    ) -> dict[str, Any]:
        scope = client.get_allowed_scope(scope)
        token = self.access_token(client, user, scope)
        if include_refresh_token:
            token["refresh_token"] = new_token("refresh")
        return {**token, "scope": scope}

    def save_token(self, token: dict[str, Any], request: Any) -> None:  # noqa: ARG002
        if self.grant is None:
            raise InvalidRequestError
        if refresh := token.get("refresh_token"):
            lasts = self.desk.lifetimes.grant_expiry(self.grant.scope, self.desk.now)
            expires = lasts if self.grant.is_offline else min(lasts, self.grant.expires)
            self.desk.effects.append(d.SaveRefresh(token_hash(refresh), self.grant.id, expires))

    # Tokens:

    def new_grant(self, scope: str, auth_time: datetime, session: str | None) -> d.Grant:
        """A sign-in that begins with this request."""
        desk = self.desk
        if desk.subject is None or desk.client is None:
            raise InvalidRequestError
        self.grant = d.Grant(
            id=new_id("grant"),
            user_id=desk.subject.user_id,
            client_id=desk.client.id,
            scope=scope,
            auth_time=auth_time,
            created=desk.now,
            expires=desk.lifetimes.grant_expiry(scope, desk.now),
            session=None if "offline_access" in scope.split() else session,
        )
        return self.grant

    def access_token(
        self,
        client: Client,
        subject: Subject | None,
        scope: str,
        *,
        audience: list[str] | None = None,
        until: int | None = None,
    ) -> dict[str, Any]:
        """An access token of the present grant; ``until`` (seconds since 1970) ends it sooner."""
        desk, signer, grant = self.desk, self._ring.signer, self.grant
        if subject is None or signer is None or grant is None:
            raise InvalidRequestError
        expires = desk.now + desk.lifetimes.access
        if until is not None:
            expires = min(expires, datetime.fromtimestamp(until, UTC))
        claims = access_claims(
            issuer=desk.issuer,
            user_id=subject.user_id,
            client_id=client.id,
            audience=client.audience(desk.api) if audience is None else audience,
            scope=scope,
            grant_id=grant.id,
            now=desk.now,
            expires=expires,
            more={**user_claims(subject, scope, desk.issuer), "auth_time": int(grant.auth_time.timestamp())},
        )
        lasts = int(expires.timestamp()) - int(desk.now.timestamp())
        return {"token_type": "Bearer", "access_token": sign(claims, signer, ACCESS_TYPE), "expires_in": lasts}

    def id_token(self, token: dict[str, Any], subject: Subject, nonce: str | None) -> str:
        """The id_token that goes with an access token, and ends with it."""
        desk, signer, grant = self.desk, self._ring.signer, self.grant
        if signer is None or grant is None:
            raise InvalidRequestError
        issued = int(desk.now.timestamp())
        claims = {
            **user_claims(subject, token["scope"], desk.issuer),
            "iss": desk.issuer,
            "sub": subject.user_id,
            "aud": grant.client_id,
            "azp": grant.client_id,
            "iat": issued,
            "exp": issued + token["expires_in"],
            "auth_time": int(grant.auth_time.timestamp()),
            "sid": grant.id,
            "at_hash": create_half_hash(token["access_token"], ALGORITHM).decode(),
        }
        if nonce:
            claims["nonce"] = nonce
        return sign(claims, signer, ID_TYPE)


def user_claims(subject: Subject, scope: str, issuer: str) -> dict[str, Any]:
    """What a scope lets a client know of a user."""
    scopes = set(scope.split())
    host = urlsplit(issuer).hostname or "localhost"
    claims: dict[str, Any] = {}
    if "profile" in scopes:
        claims |= {"name": subject.name, "preferred_username": subject.name}
    if "voperson_id" in scopes:
        claims["voperson_id"] = f"{subject.user_id}@{host}"
    held = entitlements(subject.memberships, host)
    for name in ("eduperson_entitlement", "entitlements"):
        if {"eduperson_entitlement", "entitlements"} & scopes:
            claims[name] = held
    return claims


class _Issuer(IssuerParameter):  # type: ignore[misc, unused-ignore]
    """RFC 9207: the answer says who gives it, so that nobody mistakes one issuer for another."""

    def __call__(self, server: Provider) -> _Issuer:
        self._issuer = server.desk.issuer
        super().__call__(server)
        return self

    def get_issuer(self) -> str:
        return self._issuer


class Introspection(TokenEndpoint):  # type: ignore[misc, unused-ignore]
    """RFC 7662: for the client that a token was given to or is for, and for those whom an operator lets."""

    ENDPOINT_NAME = "introspection"
    CLIENT_AUTH_METHODS = METHODS[:2]

    def create_endpoint_response(self, request: Any) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        client: Client = self.authenticate_endpoint_client(request)
        if "token" not in request.form:
            raise InvalidRequestError("Missing 'token' in request.")
        return 200, self._describe(client), JSON_HEADERS

    def _describe(self, client: Client) -> dict[str, Any]:
        desk: d.Desk = self.server.desk
        token = desk.access
        if token is not None:
            may = client.introspects or client.id == token.client_id or client.id in token.audience
            if not may or not desk.access_is_live:
                return {"active": False}
            name = {"username": desk.subject.name} if desk.subject else {}
            return {"active": True, "token_type": "Bearer", **name, **token.claims}
        found = desk.refresh
        if found is None or not found.check_client(client) or not desk.refresh_is_live:
            return {"active": False}
        return {
            "active": True,
            "client_id": found.grant.client_id,
            "sub": found.grant.user_id,
            "scope": found.grant.scope,
            "iss": desk.issuer,
            "exp": int(found.expires.timestamp()),
        }


class Revocation(TokenEndpoint):  # type: ignore[misc, unused-ignore]
    """RFC 7009: a refresh token ends its whole sign-in; an access token ends alone."""

    ENDPOINT_NAME = "revocation"
    CLIENT_AUTH_METHODS = METHODS

    def create_endpoint_response(self, request: Any) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        client: Client = self.authenticate_endpoint_client(request)
        if "token" not in request.form:
            raise InvalidRequestError("Missing 'token' in request.")
        desk: d.Desk = self.server.desk
        if desk.refresh is not None and desk.refresh.check_client(client):
            grant = desk.refresh.grant
            desk.effects.append(d.RevokeGrant(grant.id, grant.user_id, "identity.signed_out"))
        elif desk.access is not None and desk.access.client_id == client.id:
            desk.effects.append(d.RevokeAccess(desk.access.id, desk.access.expires))
        return 200, {}, JSON_HEADERS


JSON_HEADERS = [("Content-Type", "application/json"), ("Cache-Control", "no-store"), ("Pragma", "no-cache")]
