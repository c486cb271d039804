"""Real servers, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer
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


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of a module that leave it as it was, with the embedded database."""
    server = ServerProcess(tmp_path_factory.mktemp("one") / "home")
    try:
        yield server.start()
    finally:
        server.end()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of a module that leave nothing behind in it, on either database."""
    settings, drop = {}, None
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres_server")
        name = postgres.create_database()
        settings["database__url"] = postgres.url(name)
        drop = lambda: postgres.drop_database(name)  # noqa: E731
    server = ServerProcess(tmp_path_factory.mktemp("shared") / "home", **settings)
    try:
        yield server.start()
    finally:
        server.end()
        if drop is not None:
            drop()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_server(request: pytest.FixtureRequest, make_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server that answers, on either database."""
    if request.param == "sqlite":
        return make_server().start()
    return make_server(database__url=str(request.getfixturevalue("postgres_database"))).start()
