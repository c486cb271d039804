"""Tasks that do nothing through the pilot alone, against a server in memory: what the node could do at best."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.embedded import environ
from benchmarks.harness import CORES, ROOT, Better, Row, median, rounded, used_by_others

START_S = 30.0
DEADLINE_S = 120.0


def run(quick: bool) -> list[Row]:
    """There is no budget for it: it shows what the server costs beside the row of whole arrays."""
    tasks, rounds = (1000, 1) if quick else (5000, 3)
    noise = used_by_others()
    rates = [measure(tasks) for _ in range(rounds)]
    return [
        Row(
            work=f"{tasks:,} no-op tasks through the pilot alone, {CORES} cores",
            unit="tasks/s",
            better=Better.HIGHER,
            hansa=rounded(median(rates)),
            detail={"runs": [rounded(rate) for rate in rates], "used_by_others": noise},
        )
    ]


def measure(tasks: int) -> float:
    """Tasks per second, from the first lease to the last result."""
    server = _fake_server()
    server.keeps_requests = False
    server.add(1, ["/bin/true"], tasks, memory_mib=64)
    with tempfile.TemporaryDirectory(prefix="hansa-bench-node-") as name:
        config = _write_config(Path(name), server.url, server.token)
        command = [sys.executable, "-m", "hansa.node", "pilot", "--config", str(config)]
        pilot = subprocess.Popen(command, env={**os.environ, **environ()}, stderr=subprocess.DEVNULL)
        try:
            server.wait(lambda: server.leases, START_S)
            begin = min(lease[3] for lease in server.leases.values())
            server.wait(lambda: len(server.results) == tasks, DEADLINE_S)
            elapsed: float = time.monotonic() - begin
        finally:
            pilot.send_signal(signal.SIGTERM)
            pilot.wait(30)
    assert not server.faults, server.faults
    assert all(result["exit_code"] == 0 for result in server.results.values())
    return tasks / elapsed


def _fake_server() -> Any:
    sys.path.insert(0, str(ROOT))
    from tests.support import node_server

    server: Any = node_server.FakeServer()
    server.token = node_server.TOKEN
    return server


def _write_config(folder: Path, url: str, secret: str) -> Path:
    token = folder / "token"
    token.write_text(secret)
    config = folder / "pilot.json"
    wanted = {
        "pilot": "bench",
        "urls": [url],
        "token_file": str(token),
        "work_dir": str(folder / "work"),
        "cores": CORES,
        "memory_mib": 4096,
        "idle_timeout_s": 60,
    }
    config.write_text(json.dumps(wanted))
    for path in (token, config):
        path.chmod(0o600)
    return config
