from __future__ import annotations

import time
import uuid

import pytest

from hansa.kernel.ids import new_id


def test_an_id_is_a_uuid7_behind_its_prefix() -> None:
    prefix, _, digits = new_id("pilot").partition("_")
    value = uuid.UUID(digits)
    assert prefix == "pilot"
    assert value.version == 7
    assert value.variant == uuid.RFC_4122


def test_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for second in range(1_700_000_000, 1_700_000_100):
        monkeypatch.setattr(time, "time_ns", lambda second=second: second * 10**9)
        made.append(new_id("job"))
    assert made == sorted(made)
    assert int(made[0].removeprefix("job_")[:12], 16) == 1_700_000_000_000


def test_ids_of_one_moment_differ() -> None:
    assert len({new_id("job") for _ in range(10_000)}) == 10_000
