"""Damping, availability and reliability: examples, and properties that hold for whatever happens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hansa.sites.health import (
    FAILURES,
    STEADY,
    Damping,
    Figures,
    Span,
    State,
    combine,
    days,
    figures,
    judge,
    months,
    timeline,
)
from hansa.sites.kinds.base import Answer
from hansa.sites.model import Downtime, Health, Severity

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def at(hours: float) -> datetime:
    return T0 + hours * HOUR


def span(begins: float, ends: float, answer: Answer = Answer.UP) -> Span:
    return Span(at(begins), at(ends), answer)


def outage(begins: float, ends: float, *, planned: bool = True, severity: Severity = Severity.OUTAGE) -> Downtime:
    return Downtime("d", severity, planned, at(begins), at(ends))


def of_day(spans: list[Span], *downtimes: Downtime) -> Figures:
    return figures(timeline(spans, downtimes, T0, T0 + DAY), T0, T0 + DAY)


class Story:
    """Probes, one after the other."""

    def __init__(self) -> None:
        self.health, self.damping, self.now = Health.UNKNOWN, Damping(), T0
        self.again_s = 0.0

    def probe(self, *answers: Answer, gap: timedelta = timedelta(minutes=5)) -> Health:
        for answer in answers:
            self.now += gap
            found = judge(self.health, Damping.load(self.damping.store()), answer, self.now, 300)
            self.health, self.damping, self.again_s = found.health, found.damping, found.again_s
        return self.health


UP, DOWN = Answer.UP, Answer.DOWN


def test_the_first_probe_decides_at_once() -> None:
    assert Story().probe(UP) is Health.UP
    assert Story().probe(DOWN) is Health.DOWN


def test_one_failure_brings_a_second_look_soon_and_two_in_a_row_bring_it_down() -> None:
    story = Story()
    assert story.probe(UP, DOWN) is Health.UP
    assert story.again_s == 30
    assert story.probe(DOWN) is Health.DOWN
    assert story.again_s == 300
    assert story.probe(UP) is Health.DOWN
    assert story.again_s == 30
    assert story.probe(UP) is Health.UP


def test_failures_that_are_not_in_a_row_change_nothing() -> None:
    assert Story().probe(*[UP, DOWN] * 10) is Health.UP


def test_who_goes_up_and_down_too_often_gets_work_only_after_a_steady_time() -> None:
    story = Story()
    story.probe(UP)
    gap = timedelta(minutes=2)
    assert story.probe(DOWN, DOWN, UP, UP, gap=gap) is Health.UP
    assert story.probe(DOWN, DOWN, UP, UP, gap=gap) is Health.FLAPPING
    assert not Health.FLAPPING.takes_work
    changed = story.now
    while story.now - changed < STEADY - gap:
        assert story.probe(UP, gap=gap) is Health.FLAPPING
    assert story.probe(UP, gap=gap) is Health.UP


def test_what_is_not_the_sites_fault_is_no_failure() -> None:
    story = Story()
    assert story.probe(UP, Answer.UNKNOWN) is Health.UNKNOWN
    assert Health.UNKNOWN.takes_work
    assert story.probe(Answer.LOGIN) is Health.LOGIN
    assert not Health.LOGIN.takes_work
    assert story.probe(UP) is Health.UP


@given(st.lists(st.sampled_from(list(Answer)), max_size=60), st.integers(1, 900))
def test_it_takes_no_work_after_two_failures_in_a_row_and_never_loses_it_by_one(
    answers: list[Answer], gap_s: int
) -> None:
    story = Story()
    failures = 0
    for answer in answers:
        before = story.health
        after = story.probe(answer, gap=timedelta(seconds=gap_s))
        failures = failures + 1 if answer is DOWN else 0
        if failures >= FAILURES:
            assert not after.takes_work
        if before is Health.UP and failures == 1:
            assert after is Health.UP
        assert len(story.damping.changes) <= 3600 // gap_s + 1


def test_availability_is_of_the_known_time_and_reliability_spares_planned_downtime() -> None:
    found = of_day([span(0, 12), span(12, 18, DOWN)], outage(12, 15))
    assert (found.up_s, found.down_s, found.downtime_s, found.unknown_s) == (43200, 10800, 10800, 21600)
    assert found.availability == 12 / 18
    assert found.reliability == 12 / 15


def test_a_failure_that_is_called_a_downtime_afterwards_is_still_a_failure() -> None:
    found = of_day([span(0, 12), span(12, 24, DOWN)], outage(12, 24, planned=False))
    assert found.availability == found.reliability == 0.5
    assert of_day([span(0, 24)], outage(0, 24, severity=Severity.AT_RISK)).availability == 1


def test_nothing_known_is_no_figure() -> None:
    assert of_day([]).availability is None
    assert of_day([], outage(0, 24)).reliability is None
    assert of_day([span(0, 24)], outage(0, 24)).availability == 0


def test_of_endpoints_of_a_kind_either_will_do_and_of_kinds_all_are_needed() -> None:
    first = timeline([span(0, 12), span(12, 24, DOWN)], [], T0, T0 + DAY)
    second = timeline([span(0, 12, DOWN), span(12, 24)], [], T0, T0 + DAY)
    same = combine({"openstack": [first, second]}, T0, T0 + DAY)
    assert figures(same, T0, T0 + DAY).availability == 1
    other = combine({"openstack": [first], "slurm": [second]}, T0, T0 + DAY)
    assert figures(other, T0, T0 + DAY).availability == 0
    assert [one.state for one in other] == [State.DOWN]


def test_days_and_months() -> None:
    assert [one[0] for one in days(at(12), at(49))] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert months(at(12), T0 + 40 * DAY) == [
        ("2026-01", at(12), T0 + 31 * DAY),
        ("2026-02", T0 + 31 * DAY, T0 + 40 * DAY),
    ]


hours = st.floats(-10, 60, allow_nan=False)
spans_ = st.lists(st.tuples(hours, hours, st.sampled_from(list(Answer))), max_size=12).map(
    lambda found: [span(min(a, b), max(a, b), answer) for a, b, answer in found]
)
outages_ = st.lists(st.tuples(hours, hours, st.booleans(), st.sampled_from(list(Severity))), max_size=6).map(
    lambda found: [outage(min(a, b), max(a, b) + 0.01, planned=p, severity=s) for a, b, p, s in found]
)


@given(spans_, outages_)
def test_a_timeline_is_whole_and_its_seconds_add_up(spans: list[Span], downtimes: list[Downtime]) -> None:
    end = T0 + 2 * DAY
    pieces = timeline(spans, downtimes, T0, end)
    assert pieces[0].begins == T0
    assert pieces[-1].ends == end
    assert all(one.ends == two.begins and one.state != two.state for one, two in pairwise(pieces))
    whole = figures(pieces, T0, end)
    assert abs(whole.up_s + whole.down_s + whole.unknown_s + whole.downtime_s - 2 * 86400) < 1e-3
    parts = [figures(pieces, begins, ends) for _, begins, ends in days(T0, end)]
    assert abs(sum(one.up_s for one in parts) - whole.up_s) < 1e-3
    for one in (whole, *parts):
        assert one.availability is None or 0 <= one.availability <= 1
        if one.availability is not None and one.reliability is not None:
            assert one.reliability >= one.availability


@given(spans_, outages_)
def test_announcing_a_downtime_never_lowers_reliability_nor_raises_availability(
    spans: list[Span], downtimes: list[Downtime]
) -> None:
    end = T0 + 2 * DAY
    before = figures(timeline(spans, [], T0, end), T0, end)
    after = figures(timeline(spans, downtimes, T0, end), T0, end)
    assert after.up_s <= before.up_s + 1e-6
    assert after.down_s <= before.down_s + 1e-6
