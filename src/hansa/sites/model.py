"""What a site is, whom it serves, and why it would refuse: frozen values, and pure decisions over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from hansa.kernel.status import Party, Status
from hansa.sites.wire import Capacity, Facts, SitePolicy

EVERYBODY = ""
"""The key, among VOs, of what an endpoint offers without regard to a VO."""


class Visibility(StrEnum):
    """For whom a site is there at all."""

    OWNER = "owner"
    """A user's own site: nobody else sees it, not even operators."""
    VOS = "vos"
    """Members of the VOs that it serves."""
    ALL = "all"
    """Every user of this server."""


class Health(StrEnum):
    """How an endpoint is, after damping. Only ``up`` and ``unknown`` get new work."""

    UNKNOWN = "unknown"
    """Not looked at yet, or there is nothing to look with."""
    UP = "up"
    DOWN = "down"
    FLAPPING = "flapping"
    """It answers now, but went up and down too often of late."""
    LOGIN = "login"
    """Somebody must sign in again: her own site, whose login has lapsed."""

    @property
    def takes_work(self) -> bool:
        return self in (Health.UNKNOWN, Health.UP)


class Severity(StrEnum):
    """What a downtime means (as in GOCDB)."""

    OUTAGE = "outage"
    """It does not work: no new work."""
    AT_RISK = "at_risk"
    """It works, and may stop working: new work only where there is no better place."""


class Ban(StrEnum):
    """What is banned from a site."""

    USER = "user"
    VO = "vo"


class Work(StrEnum):
    """What somebody wants to start at a site."""

    MACHINES = "machines"
    PILOTS = "pilots"


@dataclass(frozen=True)
class VoAccess:
    """How a VO comes in at an endpoint: ``project`` is the site's own word for where its things live."""

    vo: str
    project: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Downtime:
    """A time for which a site, or one of its endpoints, has said that it will not work, or may not."""

    id: str
    severity: Severity
    is_planned: bool
    """Announced a day ahead or more; only such time is left out of reliability."""
    starts: datetime
    ends: datetime
    description: str = ""
    endpoint_id: str | None = None

    def is_on(self, now: datetime) -> bool:
        return self.starts <= now < self.ends

    def is_of(self, endpoint_id: str) -> bool:
        return self.endpoint_id in (None, endpoint_id)


@dataclass(frozen=True)
class Refusal:
    """Why something may not start there: a stable reason, a sentence, who could change it, and until when."""

    reason: str
    message: str
    waiting_on: Party
    until: datetime | None = None


@dataclass(frozen=True)
class EndpointView:
    """An endpoint as other rooms see it, for one user."""

    id: str
    name: str
    kind: str
    url: str | None
    settings: Mapping[str, Any]
    """Validated by its kind; read them as the kind's settings model."""
    health: Status
    vos: Mapping[str, VoAccess] = field(default_factory=dict)
    """Those of the user's VOs that it serves."""
    is_for_vos: bool = False
    """Whether it names VOs at all, be the user in them or not."""
    facts: Mapping[str, Facts] = field(default_factory=dict)
    """What was discovered, by VO; :data:`EVERYBODY` where it does not depend on one."""
    facts_at: datetime | None = None

    def facts_of(self, vo: str | None) -> Facts | None:
        """What is known of what this VO gets here; None: nothing yet."""
        return self.facts.get(vo or EVERYBODY, self.facts.get(EVERYBODY))

    def serves(self, vo: str | None) -> bool:
        """Whether it lets this VO in. An endpoint that names no VO is for all whom the site serves."""
        return vo in self.vos if self.is_for_vos else True


