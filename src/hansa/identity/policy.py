"""Who may do what: the one place to read it.

Every route declares one permission. The permission says which callers may come in at all; which *things* they may
see or change is :func:`may_see`, :func:`may_change` and, for a virtual organisation, :func:`may_in_vo`, asked by the
services.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, StrEnum

from hansa.identity import errors
from hansa.identity.model import Caller, Membership, Role
from hansa.kernel.errors import Fault


class Permission(StrEnum):
    """What a route needs."""

    PUBLIC = "public"
    CLIENT = "client"
    SELF_READ = "self:read"
    PORTAL_OPEN = "portal:open"
    SELF_WRITE = "self:write"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    FILES_WRITE = "files:write"
    SITES_READ = "sites:read"
    SITES_WRITE = "sites:write"
    GRANTS_READ = "grants:read"
    GRANTS_WRITE = "grants:write"
    USAGE_READ = "usage:read"
    EVENTS_READ = "events:read"
    PILOTS_READ = "pilots:read"
    PILOTS_STOP = "pilots:stop"
    PILOT_EXCHANGE = "pilot:exchange"
    PILOT_PROGRAM = "pilot:program"
    VOS_READ = "vos:read"
    VOS_JOIN = "vos:join"
    VOS_MANAGE = "vos:manage"
    VOS_CREATE = "vos:create"
    USERS_WRITE = "users:write"
    CLIENTS_WRITE = "clients:write"
    KEYS_WRITE = "keys:write"
    IMAGES_READ = "images:read"
    IMAGES_WRITE = "images:write"
    MACHINES_READ = "machines:read"
    MACHINES_WRITE = "machines:write"
    METRICS_READ = "metrics:read"


class Rule(Enum):
    """Who has a permission."""

    ANYBODY = "anybody, without a token"
    CLIENT = "an OpenID client, which the protocol itself authenticates"
    USER = "any signed-in user"
    OPERATOR = "operators of this server"
    PILOT = "the pilot itself, with its own token"


POLICY: dict[Permission, Rule] = {
    Permission.PUBLIC: Rule.ANYBODY,
    Permission.CLIENT: Rule.CLIENT,
    Permission.SELF_READ: Rule.USER,
    Permission.PORTAL_OPEN: Rule.USER,
    Permission.SELF_WRITE: Rule.USER,
    Permission.JOBS_READ: Rule.USER,
    Permission.JOBS_WRITE: Rule.USER,
    Permission.FILES_WRITE: Rule.USER,
    Permission.SITES_READ: Rule.USER,
    Permission.SITES_WRITE: Rule.USER,  # and administrator of that site: may_at_site, may_add_site
    Permission.GRANTS_READ: Rule.USER,
    Permission.GRANTS_WRITE: Rule.USER,  # and manager of the VO, or administrator of the site
    Permission.USAGE_READ: Rule.USER,
    Permission.EVENTS_READ: Rule.USER,
    Permission.PILOTS_READ: Rule.USER,
    Permission.PILOTS_STOP: Rule.OPERATOR,
    Permission.PILOT_EXCHANGE: Rule.PILOT,  # and with the key that its token is bound to
    Permission.PILOT_PROGRAM: Rule.PILOT,  # which has no key before it has its program
    Permission.VOS_READ: Rule.USER,
    Permission.VOS_JOIN: Rule.USER,
    Permission.VOS_MANAGE: Rule.USER,  # and manager of that VO: may_in_vo
    Permission.VOS_CREATE: Rule.OPERATOR,
    Permission.USERS_WRITE: Rule.OPERATOR,
    Permission.CLIENTS_WRITE: Rule.OPERATOR,
    Permission.KEYS_WRITE: Rule.OPERATOR,
    Permission.IMAGES_READ: Rule.USER,
    Permission.IMAGES_WRITE: Rule.USER,  # and its owner, or manager or vm-operator of its VO
    Permission.MACHINES_READ: Rule.USER,
    Permission.MACHINES_WRITE: Rule.USER,
    Permission.METRICS_READ: Rule.OPERATOR,
}

FULL_SCOPE = "hansa"
"""The scope of a token that may do all that its user may."""
READ_SCOPE = "hansa.read"
"""The scope of a token that may look, and change nothing."""
JOBS_SCOPE = "hansa.jobs"
"""The scope of a token that may run jobs, as a gateway's."""
_JOBS = frozenset(
    {
        Permission.SELF_READ,
        Permission.JOBS_READ,
        Permission.JOBS_WRITE,
        Permission.FILES_WRITE,
        Permission.SITES_READ,
        Permission.USAGE_READ,
        Permission.EVENTS_READ,
    }
)
_READ = frozenset(permission for permission in Permission if permission.endswith(":read"))


