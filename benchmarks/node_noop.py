"""No-op tasks through the pilot against a trivial server in a process of its own: tasks per second.

    python benchmarks/node_noop.py [--tasks 5000] [--cores 2] [--json]

Bounded by --deadline seconds. The clock runs from the first lease to the last result.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.node_server import TOKEN, FakeServer  # noqa: E402


def write_config(folder: Path, url: str, cores: int) -> Path:
    token = folder / "token"
    token.write_text(TOKEN)
    config = folder / "pilot.json"
    config.write_text(
        json.dumps(
            {
                "pilot": "bench",
                "urls": [url],
                "token_file": str(token),
                "work_dir": str(folder / "work"),
                "cores": cores,
                "memory_mib": 4096,
                "idle_timeout_s": 60,
            }
        )
    )
    for path in (token, config):
        path.chmod(0o600)
    return config


def measure(tasks: int, cores: int, deadline_s: float, command: list[str], profile: str | None) -> float:
    server = FakeServer()
    server.keeps_requests = False
    server.add(1, command, tasks, memory_mib=64)
    with tempfile.TemporaryDirectory() as name:
        config = write_config(Path(name), server.url, cores)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        runner = ["-m", "cProfile", "-o", profile] if profile else []
        pilot = subprocess.Popen(
            [sys.executable, *runner, "-m", "hansa.node", "pilot", "--config", str(config)], env=environment
        )
        try:
            server.wait(lambda: server.leases, 30)
            begin = min(lease[3] for lease in server.leases.values())
            server.wait(lambda: len(server.results) == tasks, deadline_s)
            elapsed = time.monotonic() - begin
        finally:
            pilot.send_signal(signal.SIGTERM)
            pilot.wait(30)
    assert not server.faults, server.faults
    assert all(result["exit_code"] == 0 for result in server.results.values())
    return tasks / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--deadline", type=float, default=120.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", help="write a cProfile of the pilot here")
    parser.add_argument("command", nargs="*", default=["/bin/true"])
    options = parser.parse_args()
    rate = measure(options.tasks, options.cores, options.deadline, options.command, options.profile)
    if options.json:
        print(json.dumps({"tasks": options.tasks, "cores": options.cores, "tasks_per_s": round(rate, 1)}))
    else:
        print(f"{options.tasks:,} tasks on {options.cores} cores: {rate:,.0f} tasks/s")


if __name__ == "__main__":
    main()
