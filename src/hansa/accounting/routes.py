"""HTTP routes of accounting."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import PlainTextResponse

from hansa.accounting.service import AccountingService
from hansa.accounting.wire import BY, UsagePage
from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import API, provided

router = APIRouter(prefix=API, tags=["accounting"])
Accounting = Annotated[AccountingService, Depends(provided(AccountingService))]
Reader = Annotated[Caller, allowed(Permission.USAGE_READ)]


@router.get("/usage")
async def usage(
    who: Reader,
    accounting: Accounting,
    since: date | None = None,
    until: date | None = None,
    by: Annotated[str, Query(pattern=BY)] = "vo,site",
    vo: str | None = None,
    site: str | None = None,
    user: str | None = None,
    everybody: bool = False,
) -> UsagePage:
    """Usage by VO, group, user, site, kind, day or month: the caller's, or all that the caller may see."""
    return await accounting.usage(who, since, until, by=by.split(","), vo=vo, site=site, user=user, everybody=everybody)


@router.get("/usage/apel", response_class=PlainTextResponse)
async def usage_apel(
    who: Reader, accounting: Accounting, since: date | None = None, until: date | None = None, site: str | None = None
) -> str:
    """All usage that the caller may see, as monthly summaries in APEL's text format."""
    return await accounting.apel(who, since, until, site=site)
