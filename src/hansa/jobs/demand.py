"""Demand: starts pilots where tasks wait and none is there for them, at all sites that serve their owners.

A look is made by reading first; only what is to be changed is written, in a unit of work that looks again, so that two
servers never start the same twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from hansa.identity import vo_store
from hansa.identity.authority import AuthorityService
from hansa.jobs import placing, store, store_pilots, store_shares
from hansa.jobs.controller import START_FAILED, PilotRoom
from hansa.jobs.measured import measured
from hansa.jobs.model import PilotPhase, start_delay_s
from hansa.jobs.needs import Needs, coming_place, needs_of_queue
from hansa.jobs.placing import Known, Offer, choice_for, offer_of
from hansa.jobs.sizing import GROW_S, Live, Size, most_at, most_waiting_at, size_for, uncovered
from hansa.jobs.standing import Standing, standing_of
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.status import Party, Status
from hansa.placement.authority import lapsed_at, of_others
from hansa.placement.model import Choice
from hansa.placement.service import grants_left
from hansa.sites.capacity_model import Left, NoGrant
from hansa.sites.model import SiteView
from hansa.sites.service import SiteService
from hansa.sites.store import name_of_user, vos_banned

log = structlog.get_logger(__name__)
TOPIC = "demand"
_LOOK_AGAIN_S = 5.0
_LOCK = 0x48414E5344  # pg_advisory_xact_lock: one server at a time looks at the demand
_NOT_NEEDED_S = 30.0
_MOST_AT_ONCE = 200
"""Pilots that one look starts; the next one goes on."""


@dataclass(frozen=True)
class Start:
    """A pilot to be inserted."""

    offer: Offer
    size: Size
    owner_id: str
    owner_name: str
    vo: str | None
    vo_of_job: str
    needs: Needs
    job: int | None


@dataclass
class Plan:
    """What one look has come to."""

    starts: list[Start] = field(default_factory=list)
    standings: dict[int, Standing | None] = field(default_factory=dict)
    """Of queues for which it has changed."""
    needless: list[Any] = field(default_factory=list)
    """Pilots that wait for their start, and nobody for them."""

    @property
    def is_empty(self) -> bool:
        return not (self.starts or self.standings or self.needless)


@dataclass
class _Owner:
    """What one look knows of an owner."""

    sites: dict[str, SiteView]
    known: Known
    name: str


class Demand:
    """Looks at what waits and inserts pilots; the reconcile engine starts them."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        sites: SiteService,
        share_half_life_s: float,
        authority: AuthorityService | None = None,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._sites = sites
        self._half_life_s = share_half_life_s
        self._authority = authority
        self._is_paused = False

    def pause(self) -> None:
        """Start no more pilots: this server is about to be stopped."""
        self._is_paused = True

    async def run(self) -> None:
        """For ever: at every submission, and now and then by itself."""
        with self._database.bells.listen(TOPIC) as bell:
            while True:
                try:
                    await self.look()
                except Fault as fault:  # the database may be away for a while; the loop must outlive that
                    log.warning("demand.waits", error=str(fault))
                await bell.wait(_LOOK_AGAIN_S)

    async def look(self) -> int:
        """One look; the number of pilots that were inserted."""
        if self._is_paused:
            return 0
        async with self._database.read() as tx:
            if (await self._plan(tx)).is_empty:
                return 0
        async with self._database.begin() as tx:
            if tx.dialect == "postgresql":
                await tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            plan = await self._plan(tx)
            await self._carry_out(tx, plan)
            return len(plan.starts)

    async def _plan(self, tx: Tx) -> Plan:
        now = self._clock.now()
        look = _Look(self, tx, now)
        return await look.plan(await store.owners_with_work(tx))

    async def order(self, tx: Tx, waiting: Sequence[Any], now: datetime) -> list[Any]:
        """Whose turn it is first."""
        return await store_shares.in_fair_order(tx, waiting, now, self._half_life_s)

    async def owner(self, tx: Tx, owner_id: str, now: datetime) -> _Owner:
        """The sites that serve an owner, and what is known of them."""
        vos = [one.vo for one in await vo_store.memberships(tx, owner_id)]
        sites = {site.name: site for site in await self._sites.serving(tx, owner_id, vos)}
        names = list(sites)
        known = Known(await measured(tx, names, now), await placing.platforms_of(tx, names))
        return _Owner(sites, known, await name_of_user(tx, owner_id))

    async def lapsed(self, tx: Tx, owner: _Owner, owner_id: str, vo: str | None, until: datetime) -> dict[str, Status]:
        """Sites at which this server may start nothing for an owner, who is to sign in again."""
        if self._authority is None:
            return {}
        return await lapsed_at(tx, self._authority, of_others(owner.sites.values()), owner_id, vo, until)

    async def _carry_out(self, tx: Tx, plan: Plan) -> None:
        now = self._clock.now()
        for start in plan.starts:
            await self._insert(tx, start, now)
        for queue, standing in plan.standings.items():
            await store.set_standing(tx, queue, asdict(standing) | {"since": now.isoformat()} if standing else None)
        for pilot in plan.needless:
            said = "It waited for its turn, and nothing waits for it any more."
            await store_pilots.end(tx, self._events, pilot, PilotPhase.ENDED, "pilots.not_needed", said, now)
        if plan.starts:
            tx.ring(PilotRoom.queue.topic)

    async def _insert(self, tx: Tx, start: Start, now: datetime) -> None:
        pilot_id = new_id("pilot")
        site, end, size = start.offer.site, start.offer.endpoint, start.size
        message = f"It is being started at {site.name}."
        candidate = start.offer.candidate
        labels = {"user": start.owner_name, "vo": start.vo_of_job, "job": str(start.job or "")}
        await store_pilots.insert(
            tx,
            id=pilot_id,
            site=site.name,
            driver=end.kind if end is not None else site.kind,
            endpoint_id=end.id if end is not None else None,
            owner_id=start.owner_id,
            vo=start.vo,
            cores=size.cores,
            memory_mib=size.memory_mib,
            gpus=list(size.gpus),
            nodes=size.nodes,
            is_whole=size.is_whole,
            wall_time_s=size.wall_time_s,
            job=start.job,
            labels={name: value for name, value in labels.items() if value},
            batch=list(start.needs.batch) if candidate.kind == "slurm" else [],
            phase=PilotPhase.STARTING.value,
            reason="pilots.starting",
            message=message,
            waiting_on=Party.SITE.value,
            since=now,
            created=now,
            sequence=0,
            running=[],
            setups=[],
            tags=sorted(candidate.tags),
            required_tags=sorted(candidate.required_tags),
            due_at=now,
        )
        await self._events.record(
            tx, Event("hansa", f"pilot/{pilot_id}", "starting", "pilots.starting", message, start.owner_id)
        )


