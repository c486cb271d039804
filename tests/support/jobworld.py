"""The room of jobs without HTTP and without processes: services over a database, and pilots that tests play."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import hansa.server.tables  # noqa: F401 - all tables belong to the schema
from hansa.accounting.store import Kind, usage
from hansa.engines.objects import FolderObjects
from hansa.identity.keys import Keys
from hansa.identity.model import Caller
from hansa.identity.provider.service import ProviderService
from hansa.identity.service import IdentityService
from hansa.identity.vos import VoService
from hansa.identity.wire import NewUser
from hansa.jobs import store_pilots
from hansa.jobs.controller import PilotRoom
from hansa.jobs.demand import Demand
from hansa.jobs.drivers.fake import FakeBatch
from hansa.jobs.drivers.places import FixedPlaces
from hansa.jobs.exchange import ExchangeService
from hansa.jobs.files import FileService
from hansa.jobs.logs import LogStore
from hansa.jobs.registry_logins import RegistryKeys, RegistryLoginService
from hansa.jobs.service import JobService
from hansa.jobs.tables import attempts, pilots, results
from hansa.jobs.timers import Timers
from hansa.jobs.wire import Job, JobSpec, Requirements, Selection
from hansa.kernel.clock import Clock, ManualClock
from hansa.kernel.database import Database
from hansa.kernel.events import EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.reconcile import Engine
from hansa.kernel.secrets import Vault
from hansa.kernel.settings import FileSettings, IdentitySettings, JobSettings, PilotSettings
from hansa.kernel.status import Party
from hansa.node import protocol
from hansa.node.protocol import (
    ExchangeReply,
    ExchangeRequest,
    Kill,
    Lease,
    LogChunk,
    OutputFile,
    RunningTask,
    TaskResult,
)
from hansa.sites import store as site_store
from hansa.sites.service import SiteService
from hansa.sites.wire import Capacity
from tests.support.books import Books, check_all_books

CAPACITY = Capacity(4, 8192, ["0, A100", "1, A100"])
OWNER = Caller("user_ada", "ada", is_operator=True)


class World:
    """One server's rooms."""

    def __init__(
        self,
        database: Database,
        folder: Path,
        clock: Clock | None = None,
        job: JobSettings | None = None,
        pilot: PilotSettings | None = None,
    ) -> None:
        job, pilot = job or JobSettings(), pilot or PilotSettings()
        self.database = database
        self.manual = ManualClock()
        self.clock = clock or self.manual
        self.events = EventLog(database, self.clock)
        self.objects = FolderObjects(folder / "blobs")
        identity = IdentitySettings()
        vault = Vault([b"k" * 32])
        keys = Keys(database, self.events, self.clock, vault, identity.access_token_s)
        provider = ProviderService(database, self.events, self.clock, "http://hansa", keys, identity)
        self.identity = IdentityService(database, self.events, self.clock, "http://hansa", provider)
        self.vos = VoService(database, self.events, self.clock, "http://hansa", "http://hansa", identity)
        self.sites = SiteService(database, self.events, self.clock)
        self.files = FileService(database, self.objects, self.clock, FileSettings(free_bytes=0))
        self.logs = LogStore(database, self.objects, self.clock)
        self.jobs = JobService(database, self.events, self.clock, self.files, self.logs, self.sites, self.vos, job)
        self.registry_keys = RegistryKeys(vault)
        self.exchanges = ExchangeService(
            database,
            self.events,
            self.clock,
            self.files,
            self.logs,
            job,
            FileSettings(free_bytes=0),
            self.registry_keys,
        )
        self.registry_logins = RegistryLoginService(database, self.clock, vault)
        self.batch = FakeBatch()
        self.demand = Demand(database, self.events, self.clock, self.sites, job.share_half_life_s)
        self.timers = Timers(database, self.events, self.clock)
        self.room = PilotRoom(FixedPlaces({"local": self.batch}), self.identity, self.events, self.clock, pilot, job)
        self.engine: Engine[str, Any, Any, Any] = Engine(database, self.clock, self.room, chance=lambda: 0.0)
        self.owner = OWNER

    async def open(self, capacity: Capacity = CAPACITY) -> World:
        """With a site of the owner's."""
        self.owner = Caller(await self.identity.ensure_local_user("ada", "token-of-ada"), "ada", is_operator=True)
        await self.sites.ensure_local(self.owner.user_id, "ada", capacity)
        return self

    async def user(self, name: str) -> Caller:
        added = await self.identity.add_user(self.owner, NewUser(name))
        return Caller(added.user.id, name)

    async def site(self, owner: Caller, name: str, capacity: Capacity = CAPACITY) -> None:
        async with self.database.begin() as tx:
            await site_store.insert(
                tx,
                name=name,
                kind="local",
                owner_id=owner.user_id,
                owner_name=owner.name,
                capacity=vars(capacity),
                phase="ready",
                reason="sites.ready",
                message="",
                waiting_on=Party.NOBODY.value,
                since=self.clock.now(),
            )

    async def submit(self, count: int | None = None, caller: Caller | None = None, **spec: Any) -> Job:
        """A job; an array where there is a ``count``."""
        job = await self.jobs.submit(caller or self.owner, self.spec(count, **spec))
        await self.check()
        return job

    def spec(self, count: int | None = None, **spec: Any) -> JobSpec:
        needs = {name: spec.pop(name) for name in Requirements.__dataclass_fields__ if name in spec}
        if count is not None:
            spec |= {"array": True, "count": count}
        return JobSpec(spec.pop("command", ["true"]), requirements=Requirements(**needs), **spec)

    async def kill(self, number: int, *tasks: int) -> Job:
        job = await self.jobs.kill(self.owner, number, Selection(list(tasks) if tasks else None))
        await self.check()
        return job

    async def retry(self, number: int, *tasks: int) -> Job:
        job = await self.jobs.retry(self.owner, number, Selection(list(tasks) if tasks else None))
        await self.check()
        return job

    async def get(self, number: int) -> Job:
        return await self.jobs.get(self.owner, number)

    async def pilot(self, owner: Caller | None = None, site: str = "local", **values: Any) -> Pilot:
        """A pilot that the batch system has started and that the test plays."""
        pilot_id = new_id("pilot")
        now = self.clock.now()
        row = {
            "id": pilot_id,
            "site": site,
            "driver": "local",
            "owner_id": (owner or self.owner).user_id,
            "cores": CAPACITY.cores,
            "memory_mib": CAPACITY.memory_mib,
            "gpus": CAPACITY.gpus,
            "phase": "starting",
            "reason": "pilots.starting",
            "message": "",
            "waiting_on": Party.SITE.value,
            "since": now,
            "created": now,
            "sequence": 0,
            "running": [],
            "setups": [],
            "due_at": now,
        }
        async with self.database.begin() as tx:
            await store_pilots.insert(tx, **(row | values))
        await self.engine.run_once()
        return Pilot(self, pilot_id)

    async def lose(self, pilot: Pilot) -> None:
        """The pilot's process dies and the controller notices."""
        await self.batch.cancel(pilot.id)
        self.manual.advance(10)
        await self.engine.run_until_idle()
        await self.check()

    async def check(self) -> dict[int, Books]:
        async with self.database.read() as tx:
            return await check_all_books(tx)

    async def books(self, job: Job) -> Books:
        return (await self.check())[job.number]

    async def result_rows(self, number: int) -> dict[int, Any]:
        async with self.database.read() as tx:
            rows: Sequence[Any] = (await tx.execute(sa.select(results).where(results.c.job == number))).all()
        return {row.index: row for row in rows}

    async def attempt_rows(self, number: int) -> list[Any]:
        query = sa.select(attempts).where(attempts.c.job == number).order_by(attempts.c.index, attempts.c.attempt)
        async with self.database.read() as tx:
            return list((await tx.execute(query)).all())

    async def charged(self) -> tuple[int, float]:
        """Attempts and core seconds that were charged, of everybody."""
        query = sa.select(sa.func.coalesce(sa.func.sum(usage.c.tasks), 0), sa.func.sum(usage.c.core_s)).where(
            usage.c.kind == Kind.JOB.value
        )
        async with self.database.read() as tx:
            row: Any = (await tx.execute(query)).one()
        return int(row[0]), float(row[1] or 0)

    async def pilot_row(self, pilot: Pilot) -> Any:
        async with self.database.read() as tx:
            return (await tx.execute(sa.select(pilots).where(pilots.c.id == pilot.id))).one()


