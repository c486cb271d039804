"""HTTP routes of VM images at sites."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.kernel.http import API, provided
from hansa.machines.sync_service import SyncService
from hansa.machines.sync_wire import ImagePlacePage

router = APIRouter(prefix=API, tags=["VM images"])


@router.get("/vm-image-places")
async def list_image_places(
    who: Annotated[Caller, allowed(Permission.IMAGES_READ)],
    places: Annotated[SyncService, Depends(provided(SyncService))],
) -> ImagePlacePage:
    """Which VM images of the caller's VOs are at which sites, and why not."""
    return await places.list_places(who)
