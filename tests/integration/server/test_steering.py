"""A site's word over a running server, with all its loops: drain and ban act within a minute, on pilots and machines.

By the server's own clock: what it wrote down when, in its events, its pilots and its results.
"""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.serverprocess import ServerProcess, eventually

DEADLINE_S = 120.0
MINUTE_US = 60_000_000
CORES = 2
OWNER = getpass.getuser()


class Desk:
    """The site ``local`` of a server of two cores and fake machines, and its owner."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.api = server.client(timeout_s=DEADLINE_S)
        self.folder = folder

    def ok(self, method: str, path: str, json: Any = None) -> Any:
        answer = self.api.request(method, path, json=json)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def work(self, name: str) -> tuple[int, Path]:
        """Six tasks for two cores; each says that it has started, and runs until the file ``go`` is there."""
        folder = self.folder / name
        folder.mkdir()
        script = f"mktemp {folder}/started-XXXXXX; while [ ! -e {folder}/go ]; do sleep 0.05; done"
        number = self.server.array(6, "sh", "-c", script)
        eventually(lambda: self.started(folder) == CORES, "two tasks run", DEADLINE_S)
        return number, folder

    @staticmethod
    def started(folder: Path) -> int:
        return len(list(folder.glob("started-*")))

    def phase(self, machine: str) -> str:
        return str(self.ok("GET", f"/machines/{machine}")["status"]["phase"])

    async def pilot(self, which: str) -> Any:
        """Its row, and how many tasks it holds: those that run, and those that it was given ahead."""
        held = f"(SELECT coalesce(sum(remaining), 0) FROM leases WHERE pilot_id = '{which}') AS held"
        return (await self.server.query(f"SELECT phase, stop, {held} FROM pilots WHERE id = '{which}'"))[0]

    async def when(self, subject: str, reason: str) -> int:
        """When the server last wrote down an event of this subject and reason: microseconds."""
        same = f"subject = '{subject}' AND reason = '{reason}'"
        return int((await self.server.query(f"SELECT max(time) FROM events WHERE {same}"))[0][0])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("steering")
    server = ServerProcess(folder / "home", local__cores=str(CORES), machines__local="fake")
    try:
        made = Desk(server.start(), folder)
        yield made
        made.api.close()
    finally:
        server.end()


STEERS: dict[str, Any] = {
    "drain": (
        ("POST", "/sites/local/drain", {"why": "New disks"}), ("POST", "/sites/local/resume"),
        "sites.drained", "local takes no new work: New disks.",
    ),
    "ban": (
        ("POST", "/sites/local/bans", {"kind": "user", "who": OWNER, "why": "Mines coins"}),
        ("DELETE", f"/sites/local/bans/user/{OWNER}"),
        "sites.user_banned", "local has banned you: Mines coins.",
    ),
}  # fmt: skip
"""What is said, how it is taken back, and what those read who meet it."""


@pytest.mark.parametrize("word", STEERS)
async def test_no_new_work_starts_and_what_runs_ends_by_itself(desk: Desk, word: str) -> None:
    say, unsay, reason, message = STEERS[word]
    machine = desk.ok("POST", "/machines", json={"image": "site:debian", "name": f"before-{word}"})["id"]
    eventually(lambda: desk.phase(machine) == "running", "the machine runs", DEADLINE_S)
    number, folder = desk.work(word)
    pilot = str((await desk.server.query("SELECT id FROM pilots WHERE phase = 'running' ORDER BY id DESC"))[0].id)
    desk.ok(*say)
    await until(desk, pilot, lambda row: row.stop == "drain" and row.held == CORES)
    said_at = await desk.when("site/local", "sites.drained" if word == "drain" else "sites.banned")
    told_at = await desk.when(f"pilot/{pilot}", reason)
    assert 0 <= told_at - said_at < MINUTE_US
    refused = desk.api.post("/machines", json={"image": "site:debian", "name": "after"})
    assert refused.status_code >= 400
    assert message in refused.json()["detail"]
    (folder / "go").touch()
    await until(desk, pilot, lambda row: row.phase == "ended")
    says = f"the job says {message}"
    eventually(lambda: message in str(desk.server.job(number)["status"]["message"]), says, DEADLINE_S)
    job = desk.server.job(number)
    assert (job["status"]["reason"], job["status"]["waiting_on"]) == ("jobs.no_site_now", "site")
    assert job["counts"]["done"] == CORES, job["counts"]
    assert desk.started(folder) == CORES, "nothing that waited has started"
    since = await desk.server.query(f"SELECT id FROM pilots WHERE created > {said_at}")
    assert since == [], "no pilot was started"
    assert desk.phase(machine) == "running", "a machine that runs is let alone"
    desk.ok(*unsay)
    desk.server.await_end(number, DEADLINE_S)
    assert desk.server.job(number)["counts"]["done"] == 6
    desk.ok("DELETE", f"/machines/{machine}")


async def until(desk: Desk, pilot: str, fits: Callable[[Any], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not fits(row := await desk.pilot(pilot)):
        assert time.monotonic() < deadline, f"after {DEADLINE_S:.0f} s still {row}"
        await asyncio.sleep(0.1)
