"""What tasks used over their time, as their pilots told it: one row for an attempt, of as many tasks as a job may have.

Of a task that runs the row is written every few seconds; with its end the row counts against the job's limit, or goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs.tables import task_series
from hansa.kernel.database import Tx, insert_for
from hansa.node.protocol import UsageSeries

MOST_POINTS = 240
_LARGEST = 1e12
_KEY = ("job", "index", "attempt")

Key = tuple[int, int, int]
"""Job, index, attempt."""


@dataclass(frozen=True)
class Ended:
    """An attempt that was accepted as over, and its use."""

    key: Key
    series: UsageSeries


def document_of(series: UsageSeries) -> dict[str, Any] | None:
    """As it is kept; None for what is no series: pilots run on other people's computers. Pure."""
    curves = {name: curve for name, curve in asdict(series).items() if isinstance(curve, list)}
    lengths = {len(curve) for curve in curves.values()}
    if lengths != {len(series.cores)} or not 0 < len(series.cores) <= MOST_POINTS:
        return None
    numbers = [series.every_s, series.span_s, *(value for curve in curves.values() for value in curve)]
    if not all(math.isfinite(value) and 0 <= value <= _LARGEST for value in numbers) or series.every_s <= 0:
        return None
    return {"every_s": series.every_s, "span_s": series.span_s, **curves}


async def note(tx: Tx, told: Mapping[Key, UsageSeries], now: datetime) -> set[int]:
    """Keep what running tasks used so far; the jobs that have news."""
    documents = {key: document for key, one in told.items() if (document := document_of(one)) is not None}
    await _write(tx, documents, now)
    return {job for job, _, _ in documents}


async def keep(tx: Tx, ended: Sequence[Ended], kept: Mapping[int, int], limit: int, now: datetime) -> dict[int, int]:
    """Keep those of attempts that are over while their jobs may have more; how many more each job now has.

    ``kept``: how many each has. What is told of running tasks before goes with those that are too many.
    """
    more: dict[int, int] = {}
    documents: dict[Key, dict[str, Any]] = {}
    gone: list[Key] = []
    for one in ended:
        job, document = one.key[0], document_of(one.series)
        if document is None or kept.get(job, 0) + more.get(job, 0) >= limit:
            gone.append(one.key)
        else:
            documents[one.key] = document
            more[job] = more.get(job, 0) + 1
    await _write(tx, documents, now)
    if gone:
        mine = [task_series.c[name] == sa.bindparam(f"this_{name}") for name in _KEY]
        rows = [{f"this_{name}": part for name, part in zip(_KEY, key, strict=True)} for key in gone]
        await tx.execute(sa.delete(task_series).where(*mine), rows)
    return more


async def _write(tx: Tx, documents: Mapping[Key, dict[str, Any]], now: datetime) -> None:
    if not documents:
        return
    insert = insert_for(tx, task_series)
    values = {"series": insert.excluded.series, "seen": insert.excluded.seen}
    rows = [
        {"job": job, "index": index, "attempt": attempt, "series": document, "seen": now}
        for (job, index, attempt), document in documents.items()
    ]
    await tx.execute(insert.on_conflict_do_update(index_elements=list(_KEY), set_=values), rows)


async def of_task(tx: Tx, job: int, index: int) -> dict[int, Any]:
    """Rows of a task's attempts, by attempt."""
    query = sa.select(task_series).where(task_series.c.job == job, task_series.c.index == index)
    return {int(row.attempt): row for row in (await tx.execute(query.order_by(task_series.c.attempt))).all()}


async def some_of_job(tx: Tx, job: int, most: int) -> list[int]:
    """Indices of the first tasks that have one."""
    query = sa.select(task_series.c.index).where(task_series.c.job == job).distinct()
    return [int(index) for index in (await tx.execute(query.order_by(task_series.c.index).limit(most))).scalars()]
