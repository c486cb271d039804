"""Many rows at once: jobs that change, and what belongs to any of so many. One statement each on PostgreSQL, to which
every statement is a way there and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from hansa.jobs.tables import jobs
from hansa.kernel.database import Document, Tx
from hansa.kernel.database.base import DialectName

Moves = Sequence[tuple[Any, Mapping[str, Any]]]
"""Rows of jobs, which are locked, and what changes of each."""
_THIS = sa.update(jobs).where(jobs.c.number == sa.bindparam("this"))


def filled(moves: Moves) -> list[dict[str, Any]]:
    """The same columns for each job: what does not change stays as its row says."""
    names = sorted({name for _, values in moves for name in values})
    return [
        {"number": job.number} | {n: values[n] if n in values else getattr(job, n) for n in names}
        for job, values in moves
    ]


def among(column: sa.ColumnElement[int], dialect: DialectName, name: str = "numbers") -> sa.ColumnElement[bool]:
    """Whether a column is one of the parameter ``name``, a list. To PostgreSQL it is a single parameter, so that
    the statement is the same however long the list is."""
    if dialect == "postgresql":
        return column == sa.any_(sa.bindparam(name, type_=sa.ARRAY(sa.BigInteger)))
    expanding: sa.BindParameter[int] = sa.bindparam(name, expanding=True)
    return column.in_(expanding)


async def change(tx: Tx, moves: Moves) -> None:
    """Change these jobs, each once."""
    rows = filled(moves)
    if not rows:
        return
    if tx.dialect == "postgresql":
        await tx.execute(_changing(tuple(rows[0])), {"moves": as_text(rows)})
    else:
        await tx.execute(_THIS, [{"this" if name == "number" else name: row[name] for name in row} for row in rows])


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the text that :func:`records` reads."""
    return json.dumps(rows, default=datetime.isoformat)


@lru_cache(maxsize=64)
def _changing(names: tuple[str, ...]) -> sa.Update:
    return changing(names)


def changing(names: Sequence[str]) -> sa.Update:
    """PostgreSQL's statement that sets these columns of jobs from the JSON text ``moves``; the first one is the number.

    Of arrays it would see how long they are, and plan the statement anew each time.
    """
    to = records("moves", [jobs.c[name] for name in names])
    are_few = to.c.number % sa.literal_column("1") == sa.literal_column(
        "0"
    )  # true; so it reckons with one, not with 100
    values = {name: to.c[name] for name in names if name != "number"}
    return sa.update(jobs).where(jobs.c.number == to.c.number, are_few).values(values)


def records(name: str, columns: Sequence[sa.Column[Any]]) -> Any:
    """Rows with these columns, from a JSON text, on PostgreSQL."""
    shape = [sa.column(column.name, column.type) for column in columns]
    given = sa.cast(sa.bindparam(name, type_=sa.Text), Document)
    return sa.func.jsonb_to_recordset(given).table_valued(*shape, name=name).render_derived(with_types=True)
