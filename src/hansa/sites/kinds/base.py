"""What a kind of endpoint is to the registry: a settings model, what the site must allow, a probe, a discovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError

from hansa.engines.egress import EgressPolicy
from hansa.kernel.errors import Fault
from hansa.sites import errors
from hansa.sites.model import VoAccess
from hansa.sites.wire import Facts

GROUP = "hansa.endpoints"
JUMP = r"^([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?$"
"""A host to sign in through: ``USER@HOST:PORT``."""


class KindSettings(BaseModel):
    """Base of the settings of a kind. A field's docstring is its meaning, and makes the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shown: ClassVar[tuple[str, ...]] = ()
    """Settings that every user of the site sees: how to sign in there."""


@dataclass(frozen=True)
class Target:
    """An endpoint to look at. ``vo`` None: as the site itself."""

    id: str
    site: str
    kind: str
    url: str | None
    settings: Any
    """An instance of the kind's settings model."""
    vos: Mapping[str, VoAccess] = field(default_factory=dict)
    credential: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the site gave Hansa to sign in with; empty: nothing."""
    token: str | None = field(default=None, repr=False)
    """A short-lived access token of this server's issuer, for sites that trust it; None: there is none."""
    holder: str = ""
    """Whose token it is: what is kept of one person's is not used for another."""
    sockets: Path | None = None
    """Where connections of the owner's own SSH are shared (``own_config``)."""
    egress: EgressPolicy = field(default_factory=EgressPolicy)
    """What every connection to it must pass: use ``hansa.engines.web.Web``, or ``await egress.addresses(…)``."""


class Stage(StrEnum):
    """How far a probe came."""

    REACH = "reach"
    SIGN_IN = "sign in"
    LIST = "list"
    CANARY = "canary"


class Answer(StrEnum):
    """What a probe found."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"
    """It says nothing about the site: there was nothing to look with."""
    LOGIN = "login"
    """A person must sign in again."""


@dataclass(frozen=True)
class Finding:
    """The result of one probe: at which stage it ended, and what was met there in a sentence."""

    answer: Answer
    stage: Stage
    message: str
    reason: str = "sites.probed"
    took_ms: int = 0


class State(StrEnum):
    """How a canary is, the smallest job that the endpoint can run."""

    WAITS = "waits"
    """It was sent, or could not be just now."""
    RUNS = "runs"
    RAN = "ran"
    FAILED = "failed"
    """It was refused, or ended badly."""
    WITHDRAWN = "withdrawn"
    """It waited so long that it was taken back."""


@dataclass(frozen=True)
class Sighting:
    """A look at a canary. ``waited_s``: seconds from its sending to its start, by the endpoint's own clock."""

    state: State
    message: str
    waited_s: float | None = None
    leaves: bool = False
    """It is over, and what was started for it may still be there: it is to be withdrawn."""

    @property
    def is_over(self) -> bool:
        return self.state not in (State.WAITS, State.RUNS)


@dataclass(frozen=True)
class Requirement:
    """Something that the site must allow. ``group``: ``role``, ``firewall`` or ``load``; ``trial``: try it first."""

    group: str
    what: str


@dataclass(frozen=True)
class Needs:
    """What Hansa needs of an endpoint, and how much it will ask of its API."""

    requirements: tuple[Requirement, ...]
    calls_per_hour: int


class EndpointKind(Protocol):
    """A kind of endpoint. Instances keep no state of an endpoint; both calls may be cancelled at a deadline."""

    name: str
    settings: type[KindSettings]
    has_url: bool
    """Whether such an endpoint has an address of its own that must pass the egress policy."""

    def needs(self, target: Target, probe_s: float, discover_s: float) -> Needs:
        """What the site must allow, where it is looked at so often (seconds). Pure."""

    async def probe(self, target: Target) -> Finding:
        """Reach it, sign in where there is a credential, list something small. Raises nothing but Temporary,
        Permanent and defects; whatever the site does is a finding."""

    async def discover(self, target: Target, vo: str | None) -> Facts:
        """What this VO gets there (None: the site itself). Raises Temporary or Permanent."""


@runtime_checkable
class HasCanaries(Protocol):
    """A kind, or what starts machines for one, that can start something small, to see whether things start. Both calls
    may be repeated at any time: of one ``key`` (a word) at most one is out, and what a call that broke off has left is
    found by it."""

    canary_load: str
    """What one costs the site, in words."""

    async def canary(self, target: Target, vo: str | None, key: str) -> Sighting:
        """Send the canary of this key, or look at it; what is left of earlier ones goes. Raises Temporary, where
        nothing can be said now, or Permanent, where the site refuses it."""

    async def withdraw(self, target: Target, vo: str | None, key: str) -> None:
        """It is gone, whatever it was doing. Raises Temporary, as long as it is not, or Permanent."""


class StartsCanaries(Protocol):
    """Who starts canaries at endpoints of a kind; None: nobody can."""

    def __call__(self, kind: EndpointKind) -> HasCanaries | None: ...


def by_themselves(kind: EndpointKind) -> HasCanaries | None:
    """Kinds that start canaries without anybody's help."""
    return kind if isinstance(kind, HasCanaries) else None


@cache
def kinds() -> Mapping[str, EndpointKind]:
    """All kinds that are installed, by name."""
    return {entry.name: entry.load()() for entry in entry_points(group=GROUP)}


def kind_of(name: str) -> EndpointKind:
    """Raises Fault ``sites.kind``."""
    found = kinds().get(name)
    if found is None:
        raise Fault(
            errors.KIND,
            f"There is no kind of endpoint {name!r} here.",
            hint=f"There are: {', '.join(sorted(set(kinds()) - {'local'}))}. A package may bring another.",
        )
    return found


def parse_settings(kind: str, settings: Mapping[str, Any]) -> Any:
    """Settings as the kind's model. Raises Fault ``sites.settings`` with what is wrong with which."""
    model = kind_of(kind).settings
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "settings"
        names = ", ".join(sorted(model.model_fields)) or "none"
        raise Fault(
            errors.SETTINGS,
            f"The setting {place} of an endpoint of kind {kind} is not valid: {first['msg']}.",
            hint=f"Its settings are: {names}. The reference of the site file says what each means.",
        ) from error


def sign_in_of(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an endpoint that every user of its site sees; empty where its kind is gone."""
    try:
        parsed = parse_settings(kind, settings)
    except Fault:
        return {}
    return {name: getattr(parsed, name) for name in parsed.shown}
