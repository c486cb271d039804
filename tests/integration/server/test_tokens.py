"""A pilot's token that is void while the pilot works, or that was stolen: nothing is lost, nobody is blamed."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from tests.integration.server.test_kills import NAP, all_is_well, await_progress
from tests.support.serverprocess import ServerProcess, eventually

COUNT = 60
DIGEST = f"sha256:{'0' * 64}"


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


async def test_a_copy_of_a_pilots_token_is_good_for_nothing_and_its_owner_hears_of_it(server: ServerProcess) -> None:
    """The thief would report failures for all that the pilot has, take tasks, read inputs, and replace outputs."""
    number = server.array(COUNT, *NAP)
    await_progress(server, number, 5)
    ((pilot,),) = (await server.query("SELECT DISTINCT pilot_id FROM tokens WHERE key_hash IS NOT NULL"))[:1]
    token = (server.home / "run" / "pilots" / pilot / "token").read_text()
    held = [row.id for row in await server.query("SELECT id FROM leases")]
    results = [
        {"lease": one, "index": index, "outcome": "exited", "exit_code": 1} for one in held for index in range(COUNT)
    ]
    forged = {"protocol": 1, "session": "thief", "sequence": 1, "held": held, "want": 9, "results": results}
    for shown in (token, f"{token}~{'x' * 43}"):
        with server.client(shown) as thief:
            for answer in (
                thief.post(f"/pilots/{pilot}/exchange", json=forged),
                thief.get(f"/pilots/{pilot}/files/{DIGEST}"),
                thief.put(f"/pilots/{pilot}/files/{DIGEST}", content=b"x"),
                thief.post(f"/pilots/{pilot}/checkpoints", json={"lease": held[0] if held else 1, "index": 0}),
            ):
                assert (answer.status_code, answer.json()["code"]) == (403, "identity.not_holder")
    await all_is_well(server, number, COUNT)
    told = await server.query("SELECT subject FROM events WHERE reason = 'identity.not_holder'")
    assert [row.subject for row in told] == [f"pilot/{pilot}"], "once, however often it was tried"


async def test_a_thief_who_speaks_before_the_pilot_is_cut_off_with_it(server: ServerProcess) -> None:
    number = server.array(4, "true")

    def bind() -> bool:
        """As if somebody had been faster."""
        with contextlib.closing(sqlite3.connect(server.home / "db" / "hansa.db", timeout=60)) as file, file:
            change = "UPDATE tokens SET key_hash = 'of a thief' WHERE pilot_id IS NOT NULL"
            return file.execute(change).rowcount >= 1

    eventually(bind, "a pilot has its token", pause_s=0.001)
    job = server.await_end(number)
    assert job["counts"]["done"] == 4, "by a pilot that came after"
    await server.check_books()
