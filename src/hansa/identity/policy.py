"""Who may do what: the one place to read it.

Every route declares one permission. The permission says which callers may come in at all; which *things* they may
see or change is :func:`may_see` and :func:`may_change`, asked by the services.
"""

from __future__ import annotations

from enum import Enum, StrEnum

from hansa.identity.model import Caller


class Permission(StrEnum):
    """What a route needs."""

    PUBLIC = "public"
    SELF_READ = "self:read"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    FILES_WRITE = "files:write"
    SITES_READ = "sites:read"
    USAGE_READ = "usage:read"
    EVENTS_READ = "events:read"
    PILOTS_READ = "pilots:read"
    PILOTS_STOP = "pilots:stop"
    PILOT_EXCHANGE = "pilot:exchange"
    USERS_WRITE = "users:write"
    METRICS_READ = "metrics:read"


class Rule(Enum):
    """Who has a permission."""

    ANYBODY = "anybody, without a token"
    USER = "any signed-in user"
    OPERATOR = "operators of this server"
    PILOT = "the pilot itself, with its own token"


POLICY: dict[Permission, Rule] = {
    Permission.PUBLIC: Rule.ANYBODY,
    Permission.SELF_READ: Rule.USER,
    Permission.JOBS_READ: Rule.USER,
    Permission.JOBS_WRITE: Rule.USER,
    Permission.FILES_WRITE: Rule.USER,
    Permission.SITES_READ: Rule.USER,
    Permission.USAGE_READ: Rule.USER,
    Permission.EVENTS_READ: Rule.USER,
    Permission.PILOTS_READ: Rule.USER,
    Permission.PILOTS_STOP: Rule.OPERATOR,
    Permission.PILOT_EXCHANGE: Rule.PILOT,
    Permission.USERS_WRITE: Rule.OPERATOR,
    Permission.METRICS_READ: Rule.OPERATOR,
}


def permits(permission: Permission, caller: Caller | None) -> bool:
    """Whether this caller (None: no token) may use routes that need ``permission``."""
    rule = POLICY[permission]
    if rule is Rule.ANYBODY:
        return True
    if caller is None:
        return False
    if rule is Rule.PILOT:
        return caller.pilot is not None
    if caller.pilot is not None:
        return False
    return rule is Rule.USER or caller.is_operator


def may_see(caller: Caller, owner_id: str) -> bool:
    """Whether a thing of ``owner_id`` exists for this caller. Things are private to their owner."""
    return caller.user_id == owner_id and caller.pilot is None


def may_change(caller: Caller, owner_id: str) -> bool:
    """Whether the caller may change a thing of ``owner_id``."""
    return may_see(caller, owner_id)
