"""Our access tokens (RFC 9068): made and checked here. Knows keys and time, and no database."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hansa.identity.keys import ALGORITHM, KeyRing, SigningKey

ACCESS_TYPE = "at+jwt"
_MOST_BYTES = 16 * 1024
_SKEW_S = 5
_CACHED = 20_000


class BadToken(Exception):
    """The token is not one of ours that is valid now; the text says why, for logs and tests, not for callers."""


@dataclass(frozen=True)
class AccessToken:
    """What a valid access token says. ``grant_id``: the sign-in that it was given under."""

    id: str
    user_id: str
    client_id: str
    audience: tuple[str, ...]
    scopes: frozenset[str]
    grant_id: str
    expires: int
    claims: Mapping[str, Any]


def is_jwt(token: str) -> bool:
    """Whether it looks like one; our opaque tokens never do."""
    return token.count(".") == 2


def sign(claims: Mapping[str, Any], key: SigningKey, kind: str) -> str:
    """A JWT with the header ``typ``, which keeps ID tokens and access tokens apart."""
    from joserfc import jwt

    return jwt.encode({"alg": ALGORITHM, "typ": kind, "kid": key.id}, dict(claims), key.key, algorithms=[ALGORITHM])


def new_jti() -> str:
    return secrets.token_urlsafe(16)


def key_id_of(token: str) -> str:
    """The key that a token names, before anything of it is believed. Raises BadToken."""
    try:
        return str(read_part(token, 0)["kid"])
    except KeyError as error:
        raise BadToken("no key is named") from error


def read_part(token: str, number: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a JWT, of which nothing may be believed yet. Raises BadToken."""
    if len(token) > _MOST_BYTES:
        raise BadToken("too long")
    try:
        part = token.split(".")[number]
        found = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError, RecursionError) as error:
        raise BadToken("it cannot be read") from error
    if not isinstance(found, dict):
        raise BadToken("it cannot be read")
    return found


def check(token: str, ring: KeyRing, issuer: str, now: datetime, kind: str = ACCESS_TYPE) -> dict[str, Any]:
    """The claims of a token that one of our keys signed, of this kind, valid now. Raises BadToken."""
    from joserfc import jwt
    from joserfc.errors import JoseError

    key = ring.find(key_id_of(token))
    if key is None:
        raise BadToken("unknown key")
    try:
        found = jwt.decode(token, key.key, algorithms=[ALGORITHM])
    except (JoseError, ValueError, TypeError) as error:
        raise BadToken(f"not signed by us: {error}") from error
    claims = found.claims
    if found.header.get("typ") != kind:
        raise BadToken(f"its type is {found.header.get('typ')}, not {kind}")
    if claims.get("iss") != issuer:
        raise BadToken("another issuer")
    check_times(claims, now.timestamp())
    return dict(claims)


def check_times(claims: Mapping[str, Any], now_s: float) -> None:
    """Whether it has begun and not ended. Raises BadToken."""
    try:
        expires, starts = float(claims["exp"]), max(float(claims.get("nbf", 0)), float(claims.get("iat", 0)))
    except (KeyError, TypeError, ValueError) as error:
        raise BadToken("its times are missing or no numbers") from error
    if now_s >= expires:
        raise BadToken("expired")
    if now_s + _SKEW_S < starts:
        raise BadToken("not yet valid")


def read_access(claims: Mapping[str, Any]) -> AccessToken:
    """The token's meaning. Raises BadToken where something is missing."""
    audience = claims.get("aud")
    try:
        return AccessToken(
            id=str(claims["jti"]),
            user_id=str(claims["sub"]),
            client_id=str(claims["client_id"]),
            audience=(audience,) if isinstance(audience, str) else tuple(audience or ()),
            scopes=frozenset(str(claims["scope"]).split()),
            grant_id=str(claims["sid"]),
            expires=int(claims["exp"]),
            claims=claims,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadToken("a claim is missing") from error


def access_claims(
    *,
    issuer: str,
    user_id: str,
    client_id: str,
    audience: Sequence[str],
    scope: str,
    grant_id: str,
    now: datetime,
    expires: datetime,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The claims of a new access token; ``more`` describes the user."""
    issued = int(now.timestamp())
    return {
        **more,
        "iss": issuer,
        "sub": user_id,
        "aud": list(audience),
        "client_id": client_id,
        "scope": scope,
        "sid": grant_id,
        "jti": new_jti(),
        "iat": issued,
        "nbf": issued,
        "exp": int(expires.timestamp()),
    }


class Verifier:
    """Checks access tokens and remembers what it found until they expire; it never keeps a token in clear."""

    def __init__(self, issuer: str, most: int = _CACHED) -> None:
        self._issuer = issuer
        self._most = most
        self._known: OrderedDict[bytes, AccessToken] = OrderedDict()

    def recall(self, digest: bytes, now: datetime) -> AccessToken | None:
        """What is known of a token, by its hash, unless it has expired meanwhile."""
        found = self._known.get(digest)
        if found is None:
            return None
        if now.timestamp() >= found.expires:
            del self._known[digest]
            return None
        self._known.move_to_end(digest)
        return found

    def verify(self, token: str, digest: bytes, ring: KeyRing, now: datetime) -> AccessToken:
        """Check the signature and the claims. Raises BadToken. Nothing is remembered of bad tokens."""
        found = read_access(check(token, ring, self._issuer, now))
        self._known[digest] = found
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return found
