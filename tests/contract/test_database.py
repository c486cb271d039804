"""What both dialects of the database promise, and what each promises alone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.kernel import errors
from hansa.kernel.database import Database, Document, Moment, Tx, insert_ignore, metadata, open_database
from hansa.kernel.database.embedded import EmbeddedDatabase
from tests.support import postgres
from tests.support.postgres import PostgresServer

notes = sa.Table(
    "test_notes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text),
    sa.Column("at", Moment),
    sa.Column("body", Document),
)


class OopsError(Exception):
    pass


async def note(tx: Tx, number: int, **values: Any) -> None:
    await tx.execute(sa.insert(notes), {"id": number, **values})


async def ids_in(database: Database) -> list[int]:
    async with database.read() as tx:
        return list((await tx.execute(sa.select(notes.c.id).order_by(notes.c.id))).scalars())


async def write(database: Database, number: int, fails: bool = False) -> None:
    async with database.begin() as tx:
        await note(tx, number)
        if fails:
            raise OopsError


# --- units of work ------------------------------------------------------------------------------------------


async def test_a_unit_commits(database: Database) -> None:
    await write(database, 1)
    assert await ids_in(database) == [1]


async def test_a_unit_that_raises_is_undone(database: Database) -> None:
    with pytest.raises(OopsError):
        await write(database, 1, fails=True)
    assert await ids_in(database) == []
    await write(database, 1)


async def test_a_unit_that_fails_does_not_undo_others_of_the_same_moment(database: Database) -> None:
    results = await asyncio.gather(*(write(database, n, fails=n % 3 == 0) for n in range(30)), return_exceptions=True)
    assert [isinstance(result, OopsError) for result in results] == [n % 3 == 0 for n in range(30)]
    assert await ids_in(database) == [n for n in range(30) if n % 3]


async def test_a_broken_constraint_undoes_only_its_own_unit(database: Database) -> None:
    results = await asyncio.gather(*(write(database, n // 2) for n in range(20)), return_exceptions=True)
    assert sum(isinstance(result, sa.exc.IntegrityError) for result in results) == 10
    assert await ids_in(database) == list(range(10))


async def test_a_unit_is_invisible_until_it_has_committed(database: Database) -> None:
    async with database.begin() as tx:
        await note(tx, 1)
        assert await ids_in(database) == []
    assert await ids_in(database) == [1]


async def test_a_read_is_one_snapshot(database: Database) -> None:
    count = sa.select(sa.func.count()).select_from(notes)
    async with database.read() as tx:
        assert (await tx.execute(count)).scalar() == 0
        await write(database, 1)
        assert (await tx.execute(count)).scalar() == 0
    assert await ids_in(database) == [1]


async def test_many_units_at_once_lose_no_update(database: Database) -> None:
    await write(database, 1)

    async def add(n: int) -> None:
        async with database.begin() as tx:
            statement = sa.update(notes).values(text=sa.func.coalesce(notes.c.text, "") + "x")
            await tx.execute(statement)

    await asyncio.gather(*(add(n) for n in range(50)))
    async with database.read() as tx:
        assert (await tx.execute(sa.select(notes.c.text))).scalar() == "x" * 50


async def test_errors_of_the_caller_stay_its_own(database: Database) -> None:
    for error in (FileNotFoundError("mine"), TimeoutError("mine"), OopsError("mine")):
        with pytest.raises(type(error)) as caught:
            async with database.begin():
                raise error
        assert caught.value is error
        assert caught.value.__cause__ is None


async def test_closing_twice_at_work_loses_nothing(database_url: str) -> None:
    database = await open_database(database_url)
    async with database.begin() as tx:
        await tx.execute(sa.schema.CreateTable(notes))
    await asyncio.gather(*(write(database, n) for n in range(5)))
    await database.close()
    database = await open_database(database_url)
    assert await ids_in(database) == list(range(5))
    await database.close()


# --- bells and calls ----------------------------------------------------------------------------------------


async def test_bells_and_calls_come_after_the_commit(database: Database) -> None:
    called: list[str] = []
    with database.bells.listen("note/1") as bell:
        async with database.begin() as tx:
            await note(tx, 1)
            tx.ring("note/1")
            tx.after_commit(lambda: called.append("now"))
            assert called == []
            assert not await bell.wait(0.02)
        assert called == ["now"]
        assert await bell.wait(1)


async def test_bells_and_calls_never_come_after_an_undo(database: Database) -> None:
    called: list[str] = []
    with database.bells.listen("note/1") as bell:

        async def undone() -> None:
            async with database.begin() as tx:
                tx.ring("note/1")
                tx.after_commit(lambda: called.append("never"))
                raise OopsError

        with pytest.raises(OopsError):
            await undone()
        await write(database, 2)
        assert not await bell.wait(0.05)
    assert called == []


async def test_bells_cross_servers(postgres_database: str) -> None:
    here, there = await open_database(postgres_database), await open_database(postgres_database)
    try:
        with there.bells.listen("note/1") as bell:
            async with asyncio.timeout(5):
                while not await bell.wait(0.1):  # its ear may not be open yet
                    async with here.begin() as tx:
                        tx.ring("note/1")
    finally:
        await here.close()
        await there.close()


async def test_the_last_bells_of_a_server_cross_too(postgres_database: str) -> None:
    there = await open_database(postgres_database)
    try:
        with there.bells.listen("note/1") as bell:
            async with asyncio.timeout(60):
                while not await bell.wait(0.2):
                    here = await open_database(postgres_database)
                    async with here.begin() as tx:
                        tx.ring("note/1")
                    await here.close()  # its ear has most likely never been open
    finally:
        await there.close()


# --- cancellation -------------------------------------------------------------------------------------------


async def test_cancelling_a_waiting_unit_blocks_nobody(database: Database) -> None:
    tasks = [asyncio.create_task(write(database, n)) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    there = await ids_in(database)
    for n, result in enumerate(results):
        if result is None:
            assert n in there, "what returned is durable"
    assert all(result is None for result in results[1::2])
    await write(database, 99)
    assert 99 in await ids_in(database)


@pytest.mark.parametrize("turns", range(12))
async def test_cancelling_at_any_moment_is_all_or_nothing(database: Database, turns: int) -> None:
    called: list[int] = []

    async def two_notes() -> None:
        async with database.begin() as tx:
            await note(tx, 1)
            await asyncio.sleep(0)
            await note(tx, 2)
            tx.after_commit(lambda: called.append(1))

    task = asyncio.create_task(two_notes())
    other = asyncio.create_task(write(database, 3))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await other
    there = await ids_in(database)
    assert there in ([3], [1, 2, 3])
    if database.dialect == "sqlite":
        assert called == ([1] if 1 in there else []), "a durable unit is told, even if nobody waits for it"


# --- durability ---------------------------------------------------------------------------------------------

CHILD = """
import asyncio, os, sys
import sqlalchemy as sa
from hansa.kernel.database import open_database

