"""1,000 resources through the reconcile engine, created and settled on a fake provider, on SQLite."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from benchmarks.harness import Better, Row, median, rounded, used_by_others
from hansa.kernel.clock import SystemClock
from hansa.kernel.database import Database, Tx, metadata, open_database
from hansa.kernel.reconcile import (
    Act,
    Acted,
    Engine,
    Intent,
    Next,
    Outcome,
    Queue,
    Settle,
    reconcile_columns,
)

LIMIT_S = 120
BUDGET_S = 5.0
BUDGET_COUNT = 1000
LINEAR = 1.3
"""How much more a resource may cost among 5,000 than among 100, in what is called linear."""

things = sa.Table(
    "benchmark_things",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("phase", sa.Text, nullable=False),
    *reconcile_columns(),
)


@dataclass(frozen=True)
class Thing:
    key: int
    generation: int


class Things:
    """A room whose provider answers at once, after one turn of the event loop."""

    queue = Queue("benchmark", things, things.c.id)

    def __init__(self, clock: SystemClock, count: int) -> None:
        self._clock = clock
        self._left = count
        self._load = sa.select(things.c.generation).where(things.c.id == sa.bindparam("which"))
        self._apply = sa.update(things).where(things.c.id == sa.bindparam("which"))
        self.world: defaultdict[int, int] = defaultdict(int)
        self.done = asyncio.Event()

    async def load(self, tx: Tx, key: int) -> Thing | None:
        row = (await tx.execute(self._load, {"which": key})).first()
        return None if row is None else Thing(key, row.generation)

    async def observe(self, loaded: Thing) -> int:
        await asyncio.sleep(0)
        return self.world[loaded.key]

    def decide(self, loaded: Thing, seen: int, now: datetime) -> Act | Settle:
        return Settle("thing.ready") if seen else Act("create", "thing.missing")

    async def act(self, loaded: Thing, intent: Intent) -> None:
        await asyncio.sleep(0)
        self.world[loaded.key] += 1

    async def apply(self, tx: Tx, loaded: Thing, outcome: Outcome[int, None]) -> Next:
        acted = isinstance(outcome, Acted)
        phase = "creating" if acted else "ready"
        await tx.execute(self._apply.values(phase=phase), {"which": loaded.key})
        if acted:
            return Next(self._clock.now())
        tx.after_commit(self._settled)
        return Next(None, loaded.generation)

    def _settled(self) -> None:
        self._left -= 1
        if not self._left:
            self.done.set()


async def measure(database: Database, count: int) -> float:
    clock = SystemClock()
    room = Things(clock, count)
    engine = Engine(database, clock, room)
    running = asyncio.create_task(engine.run())
    started = time.perf_counter()
    async with database.begin() as tx:
        rows = [{"id": n, "phase": "wanted", "due_at": clock.now()} for n in range(count)]
        await tx.execute(sa.insert(things), rows)
        tx.ring(room.queue.topic)
    async with asyncio.timeout(LIMIT_S):
        await room.done.wait()
    seconds = time.perf_counter() - started
    engine.stop()
    await running
    assert sum(room.world.values()) == count, "each was created exactly once"
    async with database.begin() as tx:
        await tx.execute(sa.delete(things))
    return seconds


async def measure_fresh(count: int) -> float:
    """The same on a database of its own."""
    with tempfile.TemporaryDirectory(prefix="hansa-bench-reconcile-") as folder:
        database = await open_database(f"sqlite:///{folder}/benchmark.db")
        async with database.begin() as tx:
            await tx.execute(sa.schema.CreateTable(things))
            for index in things.indexes:
                await tx.execute(sa.schema.CreateIndex(index))
        took = await measure(database, count)
        await database.close()
    return took


def run(quick: bool) -> list[Row]:
    """Three sizes, for the curve; the middle one has the budget."""
    noise = used_by_others()
    rounds = 1 if quick else 3
    asyncio.run(measure_fresh(100))  # warm-up
    took = {n: median([asyncio.run(measure_fresh(n)) for _ in range(rounds)]) for n in (100, BUDGET_COUNT, 5000)}
    each = {n: value / n for n, value in took.items()}
    detail = {"seconds": {n: rounded(value) for n, value in took.items()}, "used_by_others": noise}
    return [
        Row(
            f"{BUDGET_COUNT:,} resources through the reconcile engine, wanted to ready",
            "s",
            Better.LOWER,
            rounded(took[BUDGET_COUNT]),
            {},
            BUDGET_S,
            detail,
        ),
        Row(
            "the same, cost of one resource: among 5,000 / among 100",
            "×",
            Better.LOWER,
            rounded(each[5000] / each[100]),
            {},
            LINEAR,
        ),
    ]
