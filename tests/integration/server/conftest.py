"""Real servers, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.serverprocess import ServerProcess


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Servers that are ended, with their pilots, when the test is over."""
    made: list[ServerProcess] = []

    def make(name: str = "home", **settings: str) -> ServerProcess:
        server = ServerProcess(tmp_path / name, **settings)
        made.append(server)
        return server

    yield make
    for server in made:
        server.end()


@pytest.fixture
def server(make_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server that answers, with the embedded database."""
    return make_server().start()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_server(request: pytest.FixtureRequest, make_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server that answers, on either database."""
    if request.param == "sqlite":
        return make_server().start()
    return make_server(database__url=str(request.getfixturevalue("postgres_database"))).start()
