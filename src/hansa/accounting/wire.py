"""Wire models of accounting."""

from __future__ import annotations

from dataclasses import dataclass

WORDS = ("vo", "group", "user", "site", "kind", "day", "month")
"""By what usage can be summed up."""
BY = rf"^({'|'.join(WORDS)})(,({'|'.join(WORDS)}))*$"


@dataclass(frozen=True)
class UsageRow:
    """Sums of usage records. What was not asked for (``by``) is None; ``owner`` is empty then."""

    owner: str
    vo: str | None
    site: str | None
    tasks: int
    wall_s: float
    core_s: float
    cpu_s: float
    gpu_s: float = 0.0
    group: str | None = None
    kind: str | None = None
    day: str | None = None
    month: str | None = None
    user_id: str | None = None
    price: float | None = None
    """What the core hours cost, where the site has named a price, in its currency."""
    idle_core_s: float = 0.0
    """What pilots held and ran nothing on: in none of the other sums."""


@dataclass(frozen=True)
class UsagePage:
    items: list[UsageRow]
    next: str | None = None