async def main() -> None:
    database = await open_database(sys.argv[1])
    for n in range(1000):
        async with database.begin() as tx:
            await tx.execute(sa.text("INSERT INTO test_notes (id) VALUES (:n)"), {"n": n})
        os.write(1, b"%d\\n" % n)

asyncio.run(main())
"""


async def test_what_returned_survives_kill_9(database_url: str, database: Database) -> None:
    del database  # it has made the schema
    child = subprocess.Popen([sys.executable, "-c", CHILD, database_url], stdout=subprocess.PIPE)
    assert child.stdout is not None
    last = -1
    for line in child.stdout:
        last = int(line) if line.strip().isdigit() else last  # what else is there is the log's
        if last == 20:
            child.send_signal(signal.SIGKILL)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    opened = await open_database(database_url)
    there = await ids_in(opened)
    await opened.close()
    assert there[: last + 1] == list(range(last + 1))
    assert len(there) <= last + 2


# --- trouble ------------------------------------------------------------------------------------------------


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedDatabase]:
    database = EmbeddedDatabase(f"sqlite:///{tmp_path}/hansa.db")
    async with database.begin() as tx:
        await tx.execute(sa.schema.CreateTable(notes))
    yield database
    await database.close()


async def limit_pages(database: EmbeddedDatabase, extra: int | None) -> None:
    writer = database._connection()  # the limit is a property of the connection
    pages = writer.exec_driver_sql("PRAGMA page_count").scalar_one()
    writer.exec_driver_sql(f"PRAGMA max_page_count = {2**30 if extra is None else pages + extra}").close()
    writer.rollback()


async def test_a_full_disk_is_a_fault_and_leaves_no_half_unit(embedded: EmbeddedDatabase) -> None:
    await write(embedded, 0)
    await limit_pages(embedded, 20)

    async def big(number: int) -> None:
        async with embedded.begin() as tx:
            await note(tx, number, text="x" * 20_000)
            await note(tx, number + 1000)

    results = await asyncio.gather(*(big(n) for n in range(1, 20)), return_exceptions=True)
    faults = [result for result in results if result is not None]
    assert faults
    for fault in faults:
        assert isinstance(fault, errors.Fault)
        assert fault.code is errors.STORAGE_FULL
    good = [n for n, result in enumerate(results, 1) if result is None]
    assert await ids_in(embedded) == sorted([0, *good, *(n + 1000 for n in good)])
    await limit_pages(embedded, None)
    await asyncio.gather(*(big(n) for n in range(100, 110)))
    assert len(await ids_in(embedded)) == 1 + 2 * (len(good) + 10)


async def test_when_sqlite_undoes_the_transaction_all_of_the_group_fail(embedded: EmbeddedDatabase) -> None:
    async def undone(number: int) -> None:
        async with embedded.begin() as tx:
            await note(tx, number)
            if number == 3:  # as SQLite does by itself after an I/O error
                await tx.execute(sa.text("ROLLBACK"))
                raise OopsError

    results = await asyncio.gather(*(undone(n) for n in range(6)), return_exceptions=True)
    good = [n for n, result in enumerate(results) if result is None]
    assert all(isinstance(results[n], OopsError) for n in range(4))
    assert good == [4, 5], "the next group is not harmed"
    assert await ids_in(embedded) == good


async def test_a_commit_that_fails_fails_every_unit_of_the_group(embedded: EmbeddedDatabase) -> None:
    called: list[int] = []

    async def unit(number: int) -> None:
        async with embedded.begin() as tx:
            # A deferred constraint is checked by COMMIT alone.
            await tx.execute(sa.text("INSERT INTO child VALUES (:n)"), {"n": number})
            tx.after_commit(lambda: called.append(number))

    async with embedded.begin() as tx:
        await tx.execute(sa.text("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
        reference = "REFERENCES parent DEFERRABLE INITIALLY DEFERRED"
        await tx.execute(sa.text(f"CREATE TABLE child (id INTEGER {reference})"))
    results = await asyncio.gather(*(unit(n) for n in range(3)), return_exceptions=True)
    assert all(isinstance(result, Exception) for result in results)
    assert called == []
    await write(embedded, 1)
    assert await ids_in(embedded) == [1]


async def test_a_database_locked_by_another_process_is_a_fault(embedded: EmbeddedDatabase) -> None:
    import sqlite3

    embedded._connection().exec_driver_sql("PRAGMA busy_timeout = 10").close()
    embedded._connection().rollback()
    other = sqlite3.connect(embedded.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.Fault) as caught:
        await write(embedded, 1)
    assert caught.value.code is errors.DATABASE_AWAY
    other.execute("ROLLBACK")
    other.close()
    await write(embedded, 1)
    assert await ids_in(embedded) == [1]


async def test_commits_are_durable_whatever_postgresql_is_set_to(own_server: PostgresServer) -> None:
    assert postgres.SETTINGS["synchronous_commit"] == "off"
    database = await open_database(own_server.url("postgres"))
    try:
        for open_tx in (database.begin, database.read):
            async with open_tx() as tx:
                assert (await tx.execute(sa.text("SHOW synchronous_commit"))).scalar_one() == "on"
    finally:
        await database.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that this test may stop."""
    programs = postgres.find_programs()
    if programs is None:
        pytest.skip(postgres.ADVICE)
    server = postgres.start_server(programs)
    yield server
    server.stop()


