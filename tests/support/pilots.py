"""Real pilots, for tests: every process is ended by its number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.node_server import TOKEN, FakeServer

SOURCES = Path(__file__).resolve().parents[2] / "src"


class Pilot:
    """One pilot process and its files."""

    def __init__(self, folder: Path, server: FakeServer, **settings: Any) -> None:
        self.folder = folder
        self.work_dir = folder / "work"
        self.token = folder / "secrets" / "token"
        self.token.parent.mkdir(exist_ok=True)
        self.token.write_text(TOKEN)
        self.config = folder / "pilot.json"
        self.python = sys.executable
        self.prefix: list[str] = []
        defaults = {
            "pilot": "p-1",
            "urls": [server.url],
            "token_file": str(self.token),
            "work_dir": str(self.work_dir),
            "cores": 2,
            "memory_mib": 4096,
        }
        self.config.write_text(json.dumps({**defaults, **settings}))
        for path in (self.token, self.config):
            path.chmod(0o600)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, program: list[str] | None = None) -> Pilot:
        environment = {**os.environ, "PYTHONPATH": str(SOURCES), "SECRET_OF_THE_PILOT": "hush"}
        command = program or ["-m", "hansa.node", "pilot"]
        self.process = subprocess.Popen(
            [*self.prefix, self.python, *command, "--config", str(self.config)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        return self

    @property
    def pid(self) -> int:
        return int((self.work_dir / "pilot.lock").read_text())

    def spawner(self) -> int:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0])

    def wait(self, timeout_s: float = 60.0) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def ended(self) -> str:
        return str(json.loads((self.work_dir / "ended.json").read_text())["reason"])

    def kill(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(30)
            if self.process.stderr is not None:
                self.process.stderr.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout_s} s"
        time.sleep(0.02)


def terminate(pilot: Pilot) -> int:
    assert pilot.process is not None
    pilot.process.send_signal(signal.SIGTERM)
    return pilot.wait()
