"""What both dialects promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import CursorResult, make_url

from hansa.kernel.bells import Bells

Params = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
DialectName = Literal["sqlite", "postgresql"]

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Tx(Protocol):
    """A unit of work, or a consistent read. Never wait for a network inside one."""

    dialect: DialectName

    async def execute(self, statement: sa.Executable, params: Params = None) -> CursorResult[Any]: ...

    def ring(self, topic: str) -> None:
        """Ring this bell, on every server, once the unit is committed."""

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call this in this process once the unit is committed."""


class Database(Protocol):
    """One database. ``begin`` is a unit of work: durable when it has returned, undone when it raised."""

    dialect: DialectName
    bells: Bells

    def begin(self) -> AbstractAsyncContextManager[Tx]: ...

    def read(self) -> AbstractAsyncContextManager[Tx]: ...

    async def close(self) -> None: ...


def insert_for(tx: Tx, table: sa.Table) -> Any:
    """The dialect's own INSERT, which knows ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
    if tx.dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # a large import that an embedded server does without

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def insert_ignore(tx: Tx, table: sa.Table) -> Any:
    """``INSERT … ON CONFLICT DO NOTHING`` in the dialect of ``tx``."""
    return insert_for(tx, table).on_conflict_do_nothing()


async def open_database(url: str) -> Database:
    """Open ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``.

    Raises Fault ``kernel.database_away``, ``kernel.network_disk`` or ``kernel.setting``.
    """
    from hansa.kernel import errors

    name = make_url(url).get_backend_name()
    if name == "sqlite":
        from hansa.kernel.database.embedded import EmbeddedDatabase

        return EmbeddedDatabase(url)
    if name == "postgresql":
        from hansa.kernel.database.federation import FederationDatabase

        return await FederationDatabase.open(url)
    raise errors.Fault(
        errors.SETTING,
        f"A database of kind {name!r} is not supported.",
        hint="Use sqlite:///PATH or postgresql://USER@HOST/NAME.",
    )
