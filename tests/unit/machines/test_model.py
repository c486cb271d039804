"""Decisions about machines: single ones by hand, and whatever may come by property."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.kernel.reconcile import Act, Settle
from hansa.machines import model
from hansa.machines.drivers.base import Guest, Life, Observed
from hansa.machines.model import TRANSITIONS, Machine, Phase, Seen, Turn, Wanted, decide
from hansa.placement import failover
from hansa.placement.failover import Course

T0 = datetime(2026, 11, 26, 12, tzinfo=UTC)
PLACES = ("alpha", "beta/cloud")


def machine(phase: Phase = Phase.WAITING, **values: Any) -> Machine:
    course = Course(PLACES, limit=3, timeout_s=600.0)
    if phase not in (Phase.WAITING, Phase.DELETED):
        course = failover.has_started(course, "alpha", T0)
    if phase not in (Phase.WAITING, Phase.CREATING, Phase.DELETED):
        course = failover.has_succeeded(course, "alpha")
    defaults: dict[str, Any] = {"course": course, "created": T0, "since": T0, "wanted": Wanted.RUNNING}
    return Machine("machine_1", phase, **(defaults | values))


def seen(life: Life = Life.RUNNING, **values: Any) -> Seen:
    return Seen(Observed("p-1", life, **values))


def test_a_new_one_begins_at_the_first_place_before_anything_is_done_there() -> None:
    turn = decide(machine(), Seen(), T0)
    assert isinstance(turn, Turn)
    assert (turn.phase, turn.starts_at) == (Phase.CREATING, "alpha")
    assert turn.changes["course"].current.place == "alpha"


def test_it_is_created_where_nothing_is_and_the_image_is_there() -> None:
    creating = machine(Phase.CREATING)
    assert decide(creating, Seen(), T0) == Act(model.CREATE, "machines.creating", {"place": "alpha"})
    waiting = decide(creating, Seen(None, "The image is fetching."), T0)
    assert isinstance(waiting, Turn)
    assert waiting.message == "The image is fetching."


def test_surplus_is_trimmed_before_anything_else() -> None:
    extra = seen(surplus=("p-2",))
    for phase in (Phase.CREATING, Phase.RUNNING):
        assert decide(machine(phase), extra, T0) == Act(model.TRIM, "machines.surplus", {"place": "alpha"})


def test_what_takes_too_long_is_given_up_and_cleaned() -> None:
    late = T0 + timedelta(seconds=601)
    turn = decide(machine(Phase.CREATING), seen(Life.BUILDING), late)
    assert isinstance(turn, Turn)
    course = turn.changes["course"]
    assert course.current is None
    following = decide(machine(Phase.CREATING, course=course), Seen(), late)
    assert isinstance(following, Turn)
    assert following.starts_at == "beta/cloud"
    begun = machine(Phase.CREATING, course=following.changes["course"])
    assert decide(begun, Seen(), late) == Act(model.DELETE, "machines.cleaning", {"place": "alpha"})


def test_a_missing_one_is_lost_only_after_a_while() -> None:
    running = machine(Phase.RUNNING)
    first = decide(running, Seen(), T0)
    assert isinstance(first, Turn)
    assert first.changes == {"missing_since": T0}
    missing = replace(running, missing_since=T0)
    assert not isinstance(decide(missing, Seen(), T0 + timedelta(seconds=30)), Turn)
    lost = decide(missing, Seen(), T0 + timedelta(seconds=61))
    assert isinstance(lost, Turn)
    assert (lost.phase, lost.reason) == (Phase.FAILED, "machines.lost")
    again = decide(replace(missing, restart=True), Seen(), T0 + timedelta(seconds=61))
    assert isinstance(again, Turn)
    assert (again.phase, again.reason) == (Phase.CREATING, "machines.restarting")


def test_its_end_comes_in_three_steps() -> None:
    ends = T0 + timedelta(days=7)
    running = machine(Phase.RUNNING, expires=ends)
    day = timedelta(days=1)
    assert decide(running, seen(), ends - day * 1.1).reason == "machines.running"
    assert decide(running, seen(), ends - day).reason == "machines.expires_soon"
    warned = replace(running, warned=True)
    over = decide(warned, seen(), ends)
    assert isinstance(over, Turn)
    assert over.changes == {"wanted": "stopped"}
    gone = decide(replace(warned, phase=Phase.STOPPED, wanted=Wanted.STOPPED), seen(Life.STOPPED), ends + day * 7)
    assert isinstance(gone, Turn)
    assert gone.changes == {"wanted": "deleted"}


def test_no_look_is_later_than_its_end() -> None:
    ends = T0 + timedelta(seconds=1000)
    running = machine(Phase.RUNNING, expires=ends, warned=True, running_since=T0)
    verdict = decide(running, seen(), T0 + timedelta(seconds=990))
    assert isinstance(verdict, Settle)
    assert verdict.due_at == ends


moments = st.integers(0, 40 * 86_400).map(lambda s: T0 + timedelta(seconds=s))


@st.composite
def courses(draw: st.DrawFn) -> Course:
    course = Course(PLACES, limit=draw(st.integers(1, 3)), timeout_s=600.0)
    for place in PLACES[: draw(st.integers(0, 2))]:
        if course.current is not None or failover.is_over(course):
            break
        course = failover.has_started(course, place, draw(moments))
        match draw(st.sampled_from(["starting", "running", "failed", "cleaned", "dirty"])):
            case "running":
                course = failover.has_succeeded(course, place)
            case "failed":
                course = failover.has_failed(course, place, "why")
            case "cleaned":
                course = failover.is_cleaned(failover.has_failed(course, place, "why"), place)
            case "dirty":
                course = failover.could_not_clean(failover.has_failed(course, place, "why"), place, draw(moments))
            case _:
                pass
    return course


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    course = draw(courses())
    if course.current is None:
        phases = [Phase.WAITING, Phase.CREATING, Phase.DELETING, Phase.FAILED, Phase.DELETED]
    elif course.current.state is failover.Try.STARTING:
        phases = [Phase.CREATING]
    else:
        phases = [Phase.RUNNING, Phase.STOPPING, Phase.STOPPED, Phase.STARTING, Phase.RESIZING, Phase.FAILED]
    phase = draw(st.sampled_from(phases))
    if phase is Phase.DELETED:
        course = Course(PLACES)
    wanted = Wanted.DELETED if phase is Phase.DELETING else draw(st.sampled_from(Wanted))
    return Machine(
        "machine_1", phase, wanted, course, T0, draw(moments), draw(st.none() | moments), draw(st.booleans()),
        draw(st.booleans()), draw(st.booleans()), draw(st.booleans()), draw(st.none() | st.just("m1.large")),
        draw(st.integers(0, 2)), draw(st.none() | moments), draw(st.none() | moments), draw(st.none() | moments),
    )  # fmt: skip


@st.composite
def sights(draw: st.DrawFn) -> Seen:
    if draw(st.booleans()):
        return Seen(None, draw(st.none() | st.just("wait")))
    found = Observed(
        "p-1", draw(st.sampled_from(Life)), public=draw(st.sampled_from([(), ("198.51.100.1",)])),
        guest=draw(st.sampled_from(Guest)), surplus=draw(st.sampled_from([(), ("p-2",)])),
    )  # fmt: skip
    return Seen(found)


@settings(max_examples=300, deadline=None)
@given(machines(), sights(), moments)
def test_nothing_lives_longer_than_its_site_lets_it(one: Machine, sight: Seen, now: datetime) -> None:
    verdict = decide(one, sight, now)
    if one.place is None or one.wanted is Wanted.DELETED or one.site_ends is None or now < one.site_ends:
        return
    assert isinstance(verdict, Turn)
    assert (verdict.reason, verdict.changes) == ("machines.site_ended", {"wanted": "deleted"})


@settings(max_examples=1500, deadline=None)
@given(machines(), sights(), moments)
def test_every_decision_is_allowed_and_says_why(one: Machine, sight: Seen, now: datetime) -> None:
    verdict = decide(one, sight, now)
    assert verdict.reason
    if isinstance(verdict, Act):
        place = verdict.arguments["place"]
        assert place in [attempt.place for attempt in one.course.attempts]  # written down before anything is done
        assert verdict.operation != model.CREATE or sight.machine is None
        assert verdict.operation != model.DELETE or (
            one.wanted is Wanted.DELETED or place != one.place or (one.restart and "why" in verdict.arguments)
        )
    else:
        assert verdict.due_at is None or isinstance(verdict.due_at, datetime)
    if isinstance(verdict, Turn):
        assert verdict.phase in (None, one.phase) or verdict.phase in TRANSITIONS[one.phase]
        assert verdict.message
        assert verdict.phase is not Phase.DELETED or all(attempt.is_clean for attempt in one.course.attempts)


@settings(max_examples=300, deadline=None)
@given(machines(), st.integers(0, 2**32))
def test_whatever_it_is_in_it_can_be_deleted_and_comes_to_rest(one: Machine, seed: int) -> None:
    """Driven by its own decisions, with a provider that deletes at once, a machine ends in a few steps."""
    now = T0 + timedelta(days=50)
    one = replace(one, wanted=Wanted.DELETED)
    for _ in range(20):
        verdict = decide(one, Seen(), now)
        if isinstance(verdict, Act):
            assert verdict.operation == model.DELETE
            one = replace(one, course=failover.is_cleaned(one.course, verdict.arguments["place"]))
        elif isinstance(verdict, Turn):
            one = replace(one, phase=verdict.phase or one.phase, course=verdict.changes.get("course", one.course))
        else:
            now = verdict.due_at or now
        if one.phase is Phase.DELETED:
            return
    raise AssertionError(f"it did not come to rest: {one}")
