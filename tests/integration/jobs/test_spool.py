"""Pilots that cannot reach the server: their requests go as files, carried by a relay at the end of a shell."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from hansa.engines.shell import LocalShell
from hansa.jobs.drivers.base import Life, PilotOrder
from hansa.jobs.drivers.local import live_pilots
from hansa.jobs.drivers.ssh import SshBatch
from hansa.jobs.program import build_node_program
from tests.support.node_server import TOKEN, FakeServer


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(180):
        while not condition():
            await asyncio.sleep(0.02)


async def test_tasks_files_and_a_closed_lid(tmp_path: Path) -> None:
    server = FakeServer()
    root = tmp_path / "hansa"

    def driver() -> SshBatch:
        return SshBatch(LocalShell(), build_node_program(), lambda: [server.url], str(root), python=sys.executable)

    first, second = driver(), driver()
    order = PilotOrder("p-1", TOKEN, 2, 1024, [], idle_timeout_s=300)
    big = bytes(range(256)) * 4000
    given = server.put(big, "big")
    script = "cmp big copy 2>/dev/null; cp big copy; echo done; sleep 0.2"
    server.add(1, ["/bin/sh", "-c", script], 6, inputs=[given], outputs=["copy"], array=True)
    server.add(2, ["/bin/sh", "-c", "sleep 2.2"], 1)
    try:
        assert (await first.start(order)).life is Life.ALIVE
        await until(lambda: len(server.results) >= 2)
        await first.close()  # the lid is closed: the pilot works on
        await until(lambda: list((root / "spool" / "out").glob("*.json")))
        assert (await second.observe("p-1")).life is Life.ALIVE  # and opened: a server that looks carries again
        await until(lambda: len(server.results) == 7)
        assert {result["exit_code"] for result in server.results.values()} == {0}
        copies = [result["outputs"][0]["size"] for result in server.results.values() if result.get("outputs")]
        assert copies == [len(big)] * 6
        curves = [result["series"] for result in server.results.values() if "series" in result]
        assert any(curve["every_s"] == 1.0 and len(curve["cores"]) >= 3 for curve in curves)
        assert server.faults == []
    finally:
        await second.cancel("p-1")
        await second.clean("p-1")
        await first.close()
        await second.close()
        server.shutdown()
        server.server_close()
    assert not (root / "spool" / "in" / "p-1").exists()
    assert not list((root / "spool" / "out").iterdir())


async def test_what_a_pilot_has_when_its_time_is_over_is_left_for_whoever_comes(tmp_path: Path) -> None:
    """More than one request holds, as the logs are long, with files of its own; nobody has listened since the start."""
    server = FakeServer()
    root = tmp_path / "hansa"

    def driver() -> SshBatch:
        return SshBatch(LocalShell(), build_node_program(), lambda: [server.url], str(root), python=sys.executable)

    first, second = driver(), driver()
    count, said, ended = 6, 900_000, tmp_path / "ended"
    ended.mkdir()
    script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; head -c {said} /dev/zero | tr '\\0' x; "
    script += f"head -c 300000 /dev/zero > big; touch {ended}/{{i}}"
    server.add(1, ["/bin/sh", "-c", script], count, outputs=["big"], array=True)
    try:
        assert (await first.start(PilotOrder("p-1", TOKEN, count, 1024, [], idle_timeout_s=300))).life is Life.ALIVE
        await until(lambda: server.leases)
        await first.close()
        (tmp_path / "go").touch()
        await until(lambda: len(list(ended.iterdir())) == count)
        (pilot,) = live_pilots(root / "pilots")
        os.kill(pilot, signal.SIGTERM)
        await until(lambda: not live_pilots(root / "pilots"))
        assert server.results == {}
        left = [path.name for path in (root / "spool/out").glob("*.json")]
        assert len([name for name in left if "-left-" in name]) >= 2, left

        async def is_carried() -> bool:
            return (await second.observe("p-1")).life is Life.ENDED

        async with asyncio.timeout(180):
            while not await is_carried():
                await asyncio.sleep(0.1)
        assert len(server.results) == count
        assert {result["exit_code"] for result in server.results.values()} == {0}
        assert [result["outputs"][0]["size"] for result in server.results.values()] == [300_000] * count
        assert {len(server.logs[1, index, "stdout"]) for index in range(count)} == {said}
        assert [bool(one.get("ending")) for one in server.requests].index(True) == len(server.requests) - 1
        assert server.faults == []
    finally:
        await second.cancel("p-1")
        await second.clean("p-1")
        await first.close()
        await second.close()
        server.shutdown()
        server.server_close()
