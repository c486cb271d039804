"""Figures for Prometheus, made when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from hansa.jobs import store, store_pilots

if TYPE_CHECKING:
    from hansa.server.rooms import Rooms


class _Snapshot:
    """Hands prepared figures to prometheus_client."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> list[Metric]:
        return self._found


async def render_metrics(rooms: Rooms) -> bytes:
    """The exposition text: counters of this process, gauges of the whole database."""
    async with rooms.database.read() as tx:
        phases = await store.phase_totals(tx)
        running = await store_pilots.tasks_running(tx)
        queues = await store.owners_with_work(tx)
    waiting = sum(int(queue.waiting) for queue in queues)
    jobs = GaugeMetricFamily("hansa_jobs", "Jobs by phase.", labels=["phase"])
    for phase, count in phases.items():
        jobs.add_metric([phase], count)
    found: list[Metric] = [
        jobs,
        GaugeMetricFamily("hansa_tasks_running", "Tasks that run, as pilots last said.", running),
        GaugeMetricFamily("hansa_tasks_waiting", "Tasks that wait, of 2,000 jobs a queue.", waiting),
    ]
    exchange = vars(rooms.exchange.counters)
    found += [CounterMetricFamily(f"hansa_exchange_{name}", f"Exchanges: {name}.", n) for name, n in exchange.items()]
    found += _reconcile(rooms)
    registry = CollectorRegistry()
    registry.register(_Snapshot(found))
    return generate_latest(registry)


def _reconcile(rooms: Rooms) -> list[Metric]:
    """What the engines have done, by room."""
    found: dict[str, CounterMetricFamily] = {}
    for room, engine in rooms.engines.items():
        for name, number in vars(engine.counters).items():
            family = CounterMetricFamily(f"hansa_reconcile_{name}", f"Reconcile: {name}.", labels=["room"])
            found.setdefault(name, family).add_metric([room], number)
    return list(found.values())
