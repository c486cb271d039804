"""Wire models of accounting."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UsageRow:
    """Sums of usage records of one owner, VO and site."""

    owner: str
    vo: str | None
    site: str
    tasks: int
    wall_s: float
    core_s: float
    cpu_s: float


@dataclass(frozen=True)
class UsagePage:
    items: list[UsageRow]
    next: str | None = None
