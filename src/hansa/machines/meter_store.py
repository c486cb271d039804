"""The table of what machines used over their time: one row for a machine, of at most 240 samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.kernel.database import Document, Moment, Tx, insert_for, metadata
from hansa.machines.meters import Sample, plain, samples_of
from hansa.machines.model import Phase
from hansa.machines.store import machines

machine_series = sa.Table(
    "machine_series",
    metadata,
    sa.Column("machine", sa.Text, primary_key=True),
    sa.Column("samples", Document, nullable=False),  # meters.plain
    sa.Column("seen", Moment, nullable=False, index=True),
)


async def running_at(tx: Tx, places: Collection[str]) -> Sequence[Any]:
    """Id and place of the machines that run there."""
    query = sa.select(machines.c.id, machines.c.place).where(
        machines.c.place.in_(places), machines.c.phase == Phase.RUNNING.value
    )
    return (await tx.execute(query.order_by(machines.c.id))).all()


async def of_machine(tx: Tx, machine: str) -> list[Sample]:
    query = sa.select(machine_series.c.samples).where(machine_series.c.machine == machine)
    return samples_of((await tx.execute(query)).scalar() or [])


async def put(tx: Tx, machine: str, samples: Sequence[Sample], now: datetime) -> None:
    insert = insert_for(tx, machine_series)
    values = {"samples": insert.excluded.samples, "seen": insert.excluded.seen}
    row = {"machine": machine, "samples": plain(samples), "seen": now}
    await tx.execute(insert.on_conflict_do_update(index_elements=["machine"], set_=values), [row])


async def forget(tx: Tx, before: datetime) -> None:
    """What was not told anything new since then."""
    await tx.execute(sa.delete(machine_series).where(machine_series.c.seen < before))
