"""1,000 machines on the fake provider, from the wish to running; listing at 25 sites."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.support.machineworld import IMAGE, MachineWorld

import hansa.server.tables  # noqa: F401 - all tables
from benchmarks.harness import Better, Row, median, rounded, used_by_others
from hansa.images.wire import NewEndorsement
from hansa.kernel.database import metadata, open_database
from hansa.machines.store import machines
from hansa.machines.wire import NewMachine

LIMIT_S = 300
BUDGET_S, BUDGET_COUNT = 5.0, 1000
LINEAR = 1.3
SITES = 25
SLOWEST_S = 2.0
LISTING_BUDGET_S = SLOWEST_S + 0.1


async def open_world(folder: Path, clock: Any = None, drivers: Any = None) -> MachineWorld:
    """Over a new database, and one fake provider at each site unless given others."""
    database = await open_database(f"sqlite:///{folder}/hansa.db")
    async with database.begin() as tx:
        for table in metadata.sorted_tables:
            await tx.execute(sa.schema.CreateTable(table))
            for index in table.indexes:
                await tx.execute(sa.schema.CreateIndex(index))
    return await MachineWorld(database, folder / "images", clock, drivers).start(with_local=drivers is None)


async def run_until_running(world: MachineWorld, count: int) -> float:
    """Seconds from the first wish to the last machine that runs; all wishes are made one after the other."""
    engine = world.engine
    running = asyncio.create_task(engine.run())
    began = time.perf_counter()
    for number in range(count):
        await world.service.create(world.ada, NewMachine(IMAGE, f"m{number}"))
    query = sa.select(sa.func.count()).where(machines.c.phase == "running")
    async with asyncio.timeout(LIMIT_S):
        while True:
            async with world.database.read() as tx:
                if (await tx.execute(query)).scalar() == count:
                    break
            await asyncio.sleep(0.01)
    took = time.perf_counter() - began
    engine.stop()
    await running
    assert sum(len(cloud.machines) for cloud in world.drivers.clouds.values()) == count
    return took


async def measure(count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="hansa-bench-machines-") as folder:
        world = await open_world(Path(folder))
        took = await run_until_running(world, count)
        await world.database.close()
        return took


async def measure_listing() -> float:
    """One page of 100 machines, four at each of 25 sites; sites that take two seconds for every answer."""
    with tempfile.TemporaryDirectory(prefix="hansa-bench-machines-") as folder:
        world = await open_world(Path(folder))
        await world.base.vo("vo.a", world.bob)
        await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
        for number in range(SITES):
            await world.site(f"site{number:02}", "vo.a")
        for number in range(SITES * 4):
            where = [f"site{number % SITES:02}"]
            await world.service.create(world.bob, NewMachine(IMAGE, f"m{number}", sites=where))
        await world.engine.run_until_idle()
        for cloud in world.drivers.clouds.values():
            cloud.latency_s = SLOWEST_S
        times = []
        for _ in range(9):
            began = time.perf_counter()
            page = await world.service.list_machines(world.bob, None, 1000)
            times.append(time.perf_counter() - began)
            assert len(page.items) == SITES * 4
        await world.database.close()
        return median(times)


def run(quick: bool) -> list[Row]:
    """Three sizes, for the curve; the middle one has the budget."""
    noise = used_by_others()
    asyncio.run(measure(50))  # warm-up
    rounds = 1 if quick else 3
    took = {n: median([asyncio.run(measure(n)) for _ in range(rounds)]) for n in (100, BUDGET_COUNT, 3000)}
    each = {n: value / n for n, value in took.items()}
    detail = {"seconds": {n: rounded(value) for n, value in took.items()}, "used_by_others": noise}
    return [
        Row(
            f"{BUDGET_COUNT:,} machines on the fake provider, from the wish to running",
            "s",
            Better.LOWER,
            rounded(took[BUDGET_COUNT]),
            {},
            BUDGET_S,
            detail,
        ),
        Row(
            "the same, cost of one machine: among 3,000 / among 100",
            "×",
            Better.LOWER,
            rounded(each[3000] / each[100]),
            {},
            LINEAR,
        ),
        Row(
            f"list machines at {SITES} sites, each of which takes {SLOWEST_S:.0f} s to answer",
            "s",
            Better.LOWER,
            rounded(asyncio.run(measure_listing())),
            {},
            LISTING_BUDGET_S,
        ),
    ]
