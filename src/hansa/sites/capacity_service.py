"""Capacity grants: asked for by a VO's managers, agreed or refused by the site, shared out by the VO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hansa.identity import vo_store
from hansa.identity.model import Caller, Role
from hansa.identity.policy import VoAct, may_in_vo
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import Event, EventLog
from hansa.kernel.http import decode_cursor, encode_cursor
from hansa.kernel.wire import decode, encode
from hansa.sites import capacity, errors, store
from hansa.sites.capacity_model import MS_PER_HOUR, GrantPhase, is_mostly_used, status_of
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, Grant, GrantCaps, GrantPage, GrantTerms
from hansa.sites.service import allow


class CapacityService:
    """What people do with capacity grants."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    async def ask(self, caller: Caller, new: AskGrant) -> Grant:
        """Ask a site for capacity; an agreed grant stays in force until the site has answered."""
        self._check(new.terms)
        async with self._database.begin() as tx:
            await self._as_manager(tx, caller, new.vo)
            await self._site_for(tx, caller, new.vo, new.site)
            row = await capacity.get(tx, new.vo, new.site, lock=True)
            values: dict[str, Any] = {"asked": encode(new.terms), "note": new.note}
            if row is None or row.phase != GrantPhase.AGREED:
                values |= {"phase": GrantPhase.ASKED.value, "message": "", "since": self._clock.now()}
            await capacity.put(tx, new.vo, new.site, **values)
            said = f"{caller.name} asked {new.site} for {in_words(new.terms)}."
            await self._record(tx, caller, new.vo, new.site, "asked", said)
            return await self._show(tx, new.vo, new.site)

    async def agree(self, caller: Caller, vo: str, site: str, answer: AgreeGrant) -> Grant:
        """The site gives what was asked, or other terms; or changes what it gives."""
        async with self._database.begin() as tx:
            await allow(tx, caller, site)
            row = await self._find(tx, vo, site)
            terms = answer.terms or decode(GrantTerms, row.asked if row.asked is not None else row.terms)
            self._check(terms)
            said = f"{caller.name} agreed to {in_words(terms)}{': ' if answer.note else ''}{answer.note.rstrip('.')}."
            await capacity.put(
                tx,
                vo,
                site,
                phase=GrantPhase.AGREED.value,
                message=said,
                since=self._clock.now(),
                terms=encode(terms),
                asked=None,
                warned=is_mostly_used(terms, row.used_ms),
            )
            await self._record(tx, caller, vo, site, "agreed", said)
            tx.ring("demand")  # what waited for it may start
            return await self._show(tx, vo, site)

    async def refuse(self, caller: Caller, vo: str, site: str, why: str) -> Grant:
        """The site refuses what was asked. What it agreed to before stays in force."""
        async with self._database.begin() as tx:
            await allow(tx, caller, site)
            row = await self._find(tx, vo, site)
            if row.asked is None:
                said = f"{vo} asks nothing of {site} now."
                raise Fault(
                    errors.BAD_TERMS, said, hint="To give less, or end it: hansa grant agree, with the new terms."
                )
            values: dict[str, Any] = {"asked": None}
            if row.phase != GrantPhase.AGREED:
                message = f"{why.rstrip('.')}."
                values |= {"phase": GrantPhase.REFUSED.value, "message": message, "since": self._clock.now()}
            await capacity.put(tx, vo, site, **values)
            await self._record(tx, caller, vo, site, "refused", f"{caller.name} refused: {why.rstrip('.')}.")
            return await self._show(tx, vo, site)

    async def cap(self, caller: Caller, vo: str, site: str, caps: GrantCaps) -> Grant:
        """How the VO shares the hours among its users and groups."""
        async with self._database.begin() as tx:
            await self._as_manager(tx, caller, vo)
            await self._find(tx, vo, site)
            await capacity.put(tx, vo, site, caps=encode(caps))
            await self._record(tx, caller, vo, site, "capped", f"{caller.name} changed the caps of users and groups.")
            return await self._show(tx, vo, site)

    async def get(self, caller: Caller, vo: str, site: str) -> Grant:
        """One grant, for members of the VO, administrators of the site and operators."""
        async with self._database.read() as tx:
            membership = await vo_store.get_membership(tx, vo, caller.user_id)
            is_admin = site in await _administered(tx, caller)
            if not (may_in_vo(caller, VoAct.SEE, membership) or is_admin):
                raise self._unknown(vo, site)
            await self._find(tx, vo, site, lock=False)
            return await self._show(tx, vo, site)

    async def list_grants(self, caller: Caller, cursor: str | None, limit: int) -> GrantPage:
        """Grants of the caller's VOs and at the sites that the caller administers; to operators all."""
        after = decode_cursor(cursor, str, str) or ["", ""]
        async with self._database.read() as tx:
            vos = None if caller.is_operator else [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
            sites = await _administered(tx, caller)
            start = (str(after[0]), str(after[1]))
            rows = await capacity.list_grants(tx, vos=vos, sites=sites, after=start, limit=limit)
            items = [await self._show(tx, row.vo, row.site) for row in rows]
        return GrantPage(items, encode_cursor(rows[-1].vo, rows[-1].site) if len(rows) == limit else None)

    async def forget_expired(self) -> int:
        """Reservations of things that should have ended long ago."""
        async with self._database.begin() as tx:
            return await capacity.forget_expired(tx, self._clock.now())

    async def _show(self, tx: Tx, vo: str, site: str) -> Grant:
        row = await self._find(tx, vo, site, lock=False)
        state = capacity.state_of(row)
        held = await capacity.held(tx, vo, site)
        granted = state.terms.core_hours
        used_h, held_h = row.used_ms / MS_PER_HOUR, held.core_ms / MS_PER_HOUR
        return Grant(
            vo,
            site,
            status_of(state, row.used_ms, held.core_ms, self._clock.now()),
            state.terms,
            used_h,
            row.idle_ms / MS_PER_HOUR,
            held_h,
            None if granted is None else max(0.0, granted - used_h - held_h),
            decode(GrantTerms, row.asked) if row.asked is not None else None,
            row.note,
            state.caps,
        )

    async def _find(self, tx: Tx, vo: str, site: str, *, lock: bool = True) -> Any:
        row = await capacity.get(tx, vo, site, lock=lock)
        if row is None:
            raise self._unknown(vo, site)
        return row

    def _unknown(self, vo: str, site: str) -> Fault:
        return Fault(
            errors.NO_SUCH_GRANT, f"{vo} has no grant at {site} that you can see.", hint="hansa grant list", site=site
        )

    async def _as_manager(self, tx: Tx, caller: Caller, vo: str) -> None:
        membership = await vo_store.get_membership(tx, vo, caller.user_id)
        if may_in_vo(caller, VoAct.MANAGE, membership):
            return
        said = f"Only managers of {vo} ask for capacity and share it out."
        raise Fault(errors.GRANT_FORBIDDEN, said, hint=f"hansa vo member list {vo}", vo=vo, role=Role.MANAGER.value)

    async def _site_for(self, tx: Tx, caller: Caller, vo: str, site: str) -> None:
        """A VO can ask a site that it can see."""
        row = await store.get(tx, site)
        if row is None or (
            caller.is_operator is False
            and site not in {one.name for one in await store.serving(tx, caller.user_id, [vo])}
        ):
            raise Fault(errors.NOT_FOUND, f"There is no site {site} that serves {vo}.", hint="hansa site list")
        if row.visibility == "owner":
            raise Fault(errors.BAD_TERMS, f"{site} is a user's own site: it grants nothing to others.")

    def _check(self, terms: GrantTerms) -> None:
        now = self._clock.now()
        for moment in (terms.starts, terms.ends):
            if moment is not None and moment.tzinfo is None:
                raise Fault(errors.BAD_TERMS, "A date needs a time zone, as in 2027-01-01T00:00:00Z.")
        if terms.ends is not None and terms.ends <= (terms.starts or now):
            hint = "hansa grant refuse, or --until a later day."
            raise Fault(errors.BAD_TERMS, f"It would end {terms.ends:%Y-%m-%d}, before it begins.", hint=hint)

    async def _record(self, tx: Tx, caller: Caller, vo: str, site: str, phase: str, message: str) -> None:
        event = Event(caller.actor, capacity.subject(vo, site), phase, f"capacity.{phase}", message, None, vo)
        await self._events.record(tx, event)


async def _administered(tx: Tx, caller: Caller) -> Sequence[str]:
    """The sites that the caller administers."""
    return await store.administered(tx, caller.user_id)


def in_words(terms: GrantTerms) -> str:
    """What is granted, for people."""
    units = (
        (terms.core_hours, "core hours"),
        (terms.cores, "cores"),
        (terms.memory_mib, "MiB of memory"),
        (terms.gpus, "GPUs"),
        (terms.storage_gib, "GiB of storage"),
    )
    some = [f"{value:,.10g} {unit}" for value, unit in units if value is not None] or ["capacity without a limit"]
    until = f" until {terms.ends:%Y-%m-%d}" if terms.ends else ""
    return f"{', '.join(some)}{until}"
