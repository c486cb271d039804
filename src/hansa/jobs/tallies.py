"""Results of large arrays, counted by stretch, so that the picture of a million tasks is as quick as that of a hundred.

Arrays of at most ``DIRECT`` tasks have none: their results are counted when somebody looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from hansa.jobs.tables import array_tallies, results
from hansa.kernel.database import Tx, insert_for

BLOCK = 128
"""Tasks in one stretch: index 0 to 127, 128 to 255, …"""
DIRECT = 50_000
PHASES = ("done", "failed", "killed")
_ADD: dict[str, Any] = {}
"""The statement that adds, by dialect: built once."""


def is_tallied(job: Any) -> bool:
    """Whether the results of this job are counted as they come."""
    return bool(job.count > DIRECT)


async def add(tx: Tx, jobs: Iterable[Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Count results that have just been accepted, of those of the jobs that are tallied."""
    tallied = {job.number for job in jobs if is_tallied(job)}
    if not tallied:
        return
    counts = Counter((row["job"], row["index"] // BLOCK, row["phase"]) for row in rows if row["job"] in tallied)
    await _change(tx, counts)


async def take_out(tx: Tx, job: Any, chosen: Sequence[Any]) -> None:
    """Uncount the results that these conditions are about; call it before they are deleted."""
    if not is_tallied(job):
        return
    block = (results.c.index // BLOCK).label("block")
    query = sa.select(block, results.c.phase, sa.func.count()).where(*chosen).group_by("block", results.c.phase)
    rows: Sequence[Any] = (await tx.execute(query)).all()
    await _change(tx, {(job.number, int(row[0]), str(row[1])): -int(row[2]) for row in rows})


async def by_part(tx: Tx, job: Any, start: int, width: int) -> list[tuple[int, dict[str, int]]]:
    """Results by stretches of ``width`` tasks (a multiple of BLOCK) from ``start`` (another) on."""
    part = ((array_tallies.c.block - start // BLOCK) // (width // BLOCK)).label("part")
    sums = [sa.func.sum(array_tallies.c[phase]) for phase in PHASES]
    query = sa.select(part, *sums).where(array_tallies.c.job == job.number).group_by("part")
    rows: Sequence[Any] = (await tx.execute(query)).all()
    return [(int(row[0]), dict(zip(PHASES, map(int, row[1:]), strict=True))) for row in rows]


async def _change(tx: Tx, counts: Mapping[tuple[int, int, str], int]) -> None:
    rows: dict[tuple[int, int], dict[str, int]] = {}
    for (job, block, phase), number in sorted(counts.items()):
        row = rows.setdefault((job, block), {"job": job, "block": block, "done": 0, "failed": 0, "killed": 0})
        row[phase] += number
    if not rows:
        return
    statement = _ADD.get(tx.dialect)
    if statement is None:
        insert = insert_for(tx, array_tallies)
        more = {phase: array_tallies.c[phase] + insert.excluded[phase] for phase in PHASES}
        statement = _ADD[tx.dialect] = insert.on_conflict_do_update(index_elements=["job", "block"], set_=more)
    await tx.execute(statement, list(rows.values()))
