"""What tasks keep across their attempts, by content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from hansa.jobs.tables import task_checkpoints
from hansa.kernel.database import Tx
from hansa.node.protocol import File


async def replace(tx: Tx, job: int, index: int, files: Sequence[File]) -> None:
    """A task's folder is now so."""
    await forget(tx, job, [index])
    if files:
        await tx.execute(sa.insert(task_checkpoints), [{"job": job, "index": index, **vars(file)} for file in files])


async def forget(tx: Tx, job: int, indices: Sequence[int]) -> None:
    """Tasks that are done need theirs no more."""
    for start in range(0, len(indices), 500):
        some = indices[start : start + 500]
        mine = [task_checkpoints.c.job == job, task_checkpoints.c.index.in_(some)]
        await tx.execute(sa.delete(task_checkpoints).where(*mine))


async def of_tasks(tx: Tx, job: int, first: int, last: int) -> dict[int, list[File]]:
    """The files of the tasks first … last that have any."""
    query = sa.select(task_checkpoints).where(
        task_checkpoints.c.job == job, task_checkpoints.c.index.between(first, last)
    )
    found: dict[int, list[File]] = {}
    rows: Sequence[Any] = (await tx.execute(query.order_by(task_checkpoints.c.index, task_checkpoints.c.path))).all()
    for row in rows:
        found.setdefault(row.index, []).append(File(row.path, row.digest, row.size, row.executable))
    return found
