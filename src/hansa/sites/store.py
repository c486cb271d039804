"""Tables of sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from hansa.kernel.database import Document, Moment, Tx, metadata

sites = sa.Table(
    "sites",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("owner_id", sa.Text, nullable=False),
    sa.Column("owner_name", sa.Text, nullable=False),
    sa.Column("capacity", Document, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
)


async def get(tx: Tx, name: str) -> Any | None:
    return (await tx.execute(sa.select(sites).where(sites.c.name == name))).first()


async def of_owner(tx: Tx, owner_id: str) -> Sequence[Any]:
    """The sites that serve this user."""
    return (await tx.execute(sa.select(sites).where(sites.c.owner_id == owner_id).order_by(sites.c.name))).all()


async def insert(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(sites), [values])


async def update(tx: Tx, name: str, **values: Any) -> None:
    await tx.execute(sa.update(sites).where(sites.c.name == name).values(**values))


async def delete(tx: Tx, name: str) -> None:
    await tx.execute(sa.delete(sites).where(sites.c.name == name))