@dataclass(frozen=True)
class SiteView:
    """A site as other rooms see it, for one user: what it has, how it is, and what it would refuse."""

    name: str
    kind: str
    owner_id: str
    owner_name: str
    visibility: Visibility
    status: Status
    capacity: Capacity
    policy: SitePolicy
    endpoints: tuple[EndpointView, ...] = ()
    downtimes: tuple[Downtime, ...] = ()
    """That are on, or to come."""
    drained: str | None = None
    """Why it takes no new work; None: it takes some."""
    banned_user: str | None = None
    """Why this user is banned; None: is not."""
    banned_vos: Mapping[str, str] = field(default_factory=dict)
    """Banned VOs of the user, and why."""
    user_id: str = ""
    user_name: str = ""
    """As far as a policy asks for names; else the id."""
    country: str = ""


@dataclass(frozen=True)
class Word:
    """Of a site, for one user, only what its administrators say themselves: see the fields of :class:`SiteView`."""

    name: str
    policy: SitePolicy
    drained: str | None
    banned_user: str | None
    banned_vos: Mapping[str, str]
    user_id: str
    user_name: str


def site_refusals(site: SiteView | Word, vo: str | None, work: Work) -> list[Refusal]:
    """What speaks against new work of this user, for this VO, whichever endpoint it goes to. The site's word rules."""
    found: list[Refusal] = []
    if site.drained is not None:
        found.append(_refusal("sites.drained", f"{site.name} takes no new work", site.drained))
    if site.banned_user is not None:
        found.append(_refusal("sites.user_banned", f"{site.name} has banned you", site.banned_user))
    if vo is not None and vo in site.banned_vos:
        found.append(_refusal("sites.vo_banned", f"{site.name} has banned {vo}", site.banned_vos[vo]))
    users = site.policy.users
    if users is not None and not {site.user_id, site.user_name} & set(users):
        found.append(_refusal("sites.user_not_listed", f"{site.name} serves named users only, and you are not one"))
    if work is Work.PILOTS and not site.policy.pilots:
        found.append(_refusal("sites.no_pilots", f"{site.name} does not allow pilots, which run the tasks of jobs"))
    return found


def endpoint_refusals(site: SiteView, endpoint: EndpointView, vo: str | None, now: datetime) -> list[Refusal]:
    """What speaks against new work at this endpoint: access, health, downtime."""
    found: list[Refusal] = []
    if not endpoint.serves(vo):
        name = vo or "users without a VO"
        found.append(_refusal("sites.vo_not_served", f"{site.name} does not serve {name} at {endpoint.name}"))
    if not Health(endpoint.health.phase).takes_work:
        found.append(Refusal(endpoint.health.reason, endpoint.health.message, endpoint.health.waiting_on))
    for one in site.downtimes:
        if one.severity is Severity.OUTAGE and one.is_on(now) and one.is_of(endpoint.id):
            until = f"until {one.ends:%Y-%m-%d %H:%M} UTC"
            found.append(_refusal("sites.downtime", f"{site.name} is down {until}", one.description, one.ends))
    return found


def is_at_risk(site: SiteView, endpoint: EndpointView, now: datetime) -> Downtime | None:
    """The at-risk downtime that is on: a reason to prefer another site, not to refuse this one."""
    risks = (one for one in site.downtimes if one.severity is Severity.AT_RISK)
    return next((one for one in risks if one.is_on(now) and one.is_of(endpoint.id)), None)


def allows_image(policy: SitePolicy, names: Sequence[str], claimed: Sequence[str] = ()) -> bool:
    """Whether the site lets a VM image run that has these names (its name here, its id, its digest).

    ``claimed``: names that anybody may give an image of his own: they speak against it only.
    """
    if any(fnmatchcase(name, pattern) for name in (*names, *claimed) for pattern in policy.vm_images_denied):
        return False
    return not policy.vm_images or any(fnmatchcase(name, one) for name in names for one in policy.vm_images)


def _refusal(reason: str, message: str, why: str = "", until: datetime | None = None) -> Refusal:
    return Refusal(reason, f"{message}: {why.rstrip('.')}." if why else f"{message}.", Party.SITE, until)