@dataclass
class Pilot:
    """A pilot that a test plays: it remembers its leases and counts its requests."""

    world: World
    id: str
    session: str = "one"
    sequence: int = 0
    leases: dict[int, Lease] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    last: ExchangeRequest | None = None

    def request(self, want: int = 0, **more: Any) -> ExchangeRequest:
        self.sequence += 1
        values: dict[str, Any] = {"cores_free": CAPACITY.cores, "memory_free_mib": 8192, "gpus_free": 2}
        values |= {"held": list(self.leases)}
        self.last = ExchangeRequest(
            protocol.PROTOCOL_VERSION, self.session, self.sequence, want=want, **(values | more)
        )
        return self.last

    async def send(self, request: ExchangeRequest) -> ExchangeReply:
        reply = await self.world.exchanges.exchange(self.id, request)
        await self.world.check()
        return reply

    async def exchange(self, want: int = 0, **more: Any) -> ExchangeReply:
        return self.hear(await self.send(self.request(want, **more)))

    def hear(self, reply: ExchangeReply) -> ExchangeReply:
        self.leases |= {lease.lease: lease for lease in reply.leases}
        for lease in reply.dropped:
            self.leases.pop(lease, None)
        self.kills = list(reply.kill)
        return reply

    async def take(self, want: int) -> list[Lease]:
        return (await self.exchange(want)).leases

    async def repeat(self) -> ExchangeReply:
        """The last request again, as if its answer had not arrived."""
        assert self.last is not None
        return self.hear(await self.send(self.last))

    async def report(self, *found: TaskResult, **more: Any) -> ExchangeReply:
        return await self.exchange(results=list(found), **more)

    async def finish(self, exit_code: int = 0) -> ExchangeReply:
        """Report every task of every lease."""
        found = [done(one, index, exit_code) for one in self.leases.values() for index in indices(one)]
        self.leases.clear()
        return await self.report(*found)

    async def start_anew(self, want: int = 0) -> ExchangeReply:
        """Its process died and was started again: a new session that knows of nothing."""
        self.session += "'"
        self.sequence = 0
        self.leases.clear()
        return await self.exchange(want)


