"""HTTP routes of sites."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import provided
from hansa.sites.registry import SiteRegistry
from hansa.sites.service import SiteService
from hansa.sites.wire import NewSite, Site, SitePage

router = APIRouter(tags=["sites"])
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Registry = Annotated[SiteRegistry, Depends(provided(SiteRegistry))]
Reader = Annotated[Caller, allowed(Permission.SITES_READ)]
Writer = Annotated[Caller, allowed(Permission.SITES_WRITE)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/sites")
async def list_sites(who: Reader, sites: Sites, after: str | None = None, limit: Limit = 1000) -> SitePage:
    """The sites that serve the caller, and those that the caller administers."""
    return await sites.list_sites(who, after, limit)


@router.post("/sites", status_code=201)
async def add_site(body: NewSite, who: Writer, registry: Registry) -> Site:
    """Join a site: one's own, or as an operator one for others."""
    return await registry.add(who, body)


@router.get("/sites/{name}")
async def get_site(name: str, who: Reader, sites: Sites) -> Site:
    """One site."""
    return await sites.get(who, name)


@router.put("/sites/{name}")
async def change_site(name: str, body: NewSite, who: Writer, registry: Registry) -> Site:
    """Make a site what its file now says."""
    return await registry.change(who, name, body)


@router.delete("/sites/{name}", status_code=204)
async def remove_site(name: str, who: Writer, registry: Registry) -> None:
    """Forget a site. What runs there is not touched."""
    await registry.remove(who, name)
