"""Pages of usage: who used what where, as bars and as a table."""

from __future__ import annotations

import csv
import io
import shlex
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import PlainTextResponse

from hansa.accounting.service import AccountingService
from hansa.accounting.wire import WORDS, UsagePage, UsageRow
from hansa.identity.policy import Permission
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.kernel.texts import _
from hansa.portal import charts
from hansa.portal.frame import PageRoute, Portal, Visit, visitor
from hansa.portal.snippets import Snippet, of_call

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Usage = Annotated[AccountingService, Depends(provided(AccountingService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Reader = Annotated[Visit, visitor(Permission.USAGE_READ)]
Text = Annotated[str, Query(max_length=300)]
Whose = Literal["mine", "all"]
_VIEWS = {
    "vo,site": "organisation and site",
    "vo": "organisation",
    "user": "user",
    "vo,user": "organisation and user",
    "vo,group": "organisation and group",
    "site": "site",
    "kind": "kind of work",
    "month": "month",
    "day": "day",
    "month,vo": "month and organisation",
    "month,site": "month and site",
}
_KEYS = {
    "vo": "Organisation",
    "group": "Group",
    "user": "User",
    "site": "Site",
    "kind": "Kind",
    "day": "Day",
    "month": "Month",
}
_TALL = 90
"""So many rows are drawn; the table has all."""


@dataclass(frozen=True)
class Asked:
    """What the address of a usage page asks for. Days are ``YYYY-MM-DD`` or empty."""

    since: str
    until: str
    by: str
    vo: str
    site: str
    user: str
    whose: Whose

    @property
    def keys(self) -> list[str]:
        return self.by.split(",")


def asked(
    since: Text = "",
    until: Text = "",
    by: Text = "vo,site",
    vo: Text = "",
    site: Text = "",
    user: Text = "",
    whose: Whose = "mine",
) -> Asked:
    return Asked(since, until, by, vo, site, user, whose)


Wish = Annotated[Asked, Depends(asked)]


@router.get("/usage")
async def show_usage(visit: Reader, usage: Usage, portal: Pages, wish: Wish) -> Response:
    """What was used: a bar for each row, and the same as a table."""
    found = await _find(visit, usage, wish)
    widths = charts.bars([row.core_s for row in found.items])
    is_curve = wish.keys in (["day"], ["month"])
    return portal.page(
        visit,
        "usage.html",
        rows=[(row, _cells(row, wish), width) for row, width in zip(found.items, widths, strict=True)],
        keys=[_KEYS[key] for key in wish.keys],
        views=_VIEWS,
        total=sum(row.core_s for row in found.items),
        points=charts.area([row.core_s for row in found.items]) if is_curve else [],
        is_priced=any(row.price is not None for row in found.items),
        tall=_TALL,
        asked=wish,
        copied=_copied(wish, portal.browser.url),
    )


@router.get("/usage.csv")
async def usage_csv(visit: Reader, usage: Usage, wish: Wish) -> Response:
    """The same for spreadsheets."""
    found = await _find(visit, usage, wish)
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow([*wish.keys, "tasks", "wall_s", "core_s", "cpu_s", "gpu_s", "price"])
    for row in found.items:
        sums = [row.tasks, row.wall_s, row.core_s, row.cpu_s, row.gpu_s, "" if row.price is None else row.price]
        writer.writerow([*map(_harmless, _cells(row, wish)), *sums])
    headers = {"Content-Disposition": 'attachment; filename="usage.csv"', "Cache-Control": "no-store"}
    return PlainTextResponse(output.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _harmless(text: str) -> str:
    """A name that a spreadsheet would take for a formula, as text."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


async def _find(visit: Visit, usage: AccountingService, wish: Asked) -> UsagePage:
    if not set(wish.keys) <= set(WORDS):
        raise Fault(
            INVALID,
            _("Usage is not summed up by {by}.", by=repr(wish.by[:80])),
            hint=_("By: {names}.", names=", ".join(WORDS)),
        )
    return await usage.usage(
        visit.caller,
        _day(wish.since),
        _day(wish.until),
        by=wish.keys,
        vo=wish.vo or None,
        site=wish.site or None,
        user=wish.user or None,
        everybody=wish.whose == "all",
    )


def _cells(row: UsageRow, wish: Asked) -> list[str]:
    values = {"user": row.owner, "vo": row.vo, "group": row.group, "site": row.site, "kind": row.kind}
    values |= {"day": row.day, "month": row.month}
    return [values[key] or "" for key in wish.keys]


def _copied(wish: Asked, url: str) -> list[Snippet]:
    """The same numbers without this page."""
    words, query = ["hansa", "usage", "--by", wish.by], {"by": wish.by}
    for name in ("since", "until", "vo", "site", "user"):
        if value := getattr(wish, name):
            words += [f"--{name}", value]
            query[name] = value
    if wish.whose == "all":
        words.append("--everybody")
        query["everybody"] = "true"
    return of_call(shlex.join(words), "GET", f"/usage?{urlencode(query)}", url=url)


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise Fault(INVALID, _("{text} is no day.", text=repr(text[:40])), hint=_("As in 2026-12-31.")) from error
