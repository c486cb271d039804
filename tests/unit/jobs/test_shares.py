"""Fair shares."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.jobs.shares import Claim, Key, divide, order, period_of, scaled, standings, worth

NOW = datetime(2026, 11, 25, tzinfo=UTC)
DAY = 86400.0
NAMES = st.sampled_from(["", "a", "b"])
CLAIMS = st.lists(
    st.builds(Claim, NAMES, NAMES, st.sampled_from("uvw"), st.integers(0, 50), st.integers(0, 50)),
    max_size=12,
    unique_by=lambda claim: claim.key,
)
USAGE = st.dictionaries(st.tuples(NAMES, NAMES, st.sampled_from("uvw")), st.floats(0, 1e9), max_size=10)
WEIGHTS = st.dictionaries(st.tuples(st.sampled_from(["", "a", "a/b"]), NAMES), st.floats(0.01, 100), max_size=6)


@given(st.integers(0, 300), CLAIMS, USAGE, WEIGHTS, st.integers(1, 7))
def test_nothing_is_left_while_somebody_wants_and_nobody_gets_more_than_it_wants(
    cores: int,
    claims: list[Claim],
    usage: dict[Key, float],
    weights: dict[tuple[str, str], float],
    quantum: int,
) -> None:
    given = divide(cores, claims, usage, weights, quantum=quantum)
    assert sum(given.values()) == min(cores, sum(claim.cores for claim in claims))
    wanted = {claim.key: claim.cores for claim in claims}
    assert all(0 < count <= wanted[key] for key, count in given.items())


@given(CLAIMS, USAGE, WEIGHTS)
def test_everybody_who_wants_has_a_turn_and_the_first_one_gets_the_first_core(
    claims: list[Claim], usage: dict[Key, float], weights: dict[tuple[str, str], float]
) -> None:
    turns = order(claims, usage, weights)
    assert sorted(claim.key for claim in turns) == sorted(claim.key for claim in claims if claim.cores)
    assert divide(0, claims, usage, weights) == {}
    alone = [claim for claim in claims if claim.cores]
    if turns:
        assert divide(1, alone, {}, weights) == {order(alone, {}, weights)[0].key: 1} or len(alone) > 1


@given(st.integers(1, 10), st.integers(1, 10), st.integers(1, 10))
def test_shares_follow_the_weights(one: int, two: int, three: int) -> None:
    claims = [Claim(name, "", "u", 10_000) for name in "abc"]
    total = one + two + three
    given = divide(total * 100, claims, {}, {("", "a"): one, ("", "b"): two, ("", "c"): three})
    assert given == pytest.approx(
        {("a", "", "u"): one * 100, ("b", "", "u"): two * 100, ("c", "", "u"): three * 100}, abs=2
    )


def test_users_of_a_large_vo_share_what_is_its_own() -> None:
    claims = [Claim("big", "", f"u{n}", 1000) for n in range(9)] + [Claim("small", "", "v", 1000)]
    given = divide(900, claims, {}, {})
    assert given["small", "", "v"] == 450
    assert {given["big", "", f"u{n}"] for n in range(9)} == {50}


def test_groups_share_what_is_their_vos_whatever_their_size_by_their_weights_and_use() -> None:
    claims = [Claim("a", "large", f"u{n}", 1000) for n in range(9)] + [Claim("a", "small", "v", 1000)]
    given = divide(900, claims, {}, {})
    assert given["a", "small", "v"] == 450
    assert {given["a", "large", f"u{n}"] for n in range(9)} == {50}
    given = divide(1200, claims, {}, {("a", "large"): 3.0})
    assert given["a", "small", "v"] == 300
    assert {given["a", "large", f"u{n}"] for n in range(9)} == {100}
    assert order(claims, {("a", "small", "w"): 1.0}, {})[-1].group == "small", "another of its users has used something"


def test_who_has_used_much_waits_until_others_have_caught_up() -> None:
    claims = [Claim("a", "", "u", 100), Claim("b", "", "u", 100)]
    given = divide(60, claims, {("a", "", "u"): 40 * 3600.0}, {})
    assert given == {("b", "", "u"): 50, ("a", "", "u"): 10}
    assert [claim.vo for claim in order(claims, {("a", "", "u"): 1.0}, {})] == ["b", "a"]
    assert [claim.vo for claim in order([Claim("a", "", "u", 1, 5), claims[1]], {}, {})] == ["b", "a"]


@given(st.lists(st.tuples(st.floats(0, 30 * DAY), st.floats(0, 1e6)), max_size=20), st.floats(DAY, 30 * DAY))
def test_what_is_kept_by_periods_is_the_sum_of_what_decayed_alone(
    events: list[tuple[float, float]], half_life_s: float
) -> None:
    period, amount = 0, 0.0
    for at, used in sorted(events):
        now = NOW + timedelta(seconds=at)
        new = period_of(now, half_life_s)
        amount = amount / 2.0 ** min(60, new - period) + scaled(used, now, half_life_s)
        period = new
    later = NOW + timedelta(days=31)
    exact = sum(used * 2.0 ** -((31 * DAY - at) / half_life_s) for at, used in events)
    assert worth(amount, period, later, half_life_s) == pytest.approx(exact, rel=1e-6, abs=1e-9)


def test_standings() -> None:
    usage = {("a", "", "u"): 30.0, ("a", "", "v"): 10.0, ("b", "g", "u"): 60.0}
    found = {(one.parent, one.name): (one.due, one.used) for one in standings(usage, {("", "a"): 3.0, ("", "c"): 4.0})}
    assert found["", "a"] == (3 / 8, 0.4)
    assert found["", "c"] == (4 / 8, 0.0)
    assert found["a/", "u"] == (0.5, 0.75)
    assert found["b", "g"] == (1.0, 1.0)
