"""What may be wrong on this computer, looked for one by one, with what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hansa.kernel.disk import refuse_network_disk
from hansa.kernel.errors import Fault
from hansa.kernel.settings import read_settings
from hansa.machines.local import ways
from hansa.node.isolation import NONE, probe_isolation
from hansa.server.launch import server_runs, server_status
from hansa.sites.local import discover

_OLDEST_SQLITE = (3, 37, 0)
_GIB = 1024**3
_DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    message: str
    hint: str | None = None


def checks(home: Path) -> Iterator[Check]:
    """Look at everything that a server of this home needs; changes nothing."""
    looks: list[tuple[str, Callable[[Path], Check]]] = [
        ("python", _python),
        ("home", _home),
        ("settings", _settings),
        ("disk", _disk),
        ("database", _database),
        ("server", _server),
        ("port", _port),
        ("isolation", _isolation),
        ("computer", _computer),
        ("machines", _machines),
    ]
    for name, look in looks:
        try:
            yield look(home)
        except Fault as fault:
            yield Check(name, State.FAIL, fault.detail, fault.hint)
        except OSError as error:
            yield Check(name, State.FAIL, f"{error.strerror or error}", "See who owns HANSA_HOME.")


def _python(_: Path) -> Check:
    said = f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        return Check("python", State.FAIL, f"{said}: SQLite is too old", "Use a Python with SQLite 3.37 or newer.")
    return Check("python", State.OK, said)


def _home(home: Path) -> Check:
    if not home.exists():
        return Check("home", State.OK, f"{home} is made at the first start")
    found = home.stat()
    if found.st_uid != os.getuid():
        return Check("home", State.FAIL, f"{home} belongs to somebody else", "Set HANSA_HOME to a folder of yours.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        return Check("home", State.FAIL, f"others can enter {home}", f"chmod 700 {home}")
    refuse_network_disk(home / "db" / "hansa.db")
    return Check("home", State.OK, f"{home}, yours alone, on a local disk")


def _settings(home: Path) -> Check:
    settings = read_settings(home)
    where = "PostgreSQL" if settings.database.url else "an embedded database"
    return Check("settings", State.OK, f"they can be read; the server uses {where}")


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    reserve = read_settings(home).files.free_bytes
    if free < reserve:
        return Check("disk", State.FAIL, f"{free / _GIB:.1f} GiB free: uploads are refused", "Free some space.")
    if free < 5 * _GIB:
        return Check("disk", State.WARN, f"{free / _GIB:.1f} GiB free", "Jobs with large files may not fit.")
    return Check("disk", State.OK, f"{free / _GIB:.0f} GiB free")


def _database(home: Path) -> Check:
    file = home / "db" / "hansa.db"
    if url := read_settings(home).database.url:
        return _postgresql(url)
    if not file.exists():
        return Check("database", State.OK, "is made at the first start")
    try:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        return Check("database", State.FAIL, f"it is damaged: {found}", "Restore a backup: hansa admin restore FILE")
    return Check("database", State.OK, f"{file.stat().st_size / 1024**2:.1f} MiB, sound")


def _postgresql(url: str) -> Check:
    from hansa.server.migrate import settings_of_postgresql

    found = settings_of_postgresql(url, _DURABLE)
    if off := [name for name in _DURABLE if found.get(name) == "off"]:
        return Check(
            "database",
            State.WARN,
            f"PostgreSQL answers; {' and '.join(off)} off: a crash of its computer may lose what was done",
            f"ALTER SYSTEM SET {off[0]} = on; SELECT pg_reload_conf();",
        )
    return Check("database", State.OK, "PostgreSQL answers, and keeps what it has committed")


def _server(home: Path) -> Check:
    info = server_status(home)
    if info is not None:
        return Check("server", State.OK, f"runs at {info.url}, process {info.pid}, version {info.version}")
    if server_runs(home):
        return Check("server", State.WARN, "it is starting or stopping", "Look again in a moment.")
    return Check("server", State.OK, "not running; the first command that needs it starts it")


def _port(home: Path) -> Check:
    server = read_settings(home).server
    if not server.port:
        return Check("port", State.OK, "is chosen at the first start")
    if server_runs(home):
        return Check("port", State.OK, f"{server.port}, the server's")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError:
            hint = f"End the program that has it, or change server.port in {home / 'config.toml'}."
            return Check("port", State.FAIL, f"another program listens on {server.port}", hint)
    return Check("port", State.OK, f"{server.port} is free")


def _isolation(_: Path) -> Check:
    found = probe_isolation()
    if found.kind == NONE:
        return Check(
            "isolation",
            State.WARN,
            f"tasks cannot be kept from reading HANSA_HOME: {found.reason}",
            "Allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces).",
        )
    return Check("isolation", State.OK, f"tasks cannot read HANSA_HOME ({found.kind})")


def _computer(home: Path) -> Check:
    found = discover(read_settings(home).local)
    runtimes = ", ".join(found.container_runtimes) or "none"
    said = f"{found.cores} cores, {found.memory_mib:,} MiB, {len(found.gpus)} GPUs; container runtimes: {runtimes}"
    return Check("computer", State.OK, said)


def _machines(home: Path) -> Check:
    """Which ways to run machines here work, and why the others do not."""
    found = ways(home / "machines")
    said = "; ".join(f"{way.name}: {way.said if way.works else f'no, {way.said}'}" for way in found)
    hints = [f"{way.name}: {way.hint}" for way in found if not way.works and way.hint]
    if not any(way.works for way in found):
        return Check("machines", State.WARN, said, " ".join(hints))
    return Check("machines", State.OK, said, " ".join(hints) or None)
