"""What a pilot may hand out under the capacity grants of its site: bounded before, held meanwhile, spent at the end.

A *budget* is for one exchange, inside its unit of work. The grants in question are locked at its start, in the order
of their VOs, so that nobody else reserves of them before it ends, and no two exchanges wait for one another. What a
pilot holds is written as an absolute number (all that it still owes), so that an exchange that is done twice reserves
once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from hansa.accounting.store import Charge
from hansa.jobs.needs import Needs, needs_of
from hansa.jobs.tables import queues
from hansa.kernel.database import Tx
from hansa.kernel.events import EventLog
from hansa.sites import capacity
from hansa.sites import store as site_store
from hansa.sites.capacity import Who
from hansa.sites.capacity_model import Held, Left, NoGrant
from hansa.sites.service import LOCAL

Key = tuple[str, str]
"""VO ("" for none) and group ("" for none): what a task queue is of."""
NO_LIMIT = 2**31 - 1
_NOTHING, _EVERYTHING = Left(core_ms=0), Left()
_LASTS = timedelta(days=14)
"""What is held of a pilot that everybody has forgotten is free after this."""
_GRANTS = (
    sa.select(capacity.grants.c.vo)
    .where(
        capacity.grants.c.site == sa.bindparam("at"),
        capacity.grants.c.vo.in_(
            sa.select(queues.c.vo).where(queues.c.owner_id == sa.bindparam("of"), queues.c.vo != "")
        ),
    )
    .order_by(capacity.grants.c.vo)
    .with_for_update()
)


@dataclass(frozen=True)
class Size:
    """What one task takes of a grant."""

    core_ms: int
    cores: int
    memory_mib: int
    gpus: int


def size_of(needs: Needs, pilot: Any) -> Size:
    """Of a task on this pilot; one that wants the whole node takes all of it."""
    cores, memory, gpus = needs.cores, needs.memory_mib, needs.gpus
    if needs.whole_node:
        cores, memory, gpus = pilot.cores, pilot.memory_mib, len(pilot.gpus)
    cores, memory, gpus = cores * needs.nodes, memory * needs.nodes, gpus * needs.nodes
    return Size(cores * needs.wall_time_s * 1000, cores, memory, gpus)


def times(size: Size, count: int) -> Held:
    return Held(size.core_ms * count, size.cores * count, size.memory_mib * count, size.gpus * count)


def plus(one: Held, two: Held) -> Held:
    return Held(one.core_ms + two.core_ms, one.cores + two.cores, one.memory_mib + two.memory_mib, one.gpus + two.gpus)


def affordable(left: Left, own: Held, size: Size, pilot: Any) -> int:
    """How many more tasks of this size fit into what is left to a pilot that holds ``own`` of it already. Pure.

    Of cores, memory and GPUs a pilot never uses more at a time than all its nodes have, whatever waits on it: they
    bound it only where less is left.
    """
    counts, nodes = [NO_LIMIT], pilot.nodes
    if left.core_ms is not None:
        counts.append((left.core_ms - own.core_ms) // max(1, size.core_ms))
    for free, has, mine, one in (
        (left.cores, pilot.cores, own.cores, size.cores),
        (left.memory_mib, pilot.memory_mib, own.memory_mib, size.memory_mib),
        (left.gpus, len(pilot.gpus), own.gpus, size.gpus),
    ):
        if free is not None and free < has * nodes and one:
            counts.append((free - mine) // one)
    return max(0, min(counts))


@dataclass
class Budget:
    """The grants that a pilot's tasks count against, and what of them is free to it."""

    pilot: Any
    demands_grant: bool
    vos: frozenset[str]
    """Those of its owner that have a grant at its site, in force or not: their rows are locked."""
    _left: dict[Key, Left] = field(default_factory=dict)
    _own: dict[Key, Held] = field(default_factory=dict)
    _had: set[Key] = field(default_factory=set)

    @property
    def thing(self) -> str:
        return f"pilot/{self.pilot.id}"

    def start(self, held: Iterable[Any], jobs: Mapping[int, Any]) -> None:
        """What the pilot holds, once results are in: rows of leases, and the jobs that they are of."""
        self._own.clear()
        for lease in held:
            job = jobs[lease.job]
            size = size_of(needs_of(job.spec["requirements"]), self.pilot)
            self._add(_key(job), times(size, lease.remaining))
        self._had |= self._own.keys()

    def remember(self, jobs: Iterable[Any]) -> None:
        """Jobs of which it held something when the exchange began."""
        self._had |= {_key(job) for job in jobs}

    async def look(self, tx: Tx, keys: Iterable[Key], now: datetime) -> None:
        """Find out what is left for these; asked once in an exchange."""
        for vo, group in sorted(set(keys) - self._left.keys()):
            self._left[vo, group] = await self._left_of(tx, vo, group, now)

    async def _left_of(self, tx: Tx, vo: str, group: str, now: datetime) -> Left:
        if not self.demands_grant:
            return _EVERYTHING
        if vo not in self.vos:
            return _NOTHING
        name = await site_store.name_of_user(tx, self.pilot.owner_id)
        found = await capacity.left(tx, self._who(vo, group, name), now)
        return _NOTHING if isinstance(found, NoGrant) else found

    def count(self, vo: str | None, group: str | None, needs: Needs) -> int:
        """How many more tasks with these needs may be handed out; :meth:`look` was asked before."""
        key = (vo or "", group or "")
        own = Held()  # of the whole VO: its groups draw on the same grant
        for (name, _), held in self._own.items():
            if name == key[0]:
                own = plus(own, held)
        return affordable(self._left.get(key, _NOTHING), own, size_of(needs, self.pilot), self.pilot)

    def took(self, vo: str | None, group: str | None, needs: Needs, count: int) -> None:
        """So many were handed out."""
        self._add((vo or "", group or ""), times(size_of(needs, self.pilot), count))

    def _add(self, key: Key, more: Held) -> None:
        self._own[key] = plus(self._own.get(key, Held()), more)

    async def hold(self, tx: Tx, now: datetime) -> None:
        """Write what the pilot holds now, of each grant that is there."""
        pilot = self.pilot
        for vo, group in sorted(self._had | self._own.keys()):
            if vo not in self.vos:
                continue
            own = self._own.get((vo, group), Held())
            most = Held(
                own.core_ms,
                min(own.cores, pilot.cores * pilot.nodes),
                min(own.memory_mib, pilot.memory_mib * pilot.nodes),
                min(own.gpus, len(pilot.gpus) * pilot.nodes),
            )
            await capacity.hold(tx, self._who(vo, group), most, now + _LASTS, now)

    async def spend(self, tx: Tx, events: EventLog, charges: Iterable[Charge]) -> None:
        """What ended tasks used, beside their usage records."""
        sums: dict[Key, float] = {}
        for one in charges:
            key = (one.vo or "", one.vo_group or "")
            sums[key] = sums.get(key, 0.0) + one.core_s
        for (vo, group), core_s in sorted(sums.items()):
            if vo in self.vos:
                await capacity.spend(tx, events, self._who(vo, group), round(core_s * 1000))

    def _who(self, vo: str, group: str, name: str = "") -> Who:
        return Who(vo, self.pilot.site, self.pilot.owner_id, name, self.thing, group)


def _key(job: Any) -> Key:
    return job.vo or "", job.vo_group or ""


async def open_budget(tx: Tx, pilot: Any) -> Budget | None:
    """The budget of a pilot, its grants locked; None where none count: on this computer, at sites that grant nothing.

    After the locks of pilot and jobs, before anything of grants: everybody takes them in this order.
    """
    if pilot.site == LOCAL:
        return None
    demands = await site_store.demands_grant(tx, pilot.site)
    vos = frozenset((await tx.execute(_GRANTS, {"at": pilot.site, "of": pilot.owner_id})).scalars())
    return Budget(pilot, demands, vos) if demands or vos else None
