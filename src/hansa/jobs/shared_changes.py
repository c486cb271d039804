"""Changes of what several people see: sites, VOs, grants of capacity, VM images. One look serves all who wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Sequence

from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.kernel.database import Database
from hansa.kernel.events import EventLog, SharedChange
from hansa.sites import store as site_store

_KEPT = 1000
_MOST_SITES = 10_000
_EVENTS = 500
_HANSA = "hansa"


class SharedChanges:
    """What has changed lately of what is shared, told to those who may see it."""

    def __init__(self, database: Database, events: EventLog) -> None:
        self._database = database
        self._events = events
        self._kept: deque[SharedChange] = deque(maxlen=_KEPT)
        self._floor: int | None = None
        """All behind it is in ``_kept``; None before the first look."""
        self._top = 0
        self._begun = -1.0
        self._lock = asyncio.Lock()

    async def after(self, caller: Caller, position: int) -> tuple[int, list[str]]:
        """Where the stream is now, and the subjects behind ``position`` that the caller may see."""
        await self._look()
        top = self._top
        if self._floor is None or position < self._floor:
            found: Sequence[SharedChange] = await self._events.shared_after(position, _EVENTS)
        else:
            found = [one for one in self._kept if one.position > position]
        others = [one for one in found if one.owner_id != caller.user_id]  # one's own are told as such
        return max(position, top), await self._seen(caller, others) if others else []

    async def _look(self) -> None:
        """Look, unless somebody has begun to after this was asked for."""
        asked = time.monotonic()
        async with self._lock:
            if self._begun >= asked:
                return
            self._begun = time.monotonic()
            last = await self._events.last_position()
            if self._floor is None:
                self._floor = self._top = last
                return
            if last <= self._top:
                return
            found = await self._events.shared_after(self._top, _EVENTS)
            for one in found:
                if len(self._kept) == _KEPT:
                    self._floor = self._kept[0].position
                self._kept.append(one)
            self._top = found[-1].position if len(found) == _EVENTS else max(last, *(one.position for one in found), 0)

    async def _seen(self, caller: Caller, found: Sequence[SharedChange]) -> list[str]:
        sites: Collection[str] = ()
        async with self._database.read() as tx:
            vos = {one.vo for one in await vo_store.memberships(tx, caller.user_id)}
            if any(one.subject.startswith(("site/", "grant/")) for one in found):
                rows = await site_store.listed(
                    tx, caller.user_id, sorted(vos), "", _MOST_SITES, operator=caller.is_operator
                )
                steered = await site_store.administered(tx, caller.user_id)
                sites = {f"site/{row.name}" for row in rows} | {f"steered/{name}" for name in steered}
        return [one.subject for one in found if may_hear(caller, one, vos, sites)]


def may_hear(caller: Caller, one: SharedChange, vos: Collection[str], sites: Collection[str]) -> bool:
    """Whether a change is told to the caller. ``sites``: ``site/NAME`` of those seen, ``steered/NAME`` too. Pure."""
    kind, _, name = one.subject.partition("/")
    if kind == "site":
        return one.subject in sites
    if one.vo is not None:
        is_for_site = kind == "grant" and f"steered/{name.rpartition('@')[2]}" in sites
        return one.vo in vos or caller.is_operator or is_for_site
    return one.owner_id in (None, _HANSA) and kind == "image"
