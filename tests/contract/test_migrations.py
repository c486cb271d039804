"""The migrations lead to the tables that the code knows, on both databases, and take what is there along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from hansa.server.home import open_home
from hansa.server.schema import MIGRATIONS, prepare_schema
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


def test_a_new_database_is_what_the_migrations_make(database_url: str, tmp_path: Path) -> None:
    """Column by column, with defaults, keys and the conditions of indexes: first starts skip the migrations."""
    migrate(database_url, "head")
    by_migrations = on_connection(database_url, shape)

    if database_url.startswith("postgresql"):
        on_connection(database_url, empty)
        home = open_home(tmp_path / "home", {"database": {"url": database_url}})
    else:
        home = open_home(tmp_path / "home")
    prepare_schema(home)
    assert on_connection(home.database_url, shape) == by_migrations


def empty(connection: Connection) -> None:
    found = sa.MetaData()
    found.reflect(connection)
    found.drop_all(connection)
    connection.commit()


def shape(connection: Connection) -> dict[str, Any]:
    """All that the database itself says of its tables, whatever the order in which it came to be."""
    look = sa.inspect(connection)
    return {
        table: {
            "columns": {
                one["name"]: (str(one["type"]), one["nullable"], one["default"]) for one in look.get_columns(table)
            },
            "key": look.get_pk_constraint(table)["constrained_columns"],
            "foreign": sorted(
                (key["constrained_columns"], key["referred_table"], key["referred_columns"], str(key["options"]))
                for key in look.get_foreign_keys(table)
            ),
            "unique": sorted(one["column_names"] for one in look.get_unique_constraints(table)),
            "indexes": sorted(
                (str(one["name"]), str(one["column_names"]), bool(one["unique"]), conditions(one))
                for one in look.get_indexes(table)
            ),
        }
        for table in look.get_table_names()
        if table not in _TESTS and not table.startswith("test_")
    }


def conditions(index: Any) -> str:
    return str({name: str(value) for name, value in index.get("dialect_options", {}).items()})


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
