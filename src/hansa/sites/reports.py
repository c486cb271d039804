"""How sites were: history, availability and reliability, by day and month."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database
from hansa.sites import health, store, views
from hansa.sites.health import Piece, Span
from hansa.sites.kinds.base import Answer
from hansa.sites.service import allow
from hansa.sites.wire import CanaryView, EndpointHistory, HealthReport, Period, ProbeSpan

_SHOWN = 100
_MOST = 1000


class ReportService:
    """Reads the history of probes."""

    def __init__(self, database: Database, clock: Clock, history_days: int) -> None:
        self._database = database
        self._clock = clock
        self._history_days = history_days

    async def health(self, caller: Caller, name: str, days: int) -> HealthReport:
        """How a site is, and was over the last so many days, today included."""
        now = self._clock.now()
        start = (now - timedelta(days=min(days, self._history_days) - 1)).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        async with self._database.read() as tx:
            row = await allow(tx, caller, name, manage=False)
            ends = await store.endpoints_of(tx, [name])
            spans = await store.spans_of(tx, [one.id for one in ends], start, now)
            downtimes = [views.downtime_of(one) for one in await store.downtimes_of(tx, [name], start)]
            canaries = {one.id: await store.canaries_of(tx, one.id, start, _SHOWN) for one in ends}
        lines: dict[str, list[list[Piece]]] = {}
        histories = []
        for end in ends:
            mine = [one for one in spans if one.endpoint_id == end.id]
            off = [one for one in downtimes if one.is_of(end.id)]
            line = health.timeline([Span(s.begins, s.ends, Answer(s.answer)) for s in mine], off, start, now)
            lines.setdefault(end.kind, []).append(line)
            histories.append(_history(end, mine, canaries[end.id], line, start, now))
        whole = health.combine(lines, start, now)
        return HealthReport(
            name,
            views.status_of(row),
            [period(label, whole, begins, ends_) for label, begins, ends_ in health.days(start, now)],
            [period(label, whole, begins, ends_) for label, begins, ends_ in health.months(start, now)],
            histories,
        )

    async def overview(self, caller: Caller, names: Sequence[str], days: int) -> dict[str, list[Period]]:
        """How sites that the caller may see were, day by day, today last; of others nothing is said."""
        now = self._clock.now()
        start = (now - timedelta(days=days - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
        async with self._database.read() as tx:
            vos = [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
            seen = await store.listed(tx, caller.user_id, vos, "", _MOST, operator=caller.is_operator)
            known = sorted({row.name for row in seen} & set(names))
            ends = await store.endpoints_of(tx, known)
            spans = await store.spans_of(tx, [one.id for one in ends], start, now)
            downtimes = await store.downtimes_of(tx, known, start)
        spans_of: dict[str, list[Span]] = {}
        for one in spans:
            spans_of.setdefault(one.endpoint_id, []).append(Span(one.begins, one.ends, Answer(one.answer)))
        lines: dict[str, dict[str, list[list[Piece]]]] = {name: {} for name in known}
        for end in ends:
            off = [one for row in downtimes if row.site == end.site and (one := views.downtime_of(row)).is_of(end.id)]
            line = health.timeline(spans_of.get(end.id, []), off, start, now)
            lines[end.site].setdefault(end.kind, []).append(line)
        cuts = health.days(start, now)
        return {
            name: [period(label, whole, begins, ends_) for label, begins, ends_ in cuts]
            for name, kinds in lines.items()
            for whole in [health.combine(kinds, start, now)]
        }

    async def forget(self) -> int:
        """Delete history that is older than it is kept; the number of spans."""
        async with self._database.begin() as tx:
            return await store.forget_spans(tx, self._clock.now() - timedelta(days=self._history_days))


def period(label: str, pieces: Sequence[Piece], begins: datetime, ends: datetime) -> Period:
    """Figures of a day or a month."""
    found = health.figures(pieces, begins, ends)
    return Period(
        label, found.availability, found.reliability, found.up_s, found.down_s, found.unknown_s, found.downtime_s
    )


def _history(
    row: Any, spans: Sequence[Any], canaries: Sequence[Any], line: Sequence[Piece], start: datetime, now: datetime
) -> EndpointHistory:
    shown = [
        ProbeSpan(s.begins, s.ends, s.answer, s.stage, s.message, s.probes, round(s.took_ms / s.probes))
        for s in reversed(spans[-_SHOWN:])
    ]
    sent = [CanaryView(c.number, c.sent, c.ended, c.state, c.waited_s, c.message) for c in canaries]
    return EndpointHistory(row.name, row.kind, views.status_of(row), period("all", line, start, now), shown, sent)