def permits(permission: Permission, caller: Caller | None) -> bool:
    """Whether this caller (None: no token) may use routes that need ``permission``."""
    rule = POLICY[permission]
    if rule in (Rule.ANYBODY, Rule.CLIENT):
        return True
    if caller is None:
        return False
    if rule is Rule.PILOT:
        return caller.pilot is not None
    if caller.pilot is not None or not _in_scope(permission, caller):
        return False
    return rule is Rule.USER or caller.is_operator


def _in_scope(permission: Permission, caller: Caller) -> bool:
    if caller.scopes is None or FULL_SCOPE in caller.scopes:
        return True
    if JOBS_SCOPE in caller.scopes and permission in _JOBS:
        return True
    return READ_SCOPE in caller.scopes and permission in _READ


def may_see(caller: Caller, owner_id: str) -> bool:
    """Whether a thing of ``owner_id`` exists for this caller. Things are private to their owner."""
    return caller.user_id == owner_id and caller.pilot is None


def may_change(caller: Caller, owner_id: str) -> bool:
    """Whether the caller may change a thing of ``owner_id``."""
    return may_see(caller, owner_id)


class VoAct(Enum):
    """What is done with a virtual organisation, and who may: operators always, and in the VO ..."""

    SEE = "its members"
    SEE_MEMBERS = "its members who are not suspended"
    MANAGE = "its managers"
    SUSPEND = "nobody but operators"
    RULE = "none but operators"


def may_in_vo(caller: Caller, act: VoAct, membership: Membership | None) -> bool:
    """Whether the caller, with this membership of the VO (None: no member), may do that."""
    if caller.is_operator:
        return True
    if membership is None or act in (VoAct.SUSPEND, VoAct.RULE):
        return False
    if act is VoAct.SEE:
        return True
    if act is VoAct.SEE_MEMBERS:
        return not membership.suspended
    return not membership.suspended and Role.MANAGER in membership.roles


def may_add_site(caller: Caller, *, is_private: bool) -> bool:
    """Whether the caller may add a site: one's own everybody may, one that serves others operators."""
    return caller.pilot is None and (is_private or caller.is_operator)


def may_manage_site(caller: Caller, *, is_own: bool, is_private: bool, is_admin: bool) -> bool:
    """Whether the caller may change a site and see all of it. A private site is its owner's alone."""
    if caller.pilot is not None:
        return False
    if is_private:
        return is_own
    return caller.is_operator or is_admin


def choose_vo(memberships: Sequence[Membership], asked: str | None) -> str | None:
    """The VO that new work is for: the one asked for, else the user's only one, else none.

    Raises Fault ``identity.no_vo``, ``identity.vo_ambiguous`` or ``identity.vo_suspended``.
    """
    if asked is None:
        if len(memberships) > 1:
            names = ", ".join(sorted(one.vo for one in memberships))
            raise Fault(
                errors.VO_AMBIGUOUS,
                f"You are in several virtual organisations: {names}.",
                hint="Say for which one: --vo NAME.",
                vos=sorted(one.vo for one in memberships),
            )
        if not memberships:
            return None
    chosen = next((one for one in memberships if asked in (None, one.vo)), None)
    if chosen is None:
        mine = ", ".join(sorted(one.vo for one in memberships))
        raise Fault(
            errors.NO_VO,
            f"You are not a member of {asked}.",
            hint=f"You are in: {mine}."
            if mine
            else "Leave out --vo, or ask the organisation's managers to invite you.",
        )
    if chosen.vo_suspended:
        raise Fault(
            errors.VO_SUSPENDED,
            f"{chosen.vo} is suspended: nothing new starts for it. What runs goes on.",
            hint="Ask the operator of this server.",
        )
    if chosen.suspended:
        raise Fault(
            errors.VO_SUSPENDED,
            f"Your membership of {chosen.vo} is suspended: nothing new starts for it. What runs goes on.",
            hint="Ask the managers of the organisation.",
        )
    return chosen.vo
