"""Any history of wishes, crashes, rival engines and failures ends with the world as it is wished."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from hansa.kernel import errors
from hansa.kernel.clock import ManualClock
from hansa.kernel.database import Database, open_database
from hansa.kernel.reconcile import Engine, Tuning
from tests.contract.conftest import create_schema
from tests.support.mortal import Crash, MortalDatabase, Points
from tests.support.things import QUEUE, Provider, Seen, Thing, Things, check_world, rewish, wish

KEYS = st.sampled_from(["a", "b", "c"])
SIZES = st.integers(1, 2)
ERRORS = st.sampled_from(
    [errors.Temporary("busy"), errors.Temporary("later", 30), errors.Permanent("never"), KeyError("bug")]
)
PLACES = st.sampled_from(["on_observe", "before_act", "after_act", "on_apply"])


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.provider = Provider(self.clock)
        self.keys: set[str] = set()
        self.database: Database

    def engine(self, database: Database, room: Things) -> Engine[str, Thing, Seen, int | None]:
        return Engine(database, self.clock, room, Tuning(concurrency=2), chance=lambda: 0.5)

    @initialize()
    def open(self) -> None:
        async def opened() -> None:
            self.database = await open_database(f"sqlite:///{self.folder.name}/hansa.db")
            await create_schema(self.database)

        self.runner.run(opened())

    @rule(key=KEYS, size=SIZES, is_wanted=st.booleans())
    def want(self, key: str, size: int, is_wanted: bool) -> None:
        async def write() -> None:
            async with self.database.begin() as tx:
                if key not in self.keys:
                    await wish(tx, self.clock, key, size)
                await rewish(tx, self.clock, key, size=size, is_wanted=is_wanted)

        self.runner.run(write())
        self.keys.add(key)

    @rule(seconds=st.sampled_from([1, 20, 61]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def work(self) -> None:
        self.runner.run(self.engine(self.database, Things(self.provider, self.clock)).run_once())

    @rule()
    def rivals_work(self) -> None:
        async def both() -> None:
            await asyncio.gather(
                *(self.engine(self.database, Things(self.provider, self.clock)).run_once() for _ in range(2))
            )

        self.runner.run(both())

    @rule(fatal=st.integers(1, 40))
    def die(self, fatal: int) -> None:
        points = Points(fatal)
        room = Things(self.provider, self.clock)
        room.on_observe = room.before_act = room.after_act = points.hook
        try:
            self.runner.run(self.engine(MortalDatabase(self.database, points), room).run_once())
        except* Crash:
            pass

    @rule(error=ERRORS, place=PLACES)
    def fail(self, error: Exception, place: str) -> None:
        async def raises() -> None:
            raise error

        room = Things(self.provider, self.clock)
        setattr(room, place, raises)
        self.runner.run(self.engine(self.database, room).run_once())

    @rule(key=KEYS, size=SIZES)
    def wish_changes_during_an_act(self, key: str, size: int) -> None:
        def change() -> Awaitable[None]:
            return self._change(key, size)

        room = Things(self.provider, self.clock)
        room.after_act = change
        self.runner.run(self.engine(self.database, room).run_once())

    async def _change(self, key: str, size: int) -> None:
        async with self.database.begin() as tx:
            await rewish(tx, self.clock, key, size=size)

    @rule(key=KEYS, late_s=st.integers(0, 50))
    def lease_is_lost_during_an_act(self, key: str, late_s: int) -> None:
        async def outlive() -> None:
            self.clock.advance(61)
            heir = Things(self.provider, self.clock)
            await self.engine(self.database, heir).run_once()

        room = Things(self.provider, self.clock)
        room.before_act = outlive
        self.runner.run(self.engine(self.database, room).run_once())
        self.clock.advance(late_s)

    def teardown(self) -> None:
        async def outlast() -> None:
            async with self.database.begin() as tx:  # somebody mends what failed for good
                await QUEUE.changed(tx, self.clock.now(), *self.keys)
            engine = self.engine(self.database, Things(self.provider, self.clock))
            for _ in range(12):
                self.clock.advance(31)
                await engine.run_until_idle()
            await check_world(self.database, self.provider)

        try:
            self.runner.run(outlast())
        finally:
            self.runner.run(self.database.close())
            self.runner.close()
            self.folder.cleanup()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
