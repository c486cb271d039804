"""Virtual organisations: who is in them, as what, and whether they may start work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from hansa.identity import errors, store, vo_store
from hansa.identity.accounts import bad_invitation
from hansa.identity.model import Caller, Membership, Role
from hansa.identity.policy import VoAct, choose_vo, may_in_vo
from hansa.identity.upstream.issuers import Issuers
from hansa.identity.wire import (
    Invitation,
    Member,
    MemberChange,
    MemberPage,
    NewInvitation,
    NewVo,
    Vo,
    VoChange,
    VoPage,
    VoRule,
)
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.http import decode_cursor, encode_cursor
from hansa.kernel.secrets import new_token, token_hash
from hansa.kernel.settings import IdentitySettings

VO_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
GROUP_NAME = re.compile(r"[A-Za-z0-9._-]{1,60}(:[A-Za-z0-9._-]{1,60}){0,4}")
BY_INVITATION = "invitation"
BY_ISSUER = "issuer"


class VoService:
    """What people do with virtual organisations."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        issuer: str,
        pages: str,
        settings: IdentitySettings,
        issuers: Issuers | None = None,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._issuer = issuer
        self._pages = pages
        self._settings = settings
        self._issuers = issuers or Issuers()

    async def check_may_start(
        self, tx: Tx, caller: Caller, asked: str | None, mine: Sequence[Membership] | None = None
    ) -> str | None:
        """The VO that new work of the caller is for, if it may start; None: for none.

        ``mine``: the caller's memberships, where they were read already.
        Raises Fault ``identity.no_vo``, ``identity.vo_ambiguous`` or ``identity.vo_suspended``.
        """
        return choose_vo(await vo_store.memberships(tx, caller.user_id) if mine is None else mine, asked)

    async def create(self, caller: Caller, new: NewVo) -> Vo:
        """A VO with one manager: the one named, else the caller."""
        if not VO_NAME.fullmatch(new.name):
            raise Fault(
                INVALID,
                f"{new.name!r} cannot name a virtual organisation.",
                hint="Small letters, digits and . _ - only, as in vo.example.org.",
            )
        now = self._clock.now()
        async with self._database.begin() as tx:
            if await vo_store.get_vo(tx, new.name) is not None:
                raise Fault(errors.VO_TAKEN, f"There is a {new.name} already.", hint="Choose another name.")
            manager = caller.user_id if new.manager is None else (await self._user(tx, new.manager)).id
            await vo_store.insert_vo(
                tx, name=new.name, description=new.description, created_by=caller.actor, created=now, suspended=None
            )
            await self._insert_member(tx, new.name, manager, {Role.MANAGER}, ())
            await self._record(
                tx, caller.actor, new.name, "active", "identity.vo_created", f"{caller.name} created it."
            )
            return await self._view(tx, caller, new.name)

    async def list_vos(self, caller: Caller, cursor: str | None, limit: int) -> VoPage:
        """The caller's VOs by name; an operator sees all."""
        after = decode_cursor(cursor, str)
        async with self._database.read() as tx:
            owner = None if caller.is_operator else caller.user_id
            rows = await vo_store.list_vos(tx, owner, str(after[0]) if after else "", limit)
            mine = {one.vo: one for one in await vo_store.memberships(tx, caller.user_id)}
            members = await vo_store.count_members(tx, [row.name for row in rows])
            items = [
                vo_view(row, members.get(row.name, 0), await vo_store.groups_of(tx, row.name), mine.get(row.name))
                for row in rows
            ]
        return VoPage(items, encode_cursor(rows[-1].name) if len(rows) == limit else None)

    async def list_mine(self, user_id: str) -> tuple[Membership, ...]:
        """A user's own memberships."""
        async with self._database.read() as tx:
            return await vo_store.memberships(tx, user_id)

    async def get(self, caller: Caller, name: str) -> Vo:
        async with self._database.read() as tx:
            await self._allow(tx, caller, VoAct.SEE, name)
            return await self._view(tx, caller, name)

    async def change(self, caller: Caller, name: str, change: VoChange) -> Vo:
        async with self._database.begin() as tx:
            await self._allow(tx, caller, VoAct.MANAGE, name)
            row = await vo_store.get_vo(tx, name)
            if row is not None and row.description != change.description:
                await vo_store.update_vo(tx, name, description=change.description)
                message = f"{caller.name} said what it is for: {change.description[:200] or 'nothing'}"
                phase = "active" if row.suspended is None else "suspended"
                await self._record(tx, caller.actor, name, phase, "identity.vo_described", message)
            return await self._view(tx, caller, name)

    async def rule(self, caller: Caller, name: str, rule: VoRule) -> Vo:
        """Say who says who is a member: an issuer, or invitations; never both. Members of the other way are out.

        Those whom the issuer names are in from their next sign-in on, or the next time that it is asked about them.
        """
        issuer = self._issuers.named(rule.issuer) if rule.issuer else None
        if rule.issuer and (issuer is None or not issuer.rules_vos):
            raise Fault(
                errors.NO_ISSUER,
                f"There is no issuer {rule.issuer} that tells of organisations.",
                hint="Issuers and their patterns are in config.toml, identity.issuers.",
            )
        now = self._clock.now()
        async with self._database.begin() as tx:
            await self._allow(tx, caller, VoAct.RULE, name)
            row = await vo_store.get_vo(tx, name, lock=True)
            values = {"issuer": issuer.url if issuer else None, "issuer_vo": rule.issuer_vo if issuer else None}
            await vo_store.update_vo(tx, name, **values, assurance=rule.assurance or None)
            if row is not None and (row.issuer, row.issuer_vo) != tuple(values.values()):
                await vo_store.delete_members(tx, name, given_by_issuer=True)
                if issuer:
                    await vo_store.delete_members(tx, name, given_by_issuer=False)
                    await store.withdraw_vo_invitations(tx, name, now)
            by = f"{issuer.title} says" if issuer else "invitations say"
            message = f"{caller.name} changed how members come: {by} who is in it."
            await self._record(tx, caller.actor, name, "active", "identity.vo_rule_changed", message)
            tx.ring("demand")
            return await self._view(tx, caller, name)

    async def add_group(self, caller: Caller, name: str, group: str) -> Vo:
        """A group, which members can be put into."""
        if not GROUP_NAME.fullmatch(group):
            raise Fault(INVALID, f"{group!r} cannot name a group.", hint="Letters, digits and . _ -; a:b is b in a.")
        async with self._database.begin() as tx:
            await self._allow(tx, caller, VoAct.MANAGE, name)
            await self._by_invitation(tx, name)
            if group not in await vo_store.groups_of(tx, name):
                await vo_store.insert_group(tx, name, group, self._clock.now())
                message = f"{caller.name} made the group {group}."
                await self._record(tx, caller.actor, name, "active", "identity.group_added", message)
            return await self._view(tx, caller, name)

    async def suspend(self, caller: Caller, name: str, why: str, *, suspended: bool) -> Vo:
        """Let no new work start for a VO, or again. What runs goes on; nothing is deleted."""
        async with self._database.begin() as tx:
            await self._allow(tx, caller, VoAct.SUSPEND, name)
            now = self._clock.now()
            await vo_store.update_vo(tx, name, suspended=now if suspended else None, suspended_why=why or None)
            word = "suspended" if suspended else "active"
            message = (
                f"{caller.name} {'suspended it' if suspended else 'let it work again'}{': ' + why if why else '.'}"
            )
            await self._record(tx, caller.actor, name, word, f"identity.vo_{word}", message)
            return await self._view(tx, caller, name)

    async def members(self, caller: Caller, name: str, cursor: str | None, limit: int) -> MemberPage:
        after = decode_cursor(cursor, str)
        async with self._database.read() as tx:
            await self._allow(tx, caller, VoAct.SEE_MEMBERS, name)
            rows = await vo_store.list_members(tx, name, str(after[0]) if after else "", limit)
        return MemberPage(
            [member_view(row) for row in rows], encode_cursor(rows[-1].name) if len(rows) == limit else None
        )

    async def change_member(self, caller: Caller, name: str, who: str, change: MemberChange) -> Member:
        """Give a member other roles or groups. Raises Fault ``identity.last_manager`` too."""
        async with self._database.begin() as tx:
            await self._allow(tx, caller, VoAct.MANAGE, name)
            await self._by_invitation(tx, name)
            row = await self._member(tx, name, who)
            values: dict[str, Any] = {}
            if change.roles is not None:
                values["roles"] = _stored_roles(change.roles)
            if change.groups is not None:
                values["groups"] = await self._known_groups(tx, name, change.groups)
            await vo_store.update_member(tx, name, row.user_id, **(values or {"roles": row.roles}))
            await self._keep_a_manager(tx, name)
            row = await self._member(tx, name, row.user_id)
            said = ", ".join([*_shown_roles(row.roles), *(f"group {group}" for group in row.groups)])
            message = f"{caller.name} made {row.name} {said}."
            await self._record(tx, caller.actor, name, "active", "identity.member_changed", message, row.user_id)
            return member_view(row)

    async def remove_member(self, caller: Caller, name: str, who: str) -> None:
        """Take a member out. What runs goes on."""
        async with self._database.begin() as tx:
            row = await self._find_member(tx, name, who)
            if row is None or row.user_id != caller.user_id:  # everybody may leave
                await self._allow(tx, caller, VoAct.MANAGE, name)
            row = await self._member(tx, name, who)
            if row.identity_id is not None and row.identity_id.startswith("identity_"):
                await self._by_invitation(tx, name)
            await vo_store.delete_member(tx, name, row.user_id)
            await self._keep_a_manager(tx, name)
            message = f"{row.name} is no longer a member."
            await self._record(tx, caller.actor, name, "active", "identity.member_removed", message, row.user_id)

    async def suspend_member(self, caller: Caller, name: str, who: str, why: str, *, suspended: bool) -> Member:
        """Let a member start no new work for this VO, or again."""
        async with self._database.begin() as tx:
            await self._allow(tx, caller, VoAct.MANAGE, name)
            row = await self._member(tx, name, who)
            now = self._clock.now()
            values = {"suspended": now if suspended else None, "suspended_why": why or None}
            await vo_store.update_member(tx, name, row.user_id, **values)
            await self._keep_a_manager(tx, name)
            message = (
                f"{caller.name} {'suspended' if suspended else 'let in again'} {row.name}{': ' + why if why else '.'}"
            )
            reason = "identity.member_suspended" if suspended else "identity.member_active"
            await self._record(tx, caller.actor, name, "active", reason, message, row.user_id)
            return member_view(await self._member(tx, name, row.user_id))

    async def invite(self, caller: Caller, name: str, new: NewInvitation) -> Invitation:
        """A link that makes one user a member, once."""
        token = new_token("invitation")
        now = self._clock.now()
        expires = now + timedelta(seconds=new.lasts_s or self._settings.invitation_s)
        async with self._database.begin() as tx:
            await self._allow(tx, caller, VoAct.MANAGE, name)
            await self._by_invitation(tx, name)
            await store.insert_invitation(
                tx,
                hash=token_hash(token),
                user_id=None,
                vo=name,
                roles=_stored_roles(new.roles),
                groups=await self._known_groups(tx, name, new.groups),
                created_by=caller.actor,
                created=now,
                expires=expires,
                used=None,
                used_by=None,
            )
            message = f"{caller.name} invited somebody as {', '.join(_shown_roles(_stored_roles(new.roles)))}."
            await self._record(tx, caller.actor, name, "active", "identity.vo_invited", message)
        return Invitation(f"{self._pages}/join?invitation={token}", expires)

    async def invited_to(self, token: str) -> tuple[str, list[str]]:
        """The VO of an invitation and the roles that it gives. Raises Fault ``identity.bad_invitation``."""
        async with self._database.read() as tx:
            row = await store.get_invitation(tx, token_hash(token))
        if row is None or row.vo is None or row.used is not None or row.expires <= self._clock.now():
            raise bad_invitation()
        return str(row.vo), _shown_roles(row.roles)

    async def join(self, caller: Caller, token: str) -> Vo:
        """Use an invitation. Who is a member already keeps what they have and gets its roles and groups, too."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await store.get_invitation(tx, token_hash(token))
            if row is None or row.vo is None or not await store.use_invitation(tx, row.hash, caller.user_id, now):
                raise bad_invitation()
            before = await vo_store.get_membership(tx, row.vo, caller.user_id)
            if before is None:
                await self._insert_member(tx, row.vo, caller.user_id, row.roles, row.groups)
            else:
                roles = _stored_roles({*before.roles, *row.roles})
                groups = sorted({*before.groups, *row.groups})
                await vo_store.update_member(tx, row.vo, caller.user_id, roles=roles, groups=groups)
            message = f"{caller.name} joined, invited by {row.created_by.removeprefix('user/')}."
            await self._record(tx, caller.actor, row.vo, "active", "identity.vo_joined", message, caller.user_id)
            return await self._view(tx, caller, row.vo)

    async def _allow(self, tx: Tx, caller: Caller, act: VoAct, name: str) -> None:
        row = await vo_store.get_vo(tx, name, lock=act in (VoAct.MANAGE, VoAct.SUSPEND, VoAct.RULE))
        mine = await vo_store.get_membership(tx, name, caller.user_id) if row is not None else None
        if row is None or not may_in_vo(caller, VoAct.SEE, mine):  # to others it is not even there
            raise Fault(errors.NO_SUCH_VO, f"There is no {name} of yours.", hint="hansa vo list", vo=name)
        if not may_in_vo(caller, act, mine):
            raise Fault(errors.FORBIDDEN, f"Only {act.value} may do this in {name}, and operators of this server.")

    async def _view(self, tx: Tx, caller: Caller, name: str) -> Vo:
        row = await vo_store.get_vo(tx, name)
        mine = await vo_store.get_membership(tx, name, caller.user_id)
        members = await vo_store.count_members(tx, [name])
        return vo_view(row, members.get(name, 0), await vo_store.groups_of(tx, name), mine)

    async def _user(self, tx: Tx, name: str) -> Any:
        row = await store.find_user(tx, self._issuer, name) or await store.get_user(tx, name)
        if row is None:
            raise Fault(errors.NO_USER, f"There is no user {name}.", hint="hansa admin user list")
        return row

    async def _find_member(self, tx: Tx, vo: str, who: str) -> Any | None:
        return await vo_store.find_member(tx, vo, who)

    async def _member(self, tx: Tx, vo: str, who: str) -> Any:
        row = await self._find_member(tx, vo, who)
        if row is None:
            raise Fault(errors.NO_USER, f"There is no member {who} of {vo}.", hint=f"hansa vo member list {vo}")
        return row

    async def _known_groups(self, tx: Tx, vo: str, groups: Iterable[str]) -> list[str]:
        known = await vo_store.groups_of(tx, vo)
        for group in groups:
            if group not in known:
                raise Fault(errors.NO_GROUP, f"{vo} has no group {group}.", hint=f"hansa vo group {vo} {group}")
        return sorted(set(groups))

    async def _by_invitation(self, tx: Tx, vo: str) -> None:
        row = await vo_store.get_vo(tx, vo)
        if row is not None and row.issuer is not None:
            issuer = self._issuers.of_url(row.issuer)
            raise Fault(
                errors.VO_RULED,
                f"{issuer.title if issuer else row.issuer} says who is in {vo}, in which groups and roles.",
                hint="Change it there. Here a member can be suspended.",
            )

    async def _keep_a_manager(self, tx: Tx, vo: str) -> None:
        row = await vo_store.get_vo(tx, vo)
        if row is not None and row.issuer is not None:
            return  # the issuer's business; operators can do here what a manager can
        if not await vo_store.managers(tx, vo):
            raise Fault(
                errors.LAST_MANAGER,
                f"{vo} would be left without a manager.",
                hint="Make somebody else a manager first.",
            )

    async def _insert_member(self, tx: Tx, vo: str, user_id: str, roles: Iterable[str], groups: Iterable[str]) -> None:
        await vo_store.insert_member(
            tx,
            vo=vo,
            user_id=user_id,
            roles=_stored_roles(roles),
            groups=list(groups),
            since=self._clock.now(),
            suspended=None,
            suspended_why=None,
        )

    async def _record(
        self, tx: Tx, actor: str, vo: str, phase: str, reason: str, message: str, owner_id: str | None = None
    ) -> None:
        await self._events.record(tx, Event(actor, f"vo/{vo}", phase, reason, message, owner_id, vo))


def _stored_roles(roles: Iterable[str]) -> list[str]:
    return sorted({Role(role).value for role in roles} - {Role.MEMBER.value})


def _shown_roles(roles: Iterable[str]) -> list[str]:
    return [role.value for role in Role if role is Role.MEMBER or role.value in roles]


def vo_view(row: Any, members: int, groups: list[str], mine: Membership | None) -> Vo:
    """A VO as this caller sees it."""
    return Vo(
        name=row.name,
        description=row.description,
        members=members,
        groups=groups,
        membership=BY_INVITATION if row.issuer is None else BY_ISSUER,
        issuer=row.issuer,
        issuer_vo=row.issuer_vo,
        assurance=list(row.assurance or []),
        suspended=row.suspended is not None,
        created=row.created,
        suspended_why=row.suspended_why,
        my_roles=_shown_roles(mine.roles) if mine else [],
        my_groups=list(mine.groups) if mine else [],
    )


def member_view(row: Any) -> Member:
    """A member as others see them."""
    return Member(
        vo=row.vo,
        user_id=row.user_id,
        name=row.name,
        roles=_shown_roles(row.roles),
        groups=list(row.groups),
        suspended=row.suspended is not None,
        since=row.since,
        suspended_why=row.suspended_why if row.suspended is not None else None,
    )
