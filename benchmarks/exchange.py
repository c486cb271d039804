"""The pilots' exchange by itself: one pilot takes and reports tasks, over and over.

On PostgreSQL, as a federation has it: what an exchange costs that brings one result and takes one task, of an array and
of single jobs.

On SQLite, on disk: what capacity grants add. At this computer no grant is looked at; at a site that grants nothing a
policy is read; under a grant its row is locked, what is left of it is summed up, and what is held and used is written.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.conftest import create_schema
from tests.contract.jobs.test_grants import SITE, VO, Granted
from tests.support.jobworld import World, done

from benchmarks.harness import Better, Row, rounded
from benchmarks.matching import DURABLE, _cpu_s
from hansa.kernel.database import open_database
from hansa.node import protocol
from hansa.node.protocol import ExchangeRequest

BATCH = 32
AT_ONCE = 16
"""Jobs that are submitted at a time."""
WARM = 8
"""Exchanges before it counts: each statement is built, and planned, at its first use."""
PLACES = {"this computer": "local", "a site without a grant": "free", "a site under a grant": SITE}


async def measure(rounds: int) -> dict[str, float]:
    """Exchanges per second, by place; each reports and takes :data:`BATCH` tasks."""
    found = {}
    for name, site in PLACES.items():
        with tempfile.TemporaryDirectory() as folder:
            database = await open_database(f"sqlite:///{folder}/hansa.db")
            try:
                await create_schema(database)
                world = await World(database, Path(folder)).open()
                granted = await Granted(world).open()
                await world.site(world.owner, "free")
                await granted.grant(core_hours=1e6)
                await world.submit(BATCH * (rounds + 2), vo=VO, cores=1, memory_mib=100, wall_time_s=3600)
                found[name] = await exchanges(world, await world.pilot(site=site), rounds, BATCH)
            finally:
                await database.close()
    return found


@dataclass(frozen=True)
class Cost:
    """CPU seconds of one exchange: of the server process, and of the database."""

    server_s: float
    database_s: float


async def cost(server: Any, *, batch: int, rounds: int, are_single: bool) -> Cost:
    """What an exchange costs on PostgreSQL that brings so many results and takes as many tasks."""
    with tempfile.TemporaryDirectory() as folder:
        database = await open_database(server.url(server.create_database()))
        try:
            await create_schema(database)
            world = await World(database, Path(folder)).open()
            needs: dict[str, Any] = {"cores": 1, "memory_mib": 100, "wall_time_s": 3600}
            tasks = batch * (rounds + WARM)
            if are_single:
                for _ in range(0, tasks, AT_ONCE):
                    await asyncio.gather(*(world.submit(1, **needs) for _ in range(AT_ONCE)))
            else:
                await world.submit(tasks, **needs)
            pilot = await world.pilot(site="local")
            await exchanges(world, pilot, WARM, batch)
            own, both = time.process_time(), _cpu_s(server)
            await exchanges(world, pilot, rounds, batch, after=WARM)
            own, both = time.process_time() - own, _cpu_s(server) - both
            return Cost(own / rounds, max(0.0, both - own) / rounds)
        finally:
            await database.close()


def costs(quick: bool) -> dict[str, Cost]:
    """By what a pilot exchanges; nothing where PostgreSQL cannot be started."""
    from tests.support import postgres  # a real server

    programs = postgres.find_programs()
    if programs is None:
        return {}
    server = postgres.start_server(programs, **DURABLE)
    try:
        rounds, found = (10 if quick else 100), {}
        for name, are_single in (("one task of an array", False), ("one single job", True)):
            found[name] = asyncio.run(cost(server, batch=1, rounds=rounds, are_single=are_single))
        return found
    finally:
        server.stop()


async def exchanges(world: World, pilot: Any, rounds: int, batch: int, *, after: int = 0) -> float:
    """Exchanges per second; the first one of all reports nothing."""
    results: list[protocol.TaskResult] = getattr(pilot, "owes", [])
    began = time.perf_counter()
    for sequence in range(after + 1, after + rounds + 1):
        request = ExchangeRequest(
            protocol.PROTOCOL_VERSION, "one", sequence, want=batch, cores_free=1000, memory_free_mib=10**6,
            gpus_free=0, results=results,
        )  # fmt: skip
        reply = await world.exchanges.exchange(pilot.id, request)
        results = [done(one, index) for one in reply.leases for index in range(one.first, one.last + 1)]
        assert len(results) == batch
    pilot.owes = results
    return rounds / (time.perf_counter() - began)


def run(quick: bool) -> list[Row]:
    found = asyncio.run(measure(20 if quick else 300))
    rows = [
        Row(f"exchange {BATCH} tasks at {name}", "/s", Better.HIGHER, rounded(value)) for name, value in found.items()
    ]
    for name, one in costs(quick).items():
        detail = {"server us": round(one.server_s * 1e6), "database us": round(one.database_s * 1e6)}
        work = f"CPU of an exchange of {name}, PostgreSQL"
        rows.append(Row(work, "s", Better.LOWER, rounded(one.server_s + one.database_s), detail=detail))
    return rows
