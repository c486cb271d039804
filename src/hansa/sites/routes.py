"""HTTP routes of sites."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import provided
from hansa.sites.service import SiteService
from hansa.sites.wire import Site, SitePage

router = APIRouter(tags=["sites"])
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Reader = Annotated[Caller, allowed(Permission.SITES_READ)]


@router.get("/sites")
async def list_sites(who: Reader, sites: Sites) -> SitePage:
    """The sites that serve the caller."""
    return await sites.list_sites(who)


@router.get("/sites/{name}")
async def get_site(name: str, who: Reader, sites: Sites) -> Site:
    """One site."""
    return await sites.get(who, name)
