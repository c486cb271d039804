"""The database in both dialects."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hansa.kernel import events as _events  # noqa: F401 - its tables belong to the schema
from hansa.kernel import idempotency as _idempotency  # noqa: F401
from hansa.kernel.database import Database, metadata, open_database
from tests.support import things as _things  # noqa: F401
from tests.support.postgres import PostgresServer, run_apart


async def create_schema(database: Database) -> None:
    async with database.begin() as tx:
        for table in metadata.sorted_tables:
            await tx.execute(sa.schema.CreateTable(table))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                await tx.execute(sa.schema.CreateIndex(index))


async def fill(url: str) -> None:
    database = await open_database(url)
    await create_schema(database)
    await database.close()


def template() -> str:
    """The name of what is copied: it has the tables that the modules imported so far have declared."""
    return hashlib.sha256(" ".join(sorted(metadata.tables)).encode()).hexdigest()[:16]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a database of each dialect: with the schema where the test wants ``database`` too, else empty.

    The schema is made once, and copied: to make it takes longer than most of the tests.
    """
    is_filled = "database" in request.fixturenames
    if request.param == "postgresql":
        if not is_filled:
            yield str(request.getfixturevalue("postgres_database"))
            return
        server: PostgresServer = request.getfixturevalue("postgres_server")
        name = server.create_database(server.template(template(), lambda url: run_apart(fill(url))))
        yield server.url(name)
        server.drop_database(name)
        return
    file = tmp_path / "hansa.db"
    if is_filled:
        whole = tmp_path_factory.getbasetemp() / f"{template()}.db"
        if not whole.exists():
            part = whole.with_suffix(".part")
            run_apart(fill(f"sqlite:///{part}"))
            part.rename(whole)
        shutil.copy(whole, file)
    yield f"sqlite:///{file}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with the schema."""
    opened = await open_database(database_url)
    try:
        yield opened
    finally:
        await opened.close()
