"""Tables of virtual organisations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.identity.model import Membership, Role
from hansa.identity.store import users
from hansa.kernel.database import Document, Moment, Tx, insert_ignore, metadata

vos = sa.Table(
    "vos",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("suspended", Moment),
    sa.Column("suspended_why", sa.Text),
    sa.Column("issuer", sa.Text),  # who rules its membership; NULL: invitations
    sa.Column("issuer_vo", sa.Text),
    sa.Column("assurance", Document),
)

vo_groups = sa.Table(
    "vo_groups",
    metadata,
    sa.Column("vo", sa.Text, sa.ForeignKey("vos.name"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("created", Moment, nullable=False),
)

vo_members = sa.Table(
    "vo_members",
    metadata,
    sa.Column("vo", sa.Text, sa.ForeignKey("vos.name"), primary_key=True),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), primary_key=True, index=True),
    sa.Column("roles", Document, nullable=False),
    sa.Column("groups", Document, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("suspended", Moment),
    sa.Column("suspended_why", sa.Text),
    sa.Column("identity_id", sa.Text),  # which upstream identity gave it; NULL: an invitation
    sa.Column("checked", Moment),
)


async def insert_vo(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(vos), [values])


async def get_vo(tx: Tx, name: str, *, lock: bool = False) -> Any | None:
    query = sa.select(vos).where(vos.c.name == name)
    return (await tx.execute(query.with_for_update() if lock else query)).first()


async def list_vos(tx: Tx, user_id: str | None, after: str, limit: int) -> Sequence[Any]:
    """VOs by name: those of a user, or all (None)."""
    query = sa.select(vos).where(vos.c.name > after).order_by(vos.c.name).limit(limit)
    if user_id is not None:
        query = query.join(vo_members, sa.and_(vo_members.c.vo == vos.c.name, vo_members.c.user_id == user_id))
    return (await tx.execute(query)).all()


async def update_vo(tx: Tx, name: str, **values: Any) -> None:
    await tx.execute(sa.update(vos).where(vos.c.name == name).values(**values))


async def groups_of(tx: Tx, vo: str) -> list[str]:
    query = sa.select(vo_groups.c.name).where(vo_groups.c.vo == vo).order_by(vo_groups.c.name)
    return list((await tx.execute(query)).scalars())


async def insert_group(tx: Tx, vo: str, name: str, now: datetime) -> None:
    await tx.execute(sa.insert(vo_groups), [{"vo": vo, "name": name, "created": now}])


async def count_members(tx: Tx, names: Sequence[str]) -> dict[str, int]:
    number = sa.func.count().label("number")
    query = sa.select(vo_members.c.vo, number).where(vo_members.c.vo.in_(names)).group_by(vo_members.c.vo)
    return {row.vo: int(row.number) for row in (await tx.execute(query)).all()}


_MEMBERSHIPS = (
    sa.select(vo_members, vos.c.suspended.label("vo_suspended"), vos.c.issuer)
    .join(vos)
    .where(vo_members.c.user_id == sa.bindparam("which"))
    .order_by(vo_members.c.vo)
)


async def memberships(tx: Tx, user_id: str) -> tuple[Membership, ...]:
    """The user's memberships, by VO; suspended ones, too."""
    rows = (await tx.execute(_MEMBERSHIPS, {"which": user_id})).all()
    return tuple(_membership(row, row.vo_suspended is not None, row.issuer is not None) for row in rows)


def _membership(row: Any, vo_suspended: bool = False, is_ruled: bool = False) -> Membership:
    roles = frozenset(Role(role) for role in row.roles)
    return Membership(row.vo, roles, tuple(row.groups), row.suspended is not None, vo_suspended, is_ruled)


async def get_membership(tx: Tx, vo: str, user_id: str) -> Membership | None:
    query = sa.select(vo_members).where(vo_members.c.vo == vo, vo_members.c.user_id == user_id)
    row = (await tx.execute(query)).first()
    return _membership(row) if row else None


async def list_members(tx: Tx, vo: str, after: str, limit: int) -> Sequence[Any]:
    """Members with their names, by name."""
    query = sa.select(vo_members, users.c.name, users.c.sub, users.c.issuer).join(users)
    query = query.where(vo_members.c.vo == vo, users.c.name > after).order_by(users.c.name, users.c.id)
    return (await tx.execute(query.limit(limit))).all()


async def find_member(tx: Tx, vo: str, name: str) -> Any | None:
    """A member by user id, or by name where only one member has it."""
    query = sa.select(vo_members, users.c.name, users.c.sub, users.c.issuer).join(users)
    query = query.where(vo_members.c.vo == vo, sa.or_(users.c.id == name, users.c.name == name)).limit(2)
    rows = (await tx.execute(query)).all()
    return rows[0] if len(rows) == 1 else None


async def insert_member(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(vo_members), [values])


async def update_member(tx: Tx, vo: str, user_id: str, **values: Any) -> None:
    here = sa.and_(vo_members.c.vo == vo, vo_members.c.user_id == user_id)
    await tx.execute(sa.update(vo_members).where(here).values(**values))


async def delete_member(tx: Tx, vo: str, user_id: str) -> None:
    await tx.execute(sa.delete(vo_members).where(vo_members.c.vo == vo, vo_members.c.user_id == user_id))


async def managers(tx: Tx, vo: str) -> list[str]:
    """Ids of managers who are not suspended."""
    query = sa.select(vo_members).where(vo_members.c.vo == vo, vo_members.c.suspended.is_(None))
    return [row.user_id for row in (await tx.execute(query)).all() if Role.MANAGER in row.roles]


async def member_rows(tx: Tx, user_id: str) -> Sequence[Any]:
    """The user's memberships as they are stored."""
    return (await tx.execute(sa.select(vo_members).where(vo_members.c.user_id == user_id))).all()


async def ruled_by(tx: Tx, issuer: str, names: Iterable[str]) -> Sequence[Any]:
    """VOs that an issuer rules, of those that it, or we, call by one of these names."""
    some = sorted(names)
    named = sa.or_(vos.c.name.in_(some), vos.c.issuer_vo.in_(some))
    return (await tx.execute(sa.select(vos).where(vos.c.issuer == issuer, named))).all()


async def mark_checked(tx: Tx, identity_id: str, now: datetime) -> None:
    await tx.execute(sa.update(vo_members).where(vo_members.c.identity_id == identity_id).values(checked=now))


async def ensure_groups(tx: Tx, vo: str, groups: Iterable[str], now: datetime) -> None:
    """The groups that an upstream told of."""
    rows = [{"vo": vo, "name": group, "created": now} for group in groups]
    if rows:
        await tx.execute(insert_ignore(tx, vo_groups), rows)


async def delete_members(tx: Tx, vo: str, *, given_by_issuer: bool) -> None:
    """All members that came one way or the other: the VO changes how they come."""
    given = vo_members.c.identity_id.like("identity_%") if given_by_issuer else vo_members.c.identity_id.is_(None)
    await tx.execute(sa.delete(vo_members).where(vo_members.c.vo == vo, given))
