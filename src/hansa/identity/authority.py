"""Grants of authority: under which Hansa acts while a user is away (design: identity and trust).

A user's is the offline refresh token of a sign-in at an upstream issuer; a VO's is a credential at a site. Both are
sealed. A grant that lapses kills nothing: what needs it waits for its user, who renews it with one click.

Other rooms ask :meth:`AuthorityService.require` before anything starts, and :meth:`AuthorityService.access_token`,
outside of any transaction, for a fresh token to act with.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from hansa.identity import errors, store, vo_store
from hansa.identity.model import Caller
from hansa.identity.policy import VoAct, may_in_vo
from hansa.identity.upstream import store as upstream_store
from hansa.identity.upstream.issuers import Issuer, Issuers
from hansa.identity.upstream.remote import Away, Remote, Tokens
from hansa.identity.wire import Authority as AuthorityView
from hansa.identity.wire import AuthorityList, NewSiteCredential
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.reconcile import Queue
from hansa.kernel.secrets import Vault
from hansa.kernel.status import Party, Status

RENEW = "Renew it with one click: hansa login --renew, or the account page."
_WAIT_S = 20.0
_LOOK_S = 0.2


class Kind(StrEnum):
    """What a grant is."""

    OWN = "own"
    """An account of this server's own, which needs nobody else's word."""
    OFFLINE = "offline_token"
    SITE = "site_credential"


class Phase(StrEnum):
    """How a grant is."""

    ACTIVE = "active"
    LAPSED = "lapsed"


@dataclass(frozen=True)
class Authority:
    """A grant that is good. ``id`` None: an account of this server's own. ``expires`` None: no end is known."""

    kind: Kind
    id: str | None = None
    expires: datetime | None = None


@dataclass(frozen=True)
class FreshToken:
    """An access token of a user at their issuer: a secret."""

    value: str = field(repr=False)
    expires: datetime


queue = Queue("authority", upstream_store.authority, upstream_store.authority.c.id)


def is_good(row: Any, until: datetime, now: datetime) -> bool:
    """Whether a grant lasts. A refresh token is prolonged again and again, so it needs to be alive now. Pure."""
    if row.phase != Phase.ACTIVE:
        return False
    return row.expires is None or row.expires > (now if row.kind == Kind.OFFLINE else until)


