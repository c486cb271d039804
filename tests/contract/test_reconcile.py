"""The reconcile engine on both dialects: crashes at every point, several engines, lost leases, failures."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.kernel import errors
from hansa.kernel.clock import ManualClock, SystemClock
from hansa.kernel.database import Database, Tx
from hansa.kernel.reconcile import Acted, Engine, Failed, Settled, Tuning
from tests.support.mortal import Crash, MortalDatabase, Points
from tests.support.things import (
    QUEUE,
    Provider,
    Seen,
    Thing,
    Things,
    check_world,
    rewish,
    things,
    wish,
)

ThingEngine = Engine[str, Thing, Seen, int | None]
LEASE_S = 60.0


def engine_of(
    database: Database,
    room: Things,
    concurrency: int = 4,
    act_s: float = 600.0,
    lease_s: float = LEASE_S,
    poll_s: float = 5.0,
) -> ThingEngine:
    tuning = Tuning(concurrency=concurrency, act_s=act_s, lease_s=lease_s, poll_s=poll_s)
    return Engine(database, room.clock, room, tuning, chance=lambda: 0.5)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def provider(clock: ManualClock) -> Provider:
    return Provider(clock)


@pytest.fixture
def room(provider: Provider, clock: ManualClock) -> Things:
    return Things(provider, clock)


async def row_of(database: Database, key: str) -> Any:
    async with database.read() as tx:
        return (await tx.execute(sa.select(things).where(things.c.id == key))).one()


async def wished(database: Database, clock: ManualClock, *keys: str) -> None:
    async with database.begin() as tx:
        for key in keys:
            await wish(tx, clock, key)


# --- crashes ------------------------------------------------------------------------------------------------


async def run_mortal(database: Database, room: Things, points: Points, concurrency: int) -> bool:
    """Reconcile until nothing is due or the process dies; True if it died."""
    room.on_observe = room.before_act = room.after_act = points.hook
    engine = engine_of(MortalDatabase(database, points), room, concurrency)
    died = False
    try:
        await engine.run_until_idle()
    except* Crash:
        died = True
    return died


async def prepare(database: Database, clock: ManualClock, provider: Provider) -> None:
    """Four things, each with something to do: create, delete, replace, and remove what is surplus."""
    await wished(database, clock, "new", "old", "resized", "doubled")
    async with database.begin() as tx:
        await rewish(tx, clock, "old", is_wanted=False)
        await rewish(tx, clock, "resized", size=2)
    for tag in ("old", "resized", "doubled", "doubled"):
        provider.create(tag, 1)


async def outlast(database: Database, clock: ManualClock, provider: Provider) -> None:
    """An engine that lives takes over, and a few minutes pass."""
    provider.create_takes = timedelta(0)
    engine = engine_of(database, Things(provider, clock, "heir"))
    for _ in range(6):
        clock.advance(LEASE_S / 2 + 1)
        await engine.run_until_idle()
    await check_world(database, provider)


async def start_over(database: Database) -> None:
    async with database.begin() as tx:
        await tx.execute(sa.delete(things))


async def test_a_crash_at_any_point_leaves_nothing_behind(database: Database) -> None:
    fatal, died = 0, True
    while died:
        fatal += 1
        clock = ManualClock()
        provider = Provider(clock)
        await prepare(database, clock, provider)
        died = await run_mortal(database, Things(provider, clock), Points(fatal), concurrency=1)
        await outlast(database, clock, provider)
        await start_over(database)
    assert fatal > 60, "every unit, statement, commit and act is a point"


@pytest.mark.parametrize("seed", range(12))
async def test_crash_after_crash_with_steps_in_parallel_and_late_creation(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    clock = ManualClock()
    provider = Provider(clock, create_takes=timedelta(seconds=chance.choice([0, 10])))
    await prepare(database, clock, provider)
    for _ in range(5):
        await run_mortal(database, Things(provider, clock), Points(chance.randint(1, 60)), concurrency=4)
        clock.advance(chance.choice([0, LEASE_S + 1]))
    await outlast(database, clock, provider)


async def test_what_appears_after_a_crash_is_found_within_a_minute(
    database: Database, clock: ManualClock, provider: Provider
) -> None:
    """The request of the dead engine is carried out by the provider only after its heir has created another."""
    await wished(database, clock, "a")
    provider.create_takes = timedelta(seconds=LEASE_S + 20)
    points = Points(0)
    room = Things(provider, clock)

    async def die() -> None:
        points.fatal = 1
        points.pass_by()

    room.after_act = die
    with pytest.raises(BaseExceptionGroup):
        await engine_of(MortalDatabase(database, points), room).run_until_idle()
    provider.create_takes = timedelta(0)
    clock.advance(LEASE_S + 1)
    heir = engine_of(database, Things(provider, clock))
    await heir.run_until_idle()
    assert [one.id for one in provider.found("a")] == [2]
    assert len(provider.exists) == 2
    clock.advance(31)
    await heir.run_until_idle()
    assert [one.id for one in provider.exists] == [2]
    await outlast(database, clock, provider)


async def test_an_attempt_after_a_crash_has_the_same_idempotency_key(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")

    async def die() -> None:
        raise Crash

    room.before_act = die
    with pytest.raises(BaseExceptionGroup):
        await engine_of(database, room).run_once()
    heir = Things(room.provider, clock)
    clock.advance(LEASE_S + 1)
    await engine_of(database, heir).run_once()
    assert [(heir.intents[0].key, heir.intents[0].attempt)] == [(room.intents[0].key, 2)]
    async with database.begin() as tx:
        await rewish(tx, clock, "a", size=2)
    await engine_of(database, heir).run_until_idle()
    assert heir.intents[-1].key != room.intents[0].key


# --- several engines, leases --------------------------------------------------------------------------------


async def test_two_engines_share_the_work_and_nothing_is_done_twice(
    database: Database, clock: ManualClock, provider: Provider
) -> None:
    keys = [f"thing-{n}" for n in range(40)]
    await wished(database, clock, *keys)
    engines = [engine_of(database, Things(provider, clock, name), concurrency=5) for name in "ab"]
    for _ in range(3):
        await asyncio.gather(*(engine.run_once() for engine in engines))
    assert sorted(provider.calls) == sorted(f"create {key}" for key in keys)
    assert sum(engine.counters.lost_leases for engine in engines) == 0
    assert sum(engine.counters.acted for engine in engines) == 40


async def test_nobody_takes_a_row_while_its_lease_is_valid(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")
    acting, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        acting.set()
        await go_on.wait()

    room.before_act = slowly
    first = asyncio.create_task(engine_of(database, room).run_once())
    await acting.wait()
    clock.advance(LEASE_S - 1)
    async with database.begin() as tx:
        await QUEUE.poke(tx, clock.now(), "a")
    assert await engine_of(database, Things(room.provider, clock)).run_once() == 0
    go_on.set()
    assert await first == 1
    assert room.provider.calls == ["create a"]
    assert (await row_of(database, "a")).due_at == clock.now(), "the poke is not lost"


async def test_a_poke_survives_the_renewal_of_the_lease(database: Database, clock: ManualClock, room: Things) -> None:
    await wished(database, clock, "a")
    engine = engine_of(database, room)

    async def poke_and_renew() -> None:
        async with database.begin() as tx:
            await QUEUE.poke(tx, clock.now(), "a")
        clock.advance(10)
        await engine.renew()

    await engine.run_once()
    room.on_observe = poke_and_renew
    await engine.run_once()
    row = await row_of(database, "a")
    assert (row.phase, row.due_at) == ("settled", clock.now())


async def test_who_loses_the_lease_before_acting_does_not_act(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")

    async def outlive() -> None:
        room.on_observe = Points(0).hook
        clock.advance(LEASE_S + 1)
        heir = Things(Provider(clock), clock)  # what it does is of no interest here
        assert await engine_of(database, heir).run_once() == 1

    room.on_observe = outlive
    engine = engine_of(database, room)
    assert await engine.run_once() == 1
    assert (room.provider.calls, room.outcomes, engine.counters.lost_leases) == ([], [], 1)


class LingeringDatabase(MortalDatabase):
    """A database whose commits are slow to return: ``linger``, if set, is awaited once before they do."""

    linger: Callable[[], Awaitable[None]] | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        async with self._database.begin() as tx:
            yield tx
        if self.linger:
            linger, self.linger = self.linger, None
            await linger()


async def test_a_renewal_while_apply_commits_harms_nothing(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")
    slow = LingeringDatabase(database, Points(0))
    engine = engine_of(slow, room)

    async def renew() -> None:
        await engine.renew()
        await asyncio.sleep(0)

    async def commit_slowly() -> None:
        slow.linger = renew

    room.on_apply = commit_slowly
    assert await engine.run_once() == 1
    assert (engine.counters.acted, engine.counters.lost_leases) == (1, 0)
    assert (await row_of(database, "a")).phase == "working"


async def test_a_renewed_lease_is_not_taken_over(database: Database, clock: ManualClock, room: Things) -> None:
    await wished(database, clock, "a")
    acting, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        acting.set()
        await go_on.wait()

    room.before_act = slowly
    engine = engine_of(database, room)
    first = asyncio.create_task(engine.run_once())
    await acting.wait()
    for _ in range(4):
        clock.advance(LEASE_S / 2)
        await engine.renew()
        assert await engine_of(database, Things(room.provider, clock)).run_once() == 0
    go_on.set()
    await first
    assert (await row_of(database, "a")).phase == "working"
    assert engine.counters.lost_leases == 0


@pytest.mark.parametrize("learns_by", ["apply", "renewal"])
async def test_who_loses_the_lease_writes_nothing(
    database: Database, clock: ManualClock, provider: Provider, learns_by: str
) -> None:
    await wished(database, clock, "a")
    acting, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        acting.set()
        await go_on.wait()

    loser = Things(provider, clock, "loser")
    loser.after_act = slowly  # what it has created appears only later
    provider.create_takes = timedelta(seconds=LEASE_S + 5)
    engine = engine_of(database, loser)
    first = asyncio.create_task(engine.run_once())
    await acting.wait()
    provider.create_takes = timedelta(0)
    clock.advance(LEASE_S + 1)
    heir = engine_of(database, Things(provider, clock, "heir"))
    await heir.run_until_idle()
    before = await row_of(database, "a")
    assert (before.written_by, before.phase) == ("heir", "settled")
    if learns_by == "renewal":
        await engine.renew()
    else:
        go_on.set()
    assert await first == 1
    assert engine.counters.lost_leases == 1
    after = await row_of(database, "a")
    assert (after.written_by, after.phase, after.external_id) == ("heir", "settled", before.external_id)
    assert loser.outcomes == []
    assert after.due_at == clock.now(), "its act may have left something: the heir looks at once"
    clock.advance(5)
    await heir.run_until_idle()
    assert [one.id for one in provider.exists] == [before.external_id]


async def test_a_server_that_is_alone_takes_over_at_once(database: Database, clock: ManualClock, room: Things) -> None:
    await wished(database, clock, "a")

    async def die() -> None:
        raise Crash

    room.after_act = die
    with pytest.raises(BaseExceptionGroup):
        await engine_of(database, room).run_once()
    heir = engine_of(database, Things(room.provider, clock))
    assert await heir.run_once() == 0
    async with database.begin() as tx:
        assert await QUEUE.take_over(tx, clock.now()) == 1
    await heir.run_until_idle()
    assert room.provider.calls == ["create a"]


# --- failures -----------------------------------------------------------------------------------------------


def raises(error: Exception) -> Callable[[], Any]:
    async def fail() -> None:
        raise error

    return fail


async def test_a_temporary_failure_is_tried_again_with_the_same_key_after_a_back_off(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")
    room.before_act = raises(errors.Temporary("busy"))
    engine = engine_of(database, room)
    for attempt, delay_s in enumerate([0.5, 1, 2, 4], 1):  # base 1 s, doubled; the jitter is fixed to one half
        assert await engine.run_once() == 1
        row = await row_of(database, "a")
        assert (row.phase, row.reason, row.attempt) == ("failing", "temporary", attempt)
        assert row.due_at == clock.now() + timedelta(seconds=delay_s)
        assert await engine.run_once() == 0, "not before it is due"
        clock.advance(delay_s)
    assert len({intent.key for intent in room.intents}) == 1
    assert [intent.attempt for intent in room.intents] == [1, 2, 3, 4]
    room.before_act = raises(errors.Temporary("come back", retry_after_s=100))
    await engine.run_once()
    assert (await row_of(database, "a")).due_at == clock.now() + timedelta(seconds=100.5)
    clock.advance(101)
    room.before_act = Points(0).hook
    await engine.run_until_idle()
    row = await row_of(database, "a")
    assert (row.phase, row.attempt, row.intent) == ("settled", 0, None)
    assert engine.counters.temporary == 5


async def test_a_permanent_failure_waits_for_a_new_generation(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")
    room.before_act = raises(errors.Permanent("no such image"))
    engine = engine_of(database, room)
    await engine.run_until_idle()
    row = await row_of(database, "a")
    assert (row.phase, row.reason, row.due_at, row.intent) == ("failing", "permanent", None, None)
    assert str(room.outcomes[-1].error) == "no such image"
    clock.advance(86400)
    assert await engine.run_once() == 0
    room.before_act = Points(0).hook
    async with database.begin() as tx:
        await rewish(tx, clock, "a", size=2)
    await engine.run_until_idle()
    assert (await row_of(database, "a")).phase == "settled"
    assert engine.counters.permanent == 1


@pytest.mark.parametrize("where", ["on_observe", "before_act"])
async def test_a_bug_in_a_driver_is_an_outcome_that_the_room_phrases(
    database: Database, clock: ManualClock, room: Things, where: str
) -> None:
    await wished(database, clock, "a")
    setattr(room, where, raises(ZeroDivisionError("oops")))
    engine = engine_of(database, room)
    assert await engine.run_once() == 1
    row = await row_of(database, "a")
    assert (row.phase, row.reason, row.attempt) == ("failing", "kernel.bug", 1)
    assert row.due_at == clock.now() + timedelta(seconds=0.5)
    assert engine.counters.bugs == 1


async def test_a_bug_in_apply_undoes_what_it_wrote_and_backs_off(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")
    room.on_apply = raises(ZeroDivisionError("oops"))
    engine = engine_of(database, room)
    assert await engine.run_once() == 1
    row = await row_of(database, "a")
    assert (row.phase, row.attempt, row.lease_token) == ("wanted", 1, None)
    assert row.due_at == clock.now() + timedelta(seconds=0.5)
    assert row.intent["operation"] == "create"
    room.on_apply = Points(0).hook
    clock.advance(1)
    await engine.run_until_idle()
    assert room.provider.calls == ["create a"], "it is found, not created again"


async def test_an_act_beyond_its_deadline_is_a_temporary_failure(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")
    room.before_act = asyncio.Event().wait  # type: ignore[assignment]
    engine = engine_of(database, room, act_s=0.01)
    assert await engine.run_once() == 1
    outcome = room.outcomes[-1]
    assert isinstance(outcome, Failed)
    assert outcome.reason == "temporary"
    assert "0.01 s" in str(outcome.error)
    assert outcome.intent == room.intents[0]


async def test_a_timeout_that_is_not_the_deadline_is_a_bug(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")
    room.before_act = raises(TimeoutError("a driver forgot to translate it"))
    await engine_of(database, room).run_once()
    assert room.outcomes[-1].reason == "kernel.bug"


# --- wishes -------------------------------------------------------------------------------------------------


async def test_a_wish_that_changes_while_acting_is_not_lost(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")

    async def change() -> None:
        room.after_act = Points(0).hook
        async with database.begin() as tx:
            await rewish(tx, clock, "a", size=7)

    room.after_act = change
    engine = engine_of(database, room)
    await engine.run_until_idle()
    await outlast(database, clock, room.provider)
    row = await row_of(database, "a")
    assert (row.generation, row.observed_generation) == (2, 2)
    assert [one.size for one in room.provider.exists] == [7]


async def test_a_wish_that_changes_while_a_settled_thing_is_observed_is_not_lost(
    database: Database, clock: ManualClock, room: Things
) -> None:
    await wished(database, clock, "a")
    engine = engine_of(database, room)
    await engine.run_until_idle()

    async def change() -> None:
        room.on_observe = Points(0).hook
        async with database.begin() as tx:
            await rewish(tx, clock, "a", is_wanted=False)

    room.on_observe = change
    async with database.begin() as tx:
        await QUEUE.poke(tx, clock.now(), "a")
    await engine.run_once()
    row = await row_of(database, "a")
    assert (row.generation, row.observed_generation, row.due_at) == (2, 1, clock.now())
    await engine.run_until_idle()
    assert room.provider.exists == []


async def test_a_row_that_has_gone_is_no_bug(database: Database, clock: ManualClock, room: Things) -> None:
    await wished(database, clock, "a")

    async def remove() -> None:
        async with database.begin() as tx:
            await tx.execute(sa.delete(things))

    room.after_act = remove
    engine = engine_of(database, room)
    assert await engine.run_until_idle() == 1
    assert (engine.counters.bugs, engine.counters.lost_leases) == (0, 1)


# --- the loop -----------------------------------------------------------------------------------------------


@dataclass
class Running:
    engine: ThingEngine
    room: Things
    task: asyncio.Task[None]


@asynccontextmanager
async def running(database: Database, grace_s: float = 10.0, **tuning: Any) -> AsyncIterator[Running]:
    clock = SystemClock()
    room = Things(Provider(clock), clock)
    engine = engine_of(database, room, **tuning)
    task = asyncio.create_task(engine.run(grace_s))
    try:
        yield Running(engine, room, task)
    finally:
        engine.stop()
        await task


async def until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.002)


async def test_a_new_row_is_handled_at_once(database: Database) -> None:
    async with running(database, poll_s=60) as it:
        await asyncio.sleep(0)
        async with database.begin() as tx:
            await wish(tx, it.room.clock, "a")
        await until(lambda: it.engine.counters.settled == 1)
        async with database.begin() as tx:
            await wish(tx, it.room.clock, "b")
        await until(lambda: it.engine.counters.settled == 2)
    assert it.room.provider.calls == ["create a", "create b"]
    assert [type(outcome) for outcome in it.room.outcomes] == [Acted, Settled] * 2


async def test_a_row_is_handled_when_it_becomes_due(database: Database) -> None:
    async with running(database, poll_s=60) as it:
        async with database.begin() as tx:
            await wish(tx, it.room.clock, "a")
            later = it.room.clock.now() + timedelta(seconds=0.2)
            await tx.execute(sa.update(things).values(due_at=later))
        await until(lambda: it.engine.counters.settled == 1)
        assert it.room.clock.now() >= later


async def test_leases_are_renewed_while_a_step_runs(database: Database) -> None:
    async with running(database, lease_s=0.3) as it:
        go_on = asyncio.Event()
        it.room.before_act = go_on.wait  # type: ignore[assignment]
        async with database.begin() as tx:
            await wish(tx, it.room.clock, "a")
        await until(lambda: bool(it.room.intents))
        await asyncio.sleep(0.7)
        rival = engine_of(database, Things(it.room.provider, it.room.clock))
        assert await rival.run_once() == 0
        go_on.set()
        await until(lambda: it.engine.counters.settled == 1)
    assert it.engine.counters.lost_leases == 0


async def test_stop_lets_running_steps_end(database: Database) -> None:
    async with running(database) as it:
        go_on = asyncio.Event()
        it.room.before_act = go_on.wait  # type: ignore[assignment]
        async with database.begin() as tx:
            await wish(tx, it.room.clock, "a")
        await until(lambda: bool(it.room.intents))
        it.engine.stop()
        await asyncio.sleep(0.01)
        assert not it.task.done()
        go_on.set()
    assert (await row_of(database, "a")).phase == "working"


async def test_stop_cancels_what_does_not_end(database: Database) -> None:
    async with running(database, grace_s=0.05) as it:
        it.room.before_act = asyncio.Event().wait  # type: ignore[assignment]
        async with database.begin() as tx:
            await wish(tx, it.room.clock, "a")
        await until(lambda: bool(it.room.intents))
    row = await row_of(database, "a")
    assert row.lease_token is not None, "the lease simply expires"
    assert row.intent["operation"] == "create"


async def test_no_more_steps_than_allowed_run_at_once(database: Database) -> None:
    now_running, most = 0, 0
    async with running(database, concurrency=3) as it:

        async def enter() -> None:
            nonlocal now_running, most
            now_running += 1
            most = max(most, now_running)
            await asyncio.sleep(0.02)

        async def leave() -> None:
            nonlocal now_running
            now_running -= 1

        it.room.before_act, it.room.after_act = enter, leave
        async with database.begin() as tx:
            for n in range(20):
                await wish(tx, it.room.clock, f"thing-{n}")
        await until(lambda: it.engine.counters.settled == 20)
    assert most == 3


async def test_the_lease_statement_respects_its_limit_and_order(database: Database, clock: ManualClock) -> None:
    for n in range(10):
        clock.advance(1)
        await wished(database, clock, f"thing-{n}")
    until_ = clock.now() + timedelta(seconds=60)
    async with database.begin() as tx:
        leases = await QUEUE.lease(tx, "token", clock.now(), until_, 4)
    assert sorted(lease.key for lease in leases) == [f"thing-{n}" for n in range(4)]
