"""Wire models of placement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen

from hansa.kernel.wire import STRICT

Name = Annotated[str, MaxLen(300)]
Names = Annotated[list[Name], MaxLen(1000)]
Number = Annotated[int, Ge(0), Le(2**53)]


@dataclass(frozen=True)
class PlanRequest:
    """What would be started: a task of a job, or ``count`` machines that are alike."""

    __pydantic_config__: ClassVar = STRICT

    work: Literal["job", "machine"] = "job"
    vo: Name | None = None
    """Default: the caller's only one."""
    vo_group: Name = ""
    cores: Annotated[int, Ge(1), Le(4096)] | None = None
    """Default of a job: the server's setting job.cores; of a machine 1."""
    memory_mib: Number | None = None
    """Default of a job: the server's setting job.memory_mib; of a machine none."""
    disk_mib: Number = 0
    wall_time_s: Number | None = None
    """Of a task; of a machine its lifetime. Default of a job: the server's setting job.wall_time_s."""
    gpus: Annotated[int, Ge(0), Le(1024)] = 0
    gpu_model: Name | None = None
    """Part of the model's name, in any case."""
    gpu_memory_mib: Number = 0
    count: Annotated[int, Ge(1), Le(100_000)] = 1
    """Machines."""
    tags: Names = field(default_factory=list)
    os: Name | None = None
    arch: Name | None = None
    glibc: Annotated[str, MaxLen(20)] | None = None
    cpu_features: Names = field(default_factory=list)
    data: Names = field(default_factory=list)
    """Data sets that must be at the site."""
    near_data: Names = field(default_factory=list)
    """Data sets that it is better to be near to: at the site, or else in its country."""
    vm_image: Name | None = None
    flavour: Name | None = None
    network: Name | None = None
    public_address: bool = False
    containers: bool = False
    storage_gib: Number = 0
    sites: Names = field(default_factory=list)
    """The only sites that will do."""
    banned_sites: Names = field(default_factory=list)
    preferred_sites: Names = field(default_factory=list)
    """The most wanted first."""


@dataclass(frozen=True)
class PlanFinding:
    """Why a site cannot be chosen: a stable code, a sentence, what would change it, and who could."""

    reason: str
    message: str
    remedy: str
    waiting_on: str


@dataclass(frozen=True)
class PlanFactor:
    """What counted for a site's place in the order: from 0, the worst, to 1."""

    name: str
    value: float
    weight: float
    message: str


@dataclass(frozen=True)
class PlanItem:
    """One endpoint of a site. ``rank`` counts from 1; none: it cannot run there, for all of its findings."""

    site: str
    endpoint: str
    kind: str
    rank: int | None
    score: float
    flavour: str | None
    factors: list[PlanFactor]
    findings: list[PlanFinding]


@dataclass(frozen=True)
class Plan:
    """Where something would run, the best place first, then those where it cannot. Nothing was started."""

    message: str
    vo: str | None
    items: list[PlanItem]
    next: str | None = None
