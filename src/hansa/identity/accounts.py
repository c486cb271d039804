"""Accounts of this server's own, for small groups: passwords and the invitations that set them."""

from __future__ import annotations

import re
from datetime import timedelta

from hansa.identity import errors, store
from hansa.identity.lockout import FORGET_AFTER, Failures, keys_of, wait_s
from hansa.identity.model import Caller
from hansa.identity.passwords import check_password, hash_password, verify_password
from hansa.identity.people import create_user
from hansa.identity.wire import Invitation, NewUser, User, UserPage
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.http import decode_cursor, encode_cursor
from hansa.kernel.secrets import new_token, token_hash
from hansa.kernel.settings import IdentitySettings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")


class AccountService:
    """Sign-in by name and password, and who may."""

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, issuer: str, pages: str, settings: IdentitySettings
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._issuer = issuer
        self._pages = pages
        self._settings = settings

    async def login(self, name: str, password: str, address: str) -> str | None:
        """The user's id; None where name and password do not belong together, or after too many failures.

        Callers say the same in both cases: who guesses learns nothing, not even that a name exists.
        """
        free = keys_of(name, address)
        now = self._clock.now()
        async with self._database.read() as tx:
            rows = await store.find_failures(tx, list(free))
            user = await store.find_user(tx, self._issuer, name.strip())
            digest = await store.find_password(tx, user.id) if user else None
        failures = {key: Failures(row.count, row.last) for key, row in rows.items()}
        is_blocked = wait_s(failures, free, now) > 0
        is_right = await verify_password(password, None if is_blocked else digest)
        async with self._database.begin() as tx:
            if is_right and user is not None and not user.suspended:
                await store.delete_failures(tx, list(free)[:2])
                return str(user.id)
            if not is_blocked:  # else who waits for the end of a lock would never see it
                for key in free:
                    await store.add_failure(tx, key, now)
            if user is not None:
                message = "A login failed" + (
                    " and was not even looked at, after too many others." if is_blocked else "."
                )
                event = Event("hansa", f"user/{user.id}", "refused", "identity.login_failed", message, user.id)
                await self._events.record(tx, event)
        return None

    async def invite_user(self, caller: Caller, new: NewUser) -> Invitation:
        """A link with which a user sets a password: a new user, or one who forgot it. Earlier links are void."""
        if not _NAME.fullmatch(new.name):
            raise Fault(
                errors.BAD_PASSWORD, "A name has letters, digits and . _ @ + - only.", hint="Choose another name."
            )
        token = new_token("invitation")
        now = self._clock.now()
        expires = now + timedelta(seconds=self._settings.invitation_s)
        async with self._database.begin() as tx:
            user = await store.find_user(tx, self._issuer, new.name)
            user_id = (
                user.id
                if user
                else await create_user(tx, self._events, self._clock, self._issuer, new.name, actor=caller.actor)
            )
            await store.withdraw_invitations(tx, user_id, now)
            await store.insert_invitation(
                tx,
                hash=token_hash(token),
                user_id=user_id,
                vo=None,
                roles=[],
                groups=[],
                created_by=caller.actor,
                created=now,
                expires=expires,
                used=None,
                used_by=None,
            )
            message = f"{new.name} was invited to set a password."
            await self._events.record(
                tx, Event(caller.actor, f"user/{user_id}", "invited", "identity.invited", message, user_id)
            )
        return Invitation(f"{self._pages}/welcome?invitation={token}", expires)

    async def invited_name(self, token: str) -> str:
        """The name of the user whom an invitation is for. Raises Fault ``identity.bad_invitation``."""
        async with self._database.read() as tx:
            row = await store.get_invitation(tx, token_hash(token))
            user = await store.get_user(tx, row.user_id) if row is not None and row.user_id else None
        if row is None or user is None or row.used is not None or row.expires <= self._clock.now():
            raise bad_invitation()
        return str(user.name)

    async def accept_invitation(self, token: str, password: str) -> str:
        """Set the password; the user's id. Raises Fault ``identity.bad_invitation`` or ``identity.bad_password``."""
        check_password(password, await self.invited_name(token))
        digest = await hash_password(password)
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await store.get_invitation(tx, token_hash(token))
            if row is None or not row.user_id or not await store.use_invitation(tx, row.hash, row.user_id, now):
                raise bad_invitation()
            await store.set_password(tx, row.user_id, digest, now)
            event = Event(
                "hansa", f"user/{row.user_id}", "active", "identity.password_set", "A password was set.", row.user_id
            )
            await self._events.record(tx, event)
        return str(row.user_id)

    async def suspend_user(self, caller: Caller, name: str, *, suspended: bool) -> User:
        """Let a user in no more, from the next request on, or again. Nothing of theirs is deleted."""
        async with self._database.begin() as tx:
            user = await store.find_user(tx, self._issuer, name) or await store.get_user(tx, name)
            if user is None:
                raise Fault(errors.NO_USER, f"There is no user {name}.", hint="hansa admin user list")
            if user.id == caller.user_id:
                raise Fault(errors.FORBIDDEN, "You cannot suspend yourself.", hint="Ask another operator.")
            await store.set_suspended(tx, user.id, suspended=suspended)
            word = "suspended" if suspended else "active"
            message = f"{caller.name} {'suspended' if suspended else 'let in again'} {user.name}."
            await self._events.record(
                tx, Event(caller.actor, f"user/{user.id}", word, f"identity.user_{word}", message, user.id)
            )
        return User(user.id, user.issuer, user.sub, user.name, user.operator, suspended=suspended)

    async def list_users(self, cursor: str | None, limit: int, word: str = "") -> UserPage:
        """Users by name; with ``word`` those who have it in their name."""
        after = decode_cursor(cursor, str)
        async with self._database.read() as tx:
            rows = await store.list_users(tx, after[0] if after else None, limit, word)
        users = [User(row.id, row.issuer, row.sub, row.name, row.operator, suspended=row.suspended) for row in rows]
        return UserPage(users, encode_cursor(rows[-1].name) if len(rows) == limit else None)

    async def forget_failures(self) -> None:
        """Delete counts of failed logins that matter no more."""
        async with self._database.begin() as tx:
            await store.delete_old_failures(tx, self._clock.now() - FORGET_AFTER)


def bad_invitation() -> Fault:
    """The same for a wrong, a used and an expired one."""
    return Fault(
        errors.BAD_INVITATION,
        "This invitation is not valid: it was used, it has expired, or it was withdrawn.",
        hint="Ask for a new one.",
    )
