"""Accounting: who used what where."""

from __future__ import annotations

from datetime import date

from hansa.accounting import store
from hansa.accounting.wire import UsagePage, UsageRow
from hansa.identity.model import Caller
from hansa.kernel.database import Database


class AccountingService:
    """Reads usage records; the rooms write them with :func:`hansa.accounting.store.charge`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(self, caller: Caller, since: date | None) -> UsagePage:
        """The caller's own usage by VO and site."""
        async with self._database.read() as tx:
            rows = await store.totals(tx, caller.user_id, since)
        return UsagePage(
            [UsageRow(caller.name, r.vo or None, r.site, int(r.tasks), r.wall_s, r.core_s, r.cpu_s) for r in rows]
        )
