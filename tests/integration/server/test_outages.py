"""A network that is cut, and a database that crashes, while an array runs: nothing lost, nothing twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.server.test_kills import COUNT, NAP, all_is_well, await_progress
from tests.support import postgres
from tests.support.cable import DOWN, UP, Cable
from tests.support.postgres import PostgresServer, free_port
from tests.support.serverprocess import ServerProcess, eventually


@pytest.fixture
def wired(make_server: Callable[..., ServerProcess]) -> Iterator[tuple[ServerProcess, Cable]]:
    """A server that pilots reach by a cable. The test reaches it directly."""
    port = free_port()
    cable = Cable(port)
    server = make_server(server__port=str(port), server__url=f"http://127.0.0.1:{cable.port}")
    server.direct = f"http://127.0.0.1:{port}"
    yield server.start(), cable
    cable.cut = frozenset()
    server.end()
    cable.stop()


def assert_none_given_up(server: ServerProcess) -> None:
    with server.client() as client:
        pilots = client.get("/pilots").raise_for_status().json()["items"]
    assert pilots
    assert [one for one in pilots if one["status"]["phase"] == "lost"] == []


async def test_the_network_is_cut_in_each_direction(wired: tuple[ServerProcess, Cable]) -> None:
    server, cable = wired
    number = server.array(COUNT, *NAP)
    await_progress(server, number, 20)
    for cut in ({UP}, {DOWN}, {UP, DOWN}):
        cable.cut = frozenset(cut)
        time.sleep(1.0)
        cable.cut = frozenset()
        time.sleep(0.2)
    await all_is_well(server, number, COUNT)
    assert_none_given_up(server)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cut", [{UP}, {DOWN}, {UP, DOWN}], ids=["up", "down", "both"])
async def test_a_minute_without_a_network(wired: tuple[ServerProcess, Cable], cut: set[str]) -> None:
    """Longer than any time-out of a request: pilots give connections up and report on new ones."""
    server, cable = wired
    number = server.array(COUNT, *NAP)
    await_progress(server, number, 20)
    cable.cut = frozenset(cut)
    time.sleep(60.0)
    cable.cut = frozenset()
    await all_is_well(server, number, COUNT)
    assert_none_given_up(server)


@pytest.fixture
def mortal_postgres() -> Iterator[PostgresServer]:
    programs = postgres.find_programs()
    if programs is None:
        pytest.skip(postgres.ADVICE)
    # Our connections turn it on; else what was committed in the last seconds would be lost.
    server = postgres.start_server(programs, synchronous_commit="off", wal_writer_delay="10s")
    yield server
    server.stop()


async def test_the_database_crashes(mortal_postgres: PostgresServer, make_server: Callable[..., ServerProcess]) -> None:
    url = mortal_postgres.url(mortal_postgres.create_database())
    server = make_server(database__url=url).start()
    number = server.array(COUNT, *NAP)
    await_progress(server, number, 20)
    mortal_postgres.crash()
    assert server.pilots(), "the pilot works on"
    time.sleep(0.5)
    mortal_postgres.restart()
    eventually(server.is_ready, "the same server goes on")
    await all_is_well(server, number, COUNT)
    assert server.starts == 1
    server.end()
