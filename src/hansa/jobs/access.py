"""Whose job it is, and whether it has such a task."""

from __future__ import annotations

from typing import Any

from hansa.identity.model import Caller
from hansa.identity.policy import may_change, may_see
from hansa.jobs import errors, store
from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault


async def own_job(tx: Tx, caller: Caller, number: int, *, change: bool = False) -> Any:
    """The row of a job of the caller's, locked where it is to be changed. Raises Fault ``jobs.not_found``."""
    row = await store.get_job(tx, number, lock=change)
    if row is None or not (may_change if change else may_see)(caller, row.owner_id):
        raise Fault(
            errors.NOT_FOUND,
            f"There is no job {number} of yours.",
            hint="hansa job list shows your jobs.",
            job=number,
        )
    return row


def check_index(job: Any, index: int) -> None:
    """Raises Fault ``jobs.no_task``."""
    if not job.first <= index < job.first + job.count:
        span = f"{job.first} to {job.first + job.count - 1}"
        raise Fault(errors.NO_TASK, f"Job {job.number} has no task {index}; its tasks are {span}.", job=job.number)