class _Look:
    """The books of one look: what lives, and what this look adds to it."""

    def __init__(self, demand: Demand, tx: Tx, now: datetime) -> None:
        self._demand = demand
        self._tx = tx
        self._now = now
        self._live: dict[str, list[Live]] = {}
        self._at: dict[tuple[str, str], int] = {}
        self._waiting_at: dict[tuple[str, str], int] = {}
        self._owners: dict[str, _Owner] = {}
        self._delays: dict[tuple[str, str], tuple[datetime, str] | None] = {}
        self._left: dict[tuple[str, str, str], dict[str, Left | NoGrant]] = {}
        self._no_word: dict[tuple[str, str, int], dict[str, Status]] = {}
        self._plan = Plan()

    async def plan(self, queues: Sequence[Any]) -> Plan:
        starting = await self._read_pilots()
        for queue in await self._demand.order(self._tx, queues, self._now):
            if len(self._plan.starts) >= _MOST_AT_ONCE:
                break
            standing = await self._serve(queue)
            if _differs(queue.standing, standing):
                self._plan.standings[queue.id] = standing
        waiting: dict[str, list[tuple[str, Needs]]] = {}
        for queue in queues:
            waiting.setdefault(queue.owner_id, []).append((queue.vo, needs_of_queue(queue)))
        long_ago = self._now - timedelta(seconds=_NOT_NEEDED_S)
        self._plan.needless = [
            pilot
            for pilot, live in starting
            if pilot.created < long_ago
            and not any(live.serves(needs, vo) for vo, needs in waiting.get(pilot.owner_id, ()))
        ]
        return self._plan

    async def _read_pilots(self) -> list[tuple[Any, Live]]:
        """Fill the books; the pilots that wait to be started by a batch system."""
        starting = []
        held = await store_pilots.held_of_live(self._tx)
        live_pilots = await store_pilots.all_live(self._tx)
        banned = await vos_banned(self._tx, {pilot.site for pilot in live_pilots if pilot.vo is None})
        for pilot in live_pilots:
            is_starting = pilot.phase == PilotPhase.STARTING.value
            where = pilot.endpoint_id or pilot.site
            self._count(where, pilot.owner_id, pilot.endpoint_id, is_starting=is_starting)
            cores, memory = held.get(pilot.id, (0, 0))
            live = Live(
                coming_place(pilot),
                pilot.vo,
                where,
                is_starting,
                (self._now - pilot.created).total_seconds(),
                max(0, pilot.cores - cores),
                max(0, pilot.memory_mib - memory),
                pilot.message if is_starting and pilot.reason == START_FAILED else "",
                pilot.waiting_on,
                banned.get(pilot.site, frozenset()),
            )
            self._live.setdefault(pilot.owner_id, []).append(live)
            if is_starting and pilot.endpoint_id is not None:
                starting.append((pilot, live))
        return starting

    def _count(self, where: str, owner_id: str, endpoint_id: str | None, *, is_starting: bool) -> None:
        key = _key(where, owner_id, endpoint_id)
        self._at[key] = self._at.get(key, 0) + 1
        if is_starting:
            self._waiting_at[key] = self._waiting_at.get(key, 0) + 1

    async def _serve(self, queue: Any) -> Standing | None:
        """Plan pilots for a queue; why nothing of it can start, where that is so."""
        needs = needs_of_queue(queue)
        live = self._live.get(queue.owner_id, [])
        mine = [one for one in live if one.serves(needs, queue.vo)]
        wanted = uncovered(needs, queue.vo, int(queue.waiting), live)
        if wanted <= 0:
            return None
        job, submitted = await store.next_of_queue(self._tx, queue.id)
        is_new = submitted is not None and (self._now - submitted).total_seconds() < GROW_S
        if is_new and not needs.is_exact and any(not one.is_starting for one in mine):
            return None  # what is there will soon have room
        owner = await self._owner(queue.owner_id)
        grants = await self._grants(queue, owner)
        lapsed = await self._lapsed(queue, owner, needs)
        choice = choice_for(needs, queue.vo or None, owner.sites.values(), self._now, owner.known, grants, lapsed)
        told: list[str] = []
        for candidate in choice.order:
            offer = offer_of(candidate, owner.sites, queue.vo or None)
            if any(one.where == offer.place and one.is_stuck for one in mine):
                told.append(f"{candidate.site}: pilots wait there for their start")
                continue
            wanted -= await self._start(queue, needs, offer, wanted, owner.name, job, told)
            if wanted <= 0:
                break
        serving = [one for one in self._live.get(queue.owner_id, []) if one.serves(needs, queue.vo)]
        return standing_of(choice, serving, told)

    async def _lapsed(self, queue: Any, owner: _Owner, needs: Needs) -> dict[str, Status]:
        key = (queue.owner_id, queue.vo, needs.wall_time_s)
        if key not in self._no_word:
            until = self._now + timedelta(seconds=needs.wall_time_s)
            found = await self._demand.lapsed(self._tx, owner, queue.owner_id, queue.vo or None, until)
            self._no_word[key] = found
        return self._no_word[key]

    async def _start(
        self, queue: Any, needs: Needs, offer: Offer, wanted: int, owner_name: str, job: int | None, told: list[str]
    ) -> int:
        """Plan pilots at a place; for how many tasks they have room."""
        key = _key(offer.place, queue.owner_id, offer.endpoint.id if offer.endpoint else None)
        later = await self._delay(offer.site.name, queue.owner_id)
        if later is not None:
            told.append(f"{offer.site.name}: {later[1]}")
            return 0
        found = 0
        while found < wanted and len(self._plan.starts) < _MOST_AT_ONCE:
            if self._at.get(key, 0) >= most_at(offer):
                told.append(f"{offer.site.name}: {self._at[key]} pilots are there, which is the site's limit")
                break
            if self._waiting_at.get(key, 0) >= most_waiting_at(offer):
                told.append(f"{offer.site.name}: {self._waiting_at[key]} pilots wait there to be started")
                break
            size = size_for(needs, wanted - found, offer)
            vo = (queue.vo or None) if offer.vo_alone else None
            if offer.is_machine:  # "": for what is in no VO's name, and nothing else
                vo = queue.vo or ""
            start = Start(offer, size, queue.owner_id, owner_name, vo, queue.vo, needs, job)
            self._plan.starts.append(start)
            self._count(offer.place, queue.owner_id, offer.endpoint.id if offer.endpoint else None, is_starting=True)
            live = _planned(start)
            self._live.setdefault(queue.owner_id, []).append(live)
            room = live.take(needs, wanted - found)
            found += room
            if room <= 0:
                break  # what it will find there is not known yet
        return found

    async def _delay(self, site: str, owner_id: str) -> tuple[datetime, str] | None:
        """Until when no pilot is started at a site where the last ones failed, and why."""
        key = (site, owner_id)
        if key not in self._delays:
            failures, last = await store_pilots.speechless(self._tx, site, owner_id)
            until = last + timedelta(seconds=start_delay_s(failures)) if last is not None else self._now
            is_on = last is not None and until > self._now
            said = f"the last {failures} pilots died there; another one is tried soon"
            self._delays[key] = (until, said) if is_on else None
        return self._delays[key]

    async def _grants(self, queue: Any, owner: _Owner) -> dict[str, Left | NoGrant]:
        """What the grants leave for a queue, at the sites that demand one."""
        key = (queue.owner_id, queue.vo, queue.vo_group)
        if key not in self._left:
            self._left[key] = await grants_left(self._tx, owner.sites.values(), *key, owner.name, self._now)
        return self._left[key]

    async def _owner(self, owner_id: str) -> _Owner:
        if owner_id not in self._owners:
            self._owners[owner_id] = await self._demand.owner(self._tx, owner_id, self._now)
        return self._owners[owner_id]


