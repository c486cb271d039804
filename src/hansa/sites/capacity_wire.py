"""Wire models of capacity grants."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar

from annotated_types import Ge, Le, MaxLen, MinLen

from hansa.kernel.status import Status
from hansa.kernel.wire import STRICT

Amount = Annotated[int, Ge(0), Le(2**40)]
Hours = Annotated[float, Ge(0), Le(1e10)]
Name = Annotated[str, MinLen(1), MaxLen(200)]


@dataclass(frozen=True)
class GrantTerms:
    """What is granted. What is left out is not limited by the grant."""

    __pydantic_config__: ClassVar = STRICT

    core_hours: Hours | None = None
    """Of all work together, until the end."""
    cores: Amount | None = None
    """At the same time."""
    memory_mib: Amount | None = None
    gpus: Amount | None = None
    storage_gib: Amount | None = None
    starts: datetime | None = None
    """Default: at once."""
    ends: datetime | None = None
    """Default: it does not end."""


@dataclass(frozen=True)
class AskGrant:
    """A VO manager asks a site for capacity, anew or for other terms."""

    __pydantic_config__: ClassVar = STRICT

    vo: Name
    site: Name
    terms: GrantTerms
    note: Annotated[str, MaxLen(2000)] = ""


@dataclass(frozen=True)
class AgreeGrant:
    """The site agrees: to what was asked, or to other terms."""

    __pydantic_config__: ClassVar = STRICT

    terms: GrantTerms | None = None
    note: Annotated[str, MaxLen(2000)] = ""


@dataclass(frozen=True)
class RefuseGrant:
    __pydantic_config__: ClassVar = STRICT

    why: Annotated[str, MinLen(1), MaxLen(2000)]


@dataclass(frozen=True)
class GrantCaps:
    """How the VO shares it: core hours of each user, of single users (by name or id), and of groups."""

    __pydantic_config__: ClassVar = STRICT

    each_user: Hours | None = None
    users: Annotated[dict[str, Hours], MaxLen(10_000)] = field(default_factory=dict)
    groups: Annotated[dict[str, Hours], MaxLen(1000)] = field(default_factory=dict)


@dataclass(frozen=True)
class Grant:
    """A capacity grant: what a site gives a VO, and what of it is used. Hours are core hours."""

    vo: str
    site: str
    status: Status
    terms: GrantTerms
    used_h: float = 0.0
    """By work that has ended, pilots that idled included."""
    idle_h: float = 0.0
    """Of these, what pilots held and did not use."""
    reserved_h: float = 0.0
    """For what runs now."""
    left_h: float | None = None
    asked: GrantTerms | None = None
    """What waits for the site's answer."""
    note: str = ""
    caps: GrantCaps = field(default_factory=GrantCaps)


@dataclass(frozen=True)
class GrantPage:
    items: list[Grant]
    next: str | None = None
