"""Sign-in of requests: every route of every room asks ``allowed(Permission.…)`` for its caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request

from hansa.identity import errors
from hansa.identity.model import Caller
from hansa.identity.policy import POLICY, Permission, Rule, permits
from hansa.identity.service import IdentityService
from hansa.kernel.errors import Fault
from hansa.kernel.http import provided


class Allowed:
    """A dependency that signs the caller in and asks the policy. Carries ``permission`` for the route test."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(
        self, request: Request, identity: Annotated[IdentityService, Depends(provided(IdentityService))]
    ) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Fault(errors.NO_TOKEN, "This needs a token.", hint="Send the header Authorization: Bearer TOKEN.")
        caller = await identity.authenticate(token.strip())
        if not permits(self.permission, caller):
            needed = POLICY[self.permission].value
            raise Fault(errors.FORBIDDEN, f"Only {needed} may do this ({self.permission.value}).")
        if caller.pilot is not None and request.path_params.get("pilot") != caller.pilot:
            raise Fault(errors.FORBIDDEN, "A pilot's token is good for that pilot only.")
        if self.permission is Permission.PILOT_EXCHANGE:
            await identity.check_holder(caller)
        return caller


def allowed(permission: Permission) -> Any:
    """``Depends`` for a route that needs ``permission``; gives the Caller."""
    return Depends(Allowed(permission))


def public() -> Any:
    """Marks a route that answers without a token; the policy must say so too."""
    if POLICY[Permission.PUBLIC] is not Rule.ANYBODY:  # pragma: no cover - the policy file was changed
        raise ValueError("the policy has no public routes")

    async def nobody() -> None:
        return None

    nobody.permission = Permission.PUBLIC  # type: ignore[attr-defined]
    return Depends(nobody)


def client_authenticated() -> Any:
    """Marks a route of the OpenID protocol, where Authlib authenticates the client that asks."""

    async def client() -> None:
        return None

    client.permission = Permission.CLIENT  # type: ignore[attr-defined]
    return Depends(client)


def permission_of(call: Callable[..., Awaitable[Any]] | None) -> Permission | None:
    """The permission that a dependency declares, if any."""
    return getattr(call, "permission", None)
