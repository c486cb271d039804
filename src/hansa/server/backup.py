"""Backup and restore of an embedded server: one archive with database, files, logs of jobs, keys and settings.

A backup is taken while the server runs: first the database, by SQLite's own consistent copy, then the object store.
Objects are written before any row names them and are never changed, so every row of the copy finds its object.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

from hansa.kernel.errors import Fault
from hansa.server import errors
from hansa.server.home import open_home
from hansa.server.launch import server_runs
from hansa.server.schema import copy_database

_KEPT = ("config.toml", "keys", "blobs")
_DATABASE = "db/hansa.db"


def write_backup(home_path: Path, target: Path) -> None:
    """Write the archive (gzip, 0600), whole or not at all. Raises Fault ``server.backup``."""
    if not (home_path / "config.toml").is_file():
        raise _refused(f"{home_path} is not the home of a server", "Set HANSA_HOME, or start one: hansa up")
    home = open_home(home_path)
    if not home.is_embedded:
        raise _refused(
            "this server's database is PostgreSQL", "Use pg_dump for it, and copy HANSA_HOME and the object store."
        )
    temporary = target.with_name(f".{target.name}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
            _add(archive, home_path, home.database_file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    except OSError as error:
        raise _refused(f"{target} cannot be written: {error.strerror}", "Choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _add(archive: tarfile.TarFile, home: Path, database: Path) -> None:
    if database.exists():
        with tempfile.TemporaryDirectory(dir=home / "db") as scratch:
            copy = Path(scratch) / "hansa.db"
            copy_database(database, copy)
            archive.add(copy, _DATABASE)
    for name in _KEPT:
        archive.add(home / name, name, filter=_without_temporary)


def _without_temporary(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.startswith("blobs/tmp/") else member


def read_backup(home_path: Path, source: Path) -> None:
    """Unpack an archive into a home that is empty or not there.

    Raises Fault ``server.backup``; then nothing is left.
    """
    if server_runs(home_path):
        raise _refused(f"a server of {home_path} runs", "Stop it first: hansa down")
    if home_path.exists() and any(home_path.iterdir()):
        raise _refused(f"{home_path} is not empty", "Move it away, or set HANSA_HOME to a new folder.")
    home_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home_path.parent, prefix=".hansa-restore-") as scratch:
        unpacked = Path(scratch) / "home"
        unpacked.mkdir(mode=0o700)
        try:
            with tarfile.open(source, "r:gz") as archive:
                archive.extractall(unpacked, filter="data")
        except (OSError, tarfile.TarError, EOFError) as error:
            raise _refused(f"{source} is not a backup that can be read: {error}", "Take another copy.") from error
        if not (unpacked / "config.toml").is_file() or not (unpacked / _DATABASE).is_file():
            raise _refused(f"{source} is not a backup of Hansa", "Give a file that hansa admin backup has written.")
        for private in [*(unpacked / "keys").iterdir(), unpacked / "config.toml", unpacked / _DATABASE]:
            private.chmod(0o600)
        if home_path.exists():
            home_path.rmdir()
        unpacked.rename(home_path)


def _refused(what: str, hint: str) -> Fault:
    return Fault(errors.BACKUP, f"{what[0].upper()}{what[1:]}.", hint=hint)