def indices(lease: Lease) -> range:
    return range(lease.first, lease.last + 1)


def done(lease: Lease | int, index: int, exit_code: int = 0, **more: Any) -> TaskResult:
    """The result of a task that ran one second."""
    number = lease if isinstance(lease, int) else lease.lease
    values: dict[str, Any] = {"exit_code": exit_code, "wall_s": 1.0, "cpu_s": 0.5, "memory_mib": 3.0}
    return TaskResult(number, index, more.pop("outcome", protocol.EXITED), **(values | more))


def ended(lease: Lease | int, index: int, outcome: str, **more: Any) -> TaskResult:
    return done(lease, index, exit_code=None, outcome=outcome, **more)  # type: ignore[arg-type]


def running(lease: Lease, *which: int) -> list[RunningTask]:
    return [RunningTask(lease.lease, index, 1.0) for index in which]


def chunk(lease: Lease, index: int, offset: int, data: bytes, stream: str = "stdout") -> LogChunk:
    return LogChunk(lease.lease, index, stream, offset, base64.b64encode(data).decode())


def output(path: str, data: bytes) -> OutputFile:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return OutputFile(path, digest, len(data), data=base64.b64encode(data).decode())


def spans(leases: Sequence[Lease]) -> list[tuple[int, int]]:
    return [(lease.first, lease.last) for lease in leases]
