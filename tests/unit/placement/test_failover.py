"""Failover: each step by hand, then any order of events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.placement import failover as f

T0 = datetime(2026, 1, 1, tzinfo=UTC)
COURSE = f.Course(("bari", "lyon", "cern"), limit=2, timeout_s=60)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def test_the_first_place_is_tried_first() -> None:
    assert f.decide(COURSE, T0) == [f.Start("bari")]


def test_while_it_starts_there_is_nothing_to_do_before_the_deadline() -> None:
    course = f.has_started(COURSE, "bari", T0)
    assert f.decide(course, at(59)) == [f.Wait(at(60))]
    (step,) = f.decide(course, at(60))
    assert step == f.TimeOut("bari", "It did not start within 60 s.")


def test_after_a_failure_the_next_place_is_tried_while_the_first_is_cleaned_up() -> None:
    course = f.has_failed(f.has_started(COURSE, "bari", T0), "bari", "No host was found.")
    assert f.decide(course, at(1)) == [f.CleanUp("bari"), f.Start("lyon")]
    course = f.has_started(course, "lyon", at(1))
    assert f.decide(course, at(1)) == [f.CleanUp("bari")]
    course = f.is_cleaned(course, "bari")
    course = f.has_succeeded(course, "lyon")
    assert f.decide(course, at(500)) == [f.Wait(None)]
    assert not f.is_over(course)
    assert course.causes == ("bari: No host was found",)


def test_at_the_limit_it_gives_up_with_all_causes_and_only_when_all_is_clean() -> None:
    course = COURSE
    for place, cause in (("bari", "No host."), ("lyon", "Quota exceeded.")):
        course = f.has_failed(f.has_started(course, place, T0), place, cause)
    assert f.is_over(course)
    assert f.decide(course, T0) == [f.CleanUp("bari"), f.CleanUp("lyon")]
    course = f.is_cleaned(f.could_not_clean(course, "lyon", T0), "bari")
    assert f.decide(course, T0) == [f.Wait(at(10))]
    assert f.decide(course, at(10)) == [f.CleanUp("lyon")]
    course = f.is_cleaned(course, "lyon")
    (end,) = f.decide(course, at(11))
    assert isinstance(end, f.GiveUp)
    assert end.is_clean
    assert end.message == (
        "It failed at 2 sites: bari: No host; lyon: Quota exceeded. 1 more was not tried: 2 is the limit."
    )


def test_where_there_is_no_place_it_says_so() -> None:
    assert f.decide(f.Course(()), T0) == [f.GiveUp("There is no site where it can run.", is_clean=True)]


def test_words_of_an_attempt_that_was_given_up_change_nothing() -> None:
    course = f.has_started(f.has_failed(f.has_started(COURSE, "bari", T0), "bari", "slow"), "lyon", T0)
    assert f.has_succeeded(course, "bari") == course
    assert f.has_failed(course, "bari", "again") == course


def test_a_place_is_tried_once_and_one_at_a_time() -> None:
    course = f.has_started(COURSE, "bari", T0)
    with pytest.raises(ValueError, match="bari is on"):
        f.has_started(course, "lyon", T0)
    with pytest.raises(ValueError, match="bari is not one"):
        f.has_started(f.has_failed(course, "bari", "x"), "bari", T0)


def test_a_new_order_keeps_what_was_tried() -> None:
    course = f.has_failed(f.has_started(COURSE, "bari", T0), "bari", "x")
    assert f.extended(course, ["bari", "wien"]).untried == ("wien",)


@given(st.lists(st.sampled_from(["ok", "fail", "time", "clean", "unclean"]), max_size=40), st.integers(1, 4))
def test_nothing_is_forgotten_whatever_happens(events: list[str], limit: int) -> None:
    course, now, made = f.Course(("a", "b", "c"), limit=limit, timeout_s=60), T0, set()
    for event in events:
        for step in f.decide(course, now):
            if isinstance(step, f.Start):
                course = f.has_started(course, step.place, now)
                made.add(step.place)
            elif isinstance(step, f.TimeOut):
                course = f.has_failed(course, step.place, step.cause)
            elif isinstance(step, f.CleanUp) and event in ("clean", "unclean"):
                if event == "clean":
                    course = f.is_cleaned(course, step.place)
                    made.discard(step.place)
                else:
                    course = f.could_not_clean(course, step.place, now)
            elif isinstance(step, f.GiveUp):
                assert not made
        current = course.current
        if current and event == "ok":
            course = f.has_succeeded(course, current.place)
        elif current and event == "fail":
            course = f.has_failed(course, current.place, "broken")
        now += timedelta(seconds=61 if event == "time" else 1)
        assert len(course.attempts) <= min(limit, 3)
        assert len({one.place for one in course.attempts}) == len(course.attempts)
        kept = {course.current.place} if course.current else set()
        assert made == kept | {one.place for one in course.attempts if one.state is f.Try.FAILED and not one.is_clean}
