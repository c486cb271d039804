"""HTTP routes of virtual organisations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from hansa.identity.authority import AuthorityService
from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.identity.services import ServiceAccounts
from hansa.identity.vos import VoService
from hansa.identity.wire import (
    Authority,
    AuthorityList,
    Invitation,
    Member,
    MemberChange,
    MemberPage,
    NewGroup,
    NewInvitation,
    NewService,
    NewSiteCredential,
    NewVo,
    Service,
    ServiceList,
    Suspension,
    Token,
    Vo,
    VoChange,
    VoPage,
    VoRule,
)
from hansa.kernel.http import API, provided

router = APIRouter(prefix=API, tags=["virtual organisations"])
Vos = Annotated[VoService, Depends(provided(VoService))]
Authorities = Annotated[AuthorityService, Depends(provided(AuthorityService))]
Services = Annotated[ServiceAccounts, Depends(provided(ServiceAccounts))]
Reader = Annotated[Caller, allowed(Permission.VOS_READ)]
Manager = Annotated[Caller, allowed(Permission.VOS_MANAGE)]
Creator = Annotated[Caller, allowed(Permission.VOS_CREATE)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("/vos", status_code=201)
async def create_vo(body: NewVo, who: Creator, vos: Vos) -> Vo:
    """Create a virtual organisation."""
    return await vos.create(who, body)


@router.get("/vos")
async def list_vos(who: Reader, vos: Vos, after: str | None = None, limit: Limit = 100) -> VoPage:
    """The caller's virtual organisations; for an operator all."""
    return await vos.list_vos(who, after, limit)


@router.post("/vos/join")
async def join_vo(body: Token, who: Annotated[Caller, allowed(Permission.VOS_JOIN)], vos: Vos) -> Vo:
    """Join with the token of an invitation, once."""
    return await vos.join(who, body.token)


@router.get("/vos/{vo}")
async def get_vo(vo: str, who: Reader, vos: Vos) -> Vo:
    """One virtual organisation."""
    return await vos.get(who, vo)


@router.patch("/vos/{vo}")
async def change_vo(vo: str, body: VoChange, who: Manager, vos: Vos) -> Vo:
    """Describe it anew."""
    return await vos.change(who, vo, body)


@router.put("/vos/{vo}/rule")
async def rule_vo(vo: str, body: VoRule, who: Manager, vos: Vos) -> Vo:
    """Say who says who is a member: an issuer, or invitations. For operators."""
    return await vos.rule(who, vo, body)


@router.get("/vos/{vo}/credentials")
async def list_credentials(vo: str, who: Reader, authority: Authorities) -> AuthorityList:
    """The credentials of a VO at sites, without their content. For its managers."""
    return await authority.site_credentials(who, vo)


@router.put("/vos/{vo}/credentials/{site}")
async def set_credential(
    vo: str, site: str, body: NewSiteCredential, who: Manager, authority: Authorities
) -> Authority:
    """Keep, sealed, what a VO signs in with at a site."""
    return await authority.set_site_credential(who, vo, site, body)


@router.post("/vos/{vo}/suspend")
async def suspend_vo(vo: str, body: Suspension, who: Manager, vos: Vos) -> Vo:
    """Let no new work start for it. What runs goes on."""
    return await vos.suspend(who, vo, body.why, suspended=True)


@router.post("/vos/{vo}/resume")
async def resume_vo(vo: str, who: Manager, vos: Vos) -> Vo:
    """Let new work start again."""
    return await vos.suspend(who, vo, "", suspended=False)


@router.post("/vos/{vo}/groups", status_code=201)
async def add_group(vo: str, body: NewGroup, who: Manager, vos: Vos) -> Vo:
    """Make a group."""
    return await vos.add_group(who, vo, body.name)


@router.post("/vos/{vo}/invitations", status_code=201)
async def invite(vo: str, body: NewInvitation, who: Manager, vos: Vos) -> Invitation:
    """Make a link that lets one user join."""
    return await vos.invite(who, vo, body)


@router.get("/vos/{vo}/members")
async def list_members(vo: str, who: Reader, vos: Vos, after: str | None = None, limit: Limit = 100) -> MemberPage:
    """The members, by name."""
    return await vos.members(who, vo, after, limit)


@router.patch("/vos/{vo}/members/{member}")
async def change_member(vo: str, member: str, body: MemberChange, who: Manager, vos: Vos) -> Member:
    """Give a member other roles or groups."""
    return await vos.change_member(who, vo, member, body)


@router.delete("/vos/{vo}/members/{member}", status_code=204)
async def remove_member(vo: str, member: str, who: Manager, vos: Vos) -> None:
    """Take a member out; everybody may leave."""
    await vos.remove_member(who, vo, member)


@router.post("/vos/{vo}/members/{member}/suspend")
async def suspend_member(vo: str, member: str, body: Suspension, who: Manager, vos: Vos) -> Member:
    """Let a member start no new work for this VO."""
    return await vos.suspend_member(who, vo, member, body.why, suspended=True)


@router.post("/vos/{vo}/members/{member}/resume")
async def resume_member(vo: str, member: str, who: Manager, vos: Vos) -> Member:
    """Let a member start new work again."""
    return await vos.suspend_member(who, vo, member, "", suspended=False)


@router.get("/vos/{vo}/services")
async def list_services(vo: str, who: Reader, services: Services) -> ServiceList:
    """The service accounts of a VO. For its managers."""
    return await services.list_of(who, vo)


@router.post("/vos/{vo}/services", status_code=201)
async def add_service(vo: str, body: NewService, who: Manager, services: Services) -> Service:
    """Add a service account; its secret is shown once."""
    return await services.add(who, vo, body)


@router.delete("/vos/{vo}/services/{service}", status_code=204)
async def remove_service(vo: str, service: str, who: Manager, services: Services) -> None:
    """Remove a service account; its tokens are void at once."""
    await services.remove(who, vo, service)
