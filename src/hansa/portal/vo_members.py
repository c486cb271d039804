"""The page of who is in an organisation: members, roles, groups, invitations, and who says who is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from hansa.identity.policy import VoAct, may_in_vo
from hansa.identity.upstream.service import UpstreamService
from hansa.identity.vos import VoService
from hansa.identity.wire import Invitation, MemberChange, MemberPage, NewInvitation, RoleName, VoRule
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import provided
from hansa.kernel.texts import _
from hansa.portal.frame import PageRoute, Portal, Visit, own_form
from hansa.portal.vos import Cookies, Manager, Pages, Reader, Vos, standing, words

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Upstreams = Annotated[UpstreamService, Depends(provided(UpstreamService))]
ROLES: tuple[RoleName, ...] = ("vm-operator", "manager")


@router.get("/vos/{vo}/members")
async def show_members(
    vo: str, visit: Reader, vos: Vos, upstreams: Upstreams, portal: Pages, after: str | None = None
) -> Response:
    """Who is in it, as what, and how people come to be."""
    return await _page(vo, visit, vos, upstreams, portal, after)


async def _page(
    vo: str,
    visit: Visit,
    vos: VoService,
    upstreams: UpstreamService,
    portal: Portal,
    after: str | None = None,
    invitation: Invitation | None = None,
) -> Response:
    known = await standing(visit, vos, vo)
    sees = may_in_vo(visit.caller, VoAct.SEE_MEMBERS, known.mine)
    issuers = [one for one in upstreams.issuers if one.rules_vos] if visit.caller.is_operator else []
    return portal.page(
        visit,
        "vos/members.html",
        **known.head,
        tab="members",
        members=await vos.members(visit.caller, vo, after, 100) if sees else MemberPage([]),
        roles=ROLES,
        invitation=invitation,
        issuers=issuers,
        ruled_by=next((one.name for one in upstreams.issuers if one.url == known.vo.issuer), known.vo.issuer),
    )


@router.post("/vos/{vo}/members")
async def change_members(
    vo: str, visit: Manager, vos: Vos, upstreams: Upstreams, portal: Pages, browser: Cookies
) -> Response:
    """Invite somebody, make a group, or say who says who is in it."""
    form = await own_form(visit, browser)
    match form.get("act"):
        case "invite":
            made = await vos.invite(visit.caller, vo, _invitation(form))
            return await _page(vo, visit, vos, upstreams, portal, invitation=made)
        case "group":
            await vos.add_group(visit.caller, vo, form.get("group", "").strip()[:200])
            said = _("The group is made: put members into it.")
        case "rule":
            found = await vos.rule(visit.caller, vo, read_rule(form, vo))
            said = (
                _("{issuer} says who is in {vo} from now on.", issuer=form.get("issuer"), vo=vo)
                if found.issuer
                else _("Invitations say who is in {vo} from now on.", vo=vo)
            )
        case _:
            raise Fault(INVALID, _("This is nothing that can be done with the members of an organisation."))
    return portal.redirect(f"/vos/{vo}/members", said)


def _invitation(form: Mapping[str, str]) -> NewInvitation:
    days = form.get("days", "").strip()
    if days and not (days.isascii() and days.isdigit() and 0 < int(days[:4]) <= 90):
        raise Fault(INVALID, _("An invitation is good for 1 to 90 days."))
    return NewInvitation(_roles(form), words(form, "groups"), int(days) * 86_400 if days else None)


def read_rule(form: Mapping[str, str], vo: str) -> VoRule:
    """Who says who is in it. Raises Fault ``kernel.invalid`` where its name was not typed: members go with it."""
    if form.get("sure", "").strip() != vo:
        said = _("Nothing is changed: the name of the organisation was not typed.")
        raise Fault(INVALID, said, hint=_("Members who came the other way are taken out. Type {vo} to go on.", vo=vo))
    issuer = form.get("issuer", "")[:40]
    if not issuer:
        return VoRule(None)
    name = form.get("issuer_vo", "").strip()[:200]
    assurance = [one[:200] for one in form.get("assurance", "").split()][:20]
    return VoRule(issuer, name if name and name != vo else None, assurance)


@router.post("/vos/{vo}/members/{member}")
async def act_on_member(vo: str, member: str, visit: Manager, vos: Vos, portal: Pages, browser: Cookies) -> Response:
    """Change roles and groups, suspend, let in again, or remove."""
    form = await own_form(visit, browser)
    caller = visit.caller
    match form.get("act"):
        case "roles":
            changed = await vos.change_member(caller, vo, member, MemberChange(_roles(form), words(form, "groups")))
            said = _("{name} is {names} now.", name=changed.name, names=", ".join(changed.roles))
        case "suspend":
            changed = await vos.suspend_member(caller, vo, member, form.get("why", "")[:500], suspended=True)
            said = _("{name} starts nothing new for {vo}.", name=changed.name, vo=vo)
        case "resume":
            changed = await vos.suspend_member(caller, vo, member, "", suspended=False)
            said = _("{name} is let in again.", name=changed.name)
        case "remove":
            await vos.remove_member(caller, vo, member)
            if member == caller.user_id and not caller.is_operator:
                return portal.redirect("/vos", _("You have left {vo}. What runs goes on.", vo=vo))
            said = _("They are no longer a member. What runs goes on.")
        case _:
            raise Fault(INVALID, _("This is nothing that can be done with a member."))
    return portal.redirect(f"/vos/{vo}/members", said)


def _roles(form: Mapping[str, str]) -> list[RoleName]:
    return [role for role in ROLES if form.get(f"role.{role}")]
