"""What is asked, what there is to choose from, and what was chosen: frozen values. This room owns them.

``None`` in a candidate means that nobody knows: what is not known rejects nothing, and counts for little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hansa.kernel.status import Party


class Work(StrEnum):
    """What is to be started."""

    JOB = "job"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class DataNeed:
    """A data set that is read, and its size, by which it weighs against others."""

    name: str
    size_bytes: int = 1
    is_required: bool = True
    """Whether a site without it will not do; else it only counts for less."""


def data_needs(required: Iterable[str], near: Iterable[str]) -> tuple[DataNeed, ...]:
    """Data sets that must be there, and those that it is only better to be near to."""
    must = tuple(DataNeed(name) for name in required)
    return (*must, *(DataNeed(name, is_required=False) for name in near))


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: of one task, or of ``count`` machines that are alike."""

    work: Work = Work.JOB
    cores: int = 1
    memory_mib: int = 0
    disk_mib: int = 0
    image_disk_mib: int = 0
    """That its VM image needs of a flavour's root disk."""
    wall_time_s: int = 0
    """Of a task; of a machine its lifetime. 0: it does not say."""
    gpus: int = 0
    gpu_model: str | None = None
    """Part of the model's name, in any case."""
    gpu_memory_mib: int = 0
    """Of each GPU."""
    count: int = 1
    tags: frozenset[str] = frozenset()
    os: str | None = None
    arch: str | None = None
    glibc: str | None = None
    cpu_features: frozenset[str] = frozenset()
    vm_image: str | None = None
    flavour: str | None = None
    network: str | None = None
    needs_public_address: bool = False
    needs_containers: bool = False
    storage_gib: int = 0
    sites: tuple[str, ...] = ()
    """The only sites that will do. Empty: any."""
    banned_sites: tuple[str, ...] = ()
    preferred_sites: tuple[str, ...] = ()
    """The most wanted first."""
    data: tuple[DataNeed, ...] = ()
    is_data_required: bool = False
    """Only a site that has all of the data that is required will do."""
    vo: str | None = None
    nodes: int = 1
    """Of a task: computers that it runs on at the same time; cores and the like are those of each."""
    needs_batch_system: bool = False
    """Whether it asks for something that only a batch system understands: a partition, an account."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """GPUs of one model in one node or machine; memory of each, None: not known."""

    model: str = ""
    count: int = 1
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Flavour:
    """A size of machine."""

    name: str
    cores: int
    memory_mib: int
    disk_mib: int | None = None
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """What is free of the site's own limits for whoever asks."""

    machines: int | None = None
    cores: int | None = None
    memory_mib: int | None = None
    gpus: int | None = None
    storage_gib: int | None = None


@dataclass(frozen=True, slots=True)
class GrantLeft:
    """What is left to whoever asks of the VO's capacity grant at the site. None: not limited."""

    core_s: float | None = None
    share: float = 1.0
    """Of the granted hours, how much is left: 0 to 1."""
    cores: int | None = None
    memory_mib: int | None = None
    gpus: int | None = None
    storage_gib: int | None = None
    limited_by: str = ""
    """Whose cap it is, where it is less than the grant itself has: ``your cap``, ``the cap of the group astro``."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen of late: starts that went well, that failed, and the median time to a start."""

    succeeded: int = 0
    failed: int = 0
    start_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The site's own no: policy, health, downtime, drain, ban. In the words of whoever knows."""

    reason: str
    message: str
    remedy: str = ""
    waiting_on: Party = Party.SITE


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint of a site, as it is for whoever asks. ``cores`` and the like are those of its largest node."""

    site: str
    endpoint: str = ""
    kind: str = ""
    is_own: bool = False
    """The user's own, or this computer."""
    cores: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    wall_time_s: int | None = None
    """The longest that it allows."""
    gpus: tuple[Gpu, ...] | None = None
    flavours: tuple[Flavour, ...] | None = None
    """Where machines come in sizes."""
    vm_images: frozenset[str] | None = None
    """By every name that it has there."""
    networks: frozenset[str] | None = None
    has_public_addresses: bool | None = None
    has_containers: bool | None = None
    tags: frozenset[str] = frozenset()
    required_tags: frozenset[str] = frozenset()
    """Who does not ask for these is not taken."""
    os: frozenset[str] | None = None
    arch: str | None = None
    glibc: str | None = None
    cpu_features: frozenset[str] | None = None
    quota: Quota | None = None
    demands_grant: bool = False
    grant: GrantLeft | None = None
    no_grant: str = ""
    """Why there is no grant: asked for, refused, ended. Empty: nobody has asked."""
    refusals: tuple[Refusal, ...] = ()
    at_risk: str = ""
    """Why it works now, and may not soon."""
    load: float | None = None
    """How much of it is in use: 0 to 1; more where work waits."""
    measured: Measured | None = None
    price: float | None = None
    """Per core hour, in the currency of ``Weights.price_half``. None: the site has not said."""
    data: frozenset[str] = frozenset()
    near_data: frozenset[str] = frozenset()
    """Data sets of other sites in the same country."""
    nodes: int | None = None
    """Computers that one task can have at the same time."""

    @property
    def key(self) -> tuple[str, str]:
        return self.site, self.endpoint


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each factor counts, and the values at which one counts half."""

    grant: float = 3.0
    success: float = 4.0
    start: float = 2.0
    load: float = 2.0
    data: float = 4.0
    cost: float = 1.0
    stability: float = 1.0
    preference: float = 3.0
    start_half_s: float = 300.0
    price_half: float = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a site cannot be chosen: a stable code, a sentence, what would change it, and who could."""

    reason: str
    message: str
    remedy: str
    waiting_on: Party


@dataclass(frozen=True, slots=True)
class Factor:
    """What counted for a site's place in the order: 0 is the worst, 1 the best."""

    name: str
    value: float
    weight: float
    message: str


@dataclass(frozen=True)
class Verdict:
    """All there is to say about one candidate. ``rank`` counts from 1; None: rejected, for all of its findings."""

    site: str
    endpoint: str
    rank: int | None
    score: float
    findings: tuple[Finding, ...]
    factors: tuple[Factor, ...]
    flavour: str | None = None
    """The smallest that fits, where machines come in sizes."""

    @property
    def is_possible(self) -> bool:
        return self.rank is not None


@dataclass(frozen=True)
class Choice:
    """The order in which to try, and who was left out with the first reason found. The rest is made on demand."""

    request: Request
    weights: Weights
    order: tuple[Candidate, ...]
    scores: Mapping[tuple[str, str], float]
    rejected: tuple[Candidate, ...]
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def best(self) -> Candidate | None:
        return self.order[0] if self.order else None
