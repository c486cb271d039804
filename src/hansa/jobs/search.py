"""Jobs by a query: the terms of ``query.py`` as SQL. An index answers each kind of term; see ``tables.py``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hansa.jobs import errors
from hansa.jobs.query import QueryError, Term, parse
from hansa.jobs.tables import job_marks, jobs, queues
from hansa.jobs.wire import Phase
from hansa.kernel.database import Tx
from hansa.kernel.errors import Fault

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_COLUMNS: dict[str, sa.ColumnElement[Any]] = {
    "job": jobs.c.number,
    "name": jobs.c.name,
    "command": jobs.c.command,
    "group": jobs.c.group_name,
    "vo": jobs.c.vo,
    "comment": jobs.c.comment,
    "reason": jobs.c.reason,
    "created": jobs.c.created,
    "started": jobs.c.started,
    "ended": jobs.c.ended,
    "tasks": jobs.c.count,
    "failed": jobs.c.failed,
    "exit": jobs.c.exit_code,
    "priority": 10 - jobs.c.rank,
    "done": jobs.c.done,
    "killed": jobs.c.killed,
    "image": jobs.c.spec["image"].as_string(),
    "vo_group": jobs.c.vo_group,
    "waiting_on": jobs.c.waiting_on,
    "message": jobs.c.message,
    "deadline": jobs.c.deadline,
}
_OF_QUEUE: dict[str, sa.ColumnElement[Any]] = {
    "cores": queues.c.cores,
    "memory": queues.c.memory_mib,
    "gpus": queues.c.gpus,
    "time": queues.c.wall_time_s,
}
"""What tasks need: jobs with the same needs share a queue, and of queues there are few."""
_FINAL = [phase.value for phase in Phase if phase.is_final]
_OPEN = [phase.value for phase in Phase if not phase.is_final]


def read_query(text: str, now: datetime) -> tuple[Term, ...]:
    """The terms of what somebody asked. Raises Fault ``jobs.bad_query`` that points at the character."""
    try:
        return parse(text, now)
    except QueryError as error:
        raise Fault(
            errors.BAD_QUERY,
            f"At character {error.position + 1} of the query: {error}.",
            hint=f"{text}\n{' ' * error.position}^ As in: state:failed site:NAME label:a=b name~sim created<2d",
            position=error.position,
        ) from error


async def find(tx: Tx, owner_id: str, terms: Sequence[Term], *, before: int | None, limit: int) -> Sequence[Any]:
    """The owner's jobs that a query is about, newest first.

    The numbers are found first, mostly in an index alone: rows are large.
    """
    query = sa.select(jobs.c.number).where(jobs.c.owner_id == owner_id, *(_clause(owner_id, term) for term in terms))
    if before is not None:
        query = query.where(jobs.c.number < before)
    numbers = query.order_by(jobs.c.number.desc()).limit(limit).subquery()
    wanted = sa.select(jobs).join(numbers, numbers.c.number == jobs.c.number).order_by(jobs.c.number.desc())
    return (await tx.execute(wanted)).all()


def _clause(owner_id: str, term: Term) -> sa.ColumnElement[bool]:
    clause = _positive(owner_id, term)
    if not term.negated:
        return clause
    return sa.not_(sa.func.coalesce(clause, sa.false()))  # what is not there is not equal either


def _positive(owner_id: str, term: Term) -> sa.ColumnElement[bool]:
    values = list(term.values)
    if term.field == "":
        return sa.or_(_contains(jobs.c.name, values[0]), _contains(jobs.c.command, values[0]))
    if term.field == "state":
        return sa.or_(*(_in_state(str(value)) for value in values))
    if term.field == "site":
        return _marked(owner_id, job_marks.c.kind == "site", job_marks.c.name.in_(values))
    if term.field == "label":
        return sa.or_(*(_has_label(owner_id, str(value)) for value in values))
    if term.field in _OF_QUEUE:
        fit = sa.select(queues.c.id).where(queues.c.owner_id == owner_id, _compared(_OF_QUEUE[term.field], term))
        return jobs.c.queue_id.in_(fit)
    return _compared(_COLUMNS[term.field], term)


def _compared(column: sa.ColumnElement[Any], term: Term) -> sa.ColumnElement[bool]:
    values = list(term.values)
    if term.op == "~":
        return _contains(column, values[0])
    if term.op == ":":
        return column == values[0] if len(values) == 1 else column.in_(values)
    found: sa.ColumnElement[bool] = _COMPARE[term.op](column, sa.literal(values[0], column.type))
    return found


def _contains(column: sa.ColumnElement[Any], text: Any) -> sa.ColumnElement[bool]:
    escaped = str(text).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return column.ilike(f"%{escaped}%", escape="\\")


def _in_state(state: str) -> sa.ColumnElement[bool]:
    if state == "held":
        return jobs.c.held
    if state in ("active", "ended"):
        return jobs.c.phase.in_(_FINAL if state == "ended" else _OPEN)
    return jobs.c.phase == state


def _has_label(owner_id: str, label: str) -> sa.ColumnElement[bool]:
    name, separator, value = label.partition("=")
    asked = [job_marks.c.kind == "label", job_marks.c.name == name]
    return _marked(owner_id, *asked, *([job_marks.c.value == value] if separator else []))


def _marked(owner_id: str, *asked: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return jobs.c.number.in_(sa.select(job_marks.c.job).where(job_marks.c.owner_id == owner_id, *asked))
