"""A process that dies at a chosen point: between any two things that it does to the database or to the world."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import CursorResult

from hansa.kernel.database import Database, Tx


class Crash(BaseException):
    """The process dies here."""


class Points:
    """Counts the points at which a process may die, and dies at the ``fatal``-th (0: never)."""

    def __init__(self, fatal: int) -> None:
        self.count = 0
        self.fatal = fatal

    def pass_by(self) -> None:
        self.count += 1
        if self.fatal and self.count >= self.fatal:
            raise Crash

    async def hook(self) -> None:
        self.pass_by()


class MortalTx:
    def __init__(self, tx: Tx, points: Points) -> None:
        self._tx = tx
        self._points = points
        self.dialect = tx.dialect

    async def execute(self, statement: sa.Executable, params: Any = None) -> CursorResult[Any]:
        self._points.pass_by()
        return await self._tx.execute(statement, params)

    def ring(self, topic: str) -> None:
        self._tx.ring(topic)

    def after_commit(self, call: Callable[[], None]) -> None:
        self._tx.after_commit(call)


class MortalDatabase:
    """The database as a process sees it that dies: before a unit, a statement, a commit, or after a commit."""

    def __init__(self, database: Database, points: Points) -> None:
        self._database = database
        self._points = points
        self.dialect = database.dialect
        self.bells = database.bells

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        self._points.pass_by()
        async with self._database.begin() as tx:
            yield MortalTx(tx, self._points)
            self._points.pass_by()
        self._points.pass_by()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        self._points.pass_by()
        async with self._database.read() as tx:
            yield MortalTx(tx, self._points)

    async def close(self) -> None:
        raise AssertionError("an engine does not close the database")
