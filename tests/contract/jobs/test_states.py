"""Random histories of a job against a model: whatever comes in whatever order, nothing is lost or counted twice."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hansa.jobs.wire import After, Counts, Job, Phase, Selection
from hansa.kernel.database import Database, open_database
from hansa.kernel.errors import Fault
from hansa.kernel.settings import JobSettings
from hansa.node import protocol
from hansa.node.protocol import ExchangeReply, ExchangeRequest, TaskResult
from tests.contract.conftest import create_schema
from tests.support.jobworld import Pilot, World, done, ended, indices, running

T = TypeVar("T")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Every step commits: where that costs nothing, more histories fit into the time."""
PILOTS = st.integers(0, 2)
FINAL_OUTCOMES = (protocol.EXITED, protocol.KILLED, protocol.NODE, protocol.WALL_TIME, protocol.PREEMPTED)


class Histories(RuleBasedStateMachine):
    """One job, three pilots. The model knows which task each pilot still owes and which ends were accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="hansa-states-", dir=MEMORY)
        self.pilots: list[Pilot] = []
        self.sent: list[tuple[Pilot, ExchangeRequest]] = []
        self.ends: dict[int, str] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(
        count=st.integers(1, 12),
        first=st.integers(0, 3),
        retries=st.integers(0, 2),
        backs_off=st.booleans(),
        is_blocked=st.booleans(),
    )
    def submit(self, count: int, first: int, retries: int, backs_off: bool, is_blocked: bool) -> None:
        self.job, self.world, self.database = self.run(self._open(count, first, retries, backs_off, is_blocked))

    async def _open(
        self, count: int, first: int, retries: int, backs_off: bool, is_blocked: bool
    ) -> tuple[Job, World, Database]:
        folder = Path(self.folder.name)
        database = await open_database(f"sqlite:///{folder}/hansa.db")
        await create_schema(database)
        world = await World(database, folder, job=JobSettings(crash_limit=2, node_retries=1)).open()
        self.pilots = [await world.pilot() for _ in range(3)]
        before = await world.submit()
        job = await world.submit(
            count,
            first=first,
            retries=retries,
            backoff_s=3.0 if backs_off else 0.0,
            after=[After(before.number, "any")] if is_blocked else [],
        )
        self.before = before.number
        return job, world, database

    # --- what pilots do ---------------------------------------------------------------------------------------

    @rule(which=PILOTS, want=st.integers(0, 6))
    def take(self, which: int, want: int) -> None:
        self.send(self.pilots[which], want=want)

    @rule(which=PILOTS, data=st.data(), is_heard=st.booleans())
    def report(self, which: int, data: st.DataObject, is_heard: bool) -> None:
        pilot = self.pilots[which]
        owed = [(lease, index) for lease in pilot.leases.values() for index in indices(lease)]
        if not owed:
            return
        chosen = data.draw(st.lists(st.sampled_from(owed), min_size=1, max_size=6))
        found = [self._result(data, lease.lease, index) for lease, index in chosen]
        self.send(pilot, is_heard=is_heard, want=data.draw(st.integers(0, 2)), results=found)

    def _result(self, data: st.DataObject, lease: int, index: int) -> TaskResult:
        outcome = data.draw(st.sampled_from(FINAL_OUTCOMES))
        if outcome == protocol.EXITED:
            return done(lease, index, data.draw(st.sampled_from([0, 0, 1])))
        return ended(lease, index, outcome)

    @rule(which=PILOTS, data=st.data())
    def say_what_runs(self, which: int, data: st.DataObject) -> None:
        pilot = self.pilots[which]
        owed = [(lease, index) for lease in pilot.leases.values() for index in indices(lease)]
        chosen = data.draw(st.lists(st.sampled_from(owed), max_size=3, unique=True)) if owed else []
        self.send(pilot, running=[task for lease, index in chosen for task in running(lease, index)])

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """An old request arrives again, even one of a session or a pilot that is gone."""
        pilot, request = data.draw(st.sampled_from(self.sent))
        before = self.run(self._reported())
        self.run(self._exchange(pilot, request, is_heard=request is pilot.last))
        assert self.run(self._reported()) == before, "what it reports was heard before, or came too late for ever"

    async def _reported(self) -> list[tuple[int, int, str]]:
        """How attempts ended, as pilots said, each once: index, attempt, outcome."""
        ends = [*(await self.world.result_rows(self.job.number)).values()]
        ends += await self.world.attempt_rows(self.job.number)
        return sorted((row.index, row.attempt, row.outcome) for row in ends if row.wall_s > 0)

    @rule(which=PILOTS)
    def start_anew(self, which: int) -> None:
        pilot = self.pilots[which]
        pilot.session += "'"
        pilot.sequence = 0
        pilot.leases.clear()
        self.send(pilot)

    @rule(which=PILOTS)
    def end(self, which: int) -> None:
        self.send(self.pilots[which], ending="stopped")
        self.replace(which)

    @rule(which=PILOTS)
    def lose(self, which: int) -> None:
        self.run(self.world.lose(self.pilots[which]))
        self.replace(which)

    def replace(self, which: int) -> None:
        self.pilots[which] = self.run(self.world.pilot())

    def send(self, pilot: Pilot, *, is_heard: bool = True, **values: Any) -> None:
        request = pilot.request(**values)
        self.sent = [*self.sent[-8:], (pilot, request)]
        self.run(self._exchange(pilot, request, is_heard=is_heard))

    async def _exchange(self, pilot: Pilot, request: ExchangeRequest, *, is_heard: bool) -> None:
        try:
            reply: ExchangeReply = await self.world.exchanges.exchange(pilot.id, request)
        except Fault as fault:
            assert fault.code.code == "jobs.pilot_gone"  # noqa: PT017 - the only one that may come
            return
        if is_heard and request.session == pilot.session:
            pilot.hear(reply)

    # --- what people do ---------------------------------------------------------------------------------------

    @rule(data=st.data(), is_all=st.integers(0, 3))
    def kill(self, data: st.DataObject, is_all: int) -> None:
        self.run(self._ask(self.world.jobs.kill, self._some(data, is_all == 0), {"jobs.ended"}))

    @rule(data=st.data(), is_all=st.booleans())
    def retry(self, data: st.DataObject, is_all: bool) -> None:
        chosen = self._some(data, is_all)
        self.run(self._ask(self.world.jobs.retry, chosen, {"jobs.ended", "jobs.nothing_to_retry"}))
        self.ends.clear()

    def _some(self, data: st.DataObject, is_all: bool) -> Selection:
        every = range(self.job.first, self.job.first + self.job.count)
        return Selection(None if is_all else data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=4)))

    async def _ask(self, operation: Any, selection: Selection, may_refuse: set[str]) -> None:
        try:
            await operation(self.world.owner, self.job.number, selection)
        except Fault as fault:
            assert fault.code.code in may_refuse  # noqa: PT017

    @rule(is_hold=st.booleans())
    def hold_or_release(self, is_hold: bool) -> None:
        act = self.world.jobs.hold if is_hold else self.world.jobs.release
        try:
            self.run(act(self.world.owner, self.job.number))
        except Fault as fault:
            assert fault.code.code in {"jobs.ended", "jobs.not_held"}  # noqa: PT017

    @rule()
    def tick(self) -> None:
        self.run(self.world.timers.tick())

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.world.manual.advance(seconds)

    # --- what must hold ---------------------------------------------------------------------------------------

    @invariant()
    def books_are_right_and_ends_stay(self) -> None:
        if not self.pilots:
            return
        books = self.run(self.world.books(self.job))
        for index, phase in self.ends.items():
            assert books.ended.get(index) == phase, f"{index} had ended {phase}"
        self.ends = dict(books.ended)
        counts = self.run(self.world.get(self.job.number)).counts
        assert sum(vars(counts).values()) == self.job.count

    def teardown(self) -> None:
        if self.pilots:
            self.run(self._come_to_rest())
            self.run(self.database.close())
        self.loop.close()
        self.folder.cleanup()

    async def _come_to_rest(self) -> None:
        """A pilot that does its work comes, and the others do not: everything ends, and is charged once."""
        for pilot in self.pilots:
            await self.world.lose(pilot)
        last = await self.world.pilot()
        if (await self.world.get(self.job.number)).held:
            await self.world.jobs.release(self.world.owner, self.job.number)
        for _ in range(5):
            self.world.manual.advance(100)
            await last.take(100)
            await last.finish()
        found = await self.world.get(self.job.number)
        assert Phase(found.status.phase).is_final
        assert found.counts == Counts(0, 0, found.counts.done, found.counts.failed, found.counts.killed)
        rows = await self.world.result_rows(self.job.number)
        earlier = await self.world.attempt_rows(self.job.number)
        assert len({(row.index, row.attempt) for row in earlier}) == len(earlier)
        others = [*(await self.world.result_rows(self.before)).values(), *await self.world.attempt_rows(self.before)]
        ran = [row for row in [*rows.values(), *earlier, *others] if row.wall_s > 0]
        assert await self.world.charged() == (len(ran), float(len(ran)))


Histories.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHistories = Histories.TestCase
