"""How starts of machines went of late, site by site: what placement ranks by (success, time to a start)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import sqlalchemy as sa

from hansa.kernel.database import Tx
from hansa.machines.model import site_of
from hansa.machines.store import load_course, machines
from hansa.placement.failover import Try
from hansa.placement.model import Measured
from hansa.sites import store as sites

OF_LATE = timedelta(days=30)
NEWEST = 300
"""Machines that are looked at, at most."""
GOOD_FOR = timedelta(minutes=1)
_TAKEN_BACK = "deleted"


def starts_of(rows: Iterable[Any], tried: Iterable[Any] = ()) -> dict[str, Measured]:
    """By site: of each attempt of these machines, and of these canaries, whether something came up, and how soon. Pure.

    What was deleted before it was up says nothing about a site.
    """
    took: dict[str, list[float]] = {}
    failed: dict[str, int] = {}
    for row in rows:
        attempts = load_course(row.course).attempts
        for one in attempts:
            site = site_of(one.place)
            if one is attempts[-1] and row.running_since is not None:  # whatever became of it later
                took.setdefault(site, []).append(max(0.0, (row.running_since - one.since).total_seconds()))
            elif one.state is Try.FAILED and one.cause != _TAKEN_BACK:
                failed[site] = failed.get(site, 0) + 1
    for one in tried:
        if one.state == "ran":
            took.setdefault(one.site, []).append(one.waited_s or 0.0)
        else:
            failed[one.site] = failed.get(one.site, 0) + 1
    return {
        site: Measured(len(some := took.get(site, [])), failed.get(site, 0), median(some) if some else None)
        for site in took.keys() | failed.keys()
    }


class Starts:
    """What was seen, looked up once a minute: many machines are often asked for at once."""

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset()
        self._seen: dict[str, Measured] = {}
        self._good_until: datetime | None = None

    async def seen(self, tx: Tx, names: Sequence[str], now: datetime) -> Mapping[str, Measured]:
        """By site, where a machine was started within the last 30 days, by whomever."""
        if self._good_until is None or now >= self._good_until or not self._names.issuperset(names):
            self._names |= frozenset(names)
            newest = sa.select(machines.c.course, machines.c.running_since).where(machines.c.created > now - OF_LATE)
            rows = (await tx.execute(newest.order_by(machines.c.id.desc()).limit(NEWEST))).all()
            tried = await sites.canaries_at(tx, self._names, now - OF_LATE)
            self._seen, self._good_until = starts_of(rows, tried), now + GOOD_FOR
        return {name: self._seen[name] for name in names if name in self._seen}
