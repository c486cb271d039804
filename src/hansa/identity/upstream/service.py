"""Signing in through an upstream issuer: there with a browser, and back. Authorization code, PKCE, state and nonce.

What a login must remember until the browser comes back is sealed in a cookie of that very browser: nobody can finish
a login that another browser began (RFC 6749, 10.12), and the server keeps nothing of logins that nobody finishes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

from hansa.identity import errors, store
from hansa.identity.access import BadToken, read_part
from hansa.identity.authority import AuthorityService
from hansa.identity.model import Caller
from hansa.identity.upstream import store as upstream_store
from hansa.identity.upstream.issuers import Issuer, Issuers, profile_of
from hansa.identity.upstream.model import Profile
from hansa.identity.upstream.people import People
from hansa.identity.upstream.remote import Away, Metadata, Refused, Remote, Tokens, away_fault
from hansa.identity.upstream.tokens import check_id_token, verify
from hansa.identity.wire import Identity, IdentityList
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.secrets import Vault

_LASTS = timedelta(minutes=15)
_CONTEXT = "upstream_login"


class Purpose(StrEnum):
    """Why a browser is sent to an upstream."""

    LOGIN = "login"
    LINK = "link"
    RENEW = "renew"


@dataclass(frozen=True)
class Attempt:
    """A login that is under way. ``user_id``: who is signed in already and links or renews."""

    issuer: str
    purpose: Purpose
    state: str
    nonce: str
    verifier: str
    target: str
    expires: float
    user_id: str | None = None


@dataclass(frozen=True)
class Departure:
    """Where the browser goes, and what it must bring back."""

    url: str
    state: str
    cookie: str
    title: str


@dataclass(frozen=True)
class Arrival:
    """Who came back, and where they want to go."""

    user_id: str
    purpose: Purpose
    target: str


class UpstreamService:
    """Sends browsers to upstream issuers and receives them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        vault: Vault,
        issuers: Issuers,
        remote: Remote,
        people: People,
        authority: AuthorityService,
        pages: str,
        *,
        offers_passwords: bool = True,
    ) -> None:
        self._database = database
        self._clock = clock
        self._vault = vault
        self._issuers = issuers
        self._remote = remote
        self._people = people
        self._authority = authority
        self._pages = pages
        self.offers_passwords = offers_passwords or not issuers.offered

    @property
    def issuers(self) -> list[Issuer]:
        """All issuers of the settings, for operators."""
        return list(self._issuers)

    @property
    def offered(self) -> list[Issuer]:
        """The issuers of the login page."""
        return self._issuers.offered

    def redirect_uri(self, issuer: Issuer) -> str:
        """One for each issuer, which alone keeps them from being mixed up; where Keycloak has it."""
        return f"{self._pages}/broker/{issuer.name}/endpoint"

    async def depart(self, name: str, purpose: Purpose, target: str, user_id: str | None = None) -> Departure:
        """Begin a login. Raises Fault ``identity.no_issuer`` or ``identity.upstream_away``."""
        issuer = self._issuer(name)
        metadata = await self._metadata(issuer)
        attempt = Attempt(
            issuer=issuer.name,
            purpose=purpose,
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            target=target,
            expires=(self._clock.now() + _LASTS).timestamp(),
            user_id=user_id,
        )
        sealed = self._vault.seal(json.dumps(asdict(attempt)).encode(), _CONTEXT)
        query = urlencode(self._query(issuer, attempt))
        url = f"{metadata.authorization}{'&' if '?' in metadata.authorization else '?'}{query}"
        return Departure(url, attempt.state, sealed, issuer.title)

    def _query(self, issuer: Issuer, attempt: Attempt) -> dict[str, str]:
        scopes = list(issuer.scopes)
        asked = {
            "response_type": "code",
            "client_id": issuer.client_id,
            "redirect_uri": self.redirect_uri(issuer),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": _challenge(attempt.verifier),
            "code_challenge_method": "S256",
        }
        if attempt.purpose is Purpose.RENEW:
            scopes.append("offline_access")
            asked["prompt"] = "consent"  # OpenID Connect Core 1.0, section 11: without, there is no offline access
        elif attempt.purpose is Purpose.LINK:
            asked["prompt"] = "login"
        return asked | {"scope": " ".join(dict.fromkeys(scopes))}

    async def arrive(self, name: str, answer: Mapping[str, str], cookie: str | None, signed_in: str | None) -> Arrival:
        """Finish a login. ``signed_in``: whom the browser's session names. Raises Fault; nobody is signed in then."""
        issuer = self._issuer(name)
        attempt = self._recall(issuer, answer, cookie)
        if attempt.purpose is not Purpose.LOGIN and attempt.user_id != signed_in:
            raise _not_begun()
        metadata = await self._metadata(issuer)
        _check_sender(answer, issuer, metadata)
        if problem := answer.get("error"):
            raise _refused(issuer, answer.get("error_description") or problem)
        try:
            tokens = await self._remote.redeem(
                issuer, answer.get("code", ""), attempt.verifier, self.redirect_uri(issuer)
            )
            profile = await self._profile(issuer, tokens, attempt.nonce)
        except Away as error:
            raise away_fault(issuer) from error
        except (Refused, BadToken) as error:
            raise _refused(issuer, "its answer did not fit the login") from error
        return await self._enter(issuer, attempt, profile, tokens)

    async def _enter(self, issuer: Issuer, attempt: Attempt, profile: Profile, tokens: Tokens) -> Arrival:
        async with self._database.begin() as tx:
            if attempt.purpose is Purpose.LOGIN:
                row = await self._people.arrive(tx, issuer, profile)
            else:
                assert attempt.user_id is not None  # noqa: S101 - it equals the session's
                row = await self._people.link(tx, issuer, profile, attempt.user_id)
            if tokens.refresh is not None and attempt.purpose is Purpose.RENEW:
                await self._authority.keep(tx, row, issuer, tokens)
        return Arrival(row.user_id, attempt.purpose, attempt.target)

    async def _profile(self, issuer: Issuer, tokens: Tokens, nonce: str) -> Profile:
        """Who it is: of the id_token, which is signed, and of the userinfo endpoint, which must name the same one."""
        if tokens.id_token is None:
            raise BadToken("no id_token")
        key_id = read_part(tokens.id_token, 0).get("kid")
        keys = await self._remote.keys(issuer, key_id)
        _, claims = verify(tokens.id_token, keys, issuer.url, self._clock.now())
        check_id_token(claims, issuer, nonce)
        more = await self._remote.userinfo(issuer, tokens.access)
        if more and more.get("sub") != claims["sub"]:
            raise BadToken("userinfo names somebody else")
        return profile_of({**claims, **more}, issuer, is_complete=True)

    # --- linked identities ------------------------------------------------------------------------------------

    async def identities(self, caller: Caller) -> IdentityList:
        """With what the caller may sign in, besides a password."""
        async with self._database.read() as tx:
            rows = await upstream_store.identities_of(tx, caller.user_id)
        return IdentityList([self._view(row) for row in rows])

    async def unlink(self, caller: Caller, identity_id: str) -> None:
        """Forget an identity, and what it gave. Raises Fault ``identity.last_identity`` where it is the only way in."""
        async with self._database.begin() as tx:
            rows = await upstream_store.identities_of(tx, caller.user_id)
            row = next((one for one in rows if one.id == identity_id), None)
            if row is None:
                raise Fault(errors.NO_IDENTITY, f"No identity {identity_id} is linked to you.")
            if len(rows) == 1 and await store.find_password(tx, caller.user_id) is None:
                raise Fault(
                    errors.LAST_IDENTITY, "You could not sign in any more.", hint="Link another identity before."
                )
            await self._authority.drop_identity(tx, row.id)
            await self._people.forget(tx, row)

    def _view(self, row: Any) -> Identity:
        issuer = self._issuers.of_url(row.issuer)
        title = issuer.title if issuer else row.issuer
        return Identity(row.id, row.issuer, title, row.sub, row.name, row.linked, row.last_seen)

    # --- inside -----------------------------------------------------------------------------------------------

    def _issuer(self, name: str) -> Issuer:
        issuer = self._issuers.named(name)
        if issuer is None or not issuer.login:
            raise Fault(errors.NO_ISSUER, f"There is no issuer {name[:40]} to sign in at.")
        return issuer

    async def _metadata(self, issuer: Issuer) -> Metadata:
        try:
            return await self._remote.metadata(issuer)
        except Away as error:
            raise away_fault(issuer) from error

    def _recall(self, issuer: Issuer, answer: Mapping[str, str], cookie: str | None) -> Attempt:
        if not cookie:
            raise _not_begun()
        try:
            said = json.loads(self._vault.open(cookie, _CONTEXT))
            attempt = Attempt(**(said | {"purpose": Purpose(said["purpose"])}))
        except (Fault, ValueError, TypeError, KeyError) as error:
            raise _not_begun() from error
        is_mine = hmac.compare_digest(attempt.state.encode(), answer.get("state", "").encode())
        if not is_mine or attempt.issuer != issuer.name or attempt.expires < self._clock.now().timestamp():
            raise _not_begun()
        return attempt


def _check_sender(answer: Mapping[str, str], issuer: Issuer, metadata: Metadata) -> None:
    """RFC 9207: the answer comes from the issuer that was asked, if it says so, or has promised to."""
    said = answer.get("iss")
    if said != issuer.url and (said is not None or metadata.says_issuer):
        raise Fault(errors.BAD_LOGIN, f"The answer is not one of {issuer.title}.", hint="Start again.")


def _refused(issuer: Issuer, why: str) -> Fault:
    text = "".join(letter for letter in why if letter.isprintable())[:200]
    return Fault(errors.UPSTREAM_REFUSED, f"{issuer.title} did not sign you in: {text}.", hint="Start again.")


def _not_begun() -> Fault:
    return Fault(
        errors.BAD_LOGIN,
        "This sign-in was not begun in this browser, was finished before, or took too long.",
        hint="Start again at the login page.",
    )


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
