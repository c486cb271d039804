"""Results of a job as one table: a row per task with parameters, state, resources, result.json."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from hansa.client import job_api
from hansa.client.effects import Operation
from hansa.jobs.wire import Job, Task

BEFORE = ("job", "task")
AFTER = ("state", "exit_code", "cpu_s", "memory_mib", "wall_s", "site", "node", "message")
PAGE = 1_000

Row = dict[str, Any]


class Table:
    """Makes rows of tasks, and knows all columns once it has seen all tasks.

    A field of result.json with another column's name becomes ``result.NAME``, a parameter ``param.NAME``.
    """

    def __init__(self, names: Sequence[str]) -> None:
        fixed = {*BEFORE, *AFTER}
        self._names = {name: f"param.{name}" if name in fixed else name for name in names}
        self._columns = dict.fromkeys((*BEFORE, *self._names.values(), *AFTER))
        self._taken = set(self._columns)

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def row(self, task: Task) -> Row:
        row: Row = {"job": task.job, "task": task.index}
        for name, column in self._names.items():
            row[column] = task.values.get(name)
        row["state"] = task.phase.value
        row["exit_code"] = task.exit_code
        row["cpu_s"], row["memory_mib"], row["wall_s"] = task.cpu_s, task.memory_mib, task.wall_s
        row["site"], row["node"], row["message"] = task.site, task.node, task.message
        for name, value in flatten(task.fields or {}).items():
            column = f"result.{name}" if name in self._taken else name
            row[column] = value
            self._columns.setdefault(column)
        return row


def flatten(fields: dict[str, Any]) -> Row:
    """One level of nesting becomes ``a.b``; what is deeper stays a value.

    >>> flatten({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    flat: Row = {}
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            flat.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            flat[name] = value
    return flat


def cell(value: Any) -> Any:
    """A value as a cell of CSV."""
    if value is None:
        return ""
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value


def walk(job: Job, hear: Callable[[Task], None], phase: str | None = None) -> Operation[None]:
    """Every task of a job, page by page."""
    after = None
    while True:
        page = yield from job_api.tasks(job.number, after, PAGE, phase)
        for task in page.items:
            hear(task)
        after = page.next
        if after is None:
            return


class Spool:
    """Rows on disk until all columns are known: a million rows in flat memory."""

    def __init__(self, names: Sequence[str]) -> None:
        self.table = Table(names)
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", prefix="hansa-results-")  # noqa: SIM115

    def add(self, task: Task) -> None:
        json.dump(self.table.row(task), self._file, ensure_ascii=False, separators=(",", ":"))
        self._file.write("\n")

    def rows(self) -> Iterator[Row]:
        self._file.seek(0)
        for line in self._file:
            yield json.loads(line)

    def close(self) -> None:
        self._file.close()


def write_csv(columns: Sequence[str], rows: Iterable[Row], out: IO[str]) -> None:
    """CSV (RFC 4180 quoting, lines end with a line feed) with a header."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(row.get(name)) for name in columns])


def save_csv(job: Job, path: Path) -> Operation[int]:
    """Write the results of a job to a file, whole or not at all. Returns the number of rows."""
    spool = Spool(job.names)
    part = path.with_name(f".{path.name}.part")
    try:
        yield from walk(job, spool.add)
        with part.open("w", encoding="utf-8", newline="") as out:
            write_csv(spool.table.columns, spool.rows(), out)
        part.replace(path)
        return job.count
    finally:
        part.unlink(missing_ok=True)
        spool.close()


class TaskResults(list[Row]):
    """Rows of results, in order of the tasks, with the columns that they have together.

    Example:
        >>> table = TaskResults(["task", "score"], [{"task": 0, "score": 0.9}])
        >>> table[0]["score"]
        0.9
    """

    def __init__(self, columns: Sequence[str], rows: Iterable[Row] = ()) -> None:
        super().__init__(rows)
        self.columns = list(columns)

    def to_csv(self, path: str | Path) -> Path:
        """Write the table as CSV; returns the path."""
        target = Path(path)
        with target.open("w", encoding="utf-8", newline="") as out:
            write_csv(self.columns, self, out)
        return target


def gather(job: Job) -> Operation[TaskResults]:
    """All results in memory."""
    table = Table(job.names)
    rows: list[Row] = []
    yield from walk(job, lambda task: rows.append(table.row(task)))
    return TaskResults(table.columns, rows)
