"""Checks of tokens that others signed. Pure: knows keys and time, and neither network nor database."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hansa.identity.access import BadToken, check_times, read_part
from hansa.identity.upstream.issuers import Issuer

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a key pair. Neither "none" nor one by a secret that we would share."""
_ACCESS_TYPES = {"at+jwt", "application/at+jwt", "jwt", ""}
_ID_CLAIMS = ("at_hash", "c_hash", "s_hash")


def verify(
    token: str, keys: KeySet, issuer: str, now: datetime, head: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWT that one of the keys signed, of this issuer, valid now. Raises BadToken.

    ``head``: its header, where the caller has read it already.
    """
    from joserfc import jwt
    from joserfc.errors import JoseError

    head = read_part(token, 0) if head is None else head
    if head.get("alg") not in ALGORITHMS:
        raise BadToken(f"signed with {head.get('alg')!r}")
    try:
        found = jwt.decode(token, keys, algorithms=ALGORITHMS)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise BadToken(f"not signed by its issuer: {error}") from error
    if found.claims.get("iss") != issuer:
        raise BadToken("another issuer")
    check_times(found.claims, now.timestamp())
    if not isinstance(found.claims.get("sub"), str) or not found.claims["sub"]:
        raise BadToken("nobody is named")
    return dict(found.header), dict(found.claims)


def check_access(header: Mapping[str, Any], claims: Mapping[str, Any], issuer: Issuer) -> None:
    """Whether our API may take it: an access token, for us, with the scopes that the settings ask. Raises BadToken."""
    kind = str(header.get("typ") or "").lower()
    if kind not in _ACCESS_TYPES:
        raise BadToken(f"its type is {header.get('typ')}")
    said = str(claims.get("typ", "")).lower()  # Keycloak tells its kinds apart by a claim, and has nonces in all
    is_id_token = any(name in claims for name in _ID_CLAIMS) or ("nonce" in claims and not said and "at+" not in kind)
    if said not in ("", "bearer") or is_id_token:
        raise BadToken("it is no access token")
    if "cnf" in claims:
        raise BadToken("it is bound to a key of its owner")
    given_to = claims.get("azp") or claims.get("client_id")
    if not (audience_of(claims) & issuer.audiences or given_to in issuer.clients):
        raise BadToken("another audience")
    if missing := issuer.api_scopes - scopes_of(claims):
        raise BadToken(f"the scope {sorted(missing)[0]} is missing")


def check_id_token(claims: Mapping[str, Any], issuer: Issuer, nonce: str) -> None:
    """OpenID Connect Core 1.0, 3.1.3.7: for this client, for this very login. Raises BadToken."""
    audience = audience_of(claims)
    if issuer.client_id not in audience:
        raise BadToken("another audience")
    if (len(audience) > 1 or "azp" in claims) and claims.get("azp") != issuer.client_id:
        raise BadToken("given to another client")
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise BadToken("of another login")


def audience_of(claims: Mapping[str, Any]) -> set[str]:
    found = claims.get("aud")
    if isinstance(found, str):
        return {found}
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()


def scopes_of(claims: Mapping[str, Any]) -> set[str]:
    """Scopes, as RFC 9068 writes them, or as a list, as some do."""
    found = claims.get("scope", claims.get("scp", ""))
    return {str(one) for one in (found.split() if isinstance(found, str) else found or [])}
