"""The query language of jobs, the same for the command line, the API and the portal. Pure.

A query is words with spaces between them, all of which must hold::

    state:failed site:garching label:campaign=k2 name~sim created<2d -group:test "two words"

- ``FIELD:VALUE`` is equal to one of the values: ``state:failed,killed``. ``FIELD~TEXT`` has the text in it.
- ``FIELD>VALUE``, ``>=``, ``<``, ``<=`` compare numbers and times. A time is a date (``2026-11-25``,
  ``2026-11-25T12:00``), or an age: ``created<2d`` is less than two days ago, ``created>2d`` longer ago.
- ``-`` or ``!`` before a word turns it round. A word alone is looked for in name and command.
- Quotes keep spaces and commas together: ``name:"night run"``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

MOST_TERMS = 30
_WORD = re.compile(r"(?P<field>[a-z][a-z_-]*)(?P<op>>=|<=|[:=~<>])")
_AGE = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_MOST_AGE_S = 100 * 366 * 86400


class Kind(Enum):
    """What the values of a field are."""

    TEXT = "text"
    WORD = "word"
    NUMBER = "number"
    TIME = "time"
    LABEL = "label"


FIELDS: dict[str, tuple[Kind, str]] = {
    "state": (Kind.WORD, "waiting, running, done, failed, killed; held, active (not ended), ended"),
    "job": (Kind.NUMBER, "the job's number"),
    "name": (Kind.TEXT, "its name"),
    "command": (Kind.TEXT, "the beginning of its command"),
    "group": (Kind.TEXT, "the set of jobs that it belongs to"),
    "label": (Kind.LABEL, "a label, label:NAME or label:NAME=VALUE"),
    "site": (Kind.WORD, "a site where a task of it has run"),
    "vo": (Kind.WORD, "the virtual organisation"),
    "comment": (Kind.TEXT, "the remark"),
    "reason": (Kind.WORD, "the code of why it is where it is: jobs.held"),
    "created": (Kind.TIME, "when it was submitted"),
    "started": (Kind.TIME, "when its first task was given to a pilot"),
    "ended": (Kind.TIME, "when it ended"),
    "tasks": (Kind.NUMBER, "how many tasks it has"),
    "failed": (Kind.NUMBER, "how many of them failed"),
    "exit": (Kind.NUMBER, "exit code of a single job"),
    "priority": (Kind.NUMBER, "0 to 10"),
    "done": (Kind.NUMBER, "how many of its tasks are done"),
    "killed": (Kind.NUMBER, "how many of them were killed"),
    "cores": (Kind.NUMBER, "cores of each task"),
    "memory": (Kind.NUMBER, "memory of each task, in MiB"),
    "gpus": (Kind.NUMBER, "GPUs of each task"),
    "time": (Kind.NUMBER, "wall time of each task, in seconds"),
    "image": (Kind.TEXT, "the container image of its tasks"),
    "vo_group": (Kind.WORD, "the group of the VO for whose share it runs"),
    "waiting_on": (Kind.WORD, "who must act: user, vo_manager, site, hansa, nobody"),
    "message": (Kind.TEXT, "the sentence that says why it is where it is"),
    "deadline": (Kind.TIME, "when it is killed if it has not ended"),
}
"""Every field: what its values are, and its meaning."""
STATES = ("waiting", "running", "done", "failed", "killed", "held", "active", "ended")
_ALIASES = {"phase": "state", "id": "job", "number": "job", "labels": "label", "count": "tasks", "submitted": "created"}
_OPERATORS = {
    Kind.TEXT: (":", "~"),
    Kind.WORD: (":",),
    Kind.LABEL: (":",),
    Kind.NUMBER: (":", "<", ">", "<=", ">="),
    Kind.TIME: ("<", ">", "<=", ">="),
}


class QueryError(ValueError):
    """A query cannot be understood. ``position`` counts characters from 0."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class Term:
    """One word of a query. ``field`` "" is a word alone; ``op`` is ``:`` (one of the values), ``~`` or a comparison."""

    field: str
    op: str
    values: tuple[str | int | datetime, ...]
    negated: bool = False
    position: int = 0


def parse(text: str, now: datetime) -> tuple[Term, ...]:
    """The terms of a query; ages count from ``now``. Raises QueryError."""
    terms = []
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        term, place = _term(text, place, now)
        terms.append(term)
        if len(terms) > MOST_TERMS:
            raise QueryError(f"a query has at most {MOST_TERMS} words", term.position)
    return tuple(terms)


def _term(text: str, start: int, now: datetime) -> tuple[Term, int]:
    place = start
    negated = text[place] in "-!"
    place += negated
    found = _WORD.match(text, place)
    if found is None:
        alone, place = _values(text, place, split=False)
        return Term("", "~", (alone[0][0],), negated, start), place
    field = _field(found["field"], place)
    kind = FIELDS[field][0]
    op = ":" if found["op"] == "=" else found["op"]
    if op not in _OPERATORS[kind]:
        allowed = " ".join(_OPERATORS[kind])
        raise QueryError(f"{field} goes with {allowed}, not with {op}", found.start("op"))
    raw, place = _values(text, found.end(), split=op == ":")
    if op != ":" and len(raw) > 1:
        raise QueryError(f"{op} takes one value", raw[1][1])
    values = tuple(_value(field, kind, value, at, now) for value, at in raw)
    if kind is Kind.TIME and _AGE.fullmatch(raw[0][0]):
        op = _TURNED[op]  # longer ago is an earlier time
    return Term(field, op, values, negated, start), place


def _field(name: str, place: int) -> str:
    name = _ALIASES.get(name, name).replace("-", "_")
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, 1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(FIELDS)}"
        raise QueryError(f"there is no field {name!r}; {advice}", place)
    return name


def _values(text: str, place: int, *, split: bool) -> tuple[list[tuple[str, int]], int]:
    """Values up to the next space, each with its place; commas split them where ``split``."""
    found: list[tuple[str, int]] = []
    value, start = "", place
    while place < len(text) and not text[place].isspace():
        character = text[place]
        if character == '"':
            end = text.find('"', place + 1)
            if end < 0:
                raise QueryError("this quote is not closed", place)
            value += text[place + 1 : end]
            place = end + 1
            continue
        if character == "," and split:
            found.append((value, start))
            value, start = "", place + 1
        else:
            value += character
        place += 1
    found.append((value, start))
    for one, at in found:
        if not one:
            raise QueryError("a value is missing here", at)
        if "\0" in one:
            raise QueryError("a value holds a NUL character", at)
    return found, place


def _value(field: str, kind: Kind, value: str, place: int, now: datetime) -> str | int | datetime:
    if kind is Kind.NUMBER:
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise QueryError(f"{field} is a number, and {value!r} is none", place)
        return int(value)
    if kind is Kind.TIME:
        return _time(value, place, now)
    if field == "state" and value not in STATES:
        near = difflib.get_close_matches(value, STATES, 1)
        raise QueryError(
            f"there is no state {value!r}; {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(STATES)}",
            place,
        )
    return value


def _time(value: str, place: int, now: datetime) -> datetime:
    if age := _AGE.fullmatch(value):
        seconds = float(age[1]) * _UNITS[age[2]]
        if seconds > _MOST_AGE_S:
            raise QueryError(f"{value} is longer ago than anything", place)
        return now - timedelta(seconds=seconds)
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise QueryError(
            f"{value!r} is no time; write 2026-11-25, 2026-11-25T12:00 or an age: 30m, 2d", place
        ) from None
