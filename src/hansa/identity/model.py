"""Who calls, and what they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class TokenKind(StrEnum):
    """What a token is for. A pilot's token can do nothing but that one pilot's exchange."""

    USER = "user"
    PILOT = "pilot"


class Role(StrEnum):
    """What a member may do in a virtual organisation. Everybody in it is a member."""

    MEMBER = "member"
    VM_OPERATOR = "vm-operator"
    MANAGER = "manager"


@dataclass(frozen=True)
class PilotKey:
    """What came with a pilot's token: the hash of a key (empty: none), and that of the key which it is bound to."""

    shown: str = ""
    bound: str | None = None


@dataclass(frozen=True)
class Caller:
    """The one behind a request. ``pilot`` is set for a pilot, which acts for ``user_id``.

    ``scopes`` limits what a token may do; None: all that its user may.
    """

    user_id: str
    name: str
    is_operator: bool = False
    pilot: str | None = None
    key: PilotKey | None = None
    scopes: frozenset[str] | None = None

    @property
    def actor(self) -> str:
        """How events name this caller."""
        return f"pilot/{self.pilot}" if self.pilot else f"user/{self.name}"


@dataclass(frozen=True)
class Membership:
    """A user's place in a virtual organisation. Suspended, in person or with the whole VO: no new work."""

    vo: str
    roles: frozenset[Role] = frozenset()
    groups: tuple[str, ...] = ()
    suspended: bool = False
    vo_suspended: bool = False
    is_ruled: bool = False
    """Whether an issuer says who is in this VO; else invitations do."""

    @property
    def is_active(self) -> bool:
        return not self.suspended and not self.vo_suspended


@dataclass(frozen=True)
class Subject:
    """A user as tokens describe them."""

    user_id: str
    name: str
    suspended: bool = False
    memberships: tuple[Membership, ...] = ()


def entitlements(memberships: Sequence[Membership], host: str) -> list[str]:
    """What tokens say of active memberships, in the form of AARC-G069:

    ``urn:mace:hansa:group:<VO>[:<group>]:role=<role>#<host>``.
    """
    found = []
    for one in memberships:
        if not one.is_active:
            continue
        base = f"urn:mace:hansa:group:{one.vo}"
        found += [f"{base}:role={role}#{host}" for role in Role if role in one.roles | {Role.MEMBER}]
        found += [f"{base}:{group}:role=member#{host}" for group in one.groups]
    return found
