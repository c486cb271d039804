"""What a site's administrators do while it serves: policy, drain, bans, downtimes. Each acts on the next decision."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from hansa.identity.model import Caller
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.ids import new_id
from hansa.sites import errors, store, views
from hansa.sites.controller import refresh_site
from hansa.sites.model import Ban, Visibility
from hansa.sites.registry import user_id
from hansa.sites.service import allow, show_site
from hansa.sites.wire import Admins, BanPage, BanView, DowntimePage, DowntimeView, NewBan, NewDowntime, Site, SitePolicy

ANNOUNCED = timedelta(hours=24)
"""A downtime that is announced so long before its start is a planned one (as in GOCDB)."""
LONGEST = timedelta(days=366)
TOPIC = "sites/steered"
"""Is rung when a site's administrators have said something of who may work there."""


class SteeringService:
    """The site's own word. It rules over users, VOs and this server."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    async def set_policy(self, caller: Caller, name: str, policy: SitePolicy) -> Site:
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            await store.update(tx, name, policy=asdict(policy))
            tx.ring(TOPIC)
            await self._record(tx, caller, row, "sites.policy_changed", f"{caller.name} changed the site's policy.")
            return await show_site(tx, caller, name, self._clock)

    async def drain(self, caller: Caller, name: str, why: str) -> Site:
        """No new work. What runs goes on to its end: running pilots take no new tasks."""
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            await store.update(tx, name, drained=why)
            tx.ring(TOPIC)
            said = f"{caller.name} lets no new work start there{': ' + why if why else '.'}"
            await self._record(tx, caller, row, "sites.drained", said)
            await refresh_site(tx, self._events, name, self._clock.now())
            return await show_site(tx, caller, name, self._clock)

    async def resume(self, caller: Caller, name: str) -> Site:
        """New work again."""
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            await store.update(tx, name, drained=None)
            await self._record(tx, caller, row, "sites.resumed", f"{caller.name} lets new work start there again.")
            await refresh_site(tx, self._events, name, self._clock.now())
            return await show_site(tx, caller, name, self._clock)

    async def ban(self, caller: Caller, name: str, new: NewBan) -> BanView:
        """Nothing new of this user, or VO. What runs ends by itself: running pilots take no new tasks."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            who = await user_id(tx, new.who) if Ban(new.kind) is Ban.USER else new.who
            await store.insert_ban(tx, site=name, kind=new.kind, who=who, why=new.why, by=caller.name, since=now)
            tx.ring(TOPIC)
            said = f"{caller.name} banned the {new.kind} {new.who}{': ' + new.why if new.why else '.'}"
            await self._record(tx, caller, row, "sites.banned", said)
            return BanView(new.kind, new.who, new.why, now, caller.name)

    async def unban(self, caller: Caller, name: str, kind: str, who: str) -> None:
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            found = await user_id(tx, who) if kind == Ban.USER else who
            if await store.delete_ban(tx, name, kind, found):
                await self._record(tx, caller, row, "sites.unbanned", f"{caller.name} lets the {kind} {who} in again.")

    async def bans(self, caller: Caller, name: str) -> BanPage:
        async with self._database.begin() as tx:
            await allow(tx, caller, name)
            rows = await store.bans_of(tx, [name])
        shown = [(one.user_name or one.who) if one.kind == Ban.USER else one.who for one in rows]
        return BanPage([BanView(r.kind, who, r.why, r.since, r.by) for r, who in zip(rows, shown, strict=True)])

    async def announce(self, caller: Caller, name: str, new: NewDowntime) -> DowntimeView:
        """A downtime. Planned is what is announced a day ahead: nobody can call a failure planned afterwards."""
        now = self._clock.now()
        starts = new.starts or now
        _check_times(starts, new.ends, now)
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            endpoint = await self._endpoint(tx, name, new.endpoint) if new.endpoint else None
            values: dict[str, Any] = {
                "id": new_id("downtime"),
                "site": name,
                "endpoint_id": endpoint,
                "severity": new.severity,
                "planned": starts - now >= ANNOUNCED,
                "starts": starts,
                "ends": new.ends,
                "description": new.description,
                "by": caller.name,
                "created": now,
            }
            await store.insert_downtime(tx, **values)
            said = f"{caller.name} announced a downtime, {starts:%Y-%m-%d %H:%M} to {new.ends:%Y-%m-%d %H:%M} UTC."
            await self._record(tx, caller, row, "sites.downtime_announced", said)
            return await self._shown(tx, name, values["id"])

    async def end_downtime(self, caller: Caller, name: str, downtime_id: str) -> None:
        """End one that is on, now; take back one that is to come. What is over stays as it was."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            found = await store.get_downtime(tx, downtime_id)
            if found is None or found.site != name:
                hint = f"hansa site downtime list {name}"
                raise Fault(errors.NO_DOWNTIME, f"{name} has no downtime {downtime_id}.", hint=hint)
            if found.starts > now:
                await store.delete_downtime(tx, downtime_id)
            elif found.ends > now:
                await store.update_downtime(tx, downtime_id, ends=now)
            await self._record(tx, caller, row, "sites.downtime_ended", f"{caller.name} ended a downtime.")

    async def downtimes(self, caller: Caller, name: str, since: datetime | None) -> DowntimePage:
        """Downtimes that were not over at ``since`` (by default: now)."""
        async with self._database.read() as tx:
            await allow(tx, caller, name, manage=False)
            names = {one.id: one.name for one in await store.endpoints_of(tx, [name])}
            rows = await store.downtimes_of(tx, [name], since or self._clock.now())
        return DowntimePage([views.shown_downtime(one, names) for one in rows])

    async def set_admins(self, caller: Caller, name: str, admins: list[str]) -> Admins:
        """Who administers the site, in the place of those who did."""
        async with self._database.begin() as tx:
            row = await allow(tx, caller, name)
            ids = [await user_id(tx, one) for one in admins]
            await store.set_admins(tx, name, ids, self._clock.now())
            said = f"{caller.name} made {', '.join(admins)} its administrators."
            await self._record(tx, caller, row, "sites.admins_changed", said)
            return Admins([one.name for one in await store.admins_of(tx, name)])

    async def _endpoint(self, tx: Tx, site: str, name: str) -> str:
        ends = {one.name: str(one.id) for one in await store.endpoints_of(tx, [site])}
        if name not in ends:
            hint = f"There are: {', '.join(ends)}."
            raise Fault(errors.NO_ENDPOINT, f"{site} has no endpoint {name}.", hint=hint)
        return ends[name]

    async def _shown(self, tx: Tx, site: str, downtime_id: str) -> DowntimeView:
        names = {one.id: one.name for one in await store.endpoints_of(tx, [site])}
        return views.shown_downtime(await store.get_downtime(tx, downtime_id), names)

    async def _record(self, tx: Tx, caller: Caller, row: Any, reason: str, message: str) -> None:
        owner = row.owner_id if row.visibility == Visibility.OWNER else None
        await self._events.record(tx, Event(caller.actor, f"site/{row.name}", row.phase, reason, message, owner))


def _check_times(starts: datetime, ends: datetime, now: datetime) -> None:
    wrong = None
    if starts.tzinfo is None or ends.tzinfo is None:
        wrong = "Its times need a time zone, as 2026-12-01T08:00:00Z."
    elif ends <= starts:
        wrong = "It would end before it starts."
    elif starts < now - timedelta(minutes=5):
        wrong = "It would start in the past."
    elif ends - starts > LONGEST:
        wrong = "It would last longer than a year; remove the site instead."
    if wrong:
        raise Fault(errors.BAD_DOWNTIME, wrong, hint="Say when it starts (or leave that out: now) and when it ends.")
