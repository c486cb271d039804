"""One server for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.identity import Browser, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("identity") / "home").start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def ada(server: Server) -> Browser:
    """A browser in which ada, manager of vo.example.org, is signed in."""
    browser = server.account("ada")
    answer = server.operator().post("/vos", json={"name": "vo.example.org", "manager": "ada"})
    assert answer.status_code == 201, answer.text
    return browser
