"""The engine: leases rows, runs their steps, keeps the leases, and survives whatever a step does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import structlog

from hansa.kernel import errors, ids
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.kernel.reconcile.queue import Intent, Lease, Queue
from hansa.kernel.reconcile.room import Act, Acted, Failed, Outcome, Room, Settle, Settled

log = structlog.get_logger(__name__)

K = TypeVar("K")
L = TypeVar("L")
S = TypeVar("S")
R = TypeVar("R")
T = TypeVar("T")
_TOGETHER = 3
"""Turns of the event loop after which all steps have ended that one commit has ended: one lease takes their places."""


@dataclass(frozen=True)
class Tuning:
    """How an engine works."""

    concurrency: int = 64
    """Steps that run at the same time."""

    lease_s: float = 60.0
    """Seconds until the rows of a dead engine are taken over. Leases are renewed every third of it."""

    observe_s: float = 60.0
    """Seconds that ``observe`` may take."""

    act_s: float = 600.0
    """Seconds that ``act`` may take."""

    poll_s: float = 5.0
    """Seconds after which an idle engine looks by itself."""

    backoff_base_s: float = 1.0
    """The first failure is tried again within so many seconds, each further one within twice as many."""

    backoff_cap_s: float = 300.0
    """Back-off never takes longer, unless a driver asked for it."""


@dataclass
class Counters:
    """What an engine has done since its start."""

    steps: int = 0
    settled: int = 0
    acted: int = 0
    temporary: int = 0
    permanent: int = 0
    bugs: int = 0
    lost_leases: int = 0
    abandoned: int = 0
    """Steps that the database could not serve: the row is taken up again when its lease ends."""


class _LostLeaseError(Exception):
    """Somebody else holds the row now."""


@dataclass(eq=False)
class _Step(Generic[K]):
    """A leased row in work."""

    lease: Lease[K]
    task: asyncio.Task[None] | None = None
    has_acted: bool = False
    is_ending: bool = False
    is_lost: bool = False


def backoff_s(attempt: int, tuning: Tuning, chance: Callable[[], float], retry_after_s: float | None = None) -> float:
    """Seconds to wait after the ``attempt``-th failure in a row: full jitter, not below ``retry_after_s``."""
    if retry_after_s is not None:
        return retry_after_s + chance() * tuning.backoff_base_s
    most: float = min(tuning.backoff_cap_s, tuning.backoff_base_s * 2.0 ** min(attempt - 1, 60))
    return chance() * most


class Engine(Generic[K, L, S, R]):
    """Reconciles one room. Any number of engines, in any number of servers, may share a database."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        room: Room[K, L, S, R],
        tuning: Tuning = Tuning(),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.counters = Counters()
        self._database = database
        self._clock = clock
        self._room = room
        self._queue = room.queue
        self._tuning = tuning
        self._chance = chance
        self._running: set[_Step[K]] = set()
        self._stopping = asyncio.Event()
        self._log = log.bind(room=room.queue.name)

    @property
    def queue(self) -> Queue:
        """The queue of its room."""
        return self._queue

    async def run(self, grace_s: float = 10.0) -> None:
        """Reconcile until :meth:`stop`; then running steps get ``grace_s`` to end."""
        with self._database.bells.listen(self._queue.topic, self._own_topic) as bell:
            renewal = asyncio.create_task(self._renew_for_ever())
            try:
                while not self._stopping.is_set():
                    await bell.wait(await self._fill())
                    for _ in range(_TOGETHER):
                        await asyncio.sleep(0)
                if self._running:
                    await asyncio.wait(self._tasks(), timeout=grace_s)
            finally:
                tasks = [*self._tasks(), renewal]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Make :meth:`run` take no more work and return."""
        self._stopping.set()
        self._database.bells.ring(self._own_topic)

    async def run_once(self) -> int:
        """Step all that is due now, each row once, without sleeping; the number of steps. For tests."""
        leases: list[Lease[K]] = []
        while batch := await self._lease(self._tuning.concurrency):
            leases += batch
        for start in range(0, len(leases), self._tuning.concurrency):
            async with asyncio.TaskGroup() as group:
                for lease in leases[start : start + self._tuning.concurrency]:
                    self._start(lease, group.create_task)
        return len(leases)

    async def run_until_idle(self, most: int = 1000) -> int:
        """:meth:`run_once` until nothing is due now; the number of steps. RuntimeError after ``most``."""
        steps = 0
        for _ in range(most):
            done = await self.run_once()
            if not done:
                return steps
            steps += done
        raise RuntimeError(f"{self._queue.name} does not come to rest")

    async def renew(self) -> None:
        """Extend the leases of all running steps; those that somebody else holds are cancelled."""
        steps = list(self._running)
        now = self._clock.now()
        until = now + timedelta(seconds=self._tuning.lease_s)
        try:
            async with self._database.begin() as tx:
                held = await self._queue.renew(tx, [step.lease for step in steps], until)
        except Exception as error:  # noqa: BLE001 - a lease that cannot be renewed may still be good
            self._log.warning("reconcile.renewal_failed", error=str(error))
            lost = [step for step in steps if step.lease.until <= now]
        else:
            for step in steps:
                step.lease.until = until
            lost = [step for step in steps if (step.lease.key, step.lease.token) not in held]
        for step in lost:
            # A step that is ending has given its lease back, or will learn from the row that it is lost.
            if step in self._running and step.task is not None and not step.is_ending:
                step.is_lost = True
                step.task.cancel()

    @property
    def _own_topic(self) -> str:
        return f"{self._queue.topic}/{id(self)}"

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [step.task for step in self._running if step.task is not None]

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._tuning.lease_s / 3)
            if self._running:
                await self.renew()

    async def _fill(self) -> float:
        """Start what is due and fits; the seconds to wait before looking again."""
        free = self._tuning.concurrency - len(self._running)
        if free <= 0:
            return self._tuning.poll_s  # the end of a step rings
        now = self._clock.now()
        try:
            async with self._database.read() as tx:
                due_at = await self._queue.next_due(tx, now)
            if due_at is None or due_at > now:
                wait_s = self._tuning.poll_s if due_at is None else (due_at - now).total_seconds()
                return min(wait_s, self._tuning.poll_s)
            leases = await self._lease(free)
        except Exception as error:  # noqa: BLE001 - the loop outlives whatever the database has
            self._log.warning("reconcile.lease_failed", error=str(error), exc_info=True)
            return self._tuning.poll_s
        for lease in leases:
            self._start(lease, asyncio.create_task)
        # Nothing in spite of a due row: another engine is leasing it at this moment.
        return 0.0 if leases else 0.05

    async def _lease(self, most: int) -> Sequence[Lease[K]]:
        now = self._clock.now()
        until = now + timedelta(seconds=self._tuning.lease_s)
        async with self._database.begin() as tx:
            return await self._queue.lease(tx, ids.new_id("lease"), now, until, most)

    def _start(self, lease: Lease[K], spawn: Callable[..., asyncio.Task[None]]) -> None:
        step = _Step(lease)
        self._running.add(step)
        step.task = spawn(self._guarded(step))
        step.task.add_done_callback(lambda _: self._ended(step))

    def _ended(self, step: _Step[K]) -> None:
        self._running.discard(step)
        self._database.bells.ring(self._own_topic)

    async def _guarded(self, step: _Step[K]) -> None:
        """The catch-all: whatever happens in a step, the row is looked at again and the engine lives."""
        self.counters.steps += 1
        try:
            await self._advance(step)
        except _LostLeaseError:
            await self._throw_away(step)
        except asyncio.CancelledError:
            if not step.is_lost:
                raise  # the lease simply expires
            await self._throw_away(step)
        except Exception as error:  # noqa: BLE001
            if _is_passing(error):
                self.counters.abandoned += 1
                self._log.warning("reconcile.abandoned", key=step.lease.key, error=str(error))
            else:
                await self._park(step)

    async def _advance(self, step: _Step[K]) -> None:
        async with self._database.read() as tx:
            loaded = await self._room.load(tx, step.lease.key)
        if loaded is None:
            step.is_ending = True
            async with self._database.begin() as tx:
                await self._queue.release(tx, step.lease, due_at=None, attempt=0, intent=None)
            return
        outcome = await self._outcome(step, loaded)
        await self._apply(step, loaded, outcome)

    async def _outcome(self, step: _Step[K], loaded: L) -> Outcome[S, R]:
        try:
            seen = await _within(self._tuning.observe_s, self._room.observe(loaded))
            decision = self._room.decide(loaded, seen, self._clock.now())
        except Exception as error:  # noqa: BLE001
            return self._failed(step, error, step.lease.intent)
        if isinstance(decision, Settle):
            return Settled(decision, seen)
        intent = await self._intend(step, decision)
        step.has_acted = True
        try:
            result = await _within(self._tuning.act_s, self._room.act(loaded, intent))
        except Exception as error:  # noqa: BLE001
            return self._failed(step, error, intent)
        return Acted(intent, result, seen)

    async def _intend(self, step: _Step[K], decision: Act) -> Intent:
        """Commit what is about to happen. What is tried again keeps its idempotency key."""
        lease, before = step.lease, step.lease.intent
        again = before is not None and before.is_for(decision.operation, lease.generation, decision.arguments)
        intent = Intent(
            decision.operation,
            before.key if before and again else ids.new_id("intent"),
            before.attempt + 1 if before and again else 1,
            lease.generation,
            decision.arguments,
        )
        until = self._clock.now() + timedelta(seconds=self._tuning.lease_s)
        async with self._database.begin() as tx:
            if not await self._queue.intend(tx, lease, intent, until):
                raise _LostLeaseError
        lease.until = until
        lease.intent = intent
        return intent

    def _failed(self, step: _Step[K], error: Exception, intent: Intent | None) -> Failed:
        attempt = step.lease.attempt + 1
        if isinstance(error, errors.Permanent):
            return Failed("permanent", error, attempt, None, intent)
        reason = "temporary"
        if not isinstance(error, errors.Temporary) and not _is_passing(error):
            reason = "kernel.bug"
            self._log.error("reconcile.bug", key=step.lease.key, attempt=attempt, exc_info=error)
        retry_after_s: float | None = getattr(error, "retry_after_s", None)
        return Failed(reason, error, attempt, self._later(attempt, retry_after_s), intent)

    def _later(self, attempt: int, retry_after_s: float | None = None) -> datetime:
        delay_s = backoff_s(attempt, self._tuning, self._chance, retry_after_s)
        return self._clock.now() + timedelta(seconds=delay_s)

    async def _apply(self, step: _Step[K], loaded: L, outcome: Outcome[S, R]) -> None:
        """Everything that the step learnt, in one unit, and only while the lease is ours."""
        lease = step.lease
        step.is_ending = True
        async with self._database.begin() as tx:
            held = await self._queue.hold(tx, lease)
            if held is None:
                raise _LostLeaseError
            following = await self._room.apply(tx, loaded, outcome)
            due_at = self._clock.now() if held.is_poked else following.due_at
            failed = outcome if isinstance(outcome, Failed) else None
            await self._queue.release(
                tx,
                lease,
                due_at,
                attempt=failed.attempt if failed else 0,
                # What failed may have happened all the same: the next attempt uses the same key.
                intent=failed.intent if failed and failed.reason != "permanent" else None,
                observed_generation=following.observed_generation,
            )
        self._count(outcome)

    def _count(self, outcome: Outcome[S, R]) -> None:
        if isinstance(outcome, Settled):
            self.counters.settled += 1
        elif isinstance(outcome, Acted):
            self.counters.acted += 1
        elif outcome.reason == "temporary":
            self.counters.temporary += 1
        elif outcome.reason == "permanent":
            self.counters.permanent += 1
        else:
            self.counters.bugs += 1

    async def _throw_away(self, step: _Step[K]) -> None:
        """Forget the result of a step that lost its lease; if it acted, its successor looks once more."""
        step.is_ending = True
        self.counters.lost_leases += 1
        self._log.warning("reconcile.lost_lease", key=step.lease.key, acted=step.has_acted)
        if step.has_acted:
            try:
                async with self._database.begin() as tx:
                    await self._queue.poke(tx, self._clock.now(), step.lease.key)
            except Exception as error:  # noqa: BLE001
                self._log.warning("reconcile.poke_failed", key=step.lease.key, error=str(error))

    async def _park(self, step: _Step[K]) -> None:
        """The room could not even load or apply: note the failure without it and back off."""
        lease = step.lease
        step.is_ending = True
        self.counters.bugs += 1
        self._log.exception("reconcile.bug", key=lease.key, attempt=lease.attempt + 1)
        try:
            async with self._database.begin() as tx:
                due_at = self._later(lease.attempt + 1)
                await self._queue.release(tx, lease, due_at, lease.attempt + 1, lease.intent)
        except Exception as error:  # noqa: BLE001 - then the lease simply expires
            self._log.warning("reconcile.park_failed", key=lease.key, error=str(error))


def _is_passing(error: Exception) -> bool:
    """The database is away or full: nobody's defect."""
    return isinstance(error, errors.Fault) and error.code in (errors.DATABASE_AWAY, errors.STORAGE_FULL)


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """The result of ``work``; Temporary if it takes longer than ``seconds``."""
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await work
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise errors.Temporary(f"It did not answer within {seconds:g} s.") from error
