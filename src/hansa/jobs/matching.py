"""Which jobs a pilot may have next: its owner's queues that fit it, and the first jobs in them.

The cost does not grow with what waits: an index gives each queue's next open jobs. To PostgreSQL every statement is a
way there and back, so that a match takes three of them: see :func:`eligible_queues`, :func:`candidates` and
:func:`hansa.jobs.leases.take`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any

import sqlalchemy as sa

from hansa.jobs.budget import Budget
from hansa.jobs.bulk import among
from hansa.jobs.needs import Needs, Place, lacks, needs_from_text, needs_of_queue, place_of_pilot
from hansa.jobs.store import HAS_WORK, MAY_RUN, NONE, OPEN
from hansa.jobs.tables import jobs, queues
from hansa.kernel.database import Tx
from hansa.kernel.database.base import DialectName
from hansa.sites.model import Ban
from hansa.sites.store import site_bans

_SLACK = 16
"""How many more jobs are looked at than are wanted: others may have locked what is next."""
_FEW, _MANY = 16, 128
"""Keys that are read of each queue. Written into the statement: PostgreSQL plans one with a LIMIT that it does not
know anew each time, which costs more than the statement."""
_NO_END_S = 2**31 - 1
_IS_BANNED = sa.exists().where(
    site_bans.c.site == sa.bindparam("has_site"),
    site_bans.c.kind == sa.literal_column(f"'{Ban.VO}'"),
    site_bans.c.who == queues.c.vo,
)
"""Whether the pilot's site has banned a queue's VO: a pilot for all of its owner's VOs may not know."""

# Built once: to build a statement costs as much as to execute it.
_IN_ORDER = (jobs.c.rank, jobs.c.number)
_MOST: sa.BindParameter[int] = sa.bindparam("most", type_=sa.Integer)
_HEADS = (
    sa.select(jobs)
    .where(jobs.c.queue_id == sa.bindparam("queue"), OPEN)
    .order_by(*_IN_ORDER)
    .limit(_MOST)
    .with_for_update(skip_locked=True)
)


@dataclass(frozen=True)
class Fit:
    """A queue whose tasks a pilot can run: what they need, and (rank, number) of the jobs that are next in it."""

    id: int
    needs: Needs
    keys: Sequence[tuple[int, int]]


@lru_cache(maxsize=8)
def _eligible(dialect: DialectName, most: int) -> sa.Select[Any]:
    """The queues that may fit, each with the keys of its next ``most`` jobs: PostgreSQL's array, or SQLite's JSON."""
    heads = sa.select(jobs.c.rank, jobs.c.number).where(jobs.c.queue_id == queues.c.id, OPEN).order_by(*_IN_ORDER)
    next_ones = heads.limit(sa.literal_column(str(most))).correlate(queues).subquery("heads")
    keys: sa.ColumnElement[Any] = sa.func.json_group_array(sa.func.json_array(next_ones.c.rank, next_ones.c.number))
    if dialect == "postgresql":
        pair: sa.ColumnElement[Any] = sa.literal_column("ARRAY[heads.rank::bigint, heads.number]")
        keys = sa.type_coerce(sa.func.array_agg(pair), sa.types.NULLTYPE)
    needs = [column for column in queues.c if column.name not in ("owner_id", "digest", "standing")]
    return sa.select(*needs, sa.select(keys).select_from(next_ones).scalar_subquery().label("next_keys")).where(
        queues.c.owner_id == sa.bindparam("has_owner"),
        queues.c.cores <= sa.bindparam("has_cores"),
        queues.c.memory_mib <= sa.bindparam("has_memory_mib"),
        queues.c.gpus <= sa.bindparam("has_gpus"),
        queues.c.wall_time_s <= sa.bindparam("has_s"),
        (queues.c.site == NONE) | (queues.c.site == sa.bindparam("has_site")),
        HAS_WORK,
        MAY_RUN,
        ~_IS_BANNED,
    )


