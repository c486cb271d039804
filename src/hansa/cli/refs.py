"""How people name jobs and tasks: ``12``, ``12.17``, ``12-15``, ``last``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hansa.client import job_api
from hansa.client.errors import USAGE, HansaError
from hansa.client.transport import Transport
from hansa.kernel.errors import NOT_FOUND

RANGE_LIMIT = 10_000
_REF = re.compile(r"(\d+)(?:\.(\d+)|-(\d+))?")
_HINT = "A job is a number, as in 12; a task 12.17; several 12-15; the newest is: last. See: hansa job list"


@dataclass(frozen=True)
class Ref:
    """A job, or one of its tasks."""

    number: int
    task: int | None = None


def parse(text: str) -> list[Ref]:
    """What one word names, but for ``last``.

    >>> parse("12.17")
    [Ref(number=12, task=17)]
    """
    match = _REF.fullmatch(text)
    if not match:
        raise HansaError(NOT_FOUND, f"There is no job {text!r}.", hint=_HINT)
    number = int(match[1])
    if match[3] is None:
        return [Ref(number, None if match[2] is None else int(match[2]))]
    last = int(match[3])
    if not number <= last < number + RANGE_LIMIT:
        raise HansaError(USAGE, f"{text} names no jobs, or more than {RANGE_LIMIT:,}.", hint=_HINT)
    return [Ref(each) for each in range(number, last + 1)]


def resolve(session: Transport, texts: Iterable[str]) -> list[Ref]:
    """What the words name, each once."""
    found: list[Ref] = []
    for text in texts:
        word, dot, task = text.partition(".")
        if word == "last":
            newest = session.run(job_api.jobs(limit=1)).items
            if not newest:
                raise HansaError(NOT_FOUND, "There is no job yet.", hint="Submit one: hansa run -- echo hello")
            text = f"{newest[0].number}{dot}{task}"
        found += parse(text)
    return list(dict.fromkeys(found))


def one(session: Transport, text: str) -> Ref:
    """What the word names, which must be one thing."""
    found = resolve(session, [text])
    if len(found) != 1:
        raise HansaError(USAGE, f"{text} names {len(found)} jobs; this command takes one.", hint=_HINT)
    return found[0]


def by_job(found: Iterable[Ref]) -> dict[int, list[int] | None]:
    """Tasks by job; None: the whole job."""
    chosen: dict[int, list[int] | None] = {}
    for ref in found:
        tasks = chosen.setdefault(ref.number, [])
        if ref.task is None or tasks is None:
            chosen[ref.number] = None
        else:
            tasks.append(ref.task)
    return chosen
