"""The edge to the schema: makes it, or has Alembic run the migrations. Blocking; never inside an event loop.

Alembic is imported where it is needed only: making a new database, as every first start does, needs it not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from hansa.kernel import errors
from hansa.kernel.errors import Fault
from hansa.server.home import Home

T = TypeVar("T")


def make(home: Home, version: str) -> None:
    """Make all tables in an empty database, in one transaction: what all migrations up to ``version`` lead to."""
    from hansa.server.tables import metadata

    versions = sa.Table(
        "alembic_version",
        sa.MetaData(),
        sa.Column("version_num", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
    )

    def run(connection: Connection) -> None:
        metadata.create_all(connection, checkfirst=False)
        versions.create(connection)
        connection.execute(versions.insert().values(version_num=version))
        connection.commit()

    _on_connection(make_url(home.database_url), run)


def migrate(home: Home, migrations: Path) -> None:
    """Run all migrations that the database has not seen, in one transaction."""
    from alembic import command
    from alembic.config import Config

    def run(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(migrations))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()

    _on_connection(make_url(home.database_url), run)


def version_on_postgresql(home: Home) -> str | None:
    """The schema's version in PostgreSQL; None where the database is empty."""
    from alembic.runtime.migration import MigrationContext

    return _on_connection(
        make_url(home.database_url), lambda connection: MigrationContext.configure(connection).get_current_revision()
    )


def settings_of_postgresql(url: str, names: Sequence[str]) -> dict[str, str]:
    """What PostgreSQL's settings are, by name. Raises Fault ``kernel.database_away``."""
    query = sa.text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)")
    return _on_connection(
        make_url(url),
        lambda connection: {row.name: row.setting for row in connection.execute(query, {"names": list(names)})},
    )


def _on_connection(url: URL, work: Callable[[Connection], T]) -> T:
    if url.get_backend_name() == "sqlite":
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
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
