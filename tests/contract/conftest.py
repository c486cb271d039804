"""The database in both dialects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hansa.kernel import events as _events  # noqa: F401 - its tables belong to the schema
from hansa.kernel import idempotency as _idempotency  # noqa: F401
from hansa.kernel.database import Database, metadata, open_database
from tests.support import things as _things  # noqa: F401


async def create_schema(database: Database) -> None:
    async with database.begin() as tx:
        for table in metadata.sorted_tables:
            await tx.execute(sa.schema.CreateTable(table))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                await tx.execute(sa.schema.CreateIndex(index))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each dialect."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/hansa.db"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with the schema."""
    opened = await open_database(database_url)
    await create_schema(opened)
    try:
        yield opened
    finally:
        await opened.close()
