"""The schema's version: an embedded server upgrades itself (after a backup), PostgreSQL is upgraded when told.

Light: Alembic is imported only where something is to be done, as most starts find the schema as it should be.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import structlog

from hansa.kernel import errors
from hansa.kernel.errors import Fault
from hansa.server.home import Home

log = structlog.get_logger(__name__)
MIGRATIONS = Path(__file__).parent / "migrations"


def prepare_schema(home: Home) -> None:
    """Make sure that the database has this server's schema. Blocking; never inside an event loop.

    Embedded: made, or backed up and upgraded. PostgreSQL: only checked, and made where the database is empty.
    Raises Fault ``kernel.schema`` where the schema is newer, or PostgreSQL's is older.
    """
    current, known = current_version(home), known_versions()
    if current == known[-1]:
        return
    refuse_unknown(current, known)
    if current is not None and not home.is_embedded:
        raise Fault(
            errors.SCHEMA,
            f"The database has schema {current}; this server needs {known[-1]}.",
            hint="Stop all servers, back up the database, run: hansa db upgrade",
        )
    if current is not None:
        log.info("schema.upgrade", backup=str(back_up_file(home.database_file)), was=current, now=known[-1])
    upgrade(home)


def upgrade(home: Home) -> tuple[str | None, str]:
    """Bring the schema up to this server's, in one transaction; the versions before and after."""
    from hansa.server.migrate import make, migrate

    before, known = current_version(home), known_versions()
    refuse_unknown(before, known)
    if before is None:
        make(home, known[-1])
    elif before != known[-1]:
        migrate(home, MIGRATIONS)
    return before, known[-1]


def known_versions() -> list[str]:
    """The versions that this distribution has migrations for, oldest first: the numbers that begin their files."""
    return sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def current_version(home: Home) -> str | None:
    """The version of the database; None where it is empty or not there."""
    if not home.is_embedded:
        from hansa.server.migrate import version_on_postgresql

        return version_on_postgresql(home)
    if not home.database_file.exists():
        return None
    connection = sqlite3.connect(home.database_file)
    try:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise Fault(errors.DATABASE_AWAY, f"The database cannot be read: {error}.", hint="hansa doctor") from error
    finally:
        connection.close()
    return str(found[0]) if found else None


def refuse_unknown(current: str | None, known: list[str]) -> None:
    """Raise Fault ``kernel.schema`` where the schema is newer than this server."""
    if current is not None and current not in known:
        raise Fault(
            errors.SCHEMA,
            f"The database has schema {current}, which this version of Hansa does not know: it is newer.",
            hint="Use the newer Hansa again, or restore the backup that was made before the upgrade (HANSA_HOME/db).",
        )


def back_up_file(database: Path) -> Path:
    """Copy an embedded database beside itself, consistent even while it is written to; the copy's path."""
    copy = database.with_name(f"{database.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.db")
    copy_database(database, copy)
    return copy


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of an SQLite database, by its own backup interface."""
    origin, copy = sqlite3.connect(source), sqlite3.connect(target)
    try:
        origin.backup(copy)
    finally:
        copy.close()
        origin.close()
    target.chmod(0o600)
