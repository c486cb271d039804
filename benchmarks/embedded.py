"""A real embedded server in a home of its own, and what its processes use."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from benchmarks.harness import ROOT
from hansa.client import job_api, operations
from hansa.client.connect import Endpoint
from hansa.client.draft import Options, prepare
from hansa.client.effects import Operation
from hansa.client.transport import Transport
from hansa.jobs.wire import Job
from hansa.server.launch import start_server, stop_server

T = TypeVar("T")
TASK_MEMORY = "64M"
LOOK_S = 0.1
"""How often the end of an array is looked for: as often as ``hansa run`` does."""
DEADLINE_S = 600.0


@dataclass(frozen=True)
class Usage:
    """CPU seconds of the server, the pilot's agent and its spawner (without the tasks), and the server's memory."""

    server_s: float
    agent_s: float
    spawner_s: float
    server_mib: float

    def us_per_task(self, before: Usage, tasks: int) -> dict[str, int]:
        """CPU microseconds per task since ``before``, by process."""
        names = ("server", "agent", "spawner")
        now, then = ((u.server_s, u.agent_s, u.spawner_s) for u in (self, before))
        return {name: round((a - b) / tasks * 1e6) for name, a, b in zip(names, now, then, strict=True)}


class Embedded:
    """A server that runs, and how to give it work."""

    def __init__(self, home: Path, endpoint: Endpoint) -> None:
        self.home = home
        self.endpoint = endpoint
        self._transport = Transport(endpoint)

    def ask(self, question: Operation[T]) -> T:
        """Anything else of the API."""
        return self._transport.run(question)

    def submit(self, command: list[str], tasks: int | None = None, site: str | None = None) -> Job:
        """Submit a job, or an array of so many tasks."""
        array = None if tasks is None else f"0-{tasks - 1}"
        draft = prepare(command, Options(array=array, memory=TASK_MEMORY, scan=False, site=site))
        return self._transport.run(operations.submit(draft))

    def finish(self, job: Job) -> Job:
        """Follow a job to its end. Every task must have succeeded."""
        follower = operations.Follower(interval_s=LOOK_S)
        ended = self._transport.run(operations.follow(job.number, follower, timeout_s=DEADLINE_S))
        assert ended.counts.done == ended.count, ended.counts
        return ended

    def kill(self, job: Job) -> None:
        self._transport.run(job_api.kill(job.number))

    def look(self, job: Job) -> Job:
        """How a job is now."""
        return self._transport.run(job_api.job(job.number))

    def await_end(self, job: Job) -> Job:
        """Follow a job until it has ended, however."""
        follower = operations.Follower(interval_s=LOOK_S)
        return self._transport.run(operations.follow(job.number, follower, timeout_s=DEADLINE_S))

    def warm_up(self) -> None:
        """Bring a pilot here, and everything that is made at its first use."""
        self.finish(self.submit(["/bin/true"], 100))
        self.finish(self.submit(["/bin/true"], 100))

    def environ(self) -> dict[str, str]:
        """For commands that talk to this server."""
        return {**environ(), "HANSA_HOME": str(self.home)}

    def usage(self) -> Usage:
        found = {"server": 0.0, "agent": 0.0, "spawner": 0.0}
        memory = 0
        for process in psutil.process_iter():
            try:
                who = _role(process.cmdline(), str(self.home))
                if who is None:
                    continue
                times = process.cpu_times()
                found[who] += times.user + times.system
                memory = process.memory_info().rss if who == "server" else memory
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return Usage(found["server"], found["agent"], found["spawner"], round(memory / 1024**2, 1))


def _role(command: list[str], home: str) -> str | None:
    if not any(word.startswith(home) for word in command):
        return None
    if "hansa.server" in command:
        return "server"
    if any("hansa.node.spawner" in word for word in command):
        return "spawner"
    return "agent" if any(word.endswith("config.json") for word in command) else None


def environ() -> dict[str, str]:
    """The environment without anything that would lead to another server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HANSA_")}
    return {**kept, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}


@contextmanager
def embedded() -> Iterator[Embedded]:
    """Start a server in a fresh home; end it, its pilots and its files."""
    with tempfile.TemporaryDirectory(prefix="hansa-bench-") as folder:
        home = Path(folder) / "home"
        os.environ["PYTHONPATH"] = environ()["PYTHONPATH"]  # of the server that is started now
        try:
            info = start_server(home)
            yield Embedded(home, Endpoint(info.url, info.token, home))
        finally:
            stop_server(home)
            _wait_until_gone(str(home))


def _wait_until_gone(home: str) -> None:
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        commands = (process.info["cmdline"] or () for process in psutil.process_iter(["cmdline"]))
        if not any(home in word for command in commands for word in command):
            return
        time.sleep(0.02)


def hansa_command() -> list[str]:
    """How this environment starts ``hansa``: as its users do, where it is installed."""
    script = Path(sys.executable).with_name("hansa")
    return [str(script)] if script.exists() else [sys.executable, "-m", "hansa.cli.main"]
