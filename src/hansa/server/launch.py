"""Starting, finding and stopping the embedded server, behind the back of a command. Light: it imports no room."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import structlog

from hansa.jobs.drivers.local import are_being_born, live_pilots
from hansa.kernel.errors import Fault
from hansa.server import errors
from hansa.server.home import Home, locked, open_home

log = structlog.get_logger(__name__)
_START_S = 180.0
_DRAIN_S = 25.0
_BIRTH_S = 20.0
_LOOK_S = 0.02


@dataclass(frozen=True)
class ServerInfo:
    """A server that runs. ``started`` tells whether this very call started it."""

    url: str
    token: str
    pid: int
    version: str
    since: float  # seconds since 1970
    ca_file: str | None = None  # of the authority that signed its certificate, where computers do not know it
    started: bool = False


@dataclass(frozen=True)
class StopReport:
    """What a stop ended: whether there was a server, and how many pilots."""

    server: bool
    pilots: int

    @property
    def message(self) -> str:
        if not self.server:
            return "no server was running" + (f"; {self.pilots} pilots were stopped" if self.pilots else "")
        return "the server has stopped; waiting and interrupted tasks go on at the next start"


def take_server_lock(home: Home) -> int:
    descriptor = os.open(home.run / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Fault(
            errors.RUNS, f"A server of {home.path} runs already.", hint="hansa status shows it; hansa down ends it."
        ) from None
    return descriptor


def server_runs(home_path: Path) -> bool:
    """Whether a server of this home lives: it holds a lock that no crash leaves behind."""
    try:
        with (home_path / "run" / "server.lock").open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except FileNotFoundError:
        return False


def server_status(home_path: Path) -> ServerInfo | None:
    """The server of a home, if it lives and listens."""
    if not server_runs(home_path):
        return None
    try:
        found = json.loads((home_path / "run" / "server.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is only just starting
        return None
    return ServerInfo(**found)


def ensure_server(home_path: Path) -> ServerInfo:
    """The server of a home; started first where it does not run. Safe when many processes ask at once."""
    return server_status(home_path) or start_server(home_path)


def start_server(home_path: Path) -> ServerInfo:
    """Start the embedded server behind our back and wait until it answers.

    Raises Fault ``server.no_start`` with the server's last words.
    """
    home = open_home(home_path)
    with locked(home.run / "start.lock"):
        found = server_status(home_path)
        if found is not None:
            return found
        output = home.logs / "server.log"
        start = output.stat().st_size if output.exists() else 0
        with output.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "hansa.server", "--home", str(home.path)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd="/",
                start_new_session=True,
            )
        return _await_start(home, process, output, start)


def _await_start(home: Home, process: subprocess.Popen[bytes], output: Path, start: int) -> ServerInfo:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        found = server_status(home.path)
        if found is not None and found.pid == process.pid:
            process.returncode = 0  # it is meant to outlive us
            return ServerInfo(**{**asdict(found), "started": True})
        if process.poll() is not None:
            break
        time.sleep(_LOOK_S)
    else:
        process.kill()
        process.wait()
    words = output.read_bytes()[start:].decode(errors="replace").strip()[-1500:]
    raise Fault(
        errors.NO_START, f"The server of {home.path} did not start: {words or 'no word'}", hint=f"Its log: {output}"
    )


def stop_server(home_path: Path) -> StopReport:
    """Stop the server of a home and its pilots. Their tasks wait in the queue for the next start."""
    info = server_status(home_path)
    root = home_path / "run" / "pilots"
    pilots = len(live_pilots(root))
    if info is not None:
        if pilots:
            _drain(info, root)
        _end(info.pid, lambda: not server_runs(home_path))
    patience = time.monotonic() + _BIRTH_S
    while are_being_born(root) and time.monotonic() < patience:
        time.sleep(_LOOK_S)
    for process_id in live_pilots(root):
        _end(process_id, lambda gone=process_id: gone not in live_pilots(root))
    return StopReport(info is not None, pilots)


def _drain(info: ServerInfo, root: Path) -> None:
    request = urllib.request.Request(  # noqa: S310 - the URL of our own server
        f"{info.url}/api/v1/server/drain", method="POST", headers={"Authorization": f"Bearer {info.token}"}
    )
    trust = ssl.create_default_context(cafile=info.ca_file) if info.url.startswith("https:") else None
    try:
        urllib.request.urlopen(request, timeout=10, context=trust).close()  # noqa: S310
    except (urllib.error.URLError, OSError) as error:
        log.warning("server.no_drain", error=str(error))
        return
    deadline = time.monotonic() + _DRAIN_S
    while live_pilots(root) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _end(process_id: int, is_gone: Any) -> None:
    for number, patience_s in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
        try:
            psutil.Process(process_id).send_signal(number)
        except psutil.NoSuchProcess:
            return
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if is_gone():
                return
            time.sleep(_LOOK_S)
