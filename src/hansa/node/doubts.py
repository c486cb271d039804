"""Whether a task failed by itself, or was ended together with its pilot: that is known a moment later only.

A batch system that takes a place away sends its signal to all processes there, one after the other. A task may heed it
and end, by that signal or with an exit code of its own, before the pilot has heard of it.
"""

from __future__ import annotations

from dataclasses import replace
from signal import SIGTERM
from typing import Dict, List, Tuple

from .core import Task
from .finish import is_success
from .protocol import EXITED, PREEMPTED, TaskResult

DOUBT_S = 2.0
"""So long after a task's end its pilot may still hear the same signal."""
STOPPED = "the pilot was stopped"

Ended = Tuple[Task, TaskResult, float]
"""A task, how it ended, and when."""


def taken_away(result: TaskResult) -> TaskResult:
    """The result of a task that a batch system ended together with its pilot: no failure of its own."""
    if result.outcome != EXITED or is_success(result):
        return result
    return replace(result, outcome=PREEMPTED, message=STOPPED)


class Doubts:
    """Ends that are not judged yet. ``shares_signals``: what ends the pilot signals its tasks as well."""

    def __init__(self, *, shares_signals: bool) -> None:
        self._shares_signals = shares_signals
        self._since: Dict[int, Tuple[float, Ended]] = {}

    def has(self, result: TaskResult) -> bool:
        """Whether this end may turn out to be the pilot's, too."""
        if result.outcome != EXITED or is_success(result):
            return False
        return self._shares_signals or result.signal == SIGTERM

    def add(self, task: Task, result: TaskResult, when: float, now: float) -> None:
        """Keep an end until it is clear whose it was."""
        self._since[task.serial] = (now, (task, result, when))

    def due(self, now: float, *, is_stopped: bool) -> List[Ended]:
        """What is clear now: the pilot was stopped as well, or it lives on and the task failed by itself."""
        clear = [serial for serial, (since, _) in self._since.items() if is_stopped or now - since >= DOUBT_S]
        ended = [self._since.pop(serial)[1] for serial in clear]
        return [(task, taken_away(result) if is_stopped else result, when) for task, result, when in ended]
