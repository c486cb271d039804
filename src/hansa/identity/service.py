"""Users and tokens: the use cases."""

from __future__ import annotations

from datetime import datetime, timedelta

from hansa.identity import errors, store, vo_store
from hansa.identity.access import is_jwt
from hansa.identity.model import Caller, PilotKey, TokenKind
from hansa.identity.people import create_user
from hansa.identity.provider.service import ProviderService
from hansa.identity.upstream.bearer import BearerService
from hansa.identity.wire import NewUser, NewUserToken, User
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.secrets import new_token, token_hash


class IdentityService:
    """Signs callers in and keeps users and tokens."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        issuer: str,
        provider: ProviderService,
        bearer: BearerService | None = None,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._issuer = issuer
        self._provider = provider
        self._bearer = bearer

    async def authenticate(self, token: str) -> Caller:
        """The caller behind a token: an opaque one, or an access token of our own or of an issuer that we trust.

        Raises Fault ``identity.bad_token`` or ``identity.suspended``; ``identity.upstream_away`` for another issuer's.
        """
        if is_jwt(token):
            foreign = self._bearer.issuer_of(token) if self._bearer is not None else None
            if foreign is not None and self._bearer is not None:
                return await self._bearer.authenticate(token, foreign)
            return await self._provider.authenticate(token)
        token, _, key = token.partition("~")
        async with self._database.read() as tx:
            row = await store.find_token(tx, token_hash(token))
        if row is None or (row.expires is not None and row.expires <= self._clock.now()):
            raise Fault(
                errors.BAD_TOKEN,
                "This token is unknown here, or has expired.",
                hint="On the computer of the server, hansa reads its token from HANSA_HOME by itself; "
                "elsewhere set HANSA_TOKEN_FILE.",
            )
        if row.suspended:
            raise Fault(errors.SUSPENDED, f"The account {row.name} is suspended.", hint="Ask the server's operator.")
        shown = PilotKey(token_hash(key) if key else "", row.key_hash) if row.pilot_id else None
        is_operator = row.operator and not row.pilot_id
        return Caller(row.user_id, row.name, is_operator=is_operator, pilot=row.pilot_id, key=shown)

    async def check_holder(self, caller: Caller) -> None:
        """Whether a pilot holds the key that its token is bound to; the first one that is shown is the one.

        So a copy of the token is good for nothing once its pilot has spoken; and if a thief came first, the pilot is
        turned away and ends, by which the token is void. Raises Fault ``identity.not_holder``; the first time it is
        an event of the pilot's owner.
        """
        key, pilot = caller.key, caller.pilot
        if key is None or pilot is None or key.shown == (key.bound or ""):
            return
        async with self._database.begin() as tx:
            if key.bound is None and await store.bind_pilot_token(tx, pilot, key.shown):
                return
            if await store.is_misused_for_the_first_time(tx, pilot, self._clock.now()):
                said = "Somebody else has its token, and was turned away."
                event = Event("hansa", f"pilot/{pilot}", "warning", "identity.not_holder", said, caller.user_id)
                await self._events.record(tx, event)
        raise Fault(
            errors.NOT_HOLDER,
            "This pilot's token is bound to the key of another process.",
            hint="Whoever has a copy of the token alone is not the pilot.",
        )

    async def is_let_in(self, user_id: str) -> bool:
        """Whether a user may come in now: streams that are open when somebody is suspended ask, and end."""
        async with self._database.read() as tx:
            row = await store.get_user(tx, user_id)
        return row is not None and not row.suspended

    async def whoami(self, caller: Caller) -> User:
        async with self._database.read() as tx:
            row = await store.get_user(tx, caller.user_id)
            mine = await vo_store.memberships(tx, caller.user_id)
        if row is None:
            raise Fault(errors.BAD_TOKEN, "The user of this token is gone.")
        return User(row.id, row.issuer, row.sub, row.name, row.operator, vos=[one.vo for one in mine])

    async def ensure_local_user(self, name: str, token: str) -> str:
        """The user of an embedded server, who signs in with the 0600 local token; returns the user's id."""
        async with self._database.begin() as tx:
            row = await store.find_user(tx, self._issuer, name)
            user_id = (
                row.id if row else await create_user(tx, self._events, self._clock, self._issuer, name, operator=True)
            )
            if await store.find_token(tx, token_hash(token)) is None:
                await self._insert_token(tx, token, TokenKind.USER, user_id)
        return user_id

    async def add_user(self, caller: Caller, new: NewUser) -> NewUserToken:
        """A user of this server's own. The token is shown once and kept as a hash."""
        token = new_token("user")
        async with self._database.begin() as tx:
            if await store.find_user(tx, self._issuer, new.name):
                raise Fault(errors.NAME_TAKEN, f"There is a user {new.name} already.", hint="Choose another name.")
            user_id = await create_user(tx, self._events, self._clock, self._issuer, new.name, actor=caller.actor)
            await self._insert_token(tx, token, TokenKind.USER, user_id)
        return NewUserToken(User(user_id, self._issuer, new.name, new.name, operator=False), token)

    async def issue_pilot_token(self, pilot_id: str, owner_id: str, lasts: timedelta) -> str:
        """A token that can do nothing but this pilot's exchange; earlier ones of this pilot are void."""
        token = new_token("pilot")
        async with self._database.begin() as tx:
            await store.delete_pilot_tokens(tx, pilot_id)
            await self._insert_token(tx, token, TokenKind.PILOT, owner_id, pilot_id, lasts)
        return token

    async def _insert_token(
        self,
        tx: Tx,
        token: str,
        kind: TokenKind,
        user_id: str,
        pilot_id: str | None = None,
        lasts: timedelta | None = None,
    ) -> None:
        now = self._clock.now()
        await store.insert_token(
            tx,
            hash=token_hash(token),
            kind=kind.value,
            user_id=user_id,
            pilot_id=pilot_id,
            created=now,
            expires=now + lasts if lasts else None,
        )


async def revoke_pilot_tokens(tx: Tx, pilot_id: str) -> None:
    """Inside the unit of work that ends a pilot: its token is void from then on."""
    await store.delete_pilot_tokens(tx, pilot_id)


async def renew_pilot_tokens(tx: Tx, pilot_id: str, before: datetime, until: datetime) -> None:
    """Let a pilot's token that ends before a moment last until another one."""
    await store.renew_pilot_tokens(tx, pilot_id, before, until)
