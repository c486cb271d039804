"""Whose end it was: the task's own, or that of its pilot."""

from __future__ import annotations

from signal import SIGKILL, SIGTERM
from typing import Any

import pytest

from hansa.node.core import Job, Task
from hansa.node.doubts import DOUBT_S, Doubts
from hansa.node.protocol import EXITED, KILLED, MEMORY, PREEMPTED, JobOrder, TaskResult


def task(serial: int = 7) -> Task:
    return Task(serial, Job(JobOrder(1, ["true"], 1, 100, 60)), 1, 0, 1, None)


def result(outcome: str = EXITED, exit_code: int | None = 3, **more: Any) -> TaskResult:
    return TaskResult(1, 0, outcome, exit_code=exit_code, **more)


def test_where_a_batch_system_signals_all_every_failure_may_be_the_pilots() -> None:
    doubts = Doubts(shares_signals=True)
    assert doubts.has(result())  # a task that heeds SIGTERM ends as it likes
    assert doubts.has(result(exit_code=None, signal=SIGTERM))
    assert not doubts.has(result(exit_code=0))
    assert not doubts.has(result(MEMORY))
    assert not doubts.has(result(KILLED, None, signal=SIGKILL))


def test_elsewhere_only_what_that_signal_ended() -> None:
    doubts = Doubts(shares_signals=False)
    assert doubts.has(result(exit_code=None, signal=SIGTERM))
    assert not doubts.has(result())


@pytest.mark.parametrize(("is_stopped", "outcome"), [(True, PREEMPTED), (False, EXITED)])
def test_the_pilots_signal_decides_and_else_the_time(is_stopped: bool, outcome: str) -> None:
    doubts, mine = Doubts(shares_signals=True), task()
    doubts.add(mine, result(), 9.5, now=10.0)
    assert doubts.due(10.0 + DOUBT_S / 2, is_stopped=False) == []
    ((found, judged, when),) = doubts.due(10.0 if is_stopped else 10.0 + DOUBT_S, is_stopped=is_stopped)
    assert (found, judged.outcome, judged.exit_code, when) == (mine, outcome, 3, 9.5)
    assert doubts.due(99.0, is_stopped=True) == []
