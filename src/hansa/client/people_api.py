"""Calls of the API about people: users, virtual organisations, services, identities, authority."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from hansa.client.api import call, get, part, post, send
from hansa.client.effects import Operation, Request
from hansa.identity.wire import (
    Authority,
    AuthorityList,
    Client,
    ClientList,
    IdentityList,
    Invitation,
    Member,
    MemberChange,
    MemberPage,
    NewClient,
    NewGroup,
    NewInvitation,
    NewService,
    NewSiteCredential,
    NewUser,
    NewUserToken,
    NewVo,
    RotatedKey,
    Service,
    ServiceList,
    Suspension,
    Token,
    User,
    UserPage,
    Vo,
    VoChange,
    VoPage,
    VoRule,
)
from hansa.portal.wire import SignIn


def whoami() -> Operation[User]:
    return (yield from get(User, "/whoami"))


def portal_sign_in() -> Operation[SignIn]:
    return (yield from post(SignIn, "/portal/sign-ins", None, {}))


def add_user(name: str) -> Operation[NewUserToken]:
    return (yield from post(NewUserToken, "/users", NewUser(name), {"Idempotency-Key": uuid.uuid4().hex}))


def users(after: str | None = None) -> Operation[UserPage]:
    return (yield from get(UserPage, "/users", after=after))


def invite_user(name: str) -> Operation[Invitation]:
    """A link with which a user, new or not, sets a password; earlier ones are void."""
    return (yield from send(Invitation, "POST", "/users/invitations", NewUser(name)))


def suspend_user(name: str, *, suspended: bool) -> Operation[User]:
    path = f"/users/{part(name)}/{'suspend' if suspended else 'resume'}"
    return (yield from send(User, "POST", path))


def add_client(new: NewClient) -> Operation[Client]:
    return (yield from send(Client, "POST", "/clients", new, repeatable=False))


def clients(after: str | None = None) -> Operation[ClientList]:
    return (yield from get(ClientList, "/clients", after=after))


def remove_client(name: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/clients/{part(name)}", repeatable=False))


def rotate_key() -> Operation[RotatedKey]:
    return (yield from send(RotatedKey, "POST", "/keys/rotate", repeatable=False))


def create_vo(name: str, description: str = "", manager: str | None = None) -> Operation[Vo]:
    return (yield from send(Vo, "POST", "/vos", NewVo(name, description, manager), repeatable=False))


def vos(after: str | None = None) -> Operation[VoPage]:
    return (yield from get(VoPage, "/vos", after=after))


def vo(name: str) -> Operation[Vo]:
    return (yield from get(Vo, f"/vos/{part(name)}"))


def describe_vo(name: str, text: str) -> Operation[Vo]:
    return (yield from send(Vo, "PATCH", f"/vos/{part(name)}", VoChange(text)))


def suspend_vo(name: str, why: str) -> Operation[Vo]:
    return (yield from send(Vo, "POST", f"/vos/{part(name)}/suspend", Suspension(why)))


def resume_vo(name: str) -> Operation[Vo]:
    return (yield from send(Vo, "POST", f"/vos/{part(name)}/resume"))


def add_group(name: str, group: str) -> Operation[Vo]:
    return (yield from send(Vo, "POST", f"/vos/{part(name)}/groups", NewGroup(group)))


def invite(name: str, roles: list[Any], groups: list[str], lasts_s: int | None = None) -> Operation[Invitation]:
    """A link that makes one person a member."""
    body = NewInvitation(roles, groups, lasts_s)
    return (yield from send(Invitation, "POST", f"/vos/{part(name)}/invitations", body, repeatable=False))


def join_vo(token: str) -> Operation[Vo]:
    return (yield from send(Vo, "POST", "/vos/join", Token(token), repeatable=False))


def members(name: str, after: str | None = None) -> Operation[MemberPage]:
    return (yield from get(MemberPage, f"/vos/{part(name)}/members", after=after))


def change_member(name: str, member: str, roles: list[Any] | None, groups: list[str] | None) -> Operation[Member]:
    return (yield from send(Member, "PATCH", _member(name, member), MemberChange(roles, groups)))


def remove_member(name: str, member: str) -> Operation[None]:
    yield from call(Request("DELETE", _member(name, member), repeatable=False))


def suspend_member(name: str, member: str, why: str) -> Operation[Member]:
    return (yield from send(Member, "POST", f"{_member(name, member)}/suspend", Suspension(why)))


def resume_member(name: str, member: str) -> Operation[Member]:
    return (yield from send(Member, "POST", f"{_member(name, member)}/resume"))


def rule_vo(name: str, issuer: str | None, issuer_vo: str | None, assurance: list[Any]) -> Operation[Vo]:
    """Let an issuer say who is in a VO, or (None) invitations."""
    return (yield from send(Vo, "PUT", f"/vos/{part(name)}/rule", VoRule(issuer, issuer_vo, assurance)))


def services(name: str, after: str | None = None) -> Operation[ServiceList]:
    return (yield from get(ServiceList, f"/vos/{part(name)}/services", after=after))


def add_service(name: str, service: str, scopes: list[Any]) -> Operation[Service]:
    """A service account; its secret is shown once."""
    body = NewService(service, scopes) if scopes else NewService(service)
    return (yield from send(Service, "POST", f"/vos/{part(name)}/services", body, repeatable=False))


def remove_service(name: str, service: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/vos/{part(name)}/services/{part(service)}", repeatable=False))


def site_credentials(name: str, after: str | None = None) -> Operation[AuthorityList]:
    return (yield from get(AuthorityList, f"/vos/{part(name)}/credentials", after=after))


def set_site_credential(name: str, site: str, fields: dict[Any, Any], expires: datetime | None) -> Operation[Authority]:
    """What a VO signs in with at a site, in the place of what there was."""
    body = NewSiteCredential(fields, expires)
    return (yield from send(Authority, "PUT", f"/vos/{part(name)}/credentials/{part(site)}", body))


def identities(after: str | None = None) -> Operation[IdentityList]:
    return (yield from get(IdentityList, "/identities", after=after))


def unlink(identity: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/identities/{part(identity)}", repeatable=False))


def authority(after: str | None = None) -> Operation[AuthorityList]:
    """The grants under which the server acts while the caller is away."""
    return (yield from get(AuthorityList, "/authority", after=after))


def revoke_authority(grant: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/authority/{part(grant)}", repeatable=False))


def _member(vo: str, member: str) -> str:
    return f"/vos/{part(vo)}/members/{part(member)}"
