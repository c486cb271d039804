"""A pilot's token that is void while the pilot works: it ends, others do its tasks, and nobody is blamed."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from tests.integration.server.test_kills import NAP, all_is_well, await_progress
from tests.support.serverprocess import ServerProcess

COUNT = 60


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM tokens WHERE pilot_id IS NOT NULL", "UPDATE tokens SET expires = 1 WHERE pilot_id IS NOT NULL"],
    ids=["revoked", "expired"],
)
async def test_a_pilot_whose_token_is_void_is_replaced(server: ServerProcess, change: str) -> None:
    number = server.array(COUNT, *NAP)
    await_progress(server, number, 5)
    with contextlib.closing(sqlite3.connect(server.home / "db" / "hansa.db", timeout=60)) as file, file:
        assert file.execute(change).rowcount >= 1
    await all_is_well(server, number, COUNT)
    with server.client() as client:
        pilots = client.get("/pilots").raise_for_status().json()["items"]
    assert len(pilots) > 1
    assert "The site ended it: fault: the server answered 401" in pilots[-1]["status"]["message"]
    outcomes = {row.outcome for row in await server.query("SELECT outcome FROM attempts")}
    assert outcomes <= {"preempted"}, "no task is suspected"
