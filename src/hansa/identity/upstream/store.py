"""Tables of upstream identities and of grants of authority."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.identity.store import users
from hansa.kernel.database import Moment, Tx, metadata
from hansa.kernel.reconcile import reconcile_columns

identities = sa.Table(
    "user_identities",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("sub", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("linked", Moment, nullable=False),
    sa.Column("last_seen", Moment, nullable=False),
    sa.UniqueConstraint("issuer", "sub", name="uq_user_identities_issuer"),
)

authority = sa.Table(
    "authority_grants",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), index=True),
    sa.Column("identity_id", sa.Text),
    sa.Column("issuer", sa.Text),
    sa.Column("vo", sa.Text, sa.ForeignKey("vos.name")),
    sa.Column("site", sa.Text),
    sa.Column("sealed", sa.Text),
    sa.Column("access", sa.Text),
    sa.Column("access_expires", Moment),
    sa.Column("created", Moment, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("refreshed", Moment),
    sa.Column("expires", Moment),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    *reconcile_columns(),
    sa.Index("ix_authority_grants_vo", "vo", "site"),
)

_FIND = (  # built once: requests with a token of another issuer execute it
    sa.select(identities, users.c.name.label("user_name"), users.c.operator, users.c.suspended)
    .join(users)
    .where(identities.c.issuer == sa.bindparam("by"), identities.c.sub == sa.bindparam("who"))
)


async def find_identity(tx: Tx, issuer: str, sub: str) -> Any | None:
    """The identity's row with its user's name and state, or None."""
    return (await tx.execute(_FIND, {"by": issuer, "who": sub})).first()


async def lock_identity(tx: Tx, issuer: str, sub: str) -> None:
    """Of two first arrivals at once one waits for the other. SQLite has one writer anyway."""
    if tx.dialect == "postgresql":
        key = sa.func.hashtextextended(f"{issuer} {sub}", 0)
        await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


async def get_identity(tx: Tx, identity_id: str) -> Any | None:
    return (await tx.execute(sa.select(identities).where(identities.c.id == identity_id))).first()


async def identities_of(tx: Tx, user_id: str) -> Sequence[Any]:
    query = sa.select(identities).where(identities.c.user_id == user_id).order_by(identities.c.linked)
    return (await tx.execute(query)).all()


async def insert_identity(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(identities), [values])


async def see_identity(tx: Tx, identity_id: str, name: str, now: datetime) -> None:
    await tx.execute(sa.update(identities).where(identities.c.id == identity_id).values(last_seen=now, name=name))


async def delete_identity(tx: Tx, identity_id: str) -> None:
    await tx.execute(sa.delete(identities).where(identities.c.id == identity_id))


async def is_name_taken(tx: Tx, name: str) -> bool:
    return (await tx.execute(sa.select(users.c.id).where(users.c.name == name).limit(1))).first() is not None


# --- authority ------------------------------------------------------------------------------------------------


async def get_authority(tx: Tx, grant_id: str, *, lock: bool = False) -> Any | None:
    query = sa.select(authority).where(authority.c.id == grant_id)
    return (await tx.execute(query.with_for_update() if lock else query)).first()


_OF_USER = sa.select(authority).where(authority.c.user_id == sa.bindparam("user")).order_by(authority.c.created.desc())


async def authority_of_user(tx: Tx, user_id: str) -> Sequence[Any]:
    return (await tx.execute(_OF_USER, {"user": user_id})).all()


async def authority_of_vo(tx: Tx, vo: str, site: str | None = None) -> Sequence[Any]:
    query = sa.select(authority).where(authority.c.vo == vo).order_by(authority.c.site)
    return (await tx.execute(query if site is None else query.where(authority.c.site == site))).all()


async def insert_authority(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(authority), [values])


async def update_authority(tx: Tx, grant_id: str, **values: Any) -> None:
    await tx.execute(sa.update(authority).where(authority.c.id == grant_id).values(**values))


async def delete_authority(tx: Tx, grant_id: str) -> None:
    await tx.execute(sa.delete(authority).where(authority.c.id == grant_id))


async def all_sealed(tx: Tx) -> Sequence[Any]:
    """Every grant with a secret, for a new master key."""
    columns = (authority.c.id, authority.c.sealed, authority.c.access)
    return (await tx.execute(sa.select(*columns).where(authority.c.sealed.is_not(None)))).all()
