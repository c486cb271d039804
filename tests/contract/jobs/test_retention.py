"""What is kept and what goes: nothing that anything counts on is ever deleted, and all else is in the end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import tempfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hansa.engines.objects import FolderObjects
from hansa.identity.model import Caller
from hansa.jobs.files import FileService
from hansa.jobs.logs import LogChoice, LogStore
from hansa.jobs.retention import Retention
from hansa.jobs.tables import attempts, contents, files, job_inputs, log_chunks, task_files
from hansa.jobs.wire import Phase, Selection
from hansa.kernel.database import Database, open_database
from hansa.kernel.errors import Fault
from hansa.kernel.settings import FileSettings, RetentionSettings
from hansa.node.protocol import File
from tests.contract.conftest import create_schema
from tests.support.jobworld import Pilot, World, chunk, done, indices, output
from tests.support.mortal import Crash, MortalDatabase, Points

T = TypeVar("T")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
DAY_S = 86_400.0
KEPT = RetentionSettings(job_files_days=10, logs_days=10, attempts_days=10, uploads_days=5, unclaimed_days=3)
CONTENTS = [random.Random(number).randbytes(100 + number) for number in range(5)]
WHICH = st.integers(0, len(CONTENTS) - 1)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


BY_DIGEST = {digest_of(data): data for data in CONTENTS}


async def stream(data: bytes) -> AsyncIterator[bytes]:
    yield data


def expect(fault: Fault, *codes: str) -> None:
    if fault.code.code not in codes:
        raise fault


def retention_of(world: World, points: Points | None = None) -> Retention:
    """One that dies where the points say so."""
    if points is None:
        return Retention(world.database, world.clock, world.files, world.logs, KEPT)
    database = MortalDatabase(world.database, points)
    objects = MortalObjects(world.objects, points)
    file_service = FileService(database, objects, world.clock, FileSettings(free_bytes=0))
    return Retention(database, world.clock, file_service, LogStore(database, objects, world.clock), KEPT)


class MortalObjects:
    """Objects as a process sees them that dies: before or after a deletion."""

    def __init__(self, objects: FolderObjects, points: Points) -> None:
        self._objects = objects
        self._points = points

    async def delete(self, key: str) -> None:
        self._points.pass_by()
        await self._objects.delete(key)
        self._points.pass_by()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


class Keeping(RuleBasedStateMachine):
    """People upload, submit, run and retry; time passes; the retention sweeps, is killed, or sweeps meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="hansa-keeping-", dir=MEMORY)
        self.numbers: list[int] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def open(self) -> None:
        self.database, self.world = self.run(self._open())
        self.pilot: Pilot | None = None

    async def _open(self) -> tuple[Database, World]:
        folder = Path(self.folder.name)
        database = await open_database(f"sqlite:///{folder}/hansa.db")
        await create_schema(database)
        return database, await World(database, folder).open()

    async def _upload(self, which: int) -> None:
        data = CONTENTS[which]
        await self.world.files.upload(self.world.owner, digest_of(data), len(data), stream(data))

    async def _begin(self, which: int) -> None:
        """Content that is stored but never claimed."""
        data = CONTENTS[which]
        await self.world.files.store_stream("nobody", digest_of(data), len(data), stream(data))

    async def _submit(self, some: list[int]) -> None:
        inputs = [File(f"f{which}", digest_of(CONTENTS[which]), len(CONTENTS[which])) for which in some]
        owned = await self._rows(files)
        try:
            job = await self.world.jobs.submit(self.world.owner, self.world.spec(inputs=inputs, outputs=["*"]))
        except Fault as fault:
            expect(fault, "jobs.file_missing")
            if not {file.digest for file in inputs} - {row.digest for row in owned}:
                raise AssertionError("a file that was there was refused") from fault
        else:
            self.numbers.append(job.number)

    async def _work(self, which: int, exit_code: int) -> None:
        if self.pilot is None:
            self.pilot = await self.world.pilot()
        for lease in await self.pilot.take(3):
            log = [chunk(lease, index, 0, b"said") for index in indices(lease)]
            made = [output("out", CONTENTS[which])]
            found = [done(lease, index, exit_code, outputs=made) for index in indices(lease)]
            await self.pilot.exchange(logs=log)
            await self.pilot.report(*found)

    async def _rows(self, table: sa.Table) -> list[Any]:
        async with self.database.read() as tx:
            return list((await tx.execute(sa.select(table))).all())

    @rule(which=WHICH)
    def upload(self, which: int) -> None:
        self.run(self._upload(which))

    @rule(which=WHICH)
    def begin(self, which: int) -> None:
        self.run(self._begin(which))

    @rule(some=st.lists(WHICH, max_size=3, unique=True))
    def submit(self, some: list[int]) -> None:
        self.run(self._submit(some))

    @rule(which=WHICH, exit_code=st.sampled_from([0, 1]))
    def work(self, which: int, exit_code: int) -> None:
        self.run(self._work(which, exit_code))

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        if self.numbers:
            number = data.draw(st.sampled_from(self.numbers))
            try:
                self.run(self.world.jobs.retry(self.world.owner, number, Selection()))
            except Fault as fault:
                expect(fault, "jobs.nothing_to_retry", "jobs.files_gone")

    @rule(days=st.sampled_from([0.5, 2, 4, 11]))
    def wait(self, days: float) -> None:
        self.world.manual.advance(days * DAY_S)

    @rule(fatal=st.integers(1, 25))
    def sweep_and_die(self, fatal: int) -> None:
        try:
            self.run(retention_of(self.world, Points(fatal)).sweep())
        except Crash:
            return

    @rule(which=WHICH, some=st.lists(WHICH, max_size=2, unique=True))
    def sweep_meanwhile(self, which: int, some: list[int]) -> None:
        """Whoever loses a race with the deletion is told to send it again, and does."""

        async def all_at_once() -> None:
            sweeping = asyncio.create_task(retention_of(self.world).sweep())
            others = [asyncio.create_task(self._insist(self._upload, which)) for which in {which, *some}]
            await asyncio.gather(sweeping, *others, self._submit(some), self._insist(self._begin, which))

        self.run(all_at_once())

    async def _insist(self, work: Any, which: int) -> None:
        while True:
            try:
                await work(which)
                return
            except Fault as fault:
                expect(fault, "jobs.file_going")
                await asyncio.sleep(0.001)

    @invariant()
    def all_that_is_named_is_there(self) -> None:
        if hasattr(self, "database"):
            self.run(self._check())

    async def _check(self) -> None:
        known = {row.digest for row in await self._rows(contents) if not row.doomed}
        owned = {row.digest for row in await self._rows(files)}
        inputs = {row.digest for row in await self._rows(job_inputs)}
        outputs = {row.digest for row in await self._rows(task_files)}
        assert inputs <= owned, "a job has lost an input"
        assert owned | outputs <= known
        for digest in owned | outputs:
            found = b"".join([piece async for piece in self.world.files.open(digest)])
            assert found == BY_DIGEST[digest]

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.run(self._in_the_end())
            self.run(self.database.close())
        self.loop.close()
        self.folder.cleanup()

    async def _in_the_end(self) -> None:
        """Once all jobs have ended and time has passed, nothing is left."""
        for _ in range(10):
            await self._work(0, 0)
        for number in self.numbers:
            assert Phase((await self.world.get(number)).status.phase).is_final
        for _ in range(2):  # what jobs named is nobody's when they are gone
            self.world.manual.advance(20 * DAY_S)
            await retention_of(self.world).sweep()
        for table in (contents, files, job_inputs, task_files, log_chunks, attempts):
            assert await self._rows(table) == [], table.name
        assert [key async for key in self.world.objects.list("content/")] == []


