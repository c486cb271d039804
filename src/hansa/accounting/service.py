"""Accounting: who used what where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from hansa.accounting import apel, store
from hansa.accounting.store import Scope, Selection
from hansa.accounting.wire import UsagePage, UsageRow
from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.identity.policy import VoAct, may_in_vo
from hansa.kernel.database import Database, Tx
from hansa.sites import store as site_store

_DEFAULT_BY = ("vo", "site")


class AccountingService:
    """Reads usage records; the rooms write them with :func:`hansa.accounting.store.charge`."""

    def __init__(self, database: Database, url: str = "http://localhost") -> None:
        self._database = database
        self._host = urlsplit(url).hostname or "localhost"

    async def usage(
        self,
        caller: Caller,
        since: date | None = None,
        until: date | None = None,
        *,
        by: Sequence[str] = _DEFAULT_BY,
        vo: str | None = None,
        site: str | None = None,
        user: str | None = None,
        everybody: bool = False,
    ) -> UsagePage:
        """Sums of the caller's own usage; ``everybody``: of all that the caller may see."""
        asked = Selection(since, until, vo, site, user, tuple(dict.fromkeys(by)))
        async with self._database.read() as tx:
            rows = await store.totals(tx, await self._scope(tx, caller, everybody=everybody), asked)
            prices = await _prices(tx, {row.site for row in rows}) if "site" in asked.by else {}
        return UsagePage([_view(row, caller, prices, shows_user="user" in asked.by or not everybody) for row in rows])

    async def apel(self, caller: Caller, since: date | None, until: date | None, *, site: str | None) -> str:
        """All that the caller may see, as summaries in APEL's text format."""
        asked = Selection(since, until, None, site, None, ("month", "site", "vo", "group", "user"))
        async with self._database.read() as tx:
            rows = await store.totals(tx, await self._scope(tx, caller, everybody=True), asked)
        return apel.summary(rows, self._host)

    async def _scope(self, tx: Tx, caller: Caller, *, everybody: bool) -> Scope:
        """Managers see their VO, administrators their site, operators all."""
        if not everybody:
            return Scope(caller.user_id)
        if caller.is_operator:
            return Scope(caller.user_id, everything=True)
        memberships = await vo_store.memberships(tx, caller.user_id)
        managed = [one.vo for one in memberships if may_in_vo(caller, VoAct.MANAGE, one)]
        return Scope(caller.user_id, managed, await site_store.administered(tx, caller.user_id))


async def _prices(tx: Tx, sites: Iterable[str]) -> dict[str, float]:
    """Prices of a core hour, of the sites that name one."""
    found = {}
    for name in sorted(sites):
        row = await site_store.get(tx, name)
        price = row.policy.get("price_per_core_hour") if row is not None else None
        if price is not None:
            found[name] = float(price)
    return found


def _view(row: Any, caller: Caller, prices: dict[str, float], *, shows_user: bool) -> UsageRow:
    has = row._mapping
    owner = (has["user_name"] or has["user"]) if "user" in has else caller.name if shows_user else ""
    site = has.get("site")
    price = row.core_s / 3600 * prices[site] if site in prices else None
    return UsageRow(
        owner,
        has.get("vo") or None,
        site,
        int(row.tasks),
        row.wall_s,
        row.core_s,
        row.cpu_s,
        row.gpu_s,
        has.get("group") or None,
        has.get("kind"),
        has.get("day"),
        has.get("month"),
        has.get("user"),
        price,
        float(row.idle_core_s),
    )
