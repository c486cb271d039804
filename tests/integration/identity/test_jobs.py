"""New work is for a VO, and a suspended one starts none."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from hansa.server.launch import stop_server
from tests.support.identity import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("identity") / "home", {"HANSA_LOCAL__ENABLED": "true"}).start()
    try:
        yield made
    finally:
        stop_server(made.home)
        made.close()


def submitted(api: httpx.Client, vo: str | None = None) -> str | None:
    """The VO of a new job, or the code of why there is none."""
    answer = api.post("/jobs", json={"command": ["true"], "requirements": {}, **({"vo": vo} if vo else {})})
    found = answer.json()
    vo_or_code: str | None = found.get("vo") if answer.status_code == 201 else found["code"]
    return vo_or_code


def test_the_vo_of_a_job(server: Server) -> None:
    api = server.operator()
    assert submitted(api) is None
    assert submitted(api, "vo.a") == "identity.no_vo"
    api.post("/vos", json={"name": "vo.a"})
    assert submitted(api) == "vo.a"
    api.post("/vos", json={"name": "vo.b"})
    assert submitted(api) == "identity.vo_ambiguous"
    assert submitted(api, "vo.b") == "vo.b"
    api.post("/vos/vo.b/suspend", json={"why": "Ended"})
    assert submitted(api, "vo.b") == "identity.vo_suspended"
    assert submitted(api, "vo.a") == "vo.a"
    assert next(job["vo"] for job in api.get("/jobs").json()["items"]) == "vo.a"
    api.post("/vos/vo.b/resume")
    assert submitted(api, "vo.b") == "vo.b"
