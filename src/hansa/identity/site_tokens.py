"""Tokens by which Hansa acts at sites for users who are away: their issuer's, or this server's own.

A token is short-lived and says who its user is and in which VOs; it is not good for Hansa itself.
"""

from __future__ import annotations

from datetime import timedelta

from hansa.identity import store, vo_store
from hansa.identity.access import ACCESS_TYPE, access_claims, sign
from hansa.identity.authority import AuthorityService, Kind
from hansa.identity.keys import Keys
from hansa.identity.model import Subject
from hansa.identity.provider.clients import BUILT_IN
from hansa.identity.provider.engine import user_claims
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault, Permanent, Temporary
from hansa.kernel.status import Status

LASTS = timedelta(minutes=30)
SCOPE = "openid profile voperson_id eduperson_entitlement"


class SiteTokens:
    """Hands out tokens for sites, under the grants of authority that users have given."""

    def __init__(
        self, database: Database, clock: Clock, keys: Keys, authority: AuthorityService, issuer: str, audience: str
    ) -> None:
        self._database = database
        self._clock = clock
        self._keys = keys
        self._authority = authority
        self._issuer = issuer
        self._audience = audience

    async def of(self, user_id: str, vo: str | None, site: str) -> str | None:
        """A fresh token of this user. None: a VO's own credential is what to sign in with there.

        Never call it in a transaction. Raises Permanent where the user's grant has ended, Temporary where the issuer
        does not answer.
        """
        now = self._clock.now()
        async with self._database.read() as tx:
            found = await self._authority.look(tx, user_id, now, vo=vo, site=site)
        if isinstance(found, Status):
            raise Permanent(found.message)
        if found.kind is Kind.SITE:
            return None
        if found.kind is Kind.OFFLINE and found.id is not None:
            try:
                return (await self._authority.access_token(found.id)).value
            except Fault as fault:
                if fault.retry_after_s is not None:
                    raise Temporary(fault.detail, fault.retry_after_s) from fault
                raise Permanent(fault.detail) from fault
        return await self._own(user_id)

    async def _own(self, user_id: str) -> str:
        now = self._clock.now()
        ring = await self._keys.signing_ring()
        async with self._database.read() as tx:
            row = await store.get_user(tx, user_id)
            memberships = await vo_store.memberships(tx, user_id)
        if row is None or row.suspended or ring.signer is None:
            raise Permanent("The user of this machine is suspended, or gone.")
        subject = Subject(row.id, row.name, row.suspended, memberships)
        claims = access_claims(
            issuer=self._issuer,
            user_id=user_id,
            client_id=BUILT_IN,
            audience=[self._audience],
            scope=SCOPE,
            grant_id="",
            now=now,
            expires=now + LASTS,
            more=user_claims(subject, SCOPE, self._issuer),
        )
        return sign(claims, ring.signer, ACCESS_TYPE)
