"""The books of capacity grants. Always inside the unit of work of what starts, runs or ends.

What is reserved is never a counter of its own: it is the sum of the reservations that are there, so a crash cannot
make it wrong, and it cannot become negative. A reservation belongs to a *thing* (``pilot/…``, ``machine/…``) and ends
with it; one whose thing is forgotten expires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.kernel.database import Document, Moment, Tx, insert_for, metadata
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.wire import decode
from hansa.sites import errors
from hansa.sites.capacity_model import (
    GrantPhase,
    GrantState,
    Held,
    Left,
    NoGrant,
    Taken,
    by_user,
    in_force,
    is_mostly_used,
    lacks,
    left_of,
)
from hansa.sites.capacity_wire import GrantCaps, GrantTerms

grants = sa.Table(
    "capacity_grants",
    metadata,
    sa.Column("vo", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, primary_key=True, index=True),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("terms", Document, nullable=False),  # agreed
    sa.Column("asked", Document),  # waits for the site's answer
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("caps", Document, nullable=False),
    sa.Column("used_ms", sa.BigInteger, nullable=False),  # core milliseconds, of what has ended; idle ones included
    sa.Column("idle_ms", sa.BigInteger, nullable=False),
    sa.Column("warned", sa.Boolean, nullable=False),
)

uses = sa.Table(
    "capacity_uses",
    metadata,
    sa.Column("vo", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("vo_group", sa.Text, primary_key=True),
    sa.Column("used_ms", sa.BigInteger, nullable=False),
)

reservations = sa.Table(
    "capacity_reservations",
    metadata,
    sa.Column("thing", sa.Text, primary_key=True),
    sa.Column("vo", sa.Text, primary_key=True),
    sa.Column("vo_group", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("core_ms", sa.BigInteger, nullable=False),
    sa.Column("cores", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.BigInteger, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("storage_gib", sa.BigInteger, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("expires", Moment, nullable=False, index=True),
    sa.Index("ix_capacity_reservations_grant", "vo", "site"),
)

_SUMS = ("core_ms", "cores", "memory_mib", "gpus", "storage_gib")


@dataclass(frozen=True)
class Who:
    """For whom something is started, where, and what it is."""

    vo: str
    site: str
    user_id: str
    user_name: str
    thing: str
    vo_group: str = ""


def state_of(row: Any) -> GrantState:
    return GrantState(
        row.vo,
        row.site,
        GrantPhase(row.phase),
        decode(GrantTerms, row.terms),
        decode(GrantCaps, row.caps),
        row.message,
        row.since,
    )


async def get(tx: Tx, vo: str, site: str, *, lock: bool = False) -> Any | None:
    query = sa.select(grants).where(grants.c.vo == vo, grants.c.site == site)
    return (await tx.execute(query.with_for_update() if lock else query)).first()


async def sites_of(tx: Tx, vo: str) -> frozenset[str]:
    """The sites at which a VO has a grant, be it in force or not."""
    return frozenset((await tx.execute(sa.select(grants.c.site).where(grants.c.vo == vo))).scalars())


async def list_grants(
    tx: Tx, *, vos: Sequence[str] | None, sites: Sequence[str], after: tuple[str, str], limit: int
) -> Sequence[Any]:
    """Grants of these VOs or at these sites, by VO and site; ``vos`` None: all."""
    query = sa.select(grants).where(sa.tuple_(grants.c.vo, grants.c.site) > sa.tuple_(*map(sa.literal, after)))
    if vos is not None:
        query = query.where(grants.c.vo.in_(vos) | grants.c.site.in_(sites))
    return (await tx.execute(query.order_by(grants.c.vo, grants.c.site).limit(limit))).all()


async def put(tx: Tx, vo: str, site: str, **values: Any) -> None:
    """Write a grant: new, or some of its columns."""
    changed = await tx.execute(sa.update(grants).where(grants.c.vo == vo, grants.c.site == site).values(**values))
    if not changed.rowcount:
        empty: dict[str, Any] = {
            "terms": {},
            "asked": None,
            "note": "",
            "caps": {},
            "used_ms": 0,
            "idle_ms": 0,
            "warned": False,
        }
        await tx.execute(sa.insert(grants), [{"vo": vo, "site": site, "message": "", **empty, **values}])


async def held(tx: Tx, vo: str, site: str, without: str = "") -> Held:
    """What is reserved of a grant now, but for one thing."""
    sums = [sa.func.coalesce(sa.func.sum(reservations.c[name]), 0) for name in _SUMS]
    query = sa.select(*sums).where(
        reservations.c.vo == vo, reservations.c.site == site, reservations.c.thing != without
    )
    row = (await tx.execute(query)).one()
    return Held(*(int(value) for value in row))


async def taken(tx: Tx, row: Any, who: Who) -> Taken:
    """What is used and reserved of a grant, the thing's own reservation left out."""
    here = (uses.c.vo == row.vo, uses.c.site == row.site)
    used: Sequence[Any] = (
        await tx.execute(sa.select(uses.c.user_id, uses.c.vo_group, uses.c.used_ms).where(*here))
    ).all()
    of = reservations.c
    query = sa.select(of.user_id, of.vo_group, sa.func.sum(of.core_ms))
    query = query.where(of.vo == row.vo, of.site == row.site, of.thing != who.thing).group_by(of.user_id, of.vo_group)
    promised: Sequence[Any] = (await tx.execute(query)).all()
    sums: dict[tuple[str, str], int] = {}
    for user, group, value in (*used, *promised):
        sums[user, group] = sums.get((user, group), 0) + int(value)
    mine, ours = by_user(sums, who.user_id, who.vo_group)
    return Taken(row.used_ms, await held(tx, row.vo, row.site, who.thing), mine, ours)


