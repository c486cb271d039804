"""HTTP routes of capacity grants."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import API, provided
from hansa.sites.capacity_service import CapacityService
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, Grant, GrantCaps, GrantPage, RefuseGrant

router = APIRouter(prefix=API, tags=["capacity grants"])
Capacities = Annotated[CapacityService, Depends(provided(CapacityService))]
Reader = Annotated[Caller, allowed(Permission.GRANTS_READ)]
Writer = Annotated[Caller, allowed(Permission.GRANTS_WRITE)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/grants")
async def list_grants(who: Reader, grants: Capacities, after: str | None = None, limit: Limit = 100) -> GrantPage:
    """Capacity grants of the caller's VOs, and at the sites that the caller administers."""
    return await grants.list_grants(who, after, limit)


@router.post("/grants", status_code=201)
async def ask_grant(body: AskGrant, who: Writer, grants: Capacities) -> Grant:
    """Ask a site for capacity, as a manager of the VO."""
    return await grants.ask(who, body)


@router.get("/grants/{vo}/{site}")
async def get_grant(vo: str, site: str, who: Reader, grants: Capacities) -> Grant:
    """One capacity grant."""
    return await grants.get(who, vo, site)


@router.post("/grants/{vo}/{site}/agree")
async def agree_grant(vo: str, site: str, body: AgreeGrant, who: Writer, grants: Capacities) -> Grant:
    """Agree, as an administrator of the site: to what was asked, or to other terms."""
    return await grants.agree(who, vo, site, body)


@router.post("/grants/{vo}/{site}/refuse")
async def refuse_grant(vo: str, site: str, body: RefuseGrant, who: Writer, grants: Capacities) -> Grant:
    """Refuse what was asked, as an administrator of the site."""
    return await grants.refuse(who, vo, site, body.why)


@router.put("/grants/{vo}/{site}/caps")
async def cap_grant(vo: str, site: str, body: GrantCaps, who: Writer, grants: Capacities) -> Grant:
    """Share the hours out among users and groups, as a manager of the VO."""
    return await grants.cap(who, vo, site, body)
