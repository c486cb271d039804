"""HTTP routes of logins at container registries."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.jobs.registry_logins import RegistryLoginService
from hansa.jobs.wire import NewRegistryLogin, RegistryLogin, RegistryLoginList
from hansa.kernel.http import API, provided

router = APIRouter(prefix=API, tags=["registries"])
Logins = Annotated[RegistryLoginService, Depends(provided(RegistryLoginService))]
Reader = Annotated[Caller, allowed(Permission.SELF_READ)]
Writer = Annotated[Caller, allowed(Permission.SELF_WRITE)]
Registry = Annotated[str, Path(max_length=255)]


@router.get("/registry-logins")
async def list_registry_logins(who: Reader, logins: Logins) -> RegistryLoginList:
    """Where the caller's jobs sign in to get container images, and as whom."""
    return await logins.list_logins(who)


@router.put("/registry-logins/{registry}")
async def put_registry_login(registry: Registry, body: NewRegistryLogin, who: Writer, logins: Logins) -> RegistryLogin:
    """Keep a login for the caller's jobs; sealed, and given only to pilots that bring an image from there."""
    return await logins.put(who, registry, body)


@router.delete("/registry-logins/{registry}", status_code=204)
async def remove_registry_login(registry: Registry, who: Writer, logins: Logins) -> None:
    """Forget it. What nodes have got already stays there."""
    await logins.remove(who, registry)