Keeping.TestCase.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestKeeping = Keeping.TestCase


async def test_what_is_gone_is_said(world: World) -> None:
    data = b"some input"
    await world.files.upload(world.owner, digest_of(data), len(data), stream(data))
    job = await world.submit(inputs=[File("in", digest_of(data), len(data))], outputs=["out"])
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.exchange(logs=[chunk(lease, 0, 0, b"said")])
    await pilot.report(done(lease, 0, 1, outputs=[output("out", b"result")]))
    retention = retention_of(world)
    world.manual.advance(9 * DAY_S)
    await retention.sweep()
    assert (await world.get(job.number)).files_gone is None
    assert await read_log(world, job.number) == b"said"
    world.manual.advance(2 * DAY_S)
    await retention.sweep()
    assert (await world.get(job.number)).files_gone == world.clock.now()
    for ask in (
        world.jobs.task_files(world.owner, job.number, index=None, cursor=None, limit=1),
        world.jobs.open_file(world.owner, job.number, 0, "out"),
        world.jobs.retry(world.owner, job.number, Selection()),
    ):
        with pytest.raises(Fault, match="were kept until 2026-01-12") as caught:
            await ask
        assert caught.value.code.code == "jobs.files_gone"
    with pytest.raises(Fault) as caught:
        await read_log(world, job.number)
    assert caught.value.code.code == "jobs.logs_gone"


async def read_log(world: World, number: int) -> bytes:
    found = await world.jobs.log(world.owner, number, 0, LogChoice())
    return b"".join([piece async for piece in found.pieces])


async def test_a_job_without_inputs_runs_again_and_is_kept_anew(world: World) -> None:
    job = await world.submit(outputs=["out"])
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.report(done(lease, 0, 1))
    world.manual.advance(11 * DAY_S)
    await retention_of(world).sweep()
    await world.retry(job.number)
    pilot = await world.pilot()
    (lease,) = await pilot.take(1)
    await pilot.exchange(logs=[chunk(lease, 0, 0, b"said anew")])
    await pilot.report(done(lease, 0, outputs=[output("out", b"result")]))
    await retention_of(world).sweep()
    assert await read_log(world, job.number) == b"said anew"
    size, pieces = await world.jobs.open_file(world.owner, job.number, 0, "out", 2)
    assert (size, b"".join([piece async for piece in pieces])) == (6, b"sult")


async def test_one_user_may_keep_so_much(world: World) -> None:
    service = FileService(world.database, world.objects, world.clock, FileSettings(free_bytes=0, user_limit_bytes=150))
    first, second = b"a" * 100, b"b" * 100
    await service.upload(world.owner, digest_of(first), 100, stream(first))
    with pytest.raises(Fault, match="You keep 100 bytes") as caught:
        await service.upload(world.owner, digest_of(second), 100, stream(second))
    assert caught.value.code.code == "jobs.file_quota"
    other: Caller = await world.user("bob")
    await service.upload(other, digest_of(second), 100, stream(second))
