"""Usage records: sums per day, owner, VO and site, written in the unit of work that accepts the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from hansa.kernel.database import Tx, insert_for, metadata

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("owner_id", sa.Text, primary_key=True),
    sa.Column("vo", sa.Text, primary_key=True),  # "" for none: part of the key
    sa.Column("site", sa.Text, primary_key=True),
    sa.Column("tasks", sa.BigInteger, nullable=False),
    sa.Column("wall_s", sa.Float, nullable=False),
    sa.Column("core_s", sa.Float, nullable=False),
    sa.Column("cpu_s", sa.Float, nullable=False),
)

_ADD: dict[str, Any] = {}
"""The statement that adds to the sums, by dialect: built once."""


@dataclass(frozen=True)
class Charge:
    """What attempts of tasks used: wall and CPU seconds, and core seconds (cores asked × wall)."""

    owner_id: str
    vo: str | None
    site: str
    tasks: int
    wall_s: float
    core_s: float
    cpu_s: float


async def charge(tx: Tx, day: date, charges: Sequence[Charge]) -> None:
    """Add to the sums, in the unit of work of whatever was used."""
    if not charges:
        return
    rows = [
        {
            "day": day,
            "owner_id": one.owner_id,
            "vo": one.vo or "",
            "site": one.site,
            "tasks": one.tasks,
            "wall_s": one.wall_s,
            "core_s": one.core_s,
            "cpu_s": one.cpu_s,
        }
        for one in charges
    ]
    statement = _ADD.get(tx.dialect)
    if statement is None:
        statement = _ADD[tx.dialect] = _adding(insert_for(tx, usage))
    await tx.execute(statement, rows)


def _adding(insert: Any) -> Any:
    sums = {name: usage.c[name] + insert.excluded[name] for name in ("tasks", "wall_s", "core_s", "cpu_s")}
    return insert.on_conflict_do_update(index_elements=["day", "owner_id", "vo", "site"], set_=sums)


async def totals(tx: Tx, owner_id: str, since: date | None) -> Sequence[Any]:
    """Sums of one owner by VO and site."""
    sums = [sa.func.sum(usage.c[name]).label(name) for name in ("tasks", "wall_s", "core_s", "cpu_s")]
    query = sa.select(usage.c.vo, usage.c.site, *sums).where(usage.c.owner_id == owner_id)
    if since is not None:
        query = query.where(usage.c.day >= since)
    return (await tx.execute(query.group_by(usage.c.vo, usage.c.site).order_by(usage.c.vo, usage.c.site))).all()
