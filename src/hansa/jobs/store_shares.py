"""What was used for the shares, and the weights; whose turn it is among the queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs import shares
from hansa.jobs.shares import Claim, Key
from hansa.jobs.tables import jobs, leases, queues, share_usage, share_weights
from hansa.kernel.database import Tx, insert_for

_ADD: dict[str, Any] = {}
"""The statement that adds to what was used, by dialect: built once."""
_MOST_PERIODS = 60
_KEY = ["vo", "vo_group", "owner_id"]


async def use(tx: Tx, used: Mapping[Key, float], now: datetime, half_life_s: float) -> None:
    """Add core seconds that were used just now, in the unit of work of whatever used them."""
    if not used:
        return
    period = shares.period_of(now, half_life_s)
    rows = [
        {
            "vo": vo,
            "vo_group": group,
            "owner_id": owner,
            "period": period,
            "amount": shares.scaled(amount, now, half_life_s),
        }
        for (vo, group, owner), amount in sorted(used.items())
    ]
    statement = _ADD.get(tx.dialect)
    if statement is None:
        statement = _ADD[tx.dialect] = _adding(insert_for(tx, share_usage))
    await tx.execute(statement, rows)


def _adding(insert: Any) -> Any:
    """Half of what was there for each period that has passed, and the new."""
    passed = insert.excluded.period - share_usage.c.period
    left = sa.case(
        (passed <= 0, share_usage.c.amount),
        (passed > _MOST_PERIODS, 0.0),
        else_=share_usage.c.amount
        / sa.cast(sa.literal(1, sa.BigInteger).bitwise_lshift(sa.cast(passed, sa.Integer)), sa.Float),
    )
    later = sa.case((passed < 0, share_usage.c.period), else_=insert.excluded.period)
    return insert.on_conflict_do_update(
        index_elements=_KEY, set_={"period": later, "amount": left + insert.excluded.amount}
    )


async def usage(tx: Tx, now: datetime, half_life_s: float) -> dict[Key, float]:
    """What is left now of what everybody has used, in core seconds."""
    rows = (await tx.execute(sa.select(share_usage))).all()
    return {
        (row.vo, row.vo_group, row.owner_id): shares.worth(row.amount, row.period, now, half_life_s) for row in rows
    }


async def weights(tx: Tx) -> dict[tuple[str, str], float]:
    rows = (await tx.execute(sa.select(share_weights))).all()
    return {(row.parent, row.name): row.weight for row in rows}


async def set_weight(tx: Tx, parent: str, name: str, weight: float) -> None:
    insert = insert_for(tx, share_weights)
    statement = insert.on_conflict_do_update(index_elements=["parent", "name"], set_={"weight": insert.excluded.weight})
    await tx.execute(statement, [{"parent": parent, "name": name, "weight": weight}])


async def cores_in_use(tx: Tx) -> dict[Key, int]:
    """Cores of the tasks that pilots have, by whose share it is."""
    cores = sa.func.sum(leases.c.remaining * queues.c.cores)
    query = (
        sa.select(queues.c.vo, queues.c.vo_group, queues.c.owner_id, cores)
        .select_from(leases.join(jobs, jobs.c.number == leases.c.job).join(queues, queues.c.id == jobs.c.queue_id))
        .group_by(queues.c.vo, queues.c.vo_group, queues.c.owner_id)
    )
    rows: Sequence[Any] = (await tx.execute(query)).all()
    return {(row[0], row[1], row[2]): int(row[3]) for row in rows}


async def in_fair_order(tx: Tx, waiting: Sequence[Any], now: datetime, half_life_s: float) -> list[Any]:
    """Queues with work (``store.owners_with_work``), whose turn it is first: for whoever serves several owners.

    Priority counts among the queues of one share: nobody gets more by asking for more of it.
    """
    if len({(row.vo, row.vo_group, row.owner_id) for row in waiting}) <= 1:
        return sorted(waiting, key=lambda row: (row.rank, row.id))
    running = await cores_in_use(tx)
    claims = claims_of(waiting, running)
    turns = shares.order(claims, await usage(tx, now, half_life_s), await weights(tx))
    place = {claim.key: number for number, claim in enumerate(turns)}
    return sorted(waiting, key=lambda row: (place[row.vo, row.vo_group, row.owner_id], row.rank, row.id))


def claims_of(waiting: Sequence[Any], running: Mapping[Key, int]) -> list[Claim]:
    """What the owners of queues want, in cores."""
    wanted: dict[Key, int] = {}
    for row in waiting:
        key = (row.vo, row.vo_group, row.owner_id)
        wanted[key] = wanted.get(key, 0) + row.cores * int(row.waiting)
    return [Claim(*key, cores, running.get(key, 0)) for key, cores in wanted.items()]
