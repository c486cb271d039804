"""What jobs are and how they may change: pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

from hansa.jobs.wire import Counts, Phase
from hansa.node import protocol

LOST = "lost"
"""An outcome that only the server sees: the pilot died while the task ran."""
STOPPED_BY_SITE = "pilots.stopped_by_site"
"""The reason of a pilot whose place was taken away: no task of it is to blame."""
NEVER_RAN = "never_ran"
"""An outcome that only the server sees: killed before it was given to a pilot."""

_EXIT_OF_OUTCOME = {
    protocol.WALL_TIME: 137,
    protocol.MEMORY: 137,
    protocol.KILLED: 137,
    NEVER_RAN: 137,
    protocol.NOT_STARTED: 127,
    protocol.SETUP: 1,
}
HANSA_EXIT = 125


class PilotPhase(StrEnum):
    """Where a pilot is."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        return self in (PilotPhase.ENDED, PilotPhase.LOST)


@dataclass(frozen=True)
class History:
    """What went wrong with a task before this attempt."""

    attempt: int = 1
    failures: int = 0
    node_faults: int = 0
    crashes: int = 0


@dataclass(frozen=True)
class Limits:
    """How often a task may run again, by whose fault it was."""

    retries: int
    node_retries: int
    crash_limit: int
    retry_on: tuple[int, ...] = ()
    """Exit codes (as ``hansa run`` gives them) after which a task is run again. None: all."""
    backoff_s: float = 0.0
    """The wait before the first retry; twice as long before each further one, at most an hour."""


@dataclass(frozen=True)
class Final:
    """The task has ended."""

    phase: Phase
    message: str


@dataclass(frozen=True)
class Again:
    """The task runs again, not before ``delay_s`` from now."""

    history: History
    delay_s: float
    message: str


_LONGEST_BACKOFF_S = 3600.0


def judge(
    outcome: str,
    exit_code: int | None,
    message: str,
    history: History,
    limits: Limits,
    signal: int | None = None,
) -> Final | Again:
    """What an attempt's end means for its task."""
    if outcome == protocol.EXITED and exit_code == 0:
        return Final(Phase.DONE, message)
    if outcome in (protocol.KILLED, NEVER_RAN):
        return Final(Phase.KILLED, message or "Killed on request.")
    if outcome == LOST:
        crashes = history.crashes + 1
        if crashes >= limits.crash_limit:
            said = f"Stopped: {crashes} pilots died while this task ran; it may be what kills them."
            return Final(Phase.FAILED, said)
        return Again(_next(history, crashes=crashes), 0.0, message)
    if outcome in (protocol.NODE, protocol.INPUT):
        faults = history.node_faults + 1
        if faults > limits.node_retries:
            return Final(Phase.FAILED, f"{message} (after {faults} faults of nodes)")
        return Again(_next(history, node_faults=faults), min(60.0, 2.0 ** (faults - 1)), message)
    if outcome == protocol.PREEMPTED:  # the place was taken away: nobody's fault, and no reason ever to give up
        return Again(_next(history), 0.0, message)
    failures = history.failures + 1
    wanted = not limits.retry_on or exit_code_of(outcome, exit_code, signal) in limits.retry_on
    if failures > limits.retries or not wanted:
        return Final(Phase.FAILED, message)
    delay_s = min(_LONGEST_BACKOFF_S, limits.backoff_s * 2.0 ** min(failures - 1, 30))
    return Again(_next(history, failures=failures), delay_s, message)


def _next(history: History, **changed: int) -> History:
    kept = {"failures": history.failures, "node_faults": history.node_faults, "crashes": history.crashes}
    return History(attempt=history.attempt + 1, **{**kept, **changed})


def exit_code_of(outcome: str, exit_code: int | None, signal: int | None) -> int:
    """What ``hansa run`` exits with for a task that ended so: as a shell would, 125 for faults of Hansa."""
    if outcome == protocol.EXITED:
        return exit_code if exit_code is not None else 128 + (signal or 0)
    return _EXIT_OF_OUTCOME.get(outcome, HANSA_EXIT)


def storable(value: Any) -> Any:
    """A JSON value as both databases can keep it: no NUL characters, no numbers that JSON does not have."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return [storable(item) for item in value] if isinstance(value, list) else value


def phase_of(counts: Counts, *, was_leased: bool) -> Phase:
    """A job's phase: it ends when all its tasks have; a failed task makes it failed, else a killed one killed."""
    if counts.waiting == 0 and counts.running == 0:
        if counts.failed:
            return Phase.FAILED
        return Phase.KILLED if counts.killed else Phase.DONE
    return Phase.RUNNING if was_leased else Phase.WAITING


def has_more(job: Any) -> bool:
    """Whether a job has tasks that no pilot has and that have not ended."""
    end = job.killed_from if job.killed_from is not None else job.first + job.count
    return bool(job.next_index < end or job.again)


def ending_message(counts: Counts, seconds: float, how: str = "") -> str:
    """The sentence for a job that has ended; ``how`` is :func:`how_it_ended` of a single task."""
    total = counts.done + counts.failed + counts.killed
    if total == 1:
        word = "Done" if counts.done else "Failed" if counts.failed else "Killed"
        return f"{word}{': ' if how else ''}{how}, {duration(seconds)} after submission."
    parts = [f"{counts.done:,} of {total:,} tasks done"]
    parts += [f"{counts.failed:,} failed"] if counts.failed else []
    parts += [f"{counts.killed:,} killed"] if counts.killed else []
    return f"{', '.join(parts)}, {duration(seconds)} after submission."


def how_it_ended(outcome: str, exit_code: int | None, signal: int | None, message: str) -> str:
    """How a task that is not done ended, in a few words: its message, or its exit code or signal."""
    if message:
        return message.rstrip(".")
    if exit_code is not None:
        return f"exit code {exit_code}"
    return f"signal {signal}" if signal else outcome.replace("_", " ")


def duration(seconds: float) -> str:
    """A duration for people: ``3.2 s``, ``4 min 05 s``, ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def ranges(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending indices as inclusive ranges: 1 2 3 7 → (1, 3) (7, 7)."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and found[-1][1] == index - 1:
            found[-1] = (found[-1][0], index)
        else:
            found.append((index, index))
    return found


def split_range(first: int, last: int, without: Sequence[int]) -> list[tuple[int, int]]:
    """The inclusive range first … last without some indices (ascending)."""
    found, start = [], first
    for index in without:
        if start <= index - 1:
            found.append((start, index - 1))
        start = index + 1
    if start <= last:
        found.append((start, last))
    return found


def pilots_to_start(waiting_tasks: int, live_pilots: int, site_limit: int) -> int:
    """How many pilots a site should start now for an owner's waiting tasks."""
    if waiting_tasks <= 0:
        return 0
    return max(0, min(site_limit - live_pilots, waiting_tasks))


def start_delay_s(failures_in_a_row: int) -> float:
    """How long to wait before another pilot is started where so many in a row died without a word: 1 minute at most."""
    return 0.0 if failures_in_a_row < 2 else min(60.0, 2.0 ** (failures_in_a_row - 1))
