"""Usage records: sums per day, owner, VO, group, site and kind, written in the unit of work of what was used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from hansa.identity.store import users
from hansa.kernel.database import Tx, insert_for, metadata


class Kind(StrEnum):
    """What used it."""

    JOB = "job"
    """Tasks of jobs."""
    PILOT_IDLE = "pilot_idle"
    """Pilots that held cores and had nothing to run on them."""
    MACHINE = "machine"


usage = sa.Table(
    "usage",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("owner_id", sa.Text, primary_key=True),
    sa.Column("vo", sa.Text, primary_key=True),  # "" for none: part of the key
    sa.Column("vo_group", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("tasks", sa.BigInteger, nullable=False),
    sa.Column("wall_s", sa.Float, nullable=False),
    sa.Column("core_s", sa.Float, nullable=False),
    sa.Column("cpu_s", sa.Float, nullable=False),
    sa.Column("gpu_s", sa.Float, nullable=False),
)

KEYS = ("day", "owner_id", "vo", "vo_group", "site", "kind")
SUMS = ("tasks", "wall_s", "core_s", "cpu_s", "gpu_s")
_ADD: dict[str, Any] = {}
"""The statement that adds to the sums, by dialect: built once."""


@dataclass(frozen=True)
class Charge:
    """What tasks or machines used: wall and CPU seconds, and core and GPU seconds (what was asked × wall)."""

    owner_id: str
    vo: str | None
    site: str
    tasks: int
    wall_s: float
    core_s: float
    cpu_s: float
    gpu_s: float = 0.0
    vo_group: str | None = None
    kind: Kind = Kind.JOB


async def charge(tx: Tx, day: date, charges: Sequence[Charge]) -> None:
    """Add to the sums, in the unit of work of whatever was used."""
    if not charges:
        return
    rows = [
        {
            "day": day,
            "owner_id": one.owner_id,
            "vo": one.vo or "",
            "vo_group": one.vo_group or "",
            "site": one.site,
            "kind": one.kind.value,
            "tasks": one.tasks,
            "wall_s": one.wall_s,
            "core_s": one.core_s,
            "cpu_s": one.cpu_s,
            "gpu_s": one.gpu_s,
        }
        for one in charges
    ]
    statement = _ADD.get(tx.dialect)
    if statement is None:
        statement = _ADD[tx.dialect] = _adding(insert_for(tx, usage))
    await tx.execute(statement, rows)


def _adding(insert: Any) -> Any:
    sums = {name: usage.c[name] + insert.excluded[name] for name in SUMS}
    return insert.on_conflict_do_update(index_elements=list(KEYS), set_=sums)


@dataclass(frozen=True)
class Scope:
    """Whose usage somebody may see: one's own, that of VOs and sites; ``everything`` for operators."""

    owner_id: str
    vos: Sequence[str] = ()
    sites: Sequence[str] = ()
    everything: bool = False


@dataclass(frozen=True)
class Selection:
    """Which usage records are asked for; days are inclusive."""

    since: date | None = None
    until: date | None = None
    vo: str | None = None
    site: str | None = None
    user: str | None = None
    """Name or id."""
    by: tuple[str, ...] = field(default=("vo", "site"))


_COLUMNS: dict[str, Any] = {
    "vo": usage.c.vo,
    "group": usage.c.vo_group,
    "site": usage.c.site,
    "kind": usage.c.kind,
    "day": sa.cast(usage.c.day, sa.Text),
    "month": sa.func.substr(sa.cast(usage.c.day, sa.Text), 1, 7),
}


async def totals(tx: Tx, scope: Scope, asked: Selection) -> Sequence[Any]:
    """Sums by what is asked for, in that order. Columns are named as in ``by``; a user has id and name.

    What pilots had idle is in no sum but ``idle_core_s``, of its own.
    """
    keys = [_COLUMNS[word].label(word) for word in asked.by if word in _COLUMNS]
    if "user" in asked.by:
        keys += [usage.c.owner_id.label("user"), users.c.name.label("user_name")]
    is_idle = usage.c.kind == Kind.PILOT_IDLE.value
    sums = [sa.func.sum(sa.case((is_idle, 0), else_=usage.c[name])).label(name) for name in SUMS]
    sums.append(sa.func.sum(sa.case((is_idle, usage.c.core_s), else_=0.0)).label("idle_core_s"))
    query = sa.select(*keys, *sums)
    query = query.select_from(usage.outerjoin(users, users.c.id == usage.c.owner_id))
    for condition in _conditions(scope, asked):
        query = query.where(condition)
    if keys:
        positions: list[Any] = [sa.literal_column(str(number)) for number in range(1, len(keys) + 1)]
        query = query.group_by(*positions).order_by(*positions)
    rows = (await tx.execute(query)).all()
    return [row for row in rows if row.tasks is not None]


def _conditions(scope: Scope, asked: Selection) -> list[Any]:
    found: list[Any] = []
    if not scope.everything:
        mine = usage.c.owner_id == scope.owner_id
        found.append(sa.or_(mine, usage.c.vo.in_(scope.vos), usage.c.site.in_(scope.sites)))
    if asked.since is not None:
        found.append(usage.c.day >= asked.since)
    if asked.until is not None:
        found.append(usage.c.day <= asked.until)
    if asked.vo is not None:
        found.append(usage.c.vo == asked.vo)
    if asked.site is not None:
        found.append(usage.c.site == asked.site)
    if asked.user is not None:
        found.append(sa.or_(usage.c.owner_id == asked.user, users.c.name == asked.user))
    return found
