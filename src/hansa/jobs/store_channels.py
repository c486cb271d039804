"""Queries about channels and the pieces on their way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs.tables import channel_pieces, channels, pilots
from hansa.kernel.database import Tx

USER, PILOT = "user", "pilot"
_GET = sa.select(channels).where(channels.c.id == sa.bindparam("this"))
_GET_AND_LOCK = _GET.with_for_update()
_UPDATE = sa.update(channels).where(channels.c.id == sa.bindparam("this"))
_PIECES = sa.and_(channel_pieces.c.channel == sa.bindparam("of"), channel_pieces.c.origin == sa.bindparam("said_by"))


async def insert(tx: Tx, **values: Any) -> None:
    """A channel that its pilot is to be told of."""
    await tx.execute(sa.insert(channels), [values])
    await tx.execute(sa.update(pilots).where(pilots.c.id == values["pilot_id"]).values(called=True))
    tx.ring(f"pilot/{values['pilot_id']}")


async def get(tx: Tx, channel: str, *, lock: bool = False) -> Any | None:
    return (await tx.execute(_GET_AND_LOCK if lock else _GET, {"this": channel})).first()


async def update(tx: Tx, channel: str, **values: Any) -> None:
    await tx.execute(_UPDATE, {"this": channel, **values})


async def open_of(tx: Tx, owner_id: str) -> int:
    """How many channels somebody has open."""
    query = sa.select(sa.func.count()).where(channels.c.owner_id == owner_id, channels.c.closed.is_(None))
    return int((await tx.execute(query)).scalar_one())


async def asked_of(tx: Tx, pilot_id: str) -> Sequence[Any]:
    """The channels that a pilot has not answered yet. Where there is none, it is not asked again."""
    query = sa.select(channels.c.order).where(
        channels.c.pilot_id == pilot_id, ~channels.c.is_open, channels.c.closed.is_(None)
    )
    found = list((await tx.execute(query)).scalars())
    if not found:
        await tx.execute(sa.update(pilots).where(pilots.c.id == pilot_id).values(called=False))
    return found


async def add_piece(tx: Tx, channel: str, origin: str, piece: int, frames: list[dict[str, Any]]) -> None:
    values = {"channel": channel, "origin": origin, "piece": piece, "frames": frames}
    await tx.execute(sa.insert(channel_pieces), [values])


async def pieces(tx: Tx, channel: str, origin: str, after: int, limit: int) -> Sequence[Any]:
    """The next pieces that one end has said."""
    query = sa.select(channel_pieces).where(_PIECES, channel_pieces.c.piece > after)
    found = await tx.execute(query.order_by(channel_pieces.c.piece).limit(limit), {"of": channel, "said_by": origin})
    return found.all()


async def waiting(tx: Tx, channel: str, origin: str) -> int:
    """How many pieces of one end the other has not got."""
    query = sa.select(sa.func.count()).where(_PIECES)
    return int((await tx.execute(query, {"of": channel, "said_by": origin})).scalar_one())


async def drop_pieces(tx: Tx, channel: str, origin: str, upto: int) -> None:
    """The other end has them."""
    query = sa.delete(channel_pieces).where(_PIECES, channel_pieces.c.piece <= upto)
    await tx.execute(query, {"of": channel, "said_by": origin})


async def forget(tx: Tx, before: datetime) -> int:
    """Remove channels that are closed, or whose ends were not heard of since; how many."""
    over = channels.c.closed.is_not(None) | (channels.c.pilot_seen < before)
    old = sa.select(channels.c.id).where(over, channels.c.user_seen < before)
    ids = list((await tx.execute(old.limit(1000))).scalars())
    if ids:
        await tx.execute(sa.delete(channel_pieces).where(channel_pieces.c.channel.in_(ids)))
        await tx.execute(sa.delete(channels).where(channels.c.id.in_(ids)))
    return len(ids)
