"""HTTP routes of accounting."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends

from hansa.accounting.service import AccountingService
from hansa.accounting.wire import UsagePage
from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import provided

router = APIRouter(tags=["accounting"])


@router.get("/usage")
async def usage(
    who: Annotated[Caller, allowed(Permission.USAGE_READ)],
    accounting: Annotated[AccountingService, Depends(provided(AccountingService))],
    since: date | None = None,
) -> UsagePage:
    """The caller's usage by VO and site, optionally since a day."""
    return await accounting.usage(who, since)
