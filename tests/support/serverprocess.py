"""A real server in a process of its own, with the pilots that it starts: ended by pid, whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import sqlalchemy as sa

import hansa
from hansa.jobs.drivers.local import live_pilots
from hansa.kernel.database import open_database
from hansa.server.launch import server_status
from tests.support.books import Books, check_all_books
from tests.support.clear import assert_none_in_clear

T = TypeVar("T")
SOURCES = str(Path(hansa.__file__).parents[1])
DEADLINE_S = 120.0


def eventually(look: Callable[[], T], what: str, deadline_s: float = DEADLINE_S, pause_s: float = 0.02) -> T:
    """The first true thing that ``look`` gives; fails after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {deadline_s:.0f} s still not: {what}")
        time.sleep(pause_s)
    return found


def bearer_of(folder: Path) -> str:
    """What the pilot in this folder shows the server: its token, and the key that is bound to since its first word."""
    return f"{(folder / 'token').read_text().strip()}~{(folder / 'key').read_text()}"


class ServerProcess:
    """The server of a home. ``settings`` are environment variables: ``job__crash_limit="9"``."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.settings = {f"HANSA_{name.upper()}": value for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = home.parent / f"{home.name}.log"
        self.starts = 0
        self.sources = SOURCES
        self.direct = ""
        """Where the test finds it, if not where pilots do."""

    def launch(self) -> ServerProcess:
        """Start it; it may take a moment until it answers."""
        environment = os.environ | self.settings | {"PYTHONPATH": self.sources, "HANSA_ALLOW_ROOT": "1"}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hansa.server", "--home", str(self.home)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.starts += 1
        return self

    def start(self) -> ServerProcess:
        """Start it and wait until it answers."""
        self.launch()
        eventually(self.is_ready, f"the server is ready; its log: {self.log}")
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}: {self.words()}")
        info = server_status(self.home)
        return info is not None and info.pid == self.process.pid

    def words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """As with kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, deadline_s: float = 60.0) -> int:
        """As with SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(deadline_s)

    def pilots(self) -> list[psutil.Process]:
        """The pilots that live, of all servers that this home has had."""
        found = []
        for pid in live_pilots(self.home / "run" / "pilots"):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def spawners(self) -> list[psutil.Process]:
        found = []
        for pilot in self.pilots():
            with contextlib.suppress(psutil.NoSuchProcess):
                found += pilot.children()
        return found

    def end(self) -> None:
        """Everything that it started is gone afterwards."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for process in [*self.spawners(), *self.pilots()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # A pilot that the server started a moment ago holds no lock yet: it is known by its command line.
        eventually(lambda: not self._end_all_of_this_home(), "the pilots are gone", 120, 0.1)
        assert_none_in_clear(self.home)

    def _end_all_of_this_home(self) -> int:
        found = 0
        for process in psutil.process_iter(["cmdline"]):
            if process.pid != os.getpid() and any(str(self.home) in word for word in process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    found += 1
        return found

    # --- talking to it ------------------------------------------------------------------------------------------

    @property
    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "run" / "server.json").read_text())
        return found

    @property
    def url(self) -> str:
        return self.direct or str(self.info["url"])

    @property
    def token(self) -> str:
        return (self.home / "keys" / "local.token").read_text().strip()

    def client(self, token: str | None = "", timeout_s: float = 30.0) -> httpx.Client:
        """Signed in as the owner of the home, unless another token (None: no token) is given."""
        sign = {} if token is None else {"Authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=sign, timeout=timeout_s, trust_env=False)

    def submit(self, *command: str, token: str | None = "", **spec: Any) -> int:
        with self.client(token) as client:
            answer = client.post("/jobs", json={"command": list(command)} | spec)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["number"])

    def array(self, count: int, *command: str, **spec: Any) -> int:
        return self.submit(*command, array=True, count=count, **spec)

    def job(self, number: int) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.get(f"/jobs/{number}").raise_for_status().json()
        return found

    def await_end(self, number: int, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """The job once it has ended. The server may be away now and then."""

        def look() -> dict[str, Any] | None:
            try:
                found = self.job(number)
            except (httpx.HTTPError, OSError, ValueError):
                return None
            return found if found["ended"] else None

        found = eventually(look, f"job {number} has ended", deadline_s, 0.05)
        assert found is not None
        return found

    # --- looking into its database ------------------------------------------------------------------------------

    async def check_books(self) -> dict[int, Books]:
        """The books of all jobs, straight from the database."""
        url = self.settings.get("HANSA_DATABASE__URL") or f"sqlite:///{self.home}/db/hansa.db"
        database = await open_database(url)
        try:
            async with database.read() as tx:
                return await check_all_books(tx)
        finally:
            await database.close()

    async def query(self, statement: str) -> list[Any]:
        url = self.settings.get("HANSA_DATABASE__URL") or f"sqlite:///{self.home}/db/hansa.db"
        database = await open_database(url)
        try:
            async with database.read() as tx:
                return list((await tx.execute(sa.text(statement))).all())
        finally:
            await database.close()
