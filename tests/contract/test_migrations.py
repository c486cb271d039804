"""The migrations lead to the tables that the code knows, on both databases, and take what is there along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from hansa.server.schema import MIGRATIONS
from hansa.server.tables import metadata

_TESTS = {"things"}  # a table of the tests' own


def on_connection(url: str, work: Callable[[Connection], Any]) -> Any:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with sa.create_engine(parsed, poolclass=sa.NullPool).connect() as connection:
            return work(connection)

    async def run() -> Any:
        engine = create_async_engine(parsed.set(drivername="postgresql+asyncpg"), poolclass=sa.NullPool)
        async with engine.connect() as connection:
            return await connection.run_sync(work)

    return asyncio.run(run())


def migrate(url: str, revision: str) -> None:
    def work(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()

    on_connection(url, work)


def test_the_migrations_make_the_tables_of_the_code(database_url: str) -> None:
    migrate(database_url, "head")

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"include_name": _is_ours})
        return list(compare_metadata(context, metadata))

    assert [found for found in on_connection(database_url, differences) if "test_" not in str(found)] == []


def _is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    return not (kind == "table" and name in _TESTS)


def test_a_queue_of_the_earlier_schema_stays(database_url: str) -> None:
    migrate(database_url, "0002")
    row = "INSERT INTO queues (owner_id, cores, memory_mib, gpus, wall_time_s, site) VALUES ('ada', 1, 2, 0, 3, '')"

    def insert(connection: Connection) -> None:
        connection.execute(sa.text(row))
        connection.commit()

    on_connection(database_url, insert)
    migrate(database_url, "head")
    found = on_connection(database_url, lambda c: c.execute(sa.text("SELECT digest, needs, vo FROM queues")).all())
    assert [tuple(row) for row in found] == [("earlier-1", "", "")]