@lru_cache(maxsize=2)
def _named(dialect: DialectName) -> sa.Select[Any]:
    """Open jobs by number, locked."""
    query = sa.select(jobs).where(among(jobs.c.number, dialect), OPEN).order_by(*_IN_ORDER).limit(_MOST)
    return query.with_for_update(skip_locked=True)


async def eligible_queues(
    tx: Tx, pilot: Any, free: Any, now: datetime | None = None, budget: Budget | None = None, *, limit: int = 0
) -> list[Fit]:
    """The owner's queues whose tasks this pilot can run, as it is now, and with a budget may.

    With the keys of what is next in each, enough to take ``limit`` (64 at most) jobs of any.
    """
    has = {
        "has_owner": pilot.owner_id,
        "has_cores": pilot.cores,
        "has_memory_mib": pilot.memory_mib,
        "has_gpus": len(pilot.gpus),
        "has_site": pilot.site,
        "has_s": _NO_END_S if free.remaining_s is None else int(free.remaining_s),
    }
    rows = (await tx.execute(_eligible(tx.dialect, _keys_of_each(limit)), has)).all()
    if not rows:
        return []
    place = place_of_pilot(pilot)
    found = [(row, _needs_if_fit(row, place)) for row in rows if pilot.vo is None or row.vo == pilot.vo]
    fit = [(row, needs) for row, needs in found if needs is not None]
    if budget is not None and now is not None:
        await budget.look(tx, {(row.vo, row.vo_group) for row, _ in fit}, now)
        fit = [(row, needs) for row, needs in fit if budget.count(row.vo, row.vo_group, needs)]
    return [Fit(row.id, needs, _keys(row.next_keys)) for row, needs in fit]


def _needs_if_fit(row: Any, place: Place) -> Needs | None:
    """The needs of a queue, if they fit a place."""
    if row.needs:
        return _fitting(row.needs, place)
    needs = needs_of_queue(row)
    return None if lacks(needs, place) else needs


@lru_cache(maxsize=8192)
def _fitting(text: str, place: Place) -> Needs | None:
    """Cached, as the same pilots ask for the same queues again and again."""
    needs = needs_from_text(text)
    return None if lacks(needs, place) else needs


async def candidates(tx: Tx, fit: Sequence[Fit], limit: int, *, are_fresh: bool) -> list[tuple[Any, Needs]]:
    """The next jobs of these queues, locked, in order of priority and age; ``are_fresh``: the keys are of just now.

    Of several queues only the keys were read at first: rows are large. Where others have locked all that is next, each
    queue gives what it has.
    """
    needs = {one.id: one.needs for one in fit}
    rows: Sequence[Any] = []
    if len(fit) > 1 and are_fresh:
        numbers = next_numbers([one.keys for one in fit], limit + _SLACK, _keys_of_each(limit))
        rows = (await tx.execute(_named(tx.dialect), {"numbers": numbers, "most": limit})).all()
    if not rows:
        rows = [row for queue in needs for row in (await tx.execute(_HEADS, {"queue": queue, "most": limit})).all()]
        rows.sort(key=lambda row: (row.rank, row.number))
    return [(row, needs[row.queue_id]) for row in rows]


def next_numbers(keys: Sequence[Sequence[tuple[int, int]]], limit: int, read: int) -> list[int]:
    """The numbers of the jobs that are next in all these queues, in order; of each ``read`` keys were read. Pure.

    Behind the last of so many keys of a queue, another one of it may be next: there the order ends.
    """
    known_to = min((some[-1] for some in keys if len(some) >= read), default=None)
    ordered = sorted(chain.from_iterable(keys))
    return [key[1] for key in ordered if known_to is None or key <= known_to][:limit]


def _keys_of_each(limit: int) -> int:
    """How many keys are read of each queue to take so many jobs."""
    if not limit:
        return 1
    return _FEW if limit <= _FEW // 2 else _MANY


def _keys(found: Any) -> Sequence[tuple[int, int]]:
    """As PostgreSQL's array, or SQLite's text."""
    keys: Sequence[tuple[int, int]] = json.loads(found) if isinstance(found, str) else found or ()
    return keys
