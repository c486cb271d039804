"""What an upstream says of a person, written down: account, identity, memberships. Inside a unit of work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hansa.identity import errors, vo_store
from hansa.identity import store as identity_store
from hansa.identity.model import Role
from hansa.identity.upstream import store
from hansa.identity.upstream.issuers import Issuer
from hansa.identity.upstream.model import Given, Profile, is_assured
from hansa.identity.vos import GROUP_NAME
from hansa.kernel.clock import Clock
from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id

_MOST_GROUPS = 1000


@dataclass(frozen=True)
class Wanted:
    """A membership as it should be."""

    roles: list[str]
    groups: list[str]


@dataclass(frozen=True)
class Change:
    """What to do with the membership of one VO. ``wanted`` None: it is over."""

    vo: str
    wanted: Wanted | None
    is_new: bool


def decide_memberships(
    ruled: Iterable[Any], given: Iterable[Given], held: Iterable[Any], identity_id: str, profile: Profile
) -> list[Change]:
    """What changes for one identity. Pure.

    ``ruled``: VOs that the identity's issuer rules; ``held``: all memberships of the user. Only what this very
    identity gave is changed or taken away: neither invitations nor what another identity gave.
    """
    by_name = {one.vo: one for one in given}
    mine = {row.vo: row for row in held}
    changes = []
    for vo in ruled:
        found = by_name.get(vo.issuer_vo or vo.name)
        if found is not None and not is_assured(profile, vo.assurance or ()):
            found = None
        row = mine.get(vo.name)
        if row is not None and row.identity_id != identity_id:
            continue  # another identity of the same person gave it, and is asked in its turn
        wanted = None
        if found is not None:
            roles = sorted(role.value for role in found.roles if role is not Role.MEMBER)
            wanted = Wanted(roles, [group for group in found.groups if GROUP_NAME.fullmatch(group)][:_MOST_GROUPS])
        if row is None and wanted is not None:
            changes.append(Change(vo.name, wanted, is_new=True))
        elif row is not None and (wanted is None or [wanted.roles, wanted.groups] != [row.roles, row.groups]):
            changes.append(Change(vo.name, wanted, is_new=False))
    return changes


class People:
    """Finds or makes the account of an upstream identity, and keeps its memberships."""

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self._events = events
        self._clock = clock

    async def arrive(self, tx: Tx, issuer: Issuer, profile: Profile) -> Any:
        """The identity's row; the account is made at the first arrival. Memberships are as the upstream says now.

        Raises Fault ``identity.not_assured`` or ``identity.suspended``. Never is an account found by e-mail or name.
        """
        self.require_assurance(issuer, profile)
        await store.lock_identity(tx, issuer.url, profile.sub)
        row = await store.find_identity(tx, issuer.url, profile.sub)
        if row is None:
            await self._link(tx, await self._new_user(tx, issuer, profile), profile, "signed in for the first time")
            row = await store.find_identity(tx, issuer.url, profile.sub)
        assert row is not None  # noqa: S101 - just made
        if row.suspended:
            raise Fault(
                errors.SUSPENDED, f"The account {row.user_name} is suspended.", hint="Ask the server's operator."
            )
        await store.see_identity(tx, row.id, profile.name, self._clock.now())
        await self.refresh(tx, row, profile)
        return row

    async def link(self, tx: Tx, issuer: Issuer, profile: Profile, user_id: str) -> Any:
        """Make an identity one of a signed-in user's. Raises Fault ``identity.identity_taken`` too."""
        self.require_assurance(issuer, profile)
        await store.lock_identity(tx, issuer.url, profile.sub)
        row = await store.find_identity(tx, issuer.url, profile.sub)
        if row is not None and row.user_id != user_id:
            raise Fault(
                errors.IDENTITY_TAKEN,
                f"{profile.name} of {issuer.title} has an account here already.",
                hint="Sign in with it, or ask the server's operator.",
            )
        if row is None:
            await self._link(tx, user_id, profile, f"was linked by its owner ({issuer.title})")
            row = await store.find_identity(tx, issuer.url, profile.sub)
        assert row is not None  # noqa: S101
        await self.refresh(tx, row, profile)
        return row

    @staticmethod
    def require_assurance(issuer: Issuer, profile: Profile) -> None:
        """Raises Fault ``identity.not_assured``."""
        if not is_assured(profile, issuer.assurance):
            has = ", ".join(sorted(profile.assurance)) or "none"
            raise Fault(
                errors.NOT_ASSURED,
                f"{issuer.title} vouches too little for who you are: one of {', '.join(issuer.assurance)} is needed, "
                f"and it says {has}.",
                hint="Ask your institution to verify your identity, or choose another way to sign in.",
            )

    async def refresh(self, tx: Tx, identity: Any, profile: Profile) -> None:
        """Memberships as the upstream says; nothing changes where it said nothing of them."""
        if profile.given is None:
            return
        held = await vo_store.member_rows(tx, identity.user_id)
        ruled = await vo_store.ruled_by(
            tx, profile.issuer, {one.vo for one in profile.given} | {row.vo for row in held}
        )
        now = self._clock.now()
        for change in decide_memberships(ruled, profile.given, held, identity.id, profile):
            await self._apply(tx, identity, change, {row.vo: row for row in held}.get(change.vo))
        await vo_store.mark_checked(tx, identity.id, now)

    async def forget(self, tx: Tx, identity: Any) -> None:
        """Take away what an identity gave: it is unlinked."""
        for row in await vo_store.member_rows(tx, identity.user_id):
            if row.identity_id == identity.id:
                await self._apply(tx, identity, Change(row.vo, None, is_new=False), row)
        await store.delete_identity(tx, identity.id)
        message = f"The identity {identity.name} of {identity.issuer} was unlinked."
        subject = f"user/{identity.user_id}"
        await self._events.record(tx, Event(subject, subject, "active", "identity.unlinked", message, identity.user_id))

    async def _apply(self, tx: Tx, identity: Any, change: Change, row: Any | None) -> None:
        now, user_id, vo = self._clock.now(), identity.user_id, change.vo
        if change.wanted is None:
            reason, message = "identity.member_lapsed", "is no longer a member: the issuer says so."
            if row is not None and row.suspended is not None:  # else who leaves and comes back would be free again
                await vo_store.update_member(tx, vo, user_id, roles=[], groups=[], checked=now)
            else:
                await vo_store.delete_member(tx, vo, user_id)
        else:
            await vo_store.ensure_groups(tx, vo, change.wanted.groups, now)
            values = {"roles": change.wanted.roles, "groups": change.wanted.groups, "checked": now}
            said = ", ".join([*(change.wanted.roles or ["member"]), *(f"group {one}" for one in change.wanted.groups)])
            if change.is_new:
                reason, message = "identity.vo_joined", f"joined as {said}: the issuer says so."
                await vo_store.insert_member(
                    tx,
                    vo=vo,
                    user_id=user_id,
                    since=now,
                    identity_id=identity.id,
                    suspended=None,
                    suspended_why=None,
                    **values,
                )
            else:
                reason, message = "identity.member_changed", f"is now {said}: the issuer says so."
                await vo_store.update_member(tx, vo, user_id, **values)
        text = f"{identity.name} {message}"
        await self._events.record(tx, Event("hansa", f"vo/{vo}", "active", reason, text, user_id, vo))
        tx.ring("demand")

    async def _new_user(self, tx: Tx, issuer: Issuer, profile: Profile) -> str:
        user_id = new_id("user")
        name, number = profile.name, 1
        while await store.is_name_taken(tx, name):  # names are for people to read; two of the same would deceive them
            name = f"{profile.name}@{issuer.name}" if number == 1 else f"{profile.name}-{number}@{issuer.name}"
            number += 1
        await identity_store.insert_user(
            tx,
            id=user_id,
            issuer=issuer.url,
            sub=profile.sub,
            name=name,
            operator=False,
            suspended=False,
            created=self._clock.now(),
        )
        message = f"{name} may use this server: {issuer.title} vouches for them."
        await self._events.record(tx, Event("hansa", f"user/{user_id}", "active", "identity.added", message, user_id))
        return user_id

    async def _link(self, tx: Tx, user_id: str, profile: Profile, how: str) -> None:
        now = self._clock.now()
        await store.insert_identity(
            tx,
            id=new_id("identity"),
            issuer=profile.issuer,
            sub=profile.sub,
            user_id=user_id,
            name=profile.name,
            linked=now,
            last_seen=now,
        )
        message = f"The identity {profile.name} of {profile.issuer} {how}."
        subject = f"user/{user_id}"
        await self._events.record(tx, Event(subject, subject, "active", "identity.linked", message, user_id))
