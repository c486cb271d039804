"""1,000 resources through the reconcile engine, created and settled on a fake provider, on SQLite.

Budget (design, budgets): 5 s for 1,000, and linear. ``python benchmarks/reconcile.py [COUNT …]`` prints a line
per count and writes ``benchmarks/results/reconcile.json``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

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
BUDGET_S_PER_1000 = 5.0

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


async def main(counts: list[int]) -> None:
    results = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            database = await open_database(f"sqlite:///{folder}/benchmark.db")
            async with database.begin() as tx:
                await tx.execute(sa.schema.CreateTable(things))
                for index in things.indexes:
                    await tx.execute(sa.schema.CreateIndex(index))
            seconds = await measure(database, count)
            await database.close()
        results.append({"resources": count, "seconds": round(seconds, 3), "per_second": round(count / seconds)})
        print(
            f"{count:>6} resources created and settled in {seconds:6.2f} s = {count / seconds:5.0f}/s"
            f" (budget: {BUDGET_S_PER_1000 * count / 1000:g} s)",
            flush=True,
        )
    file = Path(__file__).parent / "results" / "reconcile.json"
    file.parent.mkdir(exist_ok=True)
    document = {"benchmark": "reconcile", "budget_s_per_1000": BUDGET_S_PER_1000, "results": results}
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    asyncio.run(main([int(argument) for argument in sys.argv[1:]] or [100, 1000, 5000]))
