"""What the engine decides without a database."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.kernel import errors
from hansa.kernel.clock import ManualClock
from hansa.kernel.reconcile import Act, Intent, Settle, Tuning, backoff_s, reconcile_columns
from hansa.kernel.reconcile.engine import _within
from tests.support.things import External, Thing, decide

TUNING = Tuning(backoff_base_s=2, backoff_cap_s=100)
NOW = ManualClock().now()


def test_back_off_doubles_up_to_the_cap() -> None:
    most = [backoff_s(attempt, TUNING, lambda: 1.0) for attempt in range(1, 9)]
    assert most == [2, 4, 8, 16, 32, 64, 100, 100]


@given(attempt=st.integers(1, 10**9), chance=st.floats(0, 1, exclude_max=True))
def test_back_off_is_full_jitter(attempt: int, chance: float) -> None:
    delay_s = backoff_s(attempt, TUNING, lambda: chance)
    assert 0 <= delay_s <= 100
    assert delay_s == pytest.approx(chance * backoff_s(attempt, TUNING, lambda: 1.0))


@given(attempt=st.integers(1, 100), retry_after_s=st.floats(0, 10**6), chance=st.floats(0, 1))
def test_nothing_is_tried_before_the_driver_allows_it(attempt: int, retry_after_s: float, chance: float) -> None:
    delay_s = backoff_s(attempt, TUNING, lambda: chance, retry_after_s)
    assert retry_after_s <= delay_s <= retry_after_s + TUNING.backoff_base_s


def test_back_off_spreads() -> None:
    chance = random.Random(1).random
    delays = [backoff_s(4, TUNING, chance) for _ in range(1000)]
    assert min(delays) < 1 < 15 < max(delays)


def test_an_intent_is_tried_again_only_if_it_is_the_same() -> None:
    intent = Intent("create", "key", 1, 3, {"size": 1})
    assert intent.is_for("create", 3, {"size": 1})
    assert not intent.is_for("delete", 3, {"size": 1})
    assert not intent.is_for("create", 4, {"size": 1})
    assert not intent.is_for("create", 3, {"size": 2})


def test_every_table_gets_columns_of_its_own() -> None:
    one, two = reconcile_columns(), reconcile_columns()
    assert [column.name for column in one] == [
        *("generation", "observed_generation", "due_at", "lease_token", "lease_until", "attempt", "intent")
    ]
    assert not set(map(id, one)) & set(map(id, two))


async def test_the_deadline_is_a_temporary_failure() -> None:
    with pytest.raises(errors.Temporary, match=r"within 0\.001 s"):
        await _within(0.001, asyncio.Event().wait())


async def test_the_timeout_of_somebody_else_is_not_the_deadline() -> None:
    async def fail() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await _within(10, fail())


# --- the pure decision of the room that the contract tests use ----------------------------------------------


def thing(**changes: object) -> Thing:
    values = {"key": "a", "size": 1, "is_wanted": True, "external_id": None, "generation": 1}
    return Thing(**{**values, "created_at": NOW - timedelta(hours=1), **changes})  # type: ignore[arg-type]


def external(number: int, size: int = 1) -> External:
    return External(number, "a", size, NOW)


@pytest.mark.parametrize(
    ("wanted", "seen", "decision"),
    [
        (thing(), (), Act("create", "thing.missing", {"size": 1})),
        (thing(), (external(1),), Settle("thing.ready")),
        (thing(), (external(1), external(2)), Act("delete", "thing.surplus", {"numbers": [2]})),
        (thing(external_id=2), (external(1), external(2)), Act("delete", "thing.surplus", {"numbers": [1]})),
        (thing(size=2), (external(1),), Act("delete", "thing.surplus", {"numbers": [1]})),
        (thing(is_wanted=False), (external(1),), Act("delete", "thing.surplus", {"numbers": [1]})),
        (thing(is_wanted=False), (), Settle("thing.gone")),
        (thing(created_at=NOW), (external(1),), Settle("thing.ready", NOW + timedelta(seconds=30))),
    ],
)
def test_decisions(wanted: Thing, seen: tuple[External, ...], decision: Act | Settle) -> None:
    assert decide(wanted, seen, NOW) == decision
