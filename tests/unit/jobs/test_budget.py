"""How many tasks what is left of a grant is enough for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hansa.jobs.budget import NO_LIMIT, Size, affordable
from hansa.sites.capacity_model import Held, Left

TASK = Size(core_ms=1000, cores=4, memory_mib=100, gpus=1)


def pilot(nodes: int = 1) -> Any:
    return SimpleNamespace(cores=4, memory_mib=100, gpus=["a100"], nodes=nodes)


@pytest.mark.parametrize(
    ("left", "own", "nodes", "count"),
    [
        (Left(), Held(), 1, NO_LIMIT),
        (Left(core_ms=2500), Held(core_ms=1000), 1, 1),
        (Left(cores=4), Held(), 1, NO_LIMIT),  # it has no more than that
        (Left(cores=3), Held(), 1, 0),
        (Left(memory_mib=99), Held(), 1, 0),
        (Left(gpus=0), Held(), 1, 0),
        (Left(cores=7), Held(), 2, 1),
        (Left(cores=7), Held(cores=4), 2, 0),
        (Left(memory_mib=150), Held(memory_mib=100), 2, 0),
        (Left(gpus=1), Held(gpus=1), 2, 0),
    ],
)
def test_what_is_left_bounds_what_a_pilot_gets(left: Left, own: Held, nodes: int, count: int) -> None:
    assert affordable(left, own, TASK, pilot(nodes)) == count
