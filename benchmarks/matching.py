"""Matches per second with many tasks waiting, as arrays and as single jobs, on SQLite and PostgreSQL; a huge array.

One match is what an exchange does for a pilot that wants one task: find the queue, lease the task, move the job, in a
unit of work of its own. The jobs are put in by SQL, as nobody has time to submit ten million.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import sqlalchemy as sa

import hansa.server.tables  # noqa: F401 - all tables belong to the schema
from benchmarks.harness import Better, Row, rounded
from hansa.jobs import leases, store
from hansa.jobs.kills import kill_all
from hansa.jobs.needs import Needs
from hansa.jobs.views import job_view
from hansa.kernel.clock import SystemClock
from hansa.kernel.database import Database, metadata, open_database
from hansa.kernel.events import EventLog

LIMIT_S = 3600
OWNER = "user_bench"
NOW = datetime(2026, 11, 25, tzinfo=UTC)
ARRAYS = 1_000
QUEUES = 10
BUDGET = 1_000.0
WARM_S = 0.5
CLIENTS = 8
"""Pilots that ask at the same time."""

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
}
"""As a federation would run it, and not as the tests do."""

_SPEC = '{"command": ["true"], "array": false, "names": [], "retries": 0, "requirements": {"cores": 1}, "pad": "x"}'
_INSERT = """
INSERT INTO jobs (id, owner_id, owner_name, queue_id, "rank", spec, has_rows, first, count, next_index, ahead, again,
    open, done, failed, killed, kill_requested, phase, reason, message, waiting_on, since, version, input_files,
    input_bytes, created, command)
SELECT 'job_' || n, '{owner}', 'bench', {queue} + n % {queues}, 5, '{spec}', {false}, 0, {count}, 0, 0, 0,
    {true}, 0, 0, 0, {false}, 'waiting', 'jobs.queued', '', 'hansa', {now}, 1, 0, 0, {now}, 'true'
