"""HTTP routes of identity."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from hansa.identity.accounts import AccountService
from hansa.identity.authority import AuthorityService
from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.identity.provider.service import ProviderService
from hansa.identity.service import IdentityService
from hansa.identity.upstream.service import UpstreamService
from hansa.identity.wire import (
    AuthorityList,
    Client,
    ClientList,
    IdentityList,
    Invitation,
    NewClient,
    NewUser,
    NewUserToken,
    RotatedKey,
    User,
    UserPage,
)
from hansa.kernel.http import API, provided

router = APIRouter(prefix=API, tags=["identity"])
Identity = Annotated[IdentityService, Depends(provided(IdentityService))]
Accounts = Annotated[AccountService, Depends(provided(AccountService))]
Provider = Annotated[ProviderService, Depends(provided(ProviderService))]
Upstreams = Annotated[UpstreamService, Depends(provided(UpstreamService))]
Authorities = Annotated[AuthorityService, Depends(provided(AuthorityService))]
UserAdmin = Annotated[Caller, allowed(Permission.USERS_WRITE)]
ClientAdmin = Annotated[Caller, allowed(Permission.CLIENTS_WRITE)]


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


@router.get("/users")
async def list_users(
    who: UserAdmin,  # noqa: ARG001 - the permission
    accounts: Accounts,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> UserPage:
    """Users, by name."""
    return await accounts.list_users(after, limit)


@router.post("/users/invitations", status_code=201)
async def invite_user(body: NewUser, who: UserAdmin, accounts: Accounts) -> Invitation:
    """Make a link with which a user, new or not, sets a password."""
    return await accounts.invite_user(who, body)


@router.post("/users/{user}/suspend")
async def suspend_user(user: str, who: UserAdmin, accounts: Accounts) -> User:
    """Let a user in no more, from the next request on. Nothing is deleted."""
    return await accounts.suspend_user(who, user, suspended=True)


@router.post("/users/{user}/resume")
async def resume_user(user: str, who: UserAdmin, accounts: Accounts) -> User:
    """Let a user in again."""
    return await accounts.suspend_user(who, user, suspended=False)


@router.post("/clients", status_code=201)
async def add_client(body: NewClient, who: ClientAdmin, provider: Provider) -> Client:
    """Add an OpenID client; the secret of a confidential one is shown once."""
    return await provider.add_client(who, body)


@router.get("/clients")
async def list_clients(who: ClientAdmin, provider: Provider) -> ClientList:  # noqa: ARG001 - the permission
    """OpenID clients, by id."""
    return await provider.list_clients()


@router.delete("/clients/{client}", status_code=204)
async def remove_client(client: str, who: ClientAdmin, provider: Provider) -> None:
    """Remove an OpenID client; all sign-ins at it end."""
    await provider.remove_client(who, client)


@router.post("/keys/rotate")
async def rotate_key(who: Annotated[Caller, allowed(Permission.KEYS_WRITE)], provider: Provider) -> RotatedKey:
    """Sign tokens with a new key. Those of the old one stay valid until they expire."""
    return await provider.rotate_key(who)


@router.get("/identities")
async def list_identities(who: Annotated[Caller, allowed(Permission.SELF_READ)], upstreams: Upstreams) -> IdentityList:
    """With what the caller may sign in at other issuers."""
    return await upstreams.identities(who)


@router.delete("/identities/{identity}", status_code=204)
async def unlink_identity(
    identity: str, who: Annotated[Caller, allowed(Permission.SELF_WRITE)], upstreams: Upstreams
) -> None:
    """Forget an identity, and the memberships that it gave."""
    await upstreams.unlink(who, identity)


@router.get("/authority")
async def list_authority(
    who: Annotated[Caller, allowed(Permission.SELF_READ)], authority: Authorities
) -> AuthorityList:
    """The grants under which Hansa acts while the caller is away."""
    return await authority.list_mine(who)


@router.delete("/authority/{grant}", status_code=204)
async def revoke_authority(
    grant: str, who: Annotated[Caller, allowed(Permission.SELF_WRITE)], authority: Authorities
) -> None:
    """Take a grant back."""
    await authority.revoke(who, grant)
