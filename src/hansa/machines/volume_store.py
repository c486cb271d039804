"""Tables of volumes, and of snapshots on their way into the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.kernel.database import Document, Moment, Tx, metadata
from hansa.kernel.reconcile import Queue, reconcile_columns

volumes = sa.Table(
    "volumes",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # the idempotency key at every provider
    sa.Column("owner_id", sa.Text, nullable=False),
    sa.Column("owner_name", sa.Text, nullable=False),
    sa.Column("vo", sa.Text, index=True),
    sa.Column("vo_group", sa.Text),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("size_gib", sa.Integer, nullable=False),
    sa.Column("place", sa.Text, index=True),  # None: where its machine will be
    sa.Column("machine_id", sa.Text, index=True),  # who shall have it
    sa.Column("path", sa.Text),  # where the guest shall see it
    sa.Column("wanted", sa.Boolean, nullable=False),
    sa.Column("seen", Document, nullable=False),
    sa.Column("refused", sa.Text),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("missing_since", Moment),
    sa.Column("ended", Moment, index=True),
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    *reconcile_columns(),
    sa.Index(
        "uq_volumes_name",
        "owner_id",
        "name",
        unique=True,
        sqlite_where=sa.text("phase <> 'deleted'"),
        postgresql_where=sa.text("phase <> 'deleted'"),
    ),
)

snapshots = sa.Table(
    "machine_snapshots",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # the idempotency key at every provider
    sa.Column("machine_id", sa.Text, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("owner_id", sa.Text, nullable=False, index=True),
    sa.Column("vo", sa.Text),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("image_version_id", sa.Text, nullable=False),
    sa.Column("provider_id", sa.Text),
    sa.Column("is_there", sa.Boolean, nullable=False),  # whether something of it may be at its place
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("ended", Moment, index=True),
    *reconcile_columns(),
)

QUEUE = Queue("volumes", volumes, volumes.c.id)
SNAPSHOT_QUEUE = Queue("machine_snapshots", snapshots, snapshots.c.id)


async def insert(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(volumes), [values])
    tx.ring(QUEUE.topic)


async def get(tx: Tx, volume_id: str, *, lock: bool = False) -> Any | None:
    query = sa.select(volumes).where(volumes.c.id == volume_id)
    return (await tx.execute(query.with_for_update() if lock else query)).first()


async def find(tx: Tx, owner_id: str, name: str, *, lock: bool = False) -> Any | None:
    """A volume by its name or id; deleted ones by id only."""
    by_name = sa.and_(volumes.c.name == name, volumes.c.phase != "deleted")
    query = sa.select(volumes).where(volumes.c.owner_id == owner_id, sa.or_(by_name, volumes.c.id == name))
    return (await tx.execute(query.with_for_update() if lock else query)).first()


async def listed(tx: Tx, owner_id: str, after: tuple[str, str] | None, limit: int) -> Sequence[Any]:
    """An owner's volumes by name, deleted ones left out."""
    query = sa.select(volumes).where(volumes.c.owner_id == owner_id, volumes.c.phase != "deleted")
    if after is not None:
        query = query.where(sa.tuple_(volumes.c.name, volumes.c.id) > sa.tuple_(*map(sa.literal, after)))
    return (await tx.execute(query.order_by(volumes.c.name, volumes.c.id).limit(limit))).all()


_OF_MACHINE = (
    sa.select(volumes)
    .where(volumes.c.machine_id == sa.bindparam("machine"), volumes.c.phase != "deleted")
    .order_by(volumes.c.name)
)


async def of_machine(tx: Tx, machine_id: str) -> Sequence[Any]:
    """The volumes that a machine has, or shall have."""
    return (await tx.execute(_OF_MACHINE, {"machine": machine_id})).all()


async def update(tx: Tx, volume_id: str, **values: Any) -> None:
    values["version"] = volumes.c.version + 1
    await tx.execute(sa.update(volumes).where(volumes.c.id == volume_id).values(**values))


async def wake(tx: Tx, now: datetime, machine_id: str) -> None:
    """Something has happened to a machine: look at its volumes, also at those that it was refused before."""
    for row in await of_machine(tx, machine_id):
        if row.refused is not None:
            await update(tx, row.id, refused=None)
        await QUEUE.poke(tx, now, row.id)


async def let_go(tx: Tx, now: datetime, machine_id: str) -> None:
    """A machine is gone: its volumes stay, and are nobody's."""
    for row in await of_machine(tx, machine_id):
        await update(tx, row.id, machine_id=None, path=None, refused=None)
        await QUEUE.changed(tx, now, row.id)


async def forget_deleted(tx: Tx, before: datetime) -> int:
    """Forget volumes and snapshots that ended before then; how many."""
    gone = 0
    for table in (volumes, snapshots):
        old = sa.and_(table.c.phase == "deleted", table.c.ended < before)
        gone += (await tx.execute(sa.delete(table).where(old))).rowcount
    return gone


async def insert_snapshot(tx: Tx, **values: Any) -> None:
    await tx.execute(sa.insert(snapshots), [values])
    tx.ring(SNAPSHOT_QUEUE.topic)


async def get_snapshot(tx: Tx, snapshot_id: str, *, lock: bool = False) -> Any | None:
    query = sa.select(snapshots).where(snapshots.c.id == snapshot_id)
    return (await tx.execute(query.with_for_update() if lock else query)).first()


async def list_snapshots(tx: Tx, owner_id: str, after: str | None, limit: int) -> Sequence[Any]:
    """An owner's snapshots, the newest first; what is gone is left out."""
    query = sa.select(snapshots).where(snapshots.c.owner_id == owner_id, snapshots.c.phase != "deleted")
    if after is not None:
        query = query.where(snapshots.c.id < after)
    return (await tx.execute(query.order_by(snapshots.c.id.desc()).limit(limit))).all()


async def update_snapshot(tx: Tx, snapshot_id: str, **values: Any) -> None:
    await tx.execute(sa.update(snapshots).where(snapshots.c.id == snapshot_id).values(**values))
