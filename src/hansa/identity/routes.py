"""HTTP routes of identity."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.identity.service import IdentityService
from hansa.identity.wire import NewUser, NewUserToken, User
from hansa.kernel.http import provided

router = APIRouter(tags=["identity"])
Identity = Annotated[IdentityService, Depends(provided(IdentityService))]


@router.get("/whoami")
async def whoami(who: Annotated[Caller, allowed(Permission.SELF_READ)], identity: Identity) -> User:
    """The user behind the token."""
    return await identity.whoami(who)


@router.post("/users", status_code=201)
async def add_user(
    body: NewUser, who: Annotated[Caller, allowed(Permission.USERS_WRITE)], identity: Identity
) -> NewUserToken:
    """Add a user of this server's own; the token is shown once."""
    return await identity.add_user(who, body)