async def left(tx: Tx, who: Who, now: datetime, *, lock: bool = False) -> Left | NoGrant:
    """What can still be started under the grant. ``lock``: nobody else reserves of it before this unit ends."""
    row = await get(tx, who.vo, who.site, lock=lock)
    grant = None if row is None else state_of(row)
    missing = in_force(grant, who.vo, who.site, now)
    if missing is not None:
        return missing
    assert grant is not None  # noqa: S101 - in force, so it is there
    return left_of(grant, await taken(tx, row, who), (who.user_id, who.user_name), who.vo_group)


async def reserve(tx: Tx, who: Who, wish: Held, expires: datetime, now: datetime) -> None:
    """Reserve for a thing, or change what is reserved for it: said twice it is reserved once.

    Raises Fault ``capacity.none`` or ``capacity.used_up``, which waits for the VO's managers.
    """
    found = await left(tx, who, now, lock=True)
    if isinstance(found, NoGrant):
        raise Fault(
            errors.NO_GRANT,
            found.message,
            hint=f"hansa grant ask {who.site} --vo {who.vo}",
            reason=found.reason,
            waiting_on=found.waiting_on.value,
        )
    if short := lacks(found, wish):
        whose = found.limited_by or f"the grant of {who.vo} at {who.site}"
        raise Fault(
            errors.USED_UP,
            f"{whose[0].upper()}{whose[1:]} does not suffice: {', '.join(short)}.",
            hint=f"A manager of {who.vo} can ask for more: hansa grant ask {who.site} --vo {who.vo}.",
            reason="capacity.used_up",
            waiting_on="vo_manager",
        )
    await hold(tx, who, wish, expires, now)


async def hold(tx: Tx, who: Who, wish: Held, expires: datetime, now: datetime) -> None:
    """Write what a thing holds, after :func:`left` with ``lock`` said that there is so much; nothing: forget it."""
    key = (reservations.c.thing == who.thing, reservations.c.vo == who.vo, reservations.c.vo_group == who.vo_group)
    if wish == Held():
        await tx.execute(sa.delete(reservations).where(*key))
        return
    values = {**asdict(wish), "expires": expires}
    row = {"thing": who.thing, "vo": who.vo, "vo_group": who.vo_group, "site": who.site, "user_id": who.user_id}
    insert = insert_for(tx, reservations).values(**row, since=now, **values)
    await tx.execute(insert.on_conflict_do_update(index_elements=["thing", "vo", "vo_group"], set_=values))


async def spend(tx: Tx, events: EventLog, who: Who, used_ms: int, idle_ms: int = 0) -> None:
    """Add to what is used of a grant, in the unit of work that writes the usage record. No grant: nothing to add to.

    Warns once, in an event of the VO, when 80 % are used.
    """
    row = await get(tx, who.vo, who.site, lock=True)
    total = max(0, used_ms) + max(0, idle_ms)
    if row is None or not total:
        return
    values: dict[str, Any] = {"used_ms": row.used_ms + total, "idle_ms": row.idle_ms + max(0, idle_ms)}
    terms = decode(GrantTerms, row.terms)
    if not row.warned and is_mostly_used(terms, values["used_ms"]):
        values["warned"] = True
        said = f"80 % of the {terms.core_hours:,.0f} core hours that {who.site} grants {who.vo} are used."
        event = Event("hansa", subject(who.vo, who.site), "warned", "capacity.mostly_used", said, None, who.vo)
        await events.record(tx, event)
    await put(tx, who.vo, who.site, **values)
    key = {"vo": who.vo, "site": who.site, "user_id": who.user_id, "vo_group": who.vo_group}
    insert = insert_for(tx, uses).values(**key, used_ms=total)
    more = {"used_ms": uses.c.used_ms + insert.excluded.used_ms}
    await tx.execute(insert.on_conflict_do_update(index_elements=list(key), set_=more))


async def settle(tx: Tx, events: EventLog, thing: str, used_ms: int = 0, idle_ms: int = 0) -> bool:
    """A thing has ended: what it had reserved is free, what it used is used. A second time changes nothing.

    For a thing of one VO (a machine). Whether there was a reservation.
    """
    rows = (await tx.execute(sa.select(reservations).where(reservations.c.thing == thing))).all()
    for row in rows[:1]:
        who = Who(row.vo, row.site, row.user_id, "", thing, row.vo_group)
        gone = await tx.execute(sa.delete(reservations).where(reservations.c.thing == thing))
        if gone.rowcount:  # of two at once, one settles
            await spend(tx, events, who, used_ms, idle_ms)
    return bool(rows)


async def use_up(tx: Tx, thing: str, used_ms: int) -> None:
    """What a thing has used of its core hours is not reserved for it any more; :func:`spend` has counted it."""
    left = sa.case((reservations.c.core_ms > used_ms, reservations.c.core_ms - used_ms), else_=0)
    await tx.execute(sa.update(reservations).where(reservations.c.thing == thing).values(core_ms=left))


async def release(tx: Tx, thing: str) -> None:
    """Forget all that is reserved for a thing."""
    await tx.execute(sa.delete(reservations).where(reservations.c.thing == thing))


async def forget_expired(tx: Tx, now: datetime) -> int:
    """Forget reservations of things that should have ended long ago; how many."""
    return (await tx.execute(sa.delete(reservations).where(reservations.c.expires <= now))).rowcount


def subject(vo: str, site: str) -> str:
    """How events name a grant."""
    return f"grant/{vo}@{site}"
