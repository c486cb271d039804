"""Access tokens of other issuers, straight at our API: checked by keys, asked about every minute, believed for a
while when the issuer is away. Local suspension is asked of the database at every request, so it is immediate."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hansa.identity import errors
from hansa.identity.access import BadToken, read_part
from hansa.identity.model import Caller
from hansa.identity.policy import FULL_SCOPE
from hansa.identity.upstream import store
from hansa.identity.upstream.issuers import Issuer, Issuers, profile_of
from hansa.identity.upstream.model import Profile
from hansa.identity.upstream.people import People
from hansa.identity.upstream.remote import Away, Refused, Remote, away_fault
from hansa.identity.upstream.tokens import check_access, verify
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault

_MOST = 20_000


@dataclass(frozen=True)
class Held:
    """What is known of a token that was good. ``vouched``: when its issuer last said so, with ``asked`` it tried."""

    issuer: Issuer
    claims: Mapping[str, Any]
    expires: float
    vouched: datetime
    asked: datetime | None
    profile: Profile
    written: bool = False


def is_believed(held: Held, now: datetime, away_s: int) -> bool:
    """Whether a token is good while its issuer cannot be asked: until its end, and not for long. Pure."""
    return now.timestamp() < held.expires and now < held.vouched + timedelta(seconds=away_s)


def is_fresh(held: Held, now: datetime, every: timedelta, away_s: int) -> bool:
    """Whether nobody need be asked about a token now. Pure.

    After a question that nobody answered the next one waits as long, but no token is believed longer for that.
    """
    if held.asked is None or now - held.asked >= every:
        return False
    return held.asked == held.vouched or is_believed(held, now, away_s)


class BearerService:
    """Callers behind tokens of other issuers."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        issuers: Issuers,
        remote: Remote,
        people: People,
        introspect_s: int,
        away_s: int,
    ) -> None:
        self._database = database
        self._clock = clock
        self._issuers = issuers
        self._remote = remote
        self._people = people
        self._every = timedelta(seconds=introspect_s)
        self._away_s = away_s
        self._known: OrderedDict[bytes, Held] = OrderedDict()
        self._asking: dict[bytes, asyncio.Lock] = {}

    def issuer_of(self, token: str) -> Issuer | None:
        """The issuer that a token claims to be of, if the API takes tokens of it. Nothing is believed yet."""
        try:
            issuer = self._issuers.of_url(read_part(token, 1).get("iss"))
        except BadToken:
            return None
        return issuer if issuer is not None and issuer.takes_tokens else None

    async def authenticate(self, token: str, issuer: Issuer) -> Caller:
        """The caller. Raises Fault ``identity.bad_token``, ``…suspended``, ``…not_assured`` or ``…upstream_away``."""
        held = await self.validate(token, issuer)
        async with self._database.read() as tx:
            row = await store.find_identity(tx, issuer.url, held.profile.sub)
        if row is None or not held.written:
            row = await self._write(token, held)
        if row.suspended:
            raise Fault(
                errors.SUSPENDED, f"The account {row.user_name} is suspended.", hint="Ask the server's operator."
            )
        # An operator's rights are this server's to give: a token that was made elsewhere never has them.
        return Caller(row.user_id, row.user_name, scopes=frozenset({FULL_SCOPE}))

    async def validate(self, token: str, issuer: Issuer) -> Held:
        """What a token says, if it is good now. Raises Fault."""
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        held = self._recall(digest)
        now = self._clock.now()
        if held is None or not self._is_fresh(held, now):
            lock = self._asking.setdefault(digest, asyncio.Lock())
            try:
                async with lock:
                    held = self._recall(digest) or await self._check(token, issuer, now)
                    if not self._is_fresh(held, now):
                        held = await self._ask(token, held, now)
                    self._keep(digest, held)
            except (BadToken, Refused) as error:
                self._known.pop(digest, None)
                raise _bad_token() from error
            except Away as error:
                raise away_fault(issuer) from error
            finally:
                if not lock.locked():
                    self._asking.pop(digest, None)
        return held

    def _recall(self, digest: bytes) -> Held | None:
        held = self._known.get(digest)
        if held is None:
            return None
        if self._clock.now().timestamp() >= held.expires:
            del self._known[digest]
            return None
        self._known.move_to_end(digest)
        return held

    def _keep(self, digest: bytes, held: Held) -> None:
        self._known[digest] = held
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    def _is_fresh(self, held: Held, now: datetime) -> bool:
        return is_fresh(held, now, self._every, self._away_s)

    async def _check(self, token: str, issuer: Issuer, now: datetime) -> Held:
        head = read_part(token, 0)
        keys = await self._remote.keys(issuer, head.get("kid"))
        header, claims = verify(token, keys, issuer.url, now, head)
        check_access(header, claims, issuer)
        issued = datetime.fromtimestamp(min(float(claims.get("iat", 0)), now.timestamp()), now.tzinfo)
        return Held(issuer, claims, float(claims["exp"]), issued, None, profile_of(claims, issuer, is_complete=False))

    async def _ask(self, token: str, held: Held, now: datetime) -> Held:
        """Ask the issuer, where it can be asked; while it is away the token is believed for a while."""
        try:
            if held.asked is not None:  # the keys may have changed, too: a withdrawn one vouches for nothing
                head = read_part(token, 0)
                verify(token, await self._remote.keys(held.issuer, head.get("kid")), held.issuer.url, now, head)
            said = await self._remote.introspect(held.issuer, token)
        except Away:
            if is_believed(held, now, self._away_s):
                return replace(held, asked=now)
            raise
        if said is None:
            return replace(held, asked=now, vouched=now)
        if said.get("active") is not True or said.get("sub", held.profile.sub) != held.profile.sub:
            raise BadToken("its issuer says that it is not good any more")
        if all(held.claims.get(name) == value for name, value in said.items() if name != "active"):
            return replace(held, asked=now, vouched=now)  # it says nothing that the token does not
        profile = profile_of({**held.claims, **said}, held.issuer, is_complete=False)
        return replace(held, asked=now, vouched=now, profile=profile, written=False)

    async def _write(self, token: str, held: Held) -> Any:
        async with self._database.begin() as tx:
            row = await self._people.arrive(tx, held.issuer, held.profile)
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        if digest in self._known:
            self._known[digest] = replace(held, written=True)
        return row


def _bad_token() -> Fault:
    return Fault(
        errors.BAD_TOKEN,
        "This token is not valid here, or not any more.",
        hint="Get a fresh one of its issuer, for this server's audience.",
    )