@pytest.fixture
async def restartable(own_server: PostgresServer) -> AsyncIterator[Database]:
    database = await open_database(own_server.url("postgres"))
    async with database.begin() as tx:
        await tx.execute(sa.schema.CreateTable(notes))
    yield database
    await database.close()


async def test_postgresql_restarts(own_server: PostgresServer, restartable: Database) -> None:
    await asyncio.gather(*(write(restartable, n) for n in range(8)))  # fill the pool

    async def interrupted() -> None:
        async with restartable.begin() as tx:
            await note(tx, 100)
            stop(own_server)
            await note(tx, 101)

    for unit in (interrupted(), write(restartable, 102)):
        with pytest.raises(errors.Fault) as caught:
            await unit
        assert caught.value.code is errors.DATABASE_AWAY
        assert caught.value.retry_after_s
    start(own_server)
    await write_in_the_end(restartable, 103)
    assert await ids_in(restartable) == [*range(8), 103]
    with restartable.bells.listen("again") as bell:
        async with asyncio.timeout(60):
            while not await bell.wait(0.2):
                async with restartable.begin() as tx:
                    tx.ring("again")


async def write_in_the_end(database: Database, number: int) -> None:
    """Every dead connection of the pool may be met once, each time as the Fault that says so."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await write(database, number)
            except errors.Fault as fault:
                if fault.code is not errors.DATABASE_AWAY:
                    raise


def stop(server: PostgresServer) -> None:
    """A "fast shutdown", as at an upgrade: open units are ended by the server."""
    server.process.send_signal(signal.SIGINT)
    server.process.wait(60)


def start(server: PostgresServer) -> None:
    """On the same port as before."""
    options = [
        *("-c", "listen_addresses=127.0.0.1", "-c", f"port={server.port}"),
        *("-c", f"unix_socket_directories={server.directory}", "-c", "fsync=off"),
    ]
    server.process = subprocess.Popen(
        [server.programs / "postgres", "-D", server.directory / "data", *options],
        **postgres.as_server_user(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=postgres.die_with_parent,
    )


async def test_of_two_units_in_each_others_way_one_is_told_to_try_again(database: Database) -> None:
    await write(database, 1)
    await write(database, 2)
    both_hold_one = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        async with database.begin() as tx:
            for number in (first, second):
                await tx.execute(sa.update(notes).where(notes.c.id == number).values(text=str(first)))
                if number == first and database.dialect == "postgresql":
                    await both_hold_one.wait()

    results = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
    faults = [result for result in results if isinstance(result, errors.Fault)]
    assert [fault.retry_after_s for fault in faults] == ([1] if database.dialect == "postgresql" else [])
    assert len(faults) == len([result for result in results if result is not None])


async def test_a_server_that_is_not_there_is_a_fault_without_the_password() -> None:
    with pytest.raises(errors.Fault) as caught:
        await open_database(f"postgresql://hansa:secret@127.0.0.1:{postgres.free_port()}/hansa")
    assert caught.value.code is errors.DATABASE_AWAY
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://", "sqlite:///:memory:"])
async def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(errors.Fault) as caught:
        await open_database(url)
    assert caught.value.code is errors.SETTING


# --- types and statements -----------------------------------------------------------------------------------


async def test_moments_keep_microseconds_and_become_utc(database: Database) -> None:
    moments = [
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2026, 3, 29, 1, 30, 0, 1, UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2))),
    ]
    async with database.begin() as tx:
        for number, moment in enumerate(moments):
            await note(tx, number, at=moment)
        await note(tx, 9, at=None)
    async with database.read() as tx:
        rows = (await tx.execute(sa.select(notes.c.at).order_by(notes.c.id))).scalars().all()
        later = sa.select(notes.c.id).where(notes.c.at > moments[1]).order_by(notes.c.at)
        assert (await tx.execute(later)).scalars().all() == [3, 2]
    assert rows == [*moments, None]
    assert all(row.tzinfo is UTC for row in rows[:-1])


async def test_a_moment_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(sa.exc.StatementError, match="needs a time zone"):
        async with database.begin() as tx:
            await note(tx, 1, at=datetime(2026, 1, 1))  # noqa: DTZ001
    await write(database, 1)


async def test_documents_come_back_as_they_were(database: Database) -> None:
    bodies: list[Any] = [
        {"a": [1, 2.5, None, True], "ü": {"nested": "\u2603 'quoted' \"\\"}},
        [],
        {},
        "text",
        0,
    ]
    async with database.begin() as tx:
        for number, body in enumerate(bodies):
            await note(tx, number, body=body)
    async with database.read() as tx:
        found = (await tx.execute(sa.select(notes.c.body).order_by(notes.c.id))).scalars().all()
    assert found == bodies


async def test_insert_ignore_leaves_what_is_there(database: Database) -> None:
    async with database.begin() as tx:
        await note(tx, 1, text="first")
        assert (await tx.execute(insert_ignore(tx, notes).values(id=1, text="second"))).rowcount == 0
        assert (await tx.execute(insert_ignore(tx, notes).values(id=2, text="new"))).rowcount == 1
    async with database.read() as tx:
        found = (await tx.execute(sa.select(notes.c.text).order_by(notes.c.id))).scalars().all()
    assert found == ["first", "new"]


def test_an_embedded_database_is_not_put_on_a_network_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    from hansa.kernel import disk

    mounts = "none / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\nnone /home/local\\040disk xfs rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_kwargs: mounts)
    with pytest.raises(errors.Fault) as caught:
        disk.refuse_network_disk(Path("/home/anna/db/hansa.db"))
    assert caught.value.code is errors.NETWORK_DISK
    assert "nfs4" in str(caught.value)
    disk.refuse_network_disk(Path("/home/local disk/hansa.db"))
    disk.refuse_network_disk(Path("/homes/anna/hansa.db"))


async def test_the_file_and_its_journal_are_there_and_nothing_stays_open(tmp_path: Path) -> None:
    database = EmbeddedDatabase(f"sqlite:///{tmp_path}/hansa.db")
    async with database.begin() as tx:
        await tx.execute(sa.schema.CreateTable(notes))
    await asyncio.gather(*(ids_in(database) for _ in range(20)))
    await database.close()
    open_files = [entry.readlink() for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert not [name for name in open_files if tmp_path in name.parents]
