"""Tables of identity."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.kernel.database import Moment, Tx, metadata

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("sub", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("operator", sa.Boolean, nullable=False),
    sa.Column("suspended", sa.Boolean, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.UniqueConstraint("issuer", "sub"),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("pilot_id", sa.Text, index=True),
    sa.Column("created", Moment, nullable=False),
    sa.Column("expires", Moment),
)

_FIND_TOKEN = (  # built once: every request executes it
    sa.select(tokens, users.c.name, users.c.operator, users.c.suspended)
    .join(users)
    .where(tokens.c.hash == sa.bindparam("digest"))
)


async def find_token(tx: Tx, digest: str) -> Any | None:
    """The token's row with its user's columns, or None."""
    return (await tx.execute(_FIND_TOKEN, {"digest": digest})).first()


async def find_user(tx: Tx, issuer: str, sub: str) -> Any | None:
    return (await tx.execute(sa.select(users).where(users.c.issuer == issuer, users.c.sub == sub))).first()


async def get_user(tx: Tx, user_id: str) -> Any | None:
    return (await tx.execute(sa.select(users).where(users.c.id == user_id))).first()


async def insert_user(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(users), [values])


async def insert_token(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(tokens), [values])


async def delete_pilot_tokens(tx: Tx, pilot_id: str) -> None:
    await tx.execute(sa.delete(tokens).where(tokens.c.pilot_id == pilot_id))


async def delete_expired(tx: Tx, now: datetime) -> int:
    return (await tx.execute(sa.delete(tokens).where(tokens.c.expires < now))).rowcount