def _key(where: str, owner_id: str, endpoint_id: str | None) -> tuple[str, str]:
    """By what limits count: of an endpoint for all its users, of the embedded site for each."""
    return (where, "" if endpoint_id else owner_id)


def _planned(start: Start) -> Live:
    """A pilot that is only planned, as the books have it."""
    size, candidate = start.size, start.offer.candidate
    row = _PlannedRow(
        candidate.site, size.cores, size.memory_mib, list(size.gpus), sorted(candidate.tags),
        sorted(candidate.required_tags), size.nodes, list(start.needs.batch) if candidate.kind == "slurm" else [],
    )  # fmt: skip
    return Live(coming_place(row), start.vo, start.offer.place, True, 0.0, size.cores, size.memory_mib)


@dataclass(frozen=True)
class _PlannedRow:
    """A pilot's row before it is there, as far as its place is made from it. Its node may be anything that is asked."""

    site: str
    cores: int
    memory_mib: int
    gpus: list[str]
    tags: list[str]
    required_tags: list[str]
    nodes: int
    batch: list[str]
    node: None = None


def _differs(stored: Any, standing: Standing | None) -> bool:
    if standing is None or not stored:
        return bool(stored) != (standing is not None)
    return any(stored.get(name) != value for name, value in asdict(standing).items())


__all__ = ["TOPIC", "Choice", "Demand", "Plan", "Start"]
