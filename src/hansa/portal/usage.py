"""Pages of usage: who used what where, as bars and as a table."""

from __future__ import annotations

import csv
import io
from datetime import date
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import PlainTextResponse

from hansa.accounting.service import AccountingService
from hansa.accounting.wire import WORDS, UsagePage, UsageRow
from hansa.identity.policy import Permission
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.portal import charts
from hansa.portal.frame import PageRoute, Portal, Visit, visitor

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
_TALL = 90
"""So many rows are drawn; the table has all."""


@router.get("/usage")
async def show_usage(
    visit: Reader,
    usage: Usage,
    portal: Pages,
    since: Text = "",
    until: Text = "",
    by: Text = "vo,site",
    vo: Text = "",
    site: Text = "",
    user: Text = "",
    whose: Whose = "mine",
) -> Response:
    """What was used: a bar for each row, and the same as a table."""
    found = await _find(visit, usage, since, until, by, vo, site, user, whose)
    widths = charts.bars([row.core_s for row in found.items])
    is_time = by.split(",")[0] in ("day", "month")
    return portal.page(
        visit,
        "usage.html",
        rows=[(row, _cells(row, by), width) for row, width in zip(found.items, widths, strict=True)],
        keys=by.split(","),
        views=_VIEWS,
        total=sum(row.core_s for row in found.items),
        points=charts.area([row.core_s for row in found.items]) if is_time and "," not in by else [],
        is_priced=any(row.price is not None for row in found.items),
        tall=_TALL,
        asked={"since": since, "until": until, "by": by, "vo": vo, "site": site, "user": user, "whose": whose},
    )


@router.get("/usage.csv")
async def usage_csv(
    visit: Reader,
    usage: Usage,
    since: Text = "",
    until: Text = "",
    by: Text = "vo,site",
    vo: Text = "",
    site: Text = "",
    user: Text = "",
    whose: Whose = "mine",
) -> Response:
    """The same for spreadsheets."""
    found = await _find(visit, usage, since, until, by, vo, site, user, whose)
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow([*by.split(","), "tasks", "wall_s", "core_s", "cpu_s", "gpu_s", "price"])
    for row in found.items:
        sums = [row.tasks, row.wall_s, row.core_s, row.cpu_s, row.gpu_s, "" if row.price is None else row.price]
        writer.writerow([*map(_harmless, _cells(row, by)), *sums])
    headers = {"Content-Disposition": 'attachment; filename="usage.csv"', "Cache-Control": "no-store"}
    return PlainTextResponse(output.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _harmless(text: str) -> str:
    """A name that a spreadsheet would take for a formula, as text."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


async def _find(
    visit: Visit,
    usage: AccountingService,
    since: str,
    until: str,
    by: str,
    vo: str,
    site: str,
    user: str,
    whose: Whose,
) -> UsagePage:
    words = by.split(",")
    if not set(words) <= set(WORDS):
        raise Fault(INVALID, f"Usage is not summed up by {by[:80]!r}.", hint=f"By: {', '.join(WORDS)}.")
    return await usage.usage(
        visit.caller,
        _day(since),
        _day(until),
        by=words,
        vo=vo or None,
        site=site or None,
        user=user or None,
        everybody=whose == "all",
    )


def _cells(row: UsageRow, by: str) -> list[str]:
    values = {"user": row.owner, "vo": row.vo, "group": row.group, "site": row.site, "kind": row.kind}
    values |= {"day": row.day, "month": row.month}
    return [values[word] or "" for word in by.split(",")]


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise Fault(INVALID, f"{text[:40]!r} is no day.", hint="As in 2026-12-31.") from error
