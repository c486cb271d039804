"""Wire models of sites."""

from __future__ import annotations

from dataclasses import dataclass, field

from hansa.kernel.status import Status


@dataclass(frozen=True)
class Capacity:
    """What a site offers. GPUs and container runtimes by name."""

    cores: int
    memory_mib: int
    gpus: list[str] = field(default_factory=list)
    container_runtimes: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    """What jobs may ask for by name: ``bigmem``, ``data:NAME`` for a data set that is there."""
    required_tags: list[str] = field(default_factory=list)
    """Only jobs that ask for these are taken."""


@dataclass(frozen=True)
class Site:
    """A site as the API shows it."""

    name: str
    kind: str
    owner: str
    status: Status
    capacity: Capacity
    pilots: int = 0
    running: int = 0


@dataclass(frozen=True)
class SitePage:
    items: list[Site]
    next: str | None = None
