"""How starts went of late, site by site: what placement ranks by (success, time to a start)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import sqlalchemy as sa

from hansa.jobs.model import PilotPhase
from hansa.jobs.tables import pilots
from hansa.kernel.database import Tx
from hansa.placement.model import Measured

OF_LATE = timedelta(days=30)
NEWEST = 100
"""Pilots of a site that are looked at, at most."""


def measured_of(rows: Sequence[Any]) -> Measured:
    """A pilot that said a word is a start that went well; one that was lost without one failed. Pure."""
    took = [(row.started - row.created).total_seconds() for row in rows if row.started is not None]
    failed = sum(row.started is None and row.phase == PilotPhase.LOST.value for row in rows)
    return Measured(len(took), failed, median(took) if took else None)


async def measured(tx: Tx, sites: Collection[str], now: datetime) -> dict[str, Measured]:
    """By site, where anything was started within the last 30 days: by whomever, for the site is the same for all."""
    age = sa.func.row_number().over(partition_by=pilots.c.site, order_by=pilots.c.id.desc()).label("age")
    newest = (
        sa.select(pilots.c.site, pilots.c.phase, pilots.c.created, pilots.c.started, age)
        .where(pilots.c.site.in_(sites), pilots.c.created > now - OF_LATE)
        .subquery()
    )
    by_site: dict[str, list[Any]] = {}
    for row in (await tx.execute(sa.select(newest).where(newest.c.age <= NEWEST))).all():
        by_site.setdefault(row.site, []).append(row)
    return {site: measured_of(rows) for site, rows in by_site.items()}
