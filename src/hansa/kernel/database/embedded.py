"""SQLite: WAL, one writer that groups commits, reads inline.

A statement takes microseconds, so it runs on the event loop itself; only the commit, which waits for the
disk, goes to a thread. Units of work that arrive while another one runs or commits join the next commit: each
is a savepoint of its own, so one that raises undoes only itself, and none returns before the common commit is
durable.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, CursorResult, Engine, make_url

from hansa.kernel import errors
from hansa.kernel.bells import Bells
from hansa.kernel.database.base import DialectName, Params
from hansa.kernel.disk import refuse_network_disk

_MOST_IDLE_READERS = 8


class EmbeddedTx:
    """A unit of work on SQLite."""

    dialect: DialectName = "sqlite"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.topics: set[str] = set()
        self.calls: list[Callable[[], None]] = []

    async def execute(self, statement: sa.Executable, params: Params = None) -> CursorResult[Any]:
        with _faults():
            return self._connection.execute(statement, params)

    def ring(self, topic: str) -> None:
        self.topics.add(topic)

    def after_commit(self, call: Callable[[], None]) -> None:
        self.calls.append(call)


class _Group:
    """Units of work that become durable with one commit."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.units: list[EmbeddedTx] = []

    def fail(self, error: BaseException) -> None:
        self.done.set_exception(error)
        self.done.exception()  # a group whose units have all gone away is no defect


class EmbeddedDatabase:
    """SQLite in a file of its own, used by one server process."""

    dialect: DialectName = "sqlite"

    def __init__(self, url: str) -> None:
        path = make_url(url).database
        if not path or path == ":memory:":
            raise errors.Fault(errors.SETTING, "An embedded database needs a file.", hint="Use sqlite:///PATH.")
        refuse_network_disk(Path(path))
        self.path = Path(path)
        self.bells = Bells()
        self._engine = _engine(url)
        self._writer: Connection | None = None
        self._lock = asyncio.Lock()
        self._group: _Group | None = None
        self._committing: set[asyncio.Task[None]] = set()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._readers: list[Connection] = []

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[EmbeddedTx]:
        async with self._lock:
            with _faults():
                group = self._group or self._open_group()
                writer = self._connection()
                writer.exec_driver_sql("SAVEPOINT unit")
            tx = EmbeddedTx(writer)
            try:
                yield tx
                with _faults():
                    writer.exec_driver_sql("RELEASE unit")
            except BaseException as error:
                self._undo(group, writer, error)
                raise
            group.units.append(tx)
        # Shielded: a caller that goes away must not leave the others of the group without an answer.
        await asyncio.shield(group.done)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[EmbeddedTx]:
        with _faults():
            connection = self._readers.pop() if self._readers else self._engine.connect()
        try:
            with _faults():
                connection.exec_driver_sql("BEGIN")
            yield EmbeddedTx(connection)
        finally:
            connection.rollback()
            if len(self._readers) < _MOST_IDLE_READERS:
                self._readers.append(connection)
            else:
                connection.close()

    async def close(self) -> None:
        async with self._lock:
            pass
        for task in tuple(self._committing):
            await task
        for connection in [*self._readers, *([self._writer] if self._writer else [])]:
            connection.close()
        self._readers.clear()
        self._engine.dispose()
        self._disk.shutdown()

    def _connection(self) -> Connection:
        if self._writer is None:
            self._writer = self._engine.connect()
        return self._writer

    def _open_group(self) -> _Group:
        self._connection().exec_driver_sql("BEGIN IMMEDIATE")
        self._group = _Group()
        # Queued behind every unit that waits now: those join, later ones start the next group.
        task = asyncio.create_task(self._commit(self._group))
        self._committing.add(task)
        task.add_done_callback(self._committing.discard)
        return self._group

    async def _commit(self, group: _Group) -> None:
        async with self._lock:
            if group.done.done():  # SQLite has undone it already
                return
            self._group = None
            connection = self._connection()
            try:
                raw: Any = connection.connection.dbapi_connection
                await asyncio.get_running_loop().run_in_executor(self._disk, raw.commit)
            except Exception as error:  # noqa: BLE001 - whatever it was, every unit of the group must hear of it
                connection.rollback()
                group.fail(_translated(error))
            else:
                connection.commit()
                self._tell(group)

    def _tell(self, group: _Group) -> None:
        """Ring and call for every unit, even if its caller has been cancelled: the unit is durable."""
        loop = asyncio.get_running_loop()
        for tx in group.units:
            for call in tx.calls:
                loop.call_soon(call)  # before begin() returns; one that raises harms no other
            for topic in tx.topics:
                self.bells.ring(topic)
        group.done.set_result(None)

    def _undo(self, group: _Group, writer: Connection, error: BaseException) -> None:
        raw: Any = writer.connection.dbapi_connection
        if raw.in_transaction:
            writer.exec_driver_sql("ROLLBACK TO unit")
            writer.exec_driver_sql("RELEASE unit")
            return
        # SQLite undid the whole transaction by itself (disk full, I/O error): all of the group failed. Nobody
        # may join it now: a savepoint outside of a transaction would be committed by its own release.
        self._group = None
        writer.rollback()
        group.fail(error if isinstance(error, Exception) else RuntimeError("the transaction was undone"))


def _engine(url: str) -> Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": 10},
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=10000",
            "cache_size=-65536",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _translated(error: BaseException) -> BaseException:
    """The Fault that ``error`` stands for, or ``error`` itself."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError):
        text = str(cause)
        if "full" in text:
            return errors.Fault(
                errors.STORAGE_FULL,
                "The disk that holds HANSA_HOME is full; nothing was changed.",
                hint="Free some space, then try again.",
                retry_after_s=30,
            )
        if "disk I/O error" in text or "unable to open" in text or "locked" in text:
            return errors.Fault(
                errors.DATABASE_AWAY,
                f"The database cannot be written: {text}.",
                hint="hansa doctor says more.",
            )
    return error


@contextmanager
def _faults() -> Iterator[None]:
    """Raise what the disk does as a Fault. Only around our own calls: a caller's errors are its own."""
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        if (fault := _translated(error)) is not error:
            raise fault from error
        raise
