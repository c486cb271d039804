"""The pilots' exchange by itself: what capacity grants add to it. One pilot takes and reports tasks, over and over.

The database is SQLite, on disk. At this computer no grant is looked at; at a site that grants nothing a policy is read;
under a grant its row is locked, what is left of it is summed up, and what is held and used is written.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from tests.contract.conftest import create_schema
from tests.contract.jobs.test_grants import SITE, VO, Granted
from tests.support.jobworld import World, done

from benchmarks.harness import Better, Row, rounded
from hansa.kernel.database import open_database
from hansa.node import protocol
from hansa.node.protocol import ExchangeRequest

BATCH = 32
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
                found[name] = await exchanges(world, site, rounds)
            finally:
                await database.close()
    return found


async def exchanges(world: World, site: str, rounds: int) -> float:
    pilot = await world.pilot(site=site)
    results: list[protocol.TaskResult] = []
    began = time.perf_counter()
    for sequence in range(1, rounds + 1):
        request = ExchangeRequest(
            protocol.PROTOCOL_VERSION, "one", sequence, want=BATCH, cores_free=1000, memory_free_mib=10**6,
            gpus_free=0, results=results,
        )  # fmt: skip
        reply = await world.exchanges.exchange(pilot.id, request)
        results = [done(one, index) for one in reply.leases for index in range(one.first, one.last + 1)]
        assert len(results) == BATCH
    return rounds / (time.perf_counter() - began)


def run(quick: bool) -> list[Row]:
    found = asyncio.run(measure(20 if quick else 300))
    return [
        Row(f"exchange {BATCH} tasks at {name}", "/s", Better.HIGHER, rounded(value)) for name, value in found.items()
    ]
