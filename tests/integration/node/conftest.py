"""Real pilots against a fake server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node_server import FakeServer
from tests.support.pilots import Pilot


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.shutdown()
    fake.server_close()
    assert fake.faults == []


@pytest.fixture
def make_pilot(tmp_path: Path, server: FakeServer) -> Iterator[Callable[..., Pilot]]:
    made: list[Pilot] = []

    def make(**settings: Any) -> Pilot:
        pilot = Pilot(tmp_path, server, **settings)
        made.append(pilot)
        return pilot

    yield make
    for pilot in made:
        pilot.kill()


@pytest.fixture
def pilot(make_pilot: Callable[..., Pilot]) -> Pilot:
    return make_pilot().start()