class AuthorityService:
    """Keeps grants, says which are good, hands out fresh tokens."""

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, vault: Vault, issuers: Issuers, remote: Remote
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._vault = vault
        self._issuers = issuers
        self._remote = remote

    # --- for other rooms --------------------------------------------------------------------------------------

    async def require(
        self, tx: Tx, user_id: str, until: datetime, *, vo: str | None = None, site: str | None = None
    ) -> Authority:
        """The grant under which Hansa may act for this user until then. Raises Fault ``identity.grant_expired``.

        Where a VO has a credential at the site, that is it. Ask inside the unit of work that starts something.
        """
        found = await self.look(tx, user_id, until, vo=vo, site=site)
        if isinstance(found, Status):
            raise Fault(errors.GRANT_EXPIRED, found.message, hint=RENEW)
        return found

    async def look(
        self, tx: Tx, user_id: str, until: datetime, *, vo: str | None = None, site: str | None = None
    ) -> Authority | Status:
        """The same without raising: a Status, ``waiting_on: user``, where there is no grant that is good."""
        now = self._clock.now()
        rows = list(await upstream_store.authority_of_vo(tx, vo, site)) if vo and site else []
        rows += [row for row in await upstream_store.authority_of_user(tx, user_id) if row.kind == Kind.OFFLINE]
        for row in rows:
            if is_good(row, until, now):
                return Authority(Kind(row.kind), row.id, row.expires)
        user = await store.get_user(tx, user_id)
        issuer = self._issuers.of_url(user.issuer) if user is not None else None
        if user is not None and (issuer is None or not issuer.offline):
            return Authority(Kind.OWN)
        since = max((row.since for row in rows), default=now)
        title = issuer.title if issuer else "the issuer"
        lapsed = next((row for row in rows if row.kind == Kind.OFFLINE), None)
        message = (
            f"The lasting sign-in at {title} has ended: {lapsed.message}"
            if lapsed is not None
            else f"Hansa may not act for you while you are away: there is no lasting sign-in at {title}."
        )
        return Status("waiting", errors.GRANT_EXPIRED.code, message, Party.USER, since)

    async def access_token(self, grant_id: str, lasts: timedelta = timedelta(minutes=5)) -> FreshToken:
        """An access token of the grant's user at their issuer, good for that long. Never call it in a transaction.

        Only the controller refreshes, one server at a time: issuers that rotate refresh tokens take the same one
        twice for a theft. Raises Fault ``identity.grant_expired``, ``identity.no_grant`` or ``identity.upstream_away``.
        """
        asked = asyncio.get_running_loop().time()
        is_first = True
        while True:
            now = self._clock.now()
            async with self._database.begin() if is_first else self._database.read() as tx:
                row = await upstream_store.get_authority(tx, grant_id)
                if row is None or row.kind != Kind.OFFLINE:
                    raise _no_grant(grant_id)
                if row.phase != Phase.ACTIVE:
                    raise Fault(errors.GRANT_EXPIRED, row.message, hint=RENEW)
                if row.access and row.access_expires and row.access_expires - now > lasts:
                    return FreshToken(self._vault.open(row.access, _access(grant_id)).decode(), row.access_expires)
                if is_first:
                    await upstream_store.update_authority(tx, grant_id, generation=row.generation + 1)
                    await queue.poke(tx, now, grant_id)
            is_first = False
            if asyncio.get_running_loop().time() - asked > _WAIT_S:
                raise Fault(
                    errors.UPSTREAM_AWAY,
                    f"{row.issuer} gave no fresh token within {_WAIT_S:.0f} s.",
                    hint="Hansa goes on trying.",
                    retry_after_s=30,
                )
            await asyncio.sleep(_LOOK_S)

    async def offline_grant(self, tx: Tx, user_id: str, issuer: str) -> str | None:
        """The id of a user's lasting sign-in at an issuer (its URL), if it is good now; None: there is none."""
        now = self._clock.now()
        rows = await upstream_store.authority_of_user(tx, user_id)
        good = (row for row in rows if row.kind == Kind.OFFLINE and row.issuer == issuer and is_good(row, now, now))
        return next((str(row.id) for row in good), None)

    async def site_credential(self, tx: Tx, vo: str, site: str) -> dict[str, str] | None:
        """What a VO signs in with at a site; None where it has nothing that is good now. A secret."""
        now = self._clock.now()
        for row in await upstream_store.authority_of_vo(tx, vo, site):
            if is_good(row, now, now) and row.sealed:
                found: dict[str, str] = json.loads(self._vault.open(row.sealed, _context(row.id)))
                return found
        return None

    # --- keeping them -----------------------------------------------------------------------------------------

    async def keep(self, tx: Tx, identity: Any, issuer: Issuer, tokens: Tokens) -> str:
        """Keep the lasting sign-in of an identity, in the place of an earlier one; the grant's id."""
        now = self._clock.now()
        for row in await upstream_store.authority_of_user(tx, identity.user_id):
            if row.identity_id == identity.id:
                await upstream_store.delete_authority(tx, row.id)
        grant_id = new_id("authority")
        await upstream_store.insert_authority(
            tx,
            id=grant_id,
            kind=Kind.OFFLINE.value,
            user_id=identity.user_id,
            identity_id=identity.id,
            issuer=issuer.url,
            created=now,
            created_by=f"user/{identity.user_id}",
            **self.sealed_tokens(grant_id, tokens, now),
            **status_values(Phase.ACTIVE, "identity.grant_given", f"Good since the sign-in at {issuer.title}.", now),
            due_at=now,
        )
        message = f"{identity.name} lets Hansa go on for them while they are away, by {issuer.title}."
        await self._record(tx, grant_id, "active", "identity.grant_given", message, identity.user_id)
        tx.ring("demand")
        return grant_id

    def sealed_tokens(self, grant_id: str, tokens: Tokens, now: datetime) -> dict[str, Any]:
        """Columns for fresh tokens."""
        values: dict[str, Any] = {
            "access": self._vault.seal(tokens.access.encode(), _access(grant_id)),
            "access_expires": tokens.expires,
            "refreshed": now,
        }
        if tokens.refresh is not None:
            values["sealed"] = self._vault.seal(tokens.refresh.encode(), _context(grant_id))
        lasts_s = tokens.refresh_lasts_s
        return values | {"expires": now + timedelta(seconds=lasts_s) if lasts_s else None}

    def open_refresh(self, row: Any) -> str:
        return self._vault.open(row.sealed, _context(row.id)).decode()

    async def set_site_credential(self, caller: Caller, vo: str, site: str, new: NewSiteCredential) -> AuthorityView:
        """Keep what a VO signs in with at a site, in the place of an earlier one. For managers of the VO."""
        if not new.fields:
            raise Fault(INVALID, "A credential has at least one field.", hint="As in: id and secret.")
        now = self._clock.now()
        grant_id = new_id("authority")
        sealed = self._vault.seal(json.dumps(new.fields).encode(), _context(grant_id))
        async with self._database.begin() as tx:
            await self._allow(tx, caller, vo)
            for row in await upstream_store.authority_of_vo(tx, vo, site):
                await upstream_store.delete_authority(tx, row.id)
            await upstream_store.insert_authority(
                tx,
                id=grant_id,
                kind=Kind.SITE.value,
                vo=vo,
                site=site,
                sealed=sealed,
                created=now,
                created_by=caller.actor,
                expires=new.expires,
                **status_values(Phase.ACTIVE, "identity.grant_given", f"Set by {caller.name}.", now),
                due_at=new.expires,
            )
            message = f"{caller.name} set the credential of {vo} at {site}."
            await self._record(tx, grant_id, "active", "identity.grant_given", message, None, vo)
            return self._view(await upstream_store.get_authority(tx, grant_id))

    async def site_credentials(self, caller: Caller, vo: str) -> AuthorityList:
        """A VO's credentials, without their content. For its managers."""
        async with self._database.read() as tx:
            await self._allow(tx, caller, vo)
            return AuthorityList([self._view(row) for row in await upstream_store.authority_of_vo(tx, vo)])

    async def list_mine(self, caller: Caller) -> AuthorityList:
        """Under what Hansa may act for the caller."""
        async with self._database.read() as tx:
            rows = await upstream_store.authority_of_user(tx, caller.user_id)
        return AuthorityList([self._view(row) for row in rows])

    async def revoke(self, caller: Caller, grant_id: str) -> None:
        """End a grant here at once, and at its issuer if that answers. What runs goes on."""
        async with self._database.begin() as tx:
            row = await upstream_store.get_authority(tx, grant_id, lock=True)
            if row is None:
                raise _no_grant(grant_id)
            if row.vo is not None:
                await self._allow(tx, caller, row.vo)
            elif row.user_id != caller.user_id and not caller.is_operator:
                raise _no_grant(grant_id)
            await upstream_store.delete_authority(tx, grant_id)
            message = f"{caller.name} took it back: nothing new starts under it."
            await self._record(tx, grant_id, "ended", "identity.grant_revoked", message, row.user_id, row.vo)
        issuer = self._issuers.of_url(row.issuer)
        if row.kind == Kind.OFFLINE and issuer is not None:
            try:
                await self._remote.revoke(issuer, self.open_refresh(row))
            except Away:
                return  # it is forgotten here, and lapses there

    async def drop_identity(self, tx: Tx, identity_id: str) -> None:
        """Inside the unit of work that unlinks an identity."""
        identity = await upstream_store.get_identity(tx, identity_id)
        for row in await upstream_store.authority_of_user(tx, identity.user_id) if identity else ():
            if row.identity_id == identity_id:
                await upstream_store.delete_authority(tx, row.id)

    async def _allow(self, tx: Tx, caller: Caller, vo: str) -> None:
        mine = await vo_store.get_membership(tx, vo, caller.user_id)
        if await vo_store.get_vo(tx, vo) is None or not may_in_vo(caller, VoAct.SEE, mine):
            raise Fault(errors.NO_SUCH_VO, f"There is no {vo} of yours.", hint="hansa vo list", vo=vo)
        if not may_in_vo(caller, VoAct.MANAGE, mine):
            raise Fault(
                errors.FORBIDDEN, f"Only {VoAct.MANAGE.value} may do this in {vo}, and operators of this server."
            )

    async def _record(
        self, tx: Tx, grant_id: str, phase: str, reason: str, message: str, owner: str | None, vo: str | None = None
    ) -> None:
        actor = f"user/{owner}" if owner else "hansa"
        await self._events.record(tx, Event(actor, f"authority/{grant_id}", phase, reason, message, owner, vo))

    def _view(self, row: Any) -> AuthorityView:
        return AuthorityView(
            id=row.id,
            kind=row.kind,
            issuer=row.issuer,
            vo=row.vo,
            site=row.site,
            phase=row.phase,
            reason=row.reason,
            message=row.message,
            waiting_on=row.waiting_on,
            since=row.since,
            created=row.created,
            refreshed=row.refreshed,
            expires=row.expires,
        )


def status_values(phase: Phase, reason: str, message: str, now: datetime) -> Mapping[str, Any]:
    """The columns of a status."""
    party = Party.NOBODY if phase is Phase.ACTIVE else Party.USER
    return {"phase": phase.value, "reason": reason, "message": message, "waiting_on": party.value, "since": now}


async def rewrap_authority(tx: Tx, vault: Vault) -> int:
    """Put every sealed grant under the current master key; how many secrets."""
    number = 0
    for row in await upstream_store.all_sealed(tx):
        values = {"sealed": vault.rewrap(row.sealed, _context(row.id))}
        if row.access:
            values["access"] = vault.rewrap(row.access, _access(row.id))
        await upstream_store.update_authority(tx, row.id, **values)
        number += len(values)
    return number


def _context(grant_id: str) -> str:
    return f"authority/{grant_id}"


def _access(grant_id: str) -> str:
    return f"authority_access/{grant_id}"


def _no_grant(grant_id: str) -> Fault:
    return Fault(
        errors.NO_GRANT, f"There is no grant of authority {grant_id[:60]} of yours.", hint="hansa authority list"
    )
