"""Idempotency records: the same ``Idempotency-Key`` gives the same answer, and the work is done once.

A record is written in the unit of work that does the work, so neither exists without the other.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from hansa.kernel import errors
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Document, Moment, Tx, metadata

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("owner_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("answer", Document, nullable=False),
    sa.Column("time", Moment, nullable=False, index=True),
)


def fingerprint(operation: str, body: bytes) -> str:
    """What makes two requests the same: the operation and the body."""
    return hashlib.sha256(operation.encode() + b"\0" + body).hexdigest()


async def recall(tx: Tx, owner_id: str, key: str | None, request: str) -> Any | None:
    """The answer that this key got before, or None.

    Raises Fault ``kernel.idempotency_reused`` if the key was used for another request.
    """
    if key is None:
        return None
    if tx.dialect == "postgresql":  # of two at once, the second waits here for the answer of the first
        await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"{owner_id} {key}", 0))))
    query = sa.select(idempotency).where(idempotency.c.owner_id == owner_id, idempotency.c.key == key)
    row = (await tx.execute(query)).first()
    if row is None:
        return None
    if row.request != request:
        raise errors.Fault(
            errors.IDEMPOTENCY,
            "This Idempotency-Key came before, with another request.",
            hint="Use a new key for every new request; repeat a key only with the very same body.",
        )
    return row.answer


async def remember(tx: Tx, clock: Clock, owner_id: str, key: str | None, request: str, answer: Any) -> None:
    """Keep the answer, after :func:`recall` in the same unit of work."""
    if key is not None:
        row = {"owner_id": owner_id, "key": key, "request": request, "answer": answer, "time": clock.now()}
        await tx.execute(sa.insert(idempotency), row)


async def forget(database: Database, clock: Clock, older_than: timedelta) -> int:
    """Delete records older than the retention; the number deleted."""
    async with database.begin() as tx:
        gone = await tx.execute(sa.delete(idempotency).where(idempotency.c.time < clock.now() - older_than))
    return gone.rowcount
