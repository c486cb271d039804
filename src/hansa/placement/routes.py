"""HTTP routes of placement."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import API, provided
from hansa.placement.service import PlanService
from hansa.placement.wire import Plan, PlanRequest

router = APIRouter(prefix=API, tags=["placement"])
Planner = Annotated[PlanService, Depends(provided(PlanService))]
Reader = Annotated[Caller, allowed(Permission.SITES_READ)]


@router.post("/plan")
async def plan(body: PlanRequest, who: Reader, planner: Planner) -> Plan:
    """Where a task or machines with these needs would run now: ranked, with why, and why not elsewhere."""
    return await planner.plan(who, body)
