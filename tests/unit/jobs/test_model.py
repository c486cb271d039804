"""What jobs are and how they may change."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.jobs.model import (
    HANSA_EXIT,
    LOST,
    NEVER_RAN,
    Again,
    Final,
    History,
    Limits,
    PilotPhase,
    duration,
    ending_message,
    exit_code_of,
    how_it_ended,
    judge,
    phase_of,
    pilots_to_start,
    ranges,
    split_range,
)
from hansa.jobs.wire import Counts, Phase
from hansa.node import protocol

LIMITS = Limits(retries=1, node_retries=3, crash_limit=3)
SERVER_ONLY = (LOST, NEVER_RAN)


@pytest.mark.parametrize(
    ("outcome", "exit_code", "history", "phase"),
    [
        (protocol.EXITED, 0, History(), Phase.DONE),
        (protocol.EXITED, 0, History(9, 1, 3, 2), Phase.DONE),
        (protocol.EXITED, 1, History(2, failures=1), Phase.FAILED),
        (protocol.EXITED, None, History(2, failures=1), Phase.FAILED),
        (protocol.WALL_TIME, None, History(2, failures=1), Phase.FAILED),
        (protocol.MEMORY, None, History(2, failures=1), Phase.FAILED),
        (protocol.NOT_STARTED, None, History(2, failures=1), Phase.FAILED),
        (protocol.SETUP, None, History(2, failures=1), Phase.FAILED),
        (protocol.OUTPUT, 0, History(2, failures=1), Phase.FAILED),
        (protocol.KILLED, None, History(), Phase.KILLED),
        (NEVER_RAN, None, History(), Phase.KILLED),
        (protocol.NODE, None, History(4, node_faults=3), Phase.FAILED),
        (protocol.INPUT, None, History(4, node_faults=3), Phase.FAILED),
        (LOST, None, History(3, crashes=2), Phase.FAILED),
    ],
)
def test_an_attempt_that_ends_its_task(outcome: str, exit_code: int | None, history: History, phase: Phase) -> None:
    verdict = judge(outcome, exit_code, "said", history, LIMITS)
    assert isinstance(verdict, Final)
    assert verdict.phase is phase


@pytest.mark.parametrize(
    ("outcome", "history", "following", "delay_s"),
    [
        (protocol.EXITED, History(), History(2, failures=1), 0.0),
        (protocol.OUTPUT, History(3, 0, 2, 0), History(4, 1, 2, 0), 0.0),
        (protocol.NODE, History(), History(2, node_faults=1), 1.0),
        (protocol.NODE, History(2, node_faults=1), History(3, node_faults=2), 2.0),
        (protocol.INPUT, History(3, node_faults=2), History(4, node_faults=3), 4.0),
        (protocol.PREEMPTED, History(9, 1, 3, 2), History(10, 1, 3, 2), 0.0),
        (LOST, History(), History(2, crashes=1), 0.0),
        (LOST, History(5, 1, 2, 1), History(6, 1, 2, 2), 0.0),
    ],
)
def test_an_attempt_after_which_its_task_runs_again(
    outcome: str, history: History, following: History, delay_s: float
) -> None:
    assert judge(outcome, 1, "said", history, LIMITS) == Again(following, delay_s, "said")


@pytest.mark.parametrize(
    ("exit_code", "signal", "outcome", "delay_s"),
    [
        (75, None, protocol.EXITED, 60.0),
        (None, 9, protocol.EXITED, 60.0),
        (None, 9, protocol.WALL_TIME, 60.0),
        (1, None, protocol.EXITED, None),
        (None, 15, protocol.EXITED, None),
    ],
)
def test_retries_by_exit_code(exit_code: int | None, signal: int | None, outcome: str, delay_s: float | None) -> None:
    limits = Limits(3, 0, 1, retry_on=(75, 137), backoff_s=30.0)
    verdict = judge(outcome, exit_code, "", History(2, failures=1), limits, signal)
    assert (verdict.delay_s if isinstance(verdict, Again) else None) == delay_s
    longest = judge(protocol.EXITED, 75, "", History(90, failures=90), replace(limits, retries=100))
    assert isinstance(longest, Again)
    assert longest.delay_s == 3600.0


@given(st.sampled_from([*protocol.OUTCOMES, *SERVER_ONLY]), st.sampled_from([0, 1, None]))
def test_every_task_ends_after_a_bounded_number_of_attempts(outcome: str, exit_code: int | None) -> None:
    history, attempts = History(), 1
    while isinstance(verdict := judge(outcome, exit_code, "", history, LIMITS), Again):
        assert verdict.history.attempt == history.attempt + 1
        assert 0 <= verdict.delay_s <= 60
        history, attempts = verdict.history, attempts + 1
    assert attempts <= 1 + max(LIMITS.retries, LIMITS.node_retries, LIMITS.crash_limit - 1)


def test_back_off_after_faults_of_nodes_is_bounded() -> None:
    verdict = judge(protocol.NODE, None, "", History(50, node_faults=49), Limits(0, 100, 3))
    assert isinstance(verdict, Again)
    assert verdict.delay_s == 60.0


@pytest.mark.parametrize(
    ("outcome", "exit_code", "signal", "said"),
    [
        (protocol.EXITED, 0, None, 0),
        (protocol.EXITED, 3, None, 3),
        (protocol.EXITED, None, 15, 143),
        (protocol.WALL_TIME, None, 9, 137),
        (protocol.MEMORY, None, 9, 137),
        (protocol.KILLED, None, 15, 137),
        (NEVER_RAN, None, None, 137),
        (protocol.NOT_STARTED, None, None, 127),
        (protocol.SETUP, None, None, 1),
        (protocol.INPUT, None, None, HANSA_EXIT),
        (protocol.OUTPUT, 0, None, HANSA_EXIT),
        (protocol.NODE, None, None, HANSA_EXIT),
        (LOST, None, None, HANSA_EXIT),
    ],
)
def test_exit_codes(outcome: str, exit_code: int | None, signal: int | None, said: int) -> None:
    assert exit_code_of(outcome, exit_code, signal) == said


@pytest.mark.parametrize(
    ("counts", "was_leased", "phase"),
    [
        (Counts(3, 0, 0, 0, 0), False, Phase.WAITING),
        (Counts(3, 0, 0, 0, 0), True, Phase.RUNNING),
        (Counts(0, 1, 2, 1, 0), True, Phase.RUNNING),
        (Counts(0, 0, 3, 0, 0), True, Phase.DONE),
        (Counts(0, 0, 2, 0, 1), True, Phase.KILLED),
        (Counts(0, 0, 1, 1, 1), True, Phase.FAILED),
    ],
)
def test_the_phase_of_a_job(counts: Counts, was_leased: bool, phase: Phase) -> None:
    assert phase_of(counts, was_leased=was_leased) is phase


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (Counts(0, 0, 1, 0, 0), "Done, 1.5 s after submission."),
        (Counts(0, 0, 0, 1, 0), "Failed, 1.5 s after submission."),
        (Counts(0, 0, 0, 0, 1), "Killed, 1.5 s after submission."),
        (Counts(0, 0, 1200, 2, 0), "1,200 of 1,202 tasks done, 2 failed, 1.5 s after submission."),
        (Counts(0, 0, 1, 1, 1), "1 of 3 tasks done, 1 failed, 1 killed, 1.5 s after submission."),
    ],
)
def test_the_sentence_at_the_end(counts: Counts, said: str) -> None:
    assert ending_message(counts, 1.5) == said


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (("exited", 3, None, ""), "exit code 3"),
        (("exited", None, 9, ""), "signal 9"),
        (("memory", None, 9, "used 178 MiB, asked for 100 MiB"), "used 178 MiB, asked for 100 MiB"),
        (("never_ran", None, None, ""), "never ran"),
    ],
)
def test_how_a_task_ended(end: tuple[str, int | None, int | None, str], said: str) -> None:
    assert how_it_ended(*end) == said
    assert said in ending_message(Counts(0, 0, 0, 1, 0), 1.5, how_it_ended(*end))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (3.21, "3.2 s"), (60, "1 min 00 s"), (245.4, "4 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@given(st.sets(st.integers(0, 200)))
def test_ranges_hold_exactly_the_indices_and_do_not_touch(indices: set[int]) -> None:
    found = ranges(sorted(indices))
    assert [index for first, last in found for index in range(first, last + 1)] == sorted(indices)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))


@given(st.integers(0, 100), st.integers(0, 100), st.data())
def test_a_split_range_lacks_exactly_what_was_left_out(first: int, size: int, data: st.DataObject) -> None:
    whole = range(first, first + size)
    without = sorted(data.draw(st.sets(st.sampled_from(whole)))) if size else []
    found = split_range(first, first + size - 1, without)
    assert all(start <= end for start, end in found)
    assert [i for start, end in found for i in range(start, end + 1)] == [i for i in whole if i not in without]


@pytest.mark.parametrize(
    ("waiting", "live", "limit", "start"), [(0, 0, 1, 0), (5, 0, 1, 1), (5, 1, 1, 0), (5, 1, 4, 3), (2, 0, 4, 2)]
)
def test_how_many_pilots_to_start(waiting: int, live: int, limit: int, start: int) -> None:
    assert pilots_to_start(waiting, live, limit) == start


def test_final_phases() -> None:
    assert {phase for phase in Phase if phase.is_final} == {Phase.DONE, Phase.FAILED, Phase.KILLED}
    assert {phase for phase in PilotPhase if phase.is_final} == {PilotPhase.ENDED, PilotPhase.LOST}
