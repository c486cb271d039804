"""PostgreSQL by asyncpg: several servers share one database; bells cross servers by LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
import sqlalchemy as sa
import structlog
from sqlalchemy.engine import URL, CursorResult, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hansa.kernel import errors
from hansa.kernel.bells import Bells
from hansa.kernel.database.base import DialectName, Params

log = structlog.get_logger(__name__)
_CHANNEL = "hansa_bells"
_LAST_WORDS_S = 2.0
_TELL = "SELECT pg_notify($1, topic) FROM unnest($2::text[]) AS topic"


class FederationTx:
    """A unit of work on PostgreSQL."""

    dialect: DialectName = "postgresql"

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.topics: set[str] = set()
        self.calls: list[Callable[[], None]] = []

    async def execute(self, statement: sa.Executable, params: Params = None) -> CursorResult[Any]:
        with _faults():
            return await self._connection.execute(statement, params)

    def ring(self, topic: str) -> None:
        self.topics.add(topic)

    def after_commit(self, call: Callable[[], None]) -> None:
        self.calls.append(call)


class FederationDatabase:
    """A PostgreSQL database, shared by several servers."""

    dialect: DialectName = "postgresql"

    def __init__(self, engine: AsyncEngine, url: URL) -> None:
        self.bells = Bells()
        self._engine = engine
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._untold: set[str] = set()
        """Bells that other servers have not heard of. They hear after the commit, and of many at once: a unit that told
        them itself would hold a lock to the end of its commit, so that no two could wait for the disk together."""
        self._has_untold = asyncio.Event()
        self._ears = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, url: str) -> FederationDatabase:
        parsed = make_url(url).set(drivername="postgresql+asyncpg")
        engine = _engine(parsed)
        try:
            async with engine.connect() as connection:
                is_durable = (await connection.execute(sa.text("SHOW synchronous_commit"))).scalar_one() != "off"
            if not is_durable:
                log.warning("database.durable", message="synchronous_commit is off there; our connections turn it on")
                await engine.dispose()
                engine = _engine(parsed, synchronous_commit="on")
        except (OSError, asyncpg.PostgresError, sa.exc.DBAPIError) as error:
            await engine.dispose()
            shown = parsed.render_as_string(hide_password=True)
            raise errors.Fault(
                errors.DATABASE_AWAY,
                f"PostgreSQL at {shown} cannot be used: {error}.",
                hint="Check database.url and that the server runs.",
            ) from error
        return cls(engine, parsed)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[FederationTx]:
        async with self._connection() as connection:
            tx = FederationTx(connection)
            yield tx
            with _faults():
                await connection.commit()
        for call in tx.calls:
            call()
        for topic in tx.topics:
            self.bells.ring(topic)
        if tx.topics:
            self._untold |= tx.topics
            self._has_untold.set()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[FederationTx]:
        async with self._connection() as connection:
            # One snapshot for all its statements, as in SQLite.
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield FederationTx(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection of the pool; what was not committed is undone at the end."""
        with _faults():
            connection = await self._engine.connect()
        try:
            yield connection
        finally:
            # To the end even if the caller is cancelled, so that no connection leaks out of the pool.
            await asyncio.shield(_give_back(connection))

    async def close(self) -> None:
        self._ears.cancel()
        with suppress(asyncio.CancelledError):
            await self._ears
        if self._untold:  # the last ones; who does not hear them looks by itself
            with suppress(OSError, TimeoutError, sa.exc.DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with asyncio.timeout(_LAST_WORDS_S), self._engine.begin() as connection:
                    driver: Any = (await connection.get_raw_connection()).driver_connection
                    await driver.execute(_TELL, _CHANNEL, sorted(self._untold))
        await self._engine.dispose()

    async def _listen(self) -> None:
        """Hear the bells of other servers, and tell them of ours; reconnects for ever, as PostgreSQL may restart."""
        while True:
            try:
                connection = await asyncpg.connect(self._dsn)
            except (OSError, asyncpg.PostgresError) as error:
                log.warning("database.listen_failed", error=str(error))
                await asyncio.sleep(2)
                continue
            try:
                await self._hear_and_tell(connection)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("database.listen_failed", error=str(error))
            finally:
                with suppress(OSError, asyncpg.PostgresError):
                    await connection.close(timeout=1)

    async def _hear_and_tell(self, connection: Any) -> None:
        """Until the connection breaks. Raises what it says then."""
        own, is_gone = connection.get_server_pid(), False

        def heard(_connection: Any, pid: int, _channel: str, topic: object) -> None:
            if pid != own:  # ours have rung
                self.bells.ring(str(topic))

        def gone(_connection: Any) -> None:
            nonlocal is_gone
            is_gone = True
            self._has_untold.set()

        connection.add_termination_listener(gone)
        await connection.add_listener(_CHANNEL, heard)
        while not is_gone:
            self._has_untold.clear()
            if self._untold:
                topics, self._untold = self._untold, set()
                try:
                    await connection.execute(_TELL, _CHANNEL, sorted(topics))
                except BaseException:
                    self._untold |= topics  # by the next connection
                    raise
            await self._has_untold.wait()


def _engine(url: URL, **settings: str) -> AsyncEngine:
    """``settings``: of the connections. What pilots and users were told must not be undone by a crash of PostgreSQL:
    a lease that it forgot would hang, so that a commit is not acknowledged before it is durable."""
    arguments = {"server_settings": settings} if settings else {}
    return create_async_engine(url, pool_size=10, max_overflow=10, pool_pre_ping=False, connect_args=arguments)


async def _give_back(connection: AsyncConnection) -> None:
    """To the pool; a connection that broke is dropped. The statement in which it broke has said so, and what was
    committed is."""
    try:
        await connection.close()
    except (OSError, sa.exc.DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        log.warning("database.connection_broken", error=str(error))
        with suppress(OSError, sa.exc.DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.invalidate()


@contextmanager
def _faults() -> Iterator[None]:
    """Raise what the network does as a Fault. Only around our own calls: a caller's errors are its own."""
    try:
        yield
    except (sa.exc.DBAPIError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if (fault := _translated(error)) is not error:
            raise fault from error
        raise


def _translated(error: BaseException) -> BaseException:
    """The Fault that ``error`` stands for, or ``error`` itself."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    state = str(getattr(cause, "sqlstate", None) or "")
    lost = (
        isinstance(cause, OSError | asyncpg.InterfaceError)
        or (isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated)
        or state.startswith(("08", "57P", "53300"))  # connection lost, server stops or starts, too many
    )
    if lost or isinstance(error, sa.exc.InterfaceError):
        return errors.Fault(errors.DATABASE_AWAY, "PostgreSQL does not answer; nothing was changed.", retry_after_s=2)
    if state in ("22021", "22P05"):
        return errors.Fault(errors.INVALID, "The request holds a NUL character or another one that cannot be kept.")
    if state in ("40001", "40P01"):
        return errors.Fault(
            errors.DATABASE_AWAY,
            "PostgreSQL ended one of two changes that were in each other's way; nothing was changed.",
            hint="Try again.",
            retry_after_s=1,
        )
    if isinstance(error, sa.exc.DBAPIError) and "DiskFull" in type(error.orig).__name__:
        return errors.Fault(errors.STORAGE_FULL, "PostgreSQL's disk is full; nothing was changed.", retry_after_s=30)
    return error
