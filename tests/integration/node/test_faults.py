"""Tasks that misbehave towards their node: the pilot and the tasks beside them go on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.node_server import FakeServer
from tests.support.pilots import Pilot, terminate, until

SH = ["/bin/sh", "-c"]


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/tmp"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no user and mount namespaces here")
def test_a_task_that_fills_the_disk(server: FakeServer, make_pilot: Callable[..., Pilot], tmp_path: Path) -> None:
    pilot = make_pilot()
    pilot.work_dir.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size=24m,mode=0700 none "{pilot.work_dir}" && exec "$@"'
    pilot.prefix = ["unshare", "-Urm", *SH, mount, "sh"]
    pilot.start()
    full, go = tmp_path / "full", tmp_path / "go"
    fill = f"head -c 100000000 /dev/zero > big; touch {full}; while ! test -e {go}; do sleep 0.05; done; exit 3"
    server.add(1, [*SH, fill], outputs=[])
    until(full.exists)
    server.add(2, ["/bin/true"])  # there is no room for its directory, or just enough
    server.wait(lambda: (2, 0) in server.results)
    assert server.results[2, 0]["outcome"] in ("exited", "node")
    go.touch()
    server.wait(lambda: (1, 0) in server.results)
    assert server.results[1, 0]["exit_code"] == 3
    server.add(3, [*SH, "head -c 1000000 /dev/zero > fits; echo well"], outputs=[])
    server.wait(lambda: (3, 0) in server.results)
    assert server.results[3, 0]["exit_code"] == 0, "the disk was given back"
    assert bytes(server.logs[3, 0, "stdout"]) == b"well\n"
    assert terminate(pilot) == 0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_gigabytes_of_log(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, [*SH, "head -c 10000000000 /dev/zero; echo over >&2"], log_limit_bytes=1_000_000)
    tasks, most = pilot.work_dir / "tasks", 0

    def is_over() -> bool:
        nonlocal most
        held = [file.stat().st_blocks * 512 for file in tasks.glob("*/stdout") if file.exists()]
        most = max(most, *held, 0)
        return (1, 0) in server.results

    until(is_over, 800)
    assert server.results[1, 0]["exit_code"] == 0
    text = bytes(server.logs[1, 0, "stdout"])
    assert len(text) < 1_001_000
    assert b"9,999,000,000 bytes dropped" in text
    assert most < 5_000_000_000, "its disk was given back meanwhile"


@pytest.mark.slow
def test_a_task_that_ignores_the_end_of_its_time(server: FakeServer, pilot: Pilot) -> None:
    server.add(1, [*SH, "trap '' TERM HUP INT; while :; do sleep 0.1; done"], wall_time_s=1)
    server.wait(lambda: server.results)
    assert (server.results[1, 0]["outcome"], server.results[1, 0]["signal"]) == ("wall_time", 9)
