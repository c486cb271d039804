"""Service accounts: programs such as science gateways, which act for a VO and not for a person.

Each is a user of its own, a member of one VO without any role, and an OpenID client that signs in with its secret
(client credentials) and gets tokens of a few scopes.
"""

from __future__ import annotations

import re

from hansa.identity import errors, store, vo_store
from hansa.identity.model import Caller
from hansa.identity.policy import VoAct, may_in_vo
from hansa.identity.provider import store as provider_store
from hansa.identity.wire import NewService, Service, ServiceList
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.secrets import new_token, token_hash

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
GIVEN_BY_SERVICE = "service"
"""In the place of an identity that gave a membership: neither an issuer nor an invitation did."""


class ServiceAccounts:
    """What managers of a VO do with its service accounts."""

    def __init__(self, database: Database, events: EventLog, clock: Clock, issuer: str) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._issuer = f"{issuer}#services"

    async def add(self, caller: Caller, vo: str, new: NewService) -> Service:
        """A service account ``NAME.VO``; its secret is shown once."""
        if not _NAME.fullmatch(new.name):
            raise Fault(INVALID, f"{new.name!r} cannot name a service.", hint="Small letters, digits and - only.")
        client_id, secret, now = f"{new.name}.{vo}", new_token("service"), self._clock.now()
        async with self._database.begin() as tx:
            await self._allow(tx, caller, vo)
            if await provider_store.get_client(tx, client_id) is not None:
                raise Fault(errors.CLIENT_TAKEN, f"There is a {client_id} already.", hint="Choose another name.")
            user_id = await self._user(tx, client_id)
            await vo_store.insert_member(
                tx, vo=vo, user_id=user_id, roles=[], groups=[], since=now, suspended=None, identity_id=GIVEN_BY_SERVICE
            )
            await provider_store.insert_client(
                tx,
                id=client_id,
                name=new.name,
                secret_hash=token_hash(secret),
                redirect_uris=[],
                logout_uris=[],
                audiences=[],
                api=True,
                trusted=False,
                introspects=False,
                created=now,
                service_user=user_id,
                service_vo=vo,
                scopes=sorted(set(new.scopes)),
            )
            message = f"{caller.name} added the service account {client_id}."
            await self._record(tx, caller, vo, "identity.service_added", message)
        return Service(client_id, vo, sorted(set(new.scopes)), now, secret)

    async def list_of(self, caller: Caller, vo: str) -> ServiceList:
        async with self._database.read() as tx:
            await self._allow(tx, caller, vo)
            rows = await provider_store.services_of(tx, vo)
        return ServiceList([Service(row.id, vo, list(row.scopes or []), row.created) for row in rows])

    async def remove(self, caller: Caller, vo: str, client_id: str) -> None:
        """Its tokens are void at once; what it has started goes on."""
        async with self._database.begin() as tx:
            await self._allow(tx, caller, vo)
            row = await provider_store.get_client(tx, client_id)
            if row is None or row.service_vo != vo:
                raise Fault(
                    errors.NO_CLIENT, f"{vo} has no service account {client_id}.", hint=f"hansa vo service list {vo}"
                )
            await provider_store.delete_client(tx, client_id, self._clock.now())
            await vo_store.delete_member(tx, vo, row.service_user)
            await self._record(
                tx, caller, vo, "identity.service_removed", f"{caller.name} removed the service account {client_id}."
            )

    async def _user(self, tx: Tx, client_id: str) -> str:
        row = await store.find_user(tx, self._issuer, client_id)
        if row is not None:
            return str(row.id)
        user_id = new_id("user")
        await store.insert_user(
            tx,
            id=user_id,
            issuer=self._issuer,
            sub=client_id,
            name=client_id,
            operator=False,
            suspended=False,
            created=self._clock.now(),
        )
        return user_id

    async def _allow(self, tx: Tx, caller: Caller, vo: str) -> None:
        mine = await vo_store.get_membership(tx, vo, caller.user_id)
        if await vo_store.get_vo(tx, vo) is None or not may_in_vo(caller, VoAct.SEE, mine):
            raise Fault(errors.NO_SUCH_VO, f"There is no {vo} of yours.", hint="hansa vo list", vo=vo)
        if not may_in_vo(caller, VoAct.MANAGE, mine):
            raise Fault(
                errors.FORBIDDEN, f"Only {VoAct.MANAGE.value} may do this in {vo}, and operators of this server."
            )

    async def _record(self, tx: Tx, caller: Caller, vo: str, reason: str, message: str) -> None:
        await self._events.record(tx, Event(caller.actor, f"vo/{vo}", "active", reason, message, None, vo))
