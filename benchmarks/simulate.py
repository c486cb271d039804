"""A federation on a virtual clock: the pure decisions of shares, needs and retries over 10,000,000 tasks.

1,000 sites with 1,000 cores each, in ten kinds; twenty VOs with different weights and five users in each, who all have
more work than there is room. Every ten virtual minutes what has ended is judged, and what is free is divided. Tasks of
one user that were given to one site at one time, with the same history, are one *batch*: their ends are drawn
in numbers. Sites break down and come back. Nothing is measured by wall time: the figures are those of the decisions.
With what an exchange costs on a real PostgreSQL, they say what one server carries and how many such a federation needs.
"""

from __future__ import annotations

import heapq
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from benchmarks.exchange import Cost, costs
from benchmarks.harness import Better, Row, rounded
from hansa.jobs import shares
from hansa.jobs.model import LOST, Again, History, Limits, judge
from hansa.jobs.needs import Needs, Place, lacks
from hansa.jobs.shares import Claim, Key
from hansa.jobs.wire import Phase
from hansa.node import protocol

LIMIT_S = 600
KINDS = 10
STEP_S = 600.0
HALF_LIFE_S = 86_400.0
LIMITS = Limits(retries=3, node_retries=3, crash_limit=3, retry_on=(75,), backoff_s=600.0)
ENDS = (  # outcome, exit code, how often
    (protocol.EXITED, 75, 0.03),
    (protocol.EXITED, 1, 0.01),
    (protocol.NODE, None, 0.02),
    (protocol.PREEMPTED, None, 0.02),
    (LOST, None, 0.005),
)
BREAKS = 0.002
"""How likely a site breaks down in a step; it is back an hour later."""
HOLD_S = 30.0
"""How long the server holds a pilot's request when there is nothing to say."""
CORES_OF_A_PILOT = 64
START = datetime(2026, 11, 25, tzinfo=UTC)


@dataclass(frozen=True)
class Size:
    sites: int
    cores: int
    tasks: int


@dataclass(order=True)
class Batch:
    """Tasks that run."""

    ends: float
    serial: int
    site: int = field(compare=False)
    key: Key = field(compare=False)
    history: History = field(compare=False)
    count: int = field(compare=False)


@dataclass
class User:
    """Somebody's tasks that wait: new ones by number, others by what happened to them and when they are due."""

    needs: Needs
    fresh: int
    due: Counter[History] = field(default_factory=Counter)
    later: dict[float, Counter[History]] = field(default_factory=lambda: defaultdict(Counter))
    done: int = 0
    failed: int = 0
    starved_steps: int = 0
    longest: int = 0

    @property
    def waiting(self) -> int:
        return self.fresh + self.due.total()

    @property
    def is_over(self) -> bool:
        return not self.waiting and not self.later


