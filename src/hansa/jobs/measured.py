"""How starts went of late, site by site: what placement ranks by (success, time to a start)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import sqlalchemy as sa

from hansa.jobs.model import PilotPhase
from hansa.jobs.tables import pilots
from hansa.kernel.database import Tx
from hansa.placement.model import Measured
from hansa.sites import store as sites

OF_LATE = timedelta(days=30)
NEWEST = 100
"""Pilots of a site that are looked at, at most."""


def measured_of(rows: Sequence[Any]) -> Measured:
    """A pilot that said a word is a start that went well; one that was lost without one failed. Pure."""
    took = [(row.started - row.created).total_seconds() for row in rows if row.started is not None]
    failed = sum(row.started is None and row.phase == PilotPhase.LOST.value for row in rows)
    return Measured(len(took), failed, median(took) if took else None)


@dataclass(frozen=True)
class _Start:
    """A canary as if it were a pilot: what was started, and whether it said a word."""

    created: datetime
    started: datetime | None
    phase: str = PilotPhase.LOST.value


def start_of(canary: Any) -> _Start:
    has_run = canary.state == "ran"
    return _Start(canary.sent, canary.sent + timedelta(seconds=canary.waited_s or 0) if has_run else None)


async def started_since(tx: Tx, site: str, endpoint_id: str, since: datetime) -> bool:
    """Whether anything of this server's was started there since: then there is no need for a canary."""
    here = sa.and_(pilots.c.site == site, pilots.c.endpoint_id == endpoint_id)
    last = (await tx.execute(sa.select(pilots.c.created).where(here).order_by(pilots.c.id.desc()).limit(1))).scalar()
    return last is not None and last > since


async def measured(tx: Tx, names: Collection[str], now: datetime) -> dict[str, Measured]:
    """By site, where anything was started within the last 30 days: by whomever, for the site is the same for all.
    Canaries count as what people started, for they come only where people start nothing."""
    age = sa.func.row_number().over(partition_by=pilots.c.site, order_by=pilots.c.id.desc()).label("age")
    newest = (
        sa.select(pilots.c.site, pilots.c.phase, pilots.c.created, pilots.c.started, age)
        .where(pilots.c.site.in_(names), pilots.c.created > now - OF_LATE)
        .subquery()
    )
    by_site: dict[str, list[Any]] = {}
    for row in (await tx.execute(sa.select(newest).where(newest.c.age <= NEWEST))).all():
        by_site.setdefault(row.site, []).append(row)
    for row in await sites.canaries_at(tx, names, now - OF_LATE):
        by_site.setdefault(row.site, []).append(start_of(row))
    return {site: measured_of(rows) for site, rows in by_site.items()}