FROM {series}
"""


@asynccontextmanager
async def _database(kind: str, server: Any) -> AsyncIterator[tuple[Database, str]]:
    with tempfile.TemporaryDirectory(prefix="hansa-matching-") as folder:
        url = f"sqlite:///{folder}/hansa.db" if kind == "SQLite" else server.url(server.create_database())
        database = await open_database(url)
        try:
            async with database.begin() as tx:
                for table in metadata.sorted_tables:
                    await tx.execute(sa.schema.CreateTable(table))
            yield database, url
        finally:
            await database.close()
            if kind != "SQLite":
                server.drop_database(url.rpartition("/")[2])


async def _settle(database: Database, url: str) -> None:
    """As a database is that has been there for a while: with statistics, and nothing left to be cleaned or written."""
    if database.dialect == "sqlite":
        async with database.begin() as tx:
            await tx.execute(sa.text("ANALYZE"))
        return
    import asyncpg

    connection = await asyncpg.connect(url.replace("postgresql+asyncpg", "postgresql"))
    for statement in ("VACUUM ANALYZE jobs", "ANALYZE", "CHECKPOINT"):
        await connection.execute(statement, timeout=LIMIT_S)
    await connection.close()


async def _fill(database: Database, url: str, jobs: int, count: int) -> None:
    """``jobs`` jobs of ``count`` tasks each, in ten queues; the indexes are made when they are in."""
    async with database.begin() as tx:
        ids = [await store.queue_for(tx, OWNER, Needs(1, 1024, 0, 600 + n, None)) for n in range(QUEUES)]
    is_sqlite = database.dialect == "sqlite"
    for start in range(1, jobs + 1, 1_000_000):
        end = min(start + 999_999, jobs)
        words = {
            "owner": OWNER,
            "queue": min(ids),
            "queues": QUEUES,
            "spec": _SPEC.replace(":", "\\:"),
            "count": count,
            "series": _series(start, end, is_sqlite=is_sqlite),
            "true": "1" if is_sqlite else "true",
            "false": "0" if is_sqlite else "false",
            "now": str(int(NOW.timestamp() * 1e6)) if is_sqlite else "TIMESTAMPTZ '2026-11-25'",
        }
        async with database.begin() as tx:
            await tx.execute(sa.text(_INSERT.format(**words)))
    async with database.begin() as tx:
        for table in metadata.sorted_tables:
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                await tx.execute(sa.schema.CreateIndex(index))
    await _settle(database, url)


def _series(start: int, end: int, *, is_sqlite: bool) -> str:
    if not is_sqlite:
        return f"generate_series({start}, {end}) AS s(n)"
    numbers = f"SELECT {start} UNION ALL SELECT n + 1 FROM s WHERE n < {end}"
    return f"(WITH RECURSIVE s(n) AS ({numbers}) SELECT n FROM s)"


def _pilot(number: int) -> Any:
    return SimpleNamespace(
        id=f"pilot_{number}",
        owner_id=OWNER,
        site="bench",
        cores=64,
        memory_mib=262_144,
        gpus=[],
        node={},
        tags=[],
        required_tags=[],
        nodes=1,
        is_whole=False,
        batch=None,
        vo=None,
    )


def _request(sequence: int, want: int = 1) -> Any:
    return SimpleNamespace(
        want=want,
        session="s",
        sequence=sequence,
        remaining_s=None,
        cores_free=64,
        memory_free_mib=262_144,
        gpus_free=0,
    )


async def _match(database: Database, seconds: float, clients: int) -> float:
    """Matches per second that so many pilots get together."""

    async def ask(number: int) -> int:
        pilot, got, sequence = _pilot(number), 0, 0
        while time.perf_counter() < until:
            sequence += 1
            async with database.begin() as tx:
                got += len(await leases.take(tx, pilot, _request(sequence), NOW))
        return got

    until = time.perf_counter() + WARM_S
    await asyncio.gather(*(ask(number) for number in range(clients)))
    begin = time.perf_counter()
    until = begin + seconds
    found = await asyncio.gather(*(ask(number) for number in range(clients)))
    return sum(found) / (time.perf_counter() - begin)


async def _curves(kind: str, server: Any, sizes: list[int], seconds: float) -> list[Row]:
    rows = []
    for shape in ("arrays", "single jobs"):
        curve: dict[int, float] = {}
        looks: dict[int, float] = {}
        costs: dict[int, int] = {}
        for size in sizes:
            async with _database(kind, server) as (database, url):
                arrays = min(ARRAYS, size // 10)
                await _fill(database, url, *((arrays, size // arrays) if shape == "arrays" else (size, 1)))
                before = _cpu_s(server)
                curve[size] = await _match(database, seconds, CLIENTS if kind == "PostgreSQL" else 1)
                costs[size] = round((_cpu_s(server) - before) / (seconds + WARM_S) / curve[size] * 1e6)
                looks[size] = await _look(database)
                print(
                    kind, shape, size, round(curve[size]), "matches/s", costs[size], "us", looks[size], "s", flush=True
                )
        last = sizes[-1]
        detail = {
            "matches/s by waiting tasks": {str(size): rounded(rate) for size, rate in curve.items()},
            "CPU us a match, server and database, by waiting tasks": {str(size): cost for size, cost in costs.items()},
        }
        work = f"matches with {last:,} tasks waiting as {shape}, {kind}"
        budget = BUDGET if kind == "PostgreSQL" else None
        rows.append(Row(work, "1/s", Better.HIGHER, rounded(curve[last]), budget=budget, detail=detail))
        flat = rounded(curve[last] / curve[sizes[0]])
        work = f"{kind}, {shape}: rate at {last:,} against {sizes[0]:,}"
        rows.append(Row(work, "", Better.HIGHER, flat, detail=detail))
        work = f"seeing what waits, to start pilots, with {last:,} tasks waiting as {shape}, {kind}"
        detail = {"seconds by waiting tasks": {str(size): rounded(took) for size, took in looks.items()}}
        rows.append(Row(work, "s", Better.LOWER, rounded(looks[last]), detail=detail))
    return rows


def _cpu_s(server: Any) -> float:
    """CPU seconds of this process and of the database so far: less noisy than the rate where others use the machine."""
    processes = [psutil.Process()]
    if server is not None:
        postmaster = psutil.Process(server.process.pid)
        processes += [postmaster, *postmaster.children()]
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


async def _look(database: Database) -> float:
    """Seconds that it takes to see who waits for how much, as the loop does that starts pilots."""
    begin = time.perf_counter()
    async with database.read() as tx:
        assert len(await store.owners_with_work(tx)) == QUEUES
    return time.perf_counter() - begin


async def _huge_array(kind: str, server: Any, count: int) -> list[Row]:
    """What people do with an array of so many tasks while some of it runs."""
    async with _database(kind, server) as (database, url):
        await _fill(database, url, 1, count)
        async with database.begin() as tx:
            for number in range(50):
                await leases.take(tx, _pilot(number), _request(1, 64), NOW)
        begin = time.perf_counter()
        async with database.read() as tx:
            row = await store.get_job(tx, 1)
            running = await store.running_counts(tx, [1])
        job_view_s = time.perf_counter() - begin
        assert row is not None
        assert job_view(_seen(row), running.get(1, 0)).count == count
        begin = time.perf_counter()
        events = EventLog(database, SystemClock())
        async with database.begin() as tx:
            job = await store.get_job(tx, 1, lock=True)
            await kill_all(tx, events, job, "user/bench", "Killed.", NOW)
        cancel_s = time.perf_counter() - begin
    name = f"array of {count:,} tasks, {kind}"
    return [
        Row(f"summary of an {name}", "s", Better.LOWER, rounded(job_view_s), budget=0.05),
        Row(f"cancel of an {name}", "s", Better.LOWER, rounded(cancel_s), budget=1.0),
    ]


def _seen(row: Any) -> Any:
    spec = {"setup": None, "outputs": []} | row.spec
    spec["requirements"] = {"cores": 1, "memory_mib": 1, "gpus": 0, "wall_time_s": 1, "site": None}
    return SimpleNamespace(**{**row._mapping, "spec": spec})


async def _run(quick: bool, server: Any) -> list[Row]:
    rows: list[Row] = []
    for kind in ("SQLite", "PostgreSQL"):
        if kind == "PostgreSQL" and server is None:
            continue
        most = 5 if quick else 7 if kind == "PostgreSQL" else 6
        rows += await _curves(kind, server, [10**power for power in range(4, most + 1)], 1.0 if quick else 5.0)
        rows += await _huge_array(kind, server, 1_000_000)
    return rows


def run(quick: bool) -> list[Row]:
    from tests.support import postgres  # a real server; none is started where there are no programs

    programs = postgres.find_programs()
    server = postgres.start_server(programs, **DURABLE) if programs is not None else None
    try:
        return asyncio.run(_run(quick, server))
    finally:
        if server is not None:
            server.stop()


if __name__ == "__main__":
    import json
    import sys

    for one in run("--quick" in sys.argv):
        print(one.work, one.hansa, one.unit, json.dumps(one.detail))
    print(Path(__file__).name)
