"""What to do when a place fails: the next one, what was left behind cleaned up, all causes told. A pure state machine.

A *course* is the order of places and what came of them so far. The room that starts something keeps it in its row,
asks :func:`decide` what to do now, and writes what happened with the ``has_…`` functions below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class Try(StrEnum):
    """How far an attempt at a place has come."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class Attempt:
    """One place that was tried. ``is_clean``: nothing of it is left there."""

    place: str
    since: datetime
    state: Try = Try.STARTING
    cause: str = ""
    is_clean: bool = False
    clean_failures: int = 0
    clean_after: datetime | None = None


@dataclass(frozen=True)
class Course:
    """The places in their order, at most ``limit`` of them to be tried, each given so long to start."""

    order: tuple[str, ...]
    limit: int = 3
    timeout_s: float = 1800.0
    attempts: tuple[Attempt, ...] = ()

    @property
    def current(self) -> Attempt | None:
        """The attempt that is on, or went well."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.state is not Try.FAILED else None

    @property
    def untried(self) -> tuple[str, ...]:
        tried = {one.place for one in self.attempts}
        return tuple(place for place in self.order if place not in tried)

    @property
    def causes(self) -> tuple[str, ...]:
        """What went wrong, by place, in the order of the attempts."""
        return tuple(f"{one.place}: {one.cause}" for one in self.attempts if one.state is Try.FAILED)


@dataclass(frozen=True)
class Start:
    """Start it there."""

    place: str


@dataclass(frozen=True)
class CleanUp:
    """Remove what an attempt may have left there."""

    place: str


@dataclass(frozen=True)
class GiveUp:
    """No place is left. ``is_clean``: nor is anything of ours."""

    message: str
    is_clean: bool


@dataclass(frozen=True)
class TimeOut:
    """It takes too long there: note it as failed (:func:`has_failed`) with this cause."""

    place: str
    cause: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do before."""

    until: datetime | None


Step = Start | CleanUp | GiveUp | TimeOut | Wait

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 3600.0


def decide(course: Course, now: datetime) -> list[Step]:
    """All that should be done now. Cleaning up goes on beside the next attempt; it never holds it up."""
    steps: list[Step] = [
        CleanUp(one.place) for one in _dirty(course) if one.clean_after is None or now >= one.clean_after
    ]
    current = course.current
    if current is not None:
        deadline = current.since + timedelta(seconds=course.timeout_s)
        if current.state is Try.STARTING and now >= deadline:
            return [*steps, TimeOut(current.place, f"It did not start within {course.timeout_s:,.0f} s.")]
        if not steps:
            steps.append(Wait(_earliest(course, deadline if current.state is Try.STARTING else None)))
        return steps
    if course.untried and len(course.attempts) < course.limit:
        return [*steps, Start(course.untried[0])]
    if steps:
        return steps
    if waiting := _dirty(course):
        return [Wait(min(one.clean_after for one in waiting if one.clean_after is not None))]
    return [GiveUp(summary(course), is_clean=True)]


def summary(course: Course) -> str:
    """The sentence for a course that has come to nothing."""
    if not course.attempts:
        return "There is no site where it can run."
    tried = len(course.attempts)
    left = len(course.untried)
    more = f" {left} more {'were' if left > 1 else 'was'} not tried: {course.limit} is the limit." if left else ""
    return f"It failed at {tried} {'sites' if tried > 1 else 'site'}: {'; '.join(course.causes)}.{more}"


def is_over(course: Course) -> bool:
    """Whether no place is left to try and none is on; something may still have to be cleaned up."""
    return course.current is None and not (course.untried and len(course.attempts) < course.limit)


def has_started(course: Course, place: str, now: datetime) -> Course:
    """An attempt begins. Written before anything is done there: what may have been made must be cleaned up."""
    if course.current is not None:
        raise ValueError(f"{course.current.place} is on")
    if place not in course.untried:
        raise ValueError(f"{place} is not one that is left to try")
    return replace(course, attempts=(*course.attempts, Attempt(place, now)))


def has_succeeded(course: Course, place: str) -> Course:
    """It runs there. A word of an attempt that was given up changes nothing."""
    current = course.current
    if current is None or current.place != place:
        return course
    return _changed(course, replace(current, state=Try.RUNNING))


def has_failed(course: Course, place: str, cause: str) -> Course:
    """It failed there, or is taken back. A second word of the same attempt changes nothing."""
    current = course.current
    if current is None or current.place != place:
        return course
    return _changed(course, replace(current, state=Try.FAILED, cause=cause.rstrip(".")))


def is_cleaned(course: Course, place: str) -> Course:
    """Nothing of it is left there."""
    return _of(course, place, is_clean=True, clean_after=None)


def could_not_clean(course: Course, place: str, now: datetime) -> Course:
    """It could not be cleaned up now; later again, for ever: nothing is forgotten."""
    for one in course.attempts:
        if one.place == place:
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(one.clean_failures, 20))
            return _of(course, place, clean_failures=one.clean_failures + 1, clean_after=now + timedelta(seconds=pause))
    return course


def extended(course: Course, order: Sequence[str]) -> Course:
    """A new order for what was not tried yet: the world may have changed meanwhile."""
    return replace(course, order=tuple(order))


def _dirty(course: Course) -> list[Attempt]:
    return [one for one in course.attempts if one.state is Try.FAILED and not one.is_clean]


def _earliest(course: Course, deadline: datetime | None) -> datetime | None:
    times = [one.clean_after for one in _dirty(course) if one.clean_after is not None]
    times += [deadline] if deadline is not None else []
    return min(times, default=None)


def _changed(course: Course, attempt: Attempt) -> Course:
    return _of(course, attempt.place, state=attempt.state, cause=attempt.cause)


def _of(course: Course, place: str, **values: object) -> Course:
    attempts = tuple(replace(one, **values) if one.place == place else one for one in course.attempts)  # type: ignore[arg-type]
    return replace(course, attempts=attempts)
