"""The way to upstream issuers: what they publish, cached; what they are asked. No database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from hansa.identity import errors
from hansa.identity.upstream.issuers import Issuer
from hansa.kernel.clock import Clock
from hansa.kernel.errors import Fault

if TYPE_CHECKING:
    import httpx
    from joserfc.jwk import KeySet

_TIMEOUT_S = 10.0
_MOST_BYTES = 1024**2
_METADATA_LASTS = timedelta(hours=1)
_KEYS_LAST = timedelta(minutes=5)
_UNKNOWN_KEY = timedelta(seconds=10)
"""How often at most keys are read for a key that nobody knows: forged ones cost the issuer nothing."""
_AFTER_FAILURE = timedelta(seconds=5)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Away(Exception):
    """The issuer cannot be reached, or has a difficulty: it may work later."""


class Refused(Exception):
    """The issuer said no; ``error`` is its code (RFC 6749)."""

    def __init__(self, error: str, description: str = "") -> None:
        super().__init__(f"{error}: {description}" if description else error)
        self.error = error


@dataclass(frozen=True)
class Metadata:
    """What an issuer says of itself (OpenID Connect Discovery 1.0)."""

    authorization: str
    token: str
    jwks: str
    userinfo: str | None
    introspection: str | None
    revocation: str | None
    says_issuer: bool
    basic_auth: bool


@dataclass(frozen=True)
class Tokens:
    """What the token endpoint gave. Secrets: never shown."""

    access: str = field(repr=False)
    id_token: str | None = field(repr=False)
    refresh: str | None = field(repr=False)
    expires: datetime
    refresh_lasts_s: int | None = None
    """Keycloak says how long its refresh tokens last; 0: without end."""


@dataclass
class _Known:
    metadata: Metadata | None = None
    metadata_at: datetime | None = None
    keys: KeySet | None = None
    keys_at: datetime | None = None
    failed_at: datetime | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    client: httpx.AsyncClient | None = None


class Remote:
    """Talks to issuers. Away is raised at once for a few seconds after a failure, so that nobody waits in a queue."""

    def __init__(self, clock: Clock, away_s: int) -> None:
        self._clock = clock
        self._away = timedelta(seconds=away_s)
        self._all: dict[str, _Known] = {}

    async def close(self) -> None:
        for one in self._all.values():
            if one.client is not None:
                await one.client.aclose()
                one.client = None

    async def metadata(self, issuer: Issuer) -> Metadata:
        """Where its endpoints are. Raises Away; also for an issuer that says to be another one."""
        known, now = self._known(issuer), self._clock.now()
        if known.metadata is None or known.metadata_at is None or now - known.metadata_at > _METADATA_LASTS:
            async with known.lock:
                if known.metadata_at is None or now - known.metadata_at > _METADATA_LASTS:
                    try:
                        known.metadata = await self._read_metadata(issuer)
                        known.metadata_at = now
                    except Away:
                        if known.metadata is None:
                            raise
        assert known.metadata is not None  # noqa: S101 - read above, or Away was raised
        return known.metadata

    async def keys(self, issuer: Issuer, key_id: object) -> KeySet:
        """Its public keys, read again when they are old, or when the one that is wanted is not among them.

        While the issuer is away the old ones are good for ``away_s`` more. Raises Away after that.
        """
        metadata = await self.metadata(issuer)
        known, now = self._known(issuer), self._clock.now()
        if not self._is_fresh(known, key_id, now):
            async with known.lock:
                if not self._is_fresh(known, key_id, now):
                    await self._renew_keys(issuer, known, metadata, now)
        assert known.keys is not None  # noqa: S101
        return known.keys

    async def redeem(self, issuer: Issuer, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """Tokens for a code. Raises Refused or Away."""
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        return await self._tokens(issuer, fields | {"code_verifier": verifier})

    async def refresh(self, issuer: Issuer, token: str) -> Tokens:
        """Fresh tokens; of issuers that rotate also a new refresh token: the old is void. Raises Refused or Away."""
        return await self._tokens(issuer, {"grant_type": "refresh_token", "refresh_token": token})

    async def userinfo(self, issuer: Issuer, access_token: str) -> dict[str, Any]:
        """What it says of the user of a token; nothing where it has no such endpoint. Raises Refused or Away."""
        metadata = await self.metadata(issuer)
        if metadata.userinfo is None:
            return {}
        status, found = await self._ask(issuer, "GET", metadata.userinfo, {"Authorization": f"Bearer {access_token}"})
        if status != 200:
            raise Refused("invalid_token", f"status {status}")
        return found

    async def introspect(self, issuer: Issuer, token: str) -> dict[str, Any] | None:
        """What it says of an access token (RFC 7662); None where it cannot be asked. Raises Refused or Away."""
        metadata = await self.metadata(issuer)
        if metadata.introspection is None or issuer.secret is None or not issuer.introspect:
            return None
        fields = {"token": token, "token_type_hint": "access_token"}
        status, found = await self._post(issuer, metadata, metadata.introspection, fields)
        if status != 200:
            raise Refused(str(found.get("error", "status")), f"status {status}")
        return found

    async def revoke(self, issuer: Issuer, token: str) -> None:
        """End a refresh token there (RFC 7009). Raises Away."""
        metadata = await self.metadata(issuer)
        if metadata.revocation is not None:
            await self._post(
                issuer, metadata, metadata.revocation, {"token": token, "token_type_hint": "refresh_token"}
            )

    # --- inside ---------------------------------------------------------------------------------------------

    def _known(self, issuer: Issuer) -> _Known:
        return self._all.setdefault(issuer.name, _Known())

    @staticmethod
    def _is_fresh(known: _Known, key_id: object, now: datetime) -> bool:
        if known.keys is None or known.keys_at is None or now - known.keys_at > _KEYS_LAST:
            return False
        has_it = key_id is None or any(key.kid in (key_id, None) for key in known.keys.keys)
        return has_it or now - known.keys_at < _UNKNOWN_KEY

    async def _renew_keys(self, issuer: Issuer, known: _Known, metadata: Metadata, now: datetime) -> None:
        from joserfc.errors import JoseError

        try:
            status, found = await self._ask(issuer, "GET", metadata.jwks, {})
            if status != 200:
                raise Away(f"{issuer.url} gave no keys (status {status})")
            known.keys, known.keys_at = read_keys(found), now
        except (Away, JoseError, ValueError, KeyError, TypeError) as error:
            if known.keys is None or known.keys_at is None or now - known.keys_at > _KEYS_LAST + self._away:
                raise Away(f"{issuer.url} gave no keys that can be used: {error}") from error

    async def _read_metadata(self, issuer: Issuer) -> Metadata:
        address = f"{issuer.url.rstrip('/')}/.well-known/openid-configuration"
        status, found = await self._ask(issuer, "GET", address, {})
        if status != 200:
            raise Away(f"{address} answered with status {status}")
        if found.get("issuer") != issuer.url:
            raise Away(f"{issuer.url} says to be {str(found.get('issuer'))[:200]}")
        methods = found.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        try:
            return Metadata(
                authorization=_safe(found["authorization_endpoint"]),
                token=_safe(found["token_endpoint"]),
                jwks=_safe(found["jwks_uri"]),
                userinfo=_optional(found, "userinfo_endpoint"),
                introspection=_optional(found, "introspection_endpoint"),
                revocation=_optional(found, "revocation_endpoint"),
                says_issuer=found.get("authorization_response_iss_parameter_supported") is True,
                basic_auth="client_secret_basic" in methods,
            )
        except (KeyError, ValueError) as error:
            raise Away(f"{address} cannot be used: {error}") from error

    async def _tokens(self, issuer: Issuer, fields: Mapping[str, str]) -> Tokens:
        metadata = await self.metadata(issuer)
        now = self._clock.now()
        status, found = await self._post(issuer, metadata, metadata.token, fields)
        if status != 200 or not isinstance(found.get("access_token"), str):
            raise Refused(
                str(found.get("error", f"status {status}"))[:100], str(found.get("error_description", ""))[:300]
            )
        lasts_s, refresh_s = found.get("expires_in"), found.get("refresh_expires_in")
        return Tokens(
            found["access_token"],
            _text(found.get("id_token")),
            _text(found.get("refresh_token")),
            now + timedelta(seconds=lasts_s if isinstance(lasts_s, int) else 60),
            refresh_s if isinstance(refresh_s, int) else None,
        )

    async def _post(
        self, issuer: Issuer, metadata: Metadata, address: str, fields: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        body, headers = dict(fields), {}
        if issuer.secret is None:
            body["client_id"] = issuer.client_id
        elif metadata.basic_auth:
            import base64

            pair = f"{quote(issuer.client_id, safe='')}:{quote(issuer.secret, safe='')}"  # RFC 6749, 2.3.1
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            body |= {"client_id": issuer.client_id, "client_secret": issuer.secret}
        return await self._ask(issuer, "POST", address, headers, body)

    async def _ask(
        self,
        issuer: Issuer,
        method: str,
        address: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of the answer. No redirects are followed: secrets go nowhere else. Raises Away."""
        import httpx

        known, now = self._known(issuer), self._clock.now()
        if known.failed_at is not None and now - known.failed_at < _AFTER_FAILURE:
            raise Away(f"{issuer.url} did not answer a moment ago")
        try:
            content = b""
            client = self._client(issuer, known)
            async with (
                asyncio.timeout(_TIMEOUT_S),
                client.stream(method, address, headers=headers, data=dict(body) if body else None) as answer,
            ):
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > _MOST_BYTES:
                        raise Away(f"{address} answers with more than {_MOST_BYTES:,} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            known.failed_at = now
            raise Away(f"{issuer.url} does not answer: {error or type(error).__name__}") from error
        if answer.status_code >= 500 or answer.status_code == 429:
            known.failed_at = now
            raise Away(f"{issuer.url} has a difficulty (status {answer.status_code})")
        known.failed_at = None
        try:
            found = json.loads(content) if content.strip() else {}
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            if answer.status_code == 200:
                raise Away(f"{address} does not answer in JSON")
            found = {}
        return answer.status_code, found

    def _client(self, issuer: Issuer, known: _Known) -> httpx.AsyncClient:
        import httpx

        if known.client is None:
            import ssl

            context = ssl.create_default_context(cafile=issuer.ca_file)
            known.client = httpx.AsyncClient(verify=context, timeout=_TIMEOUT_S, headers={"Accept": "application/json"})
        return known.client


def read_keys(found: Mapping[str, Any]) -> KeySet:
    """Signing keys of a JWKS (RFC 7517); those of other kinds are left out."""
    from joserfc.jwk import KeySet

    kept = [
        {name: value for name, value in key.items() if name not in ("use", "key_ops")}
        for key in found["keys"]
        if key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig" and "d" not in key
    ]
    if not kept:
        raise ValueError("no key to verify with")
    return KeySet.import_key_set({"keys": kept})


def _safe(address: object) -> str:
    parts = urlsplit(str(address))
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise ValueError(f"{str(address)[:200]} is not encrypted")
    return str(address)


def _optional(found: Mapping[str, Any], name: str) -> str | None:
    return _safe(found[name]) if found.get(name) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def away_fault(issuer: Issuer) -> Fault:
    """It may work later."""
    return Fault(
        errors.UPSTREAM_AWAY,
        f"{issuer.title} cannot be reached at the moment.",
        hint="Try again in a few minutes, or sign in another way.",
        retry_after_s=30,
    )
