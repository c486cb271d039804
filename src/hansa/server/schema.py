"""The schema's version: an embedded server upgrades itself (after a backup), PostgreSQL is upgraded when told."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from hansa.kernel import errors
from hansa.kernel.errors import Fault
from hansa.server.home import Home

log = structlog.get_logger(__name__)
T = TypeVar("T")


def prepare_schema(home: Home) -> None:
    """Make sure that the database has this server's schema.

    Embedded: made, or backed up and upgraded. PostgreSQL: only checked, and made where the database is empty.
    Raises Fault ``kernel.schema`` where the schema is newer, or PostgreSQL's is older.
    """
    current, head = _versions(home)
    if current == head:
        return
    if home.is_embedded:
        if current is not None:
            _refuse_unknown(current)
            log.info("schema.upgrade", backup=str(back_up_file(home.database_file)), was=current, now=head)
        upgrade(home)
        return
    if current is None:
        upgrade(home)
        return
    _refuse_unknown(current)
    raise Fault(
        errors.SCHEMA,
        f"The database has schema {current}; this server needs {head}.",
        hint="Stop all servers, back up the database, run: hansa db upgrade",
    )


def upgrade(home: Home) -> tuple[str | None, str]:
    """Bring the schema up to this server's; the versions before and after, in one transaction."""

    def run(connection: Connection) -> str | None:
        before = _current(connection)
        if before is not None:
            _refuse_unknown(before)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
        return before

    return _on_connection(home, run), _head()


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


def _refuse_unknown(current: str) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current not in known:
        raise Fault(
            errors.SCHEMA,
            f"The database has schema {current}, which this version of Hansa does not know: it is newer.",
            hint="Use the newer Hansa again, or restore the backup that was made before the upgrade (HANSA_HOME/db).",
        )


def _versions(home: Home) -> tuple[str | None, str]:
    return _on_connection(home, _current), _head()


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:  # pragma: no cover - the distribution has migrations
        raise Fault(errors.SCHEMA, "This distribution has no migrations.")
    return head


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _on_connection(home: Home, work: Callable[[Connection], T]) -> T:
    """Run blocking work on a connection; never inside an event loop."""
    url = make_url(home.database_url)
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return work(connection)

    async def on_postgresql() -> T:
        engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), poolclass=sa.NullPool)
        async with engine.connect() as connection:
            return await connection.run_sync(work)

    try:
        return asyncio.run(on_postgresql())
    except (OSError, sa.exc.DBAPIError) as error:
        shown = url.render_as_string(hide_password=True)
        raise Fault(
            errors.DATABASE_AWAY, f"PostgreSQL at {shown} cannot be used: {error}.", hint="Check database.url."
        ) from error