class Federation:
    """The state of it all, and one step after another."""

    def __init__(self, size: Size, seed: int) -> None:
        self.random = random.Random(seed)
        self.size = size
        self.now_s = 0.0
        self.weights = {("", f"vo{n:02d}"): 1.0 + n % 5 for n in range(20)}
        self.users = self._users()
        self.running: list[Batch] = []
        self.free = [size.cores] * size.sites
        self.down: dict[int, float] = {}
        self.in_use: Counter[Key] = Counter()
        self.on_site = [0] * size.sites  # tasks that run, or ran when it broke down
        self.kept: dict[Key, tuple[int, float]] = {}
        self.used: defaultdict[Key, float] = defaultdict(float)
        self.serial = 0
        self.decisions = 0
        self.kinds = [list(range(kind, size.sites, KINDS)) for kind in range(KINDS)]
        self.fits = {
            key: [not lacks(user.needs, self._place(kind)) for kind in range(KINDS)] for key, user in self.users.items()
        }

    @staticmethod
    def _place(kind: int) -> Place:
        tags = frozenset({f"kind{kind}"} | ({"gpu"} if kind == 9 else set()))
        return Place(f"kind{kind}", 64, 262_144, tags=tags, glibc="2.28" if kind else "2.17", is_pilot=True)

    def _users(self) -> dict[Key, User]:
        total = sum(self.weights.values())
        users: dict[Key, User] = {}
        for (_, vo), weight in self.weights.items():
            for n in range(5):
                count = round(self.size.tasks * weight / total / 5)
                needs = Needs(
                    1,
                    2048,
                    0,
                    3600,
                    None,
                    glibc="2.28" if n == 4 else None,
                    banned_sites=(f"kind{n}",) if n < 2 else (),
                )
                users[vo, "", f"{vo}-{n}"] = User(needs, count)
        rest = self.size.tasks - sum(user.fresh for user in users.values())
        next(iter(users.values())).fresh += rest
        return users

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.now_s)

    @property
    def is_over(self) -> bool:
        return not self.running and all(user.is_over for user in self.users.values())

    def step(self) -> None:
        """What has ended is judged; sites break; what is free is given out."""
        self.now_s += STEP_S
        while self.running and self.running[0].ends <= self.now_s:
            self._end(heapq.heappop(self.running))
        for user in self.users.values():
            for when in [when for when in user.later if when <= self.now_s]:
                user.due += user.later.pop(when)
        self._break()
        for kind in range(KINDS):
            self._give(kind)
        for key, user in self.users.items():
            is_starved = user.waiting and not self.in_use[key]
            user.starved_steps = user.starved_steps + 1 if is_starved else 0
            user.longest = max(user.longest, user.starved_steps)

    def _end(self, batch: Batch) -> None:
        if batch.site in self.down:
            self._judge(batch, LOST, None, batch.count)  # the site broke down under it
        else:
            left = batch.count
            for outcome, code, share in ENDS:
                count = min(left, int(batch.count * share + self.random.random()))
                self._judge(batch, outcome, code, count)
                left -= count
            self._judge(batch, protocol.EXITED, 0, left)
            self.free[batch.site] += batch.count
        self.in_use[batch.key] -= batch.count
        self.on_site[batch.site] -= batch.count
        self._charge(batch.key, batch.count * 3600.0)

    def _judge(self, batch: Batch, outcome: str, code: int | None, count: int) -> None:
        if not count:
            return
        self.decisions += 1
        user = self.users[batch.key]
        verdict = judge(outcome, code, "", batch.history, LIMITS)
        if isinstance(verdict, Again):
            user.later[self.now_s + verdict.delay_s][verdict.history] += count
        elif verdict.phase is Phase.DONE:
            user.done += count
        else:
            user.failed += count

    def _charge(self, key: Key, amount: float) -> None:
        self.used[key] += amount
        period = shares.period_of(self.now, HALF_LIFE_S)
        before, kept = self.kept.get(key, (period, 0.0))
        self.kept[key] = (period, kept / 2.0 ** (period - before) + shares.scaled(amount, self.now, HALF_LIFE_S))

    def _break(self) -> None:
        for site, until in list(self.down.items()):
            if until <= self.now_s and not self.on_site[site]:
                del self.down[site]
                self.free[site] = self.size.cores
        for site in range(self.size.sites):
            if site not in self.down and self.random.random() < BREAKS:
                self.down[site] = self.now_s + 3600.0
                self.free[site] = 0

    def _give(self, kind: int) -> None:
        free = sum(self.free[site] for site in self.kinds[kind])
        claims = [
            Claim(*key, user.waiting, self.in_use[key])
            for key, user in self.users.items()
            if user.waiting and self.fits[key][kind]
        ]
        if not free or not claims:
            return
        usage = {key: shares.worth(kept, period, self.now, HALF_LIFE_S) for key, (period, kept) in self.kept.items()}
        others = {key: count for key, count in self.in_use.items() if count and not self.users[key].waiting}
        claims += [Claim(*key, 0, count) for key, count in others.items()]
        quantum = max(1, free // 400)
        given = shares.divide(free, claims, usage, self.weights, quantum=quantum)
        self.decisions += len(given)
        places = iter(self.kinds[kind])
        site = next(places)
        for key, count in given.items():
            for history, some in self._take(self.users[key], count):
                left = some
                while left:
                    while not self.free[site]:
                        site = next(places)
                    part = min(left, self.free[site])
                    self._start(site, key, history, part)
                    left -= part

    @staticmethod
    def _take(user: User, count: int) -> list[tuple[History, int]]:
        taken = []
        for history in sorted(user.due, key=lambda one: -one.attempt):
            part = min(count, user.due[history])
            taken.append((history, part))
            user.due[history] -= part
            count -= part
        user.due = +user.due
        part = min(count, user.fresh)
        user.fresh -= part
        return [(history, some) for history, some in [*taken, (History(), part)] if some]

    def _start(self, site: int, key: Key, history: History, count: int) -> None:
        self.serial += 1
        self.free[site] -= count
        self.in_use[key] += count
        self.on_site[site] += count
        ends = self.now_s + self.random.choice((1800.0, 3000.0, 3600.0, 4200.0, 5400.0))
        heapq.heappush(self.running, Batch(ends, self.serial, site, key, history, count))

    def error(self) -> float:
        """The largest distance of a VO's part of what was used from the part that is due, relative to that."""
        total, weight = sum(self.used.values()), sum(self.weights.values())
        by_vo: defaultdict[str, float] = defaultdict(float)
        for (vo, _, _), amount in self.used.items():
            by_vo[vo] += amount
        return max(abs(by_vo[vo] / total / (due / weight) - 1) for (_, vo), due in self.weights.items())


def run(quick: bool) -> list[Row]:
    size = Size(100, 200, 200_000) if quick else Size(1_000, 1_000, 10_000_000)
    begin = time.perf_counter()
    world = Federation(size, seed=4)
    error, steps = 1.0, 0
    while not world.is_over:
        world.step()
        steps += 1
        if world.used and all(user.waiting for user in world.users.values()):
            error = world.error()  # as long as all want
        assert steps < 20_000, "tasks are left for ever"
    took = time.perf_counter() - begin
    ended = sum(user.done + user.failed for user in world.users.values())
    longest = max(user.longest for user in world.users.values()) * STEP_S / 3600
    detail = {
        "steps": steps,
        "virtual_hours": world.now_s / 3600,
        "seconds": rounded(took),
        "decisions": world.decisions,
        "batches": world.serial,
        "failed": sum(user.failed for user in world.users.values()),
    }
    name = f"{size.sites:,} sites, {size.sites * size.cores:,} cores, {size.tasks:,} tasks"
    return [
        *_servers(name, size, size.tasks / world.now_s, costs(quick)),
        Row(f"{name}: tasks lost", "tasks", Better.LOWER, float(size.tasks - ended), budget=0.0, detail=detail),
        Row(f"{name}: a VO's part, distance from its due", "%", Better.LOWER, rounded(error * 100), budget=2.0),
        Row(f"{name}: longest time that somebody had nothing", "h", Better.LOWER, longest, budget=2.0),
    ]


def _servers(name: str, size: Size, ends_per_s: float, found: Mapping[str, Cost]) -> list[Row]:
    """What that takes of servers: how many exchanges a second such a federation makes, and one server carries.

    Each end of a task is an exchange of its own, and each pilot makes one in :data:`HOLD_S` besides: an upper bound, as
    ends that come together share one, and a pilot that has just spoken waits. The cost is the dearest of one task.
    """
    if not found:
        return []
    pilots = size.sites * size.cores / CORES_OF_A_PILOT
    needed = ends_per_s + pilots / HOLD_S
    dearest = max((found["one task of an array"], found["one single job"]), key=lambda cost: cost.server_s)
    carried = 1 / dearest.server_s
    detail = {
        "ends of tasks/s": rounded(ends_per_s),
        "pilots": round(pilots),
        "CPU us of an exchange: server, database": [round(dearest.server_s * 1e6), round(dearest.database_s * 1e6)],
        "cores of the database": rounded(needed * dearest.database_s),
    }
    return [
        Row(f"{name}: exchanges that it makes", "/s", Better.LOWER, rounded(needed), detail=detail),
        Row("exchanges that one server process carries on one core, PostgreSQL", "/s", Better.HIGHER, rounded(carried)),
        Row(f"{name}: server processes that are needed", "", Better.LOWER, float(math.ceil(needed / carried))),
    ]
