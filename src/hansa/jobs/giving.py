"""What a pilot is answered: the tasks that it gets, with all that it must know to run them, and what it has to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hansa.jobs import leases, links, notices, store, store_channels, store_checkpoints
from hansa.jobs.budget import Budget
from hansa.jobs.image_rules import ImageRules
from hansa.jobs.needs import gpus_for, needs_of
from hansa.jobs.registry_logins import RegistryKeys
from hansa.jobs.wire import Phase
from hansa.kernel.database import Tx
from hansa.kernel.events import Event, EventLog
from hansa.kernel.settings import FileSettings, JobSettings
from hansa.kernel.status import Party
from hansa.node import protocol
from hansa.node.protocol import Channel, ExchangeReply, ExchangeRequest, JobOrder, Kill, Lease, TaskRow


@dataclass
class ExchangeCounters:
    """For /metrics: what this process has seen."""

    exchanges: int = 0
    accepted: int = 0
    ignored: int = 0
    leased: int = 0


class Giving:
    """Gives tasks out, inside the unit of work of an exchange."""

    def __init__(
        self,
        events: EventLog,
        settings: JobSettings,
        file_settings: FileSettings,
        registry_keys: RegistryKeys,
        counters: ExchangeCounters,
    ) -> None:
        self._events = events
        self._settings = settings
        self._file_settings = file_settings
        self._registry_keys = registry_keys
        self._counters = counters

    async def answer(
        self,
        tx: Tx,
        pilot: Any,
        request: ExchangeRequest,
        held: dict[int, Any],
        jobs: dict[int, Any],
        now: datetime,
        *,
        may_take: bool,
        budget: Budget | None,
    ) -> ExchangeReply:
        kill = [Kill(lease.id) for lease in held.values() if jobs[lease.job].kill_requested]
        kill += [Kill(lease.id, index) for lease in held.values() for index in lease.kill]
        dropped = [lease for lease in request.held if lease not in held]
        asked = (request.session, request.sequence)  # if leases were given for it, their answer was lost
        granted = [lease for lease in held.values() if (lease.session, lease.sequence) == asked]
        stop = pilot.stop
        if stop is None and request.protocol < protocol.PROTOCOL_VERSION:
            stop = protocol.DRAIN  # it does not understand all of an order; a newer one takes its place
        if granted or not may_take or stop or request.want <= 0:
            given = [{"row": jobs[lease.job], **lease._mapping} for lease in granted]
        else:
            has_backlog = sum(lease.remaining for lease in held.values()) > len(request.running)
            given = await self._take(tx, pilot, request, now, has_backlog=has_backlog, budget=budget)
        orders = {lease["row"].number: self._order(lease["row"], pilot) for lease in given}
        complete = await self._registry_keys.add_to(tx, pilot.owner_id, list(orders.values()))
        called = [Channel(**one) for one in await store_channels.asked_of(tx, pilot.id)] if pilot.called else []
        found = [await _lease(tx, lease) for lease in given]
        return ExchangeReply(found, complete, kill, dropped, stop, called)

    async def _take(
        self, tx: Tx, pilot: Any, request: ExchangeRequest, now: datetime, *, has_backlog: bool, budget: Budget | None
    ) -> list[dict[str, Any]]:
        def marks(job: Any) -> dict[str, Any]:
            return _marks(job, pilot, now)

        rules = ImageRules(now)
        given = await leases.take(
            tx, pilot, request, now, has_backlog=has_backlog, budget=budget, marks=marks, rules=rules
        )
        await rules.tell(tx, self._events)
        self._counters.leased += sum(lease["remaining"] for lease in given)
        jobs = {lease["row"].number: lease["row"] for lease in given}.values()
        new_there = [job.number for job in jobs if _is_new_at(job, pilot)]
        await store.mark(tx, pilot.owner_id, new_there, "site", {pilot.site: ""})
        await self._tell_started(tx, [job for job in jobs if job.started is None], pilot, now)
        return given

    async def _tell_started(self, tx: Tx, jobs: Sequence[Any], pilot: Any, now: datetime) -> None:
        message = _started_message(pilot)
        said = (Phase.RUNNING.value, "jobs.running", message)
        news = [Event(f"pilot/{pilot.id}", f"job/{job.number}", *said, job.owner_id, job.vo) for job in jobs]
        await self._events.record(tx, *news)
        await links.progress(tx, self._events, {job.number: Phase.RUNNING for job in jobs}, now)
        for job in jobs:
            await notices.note(tx, job, Phase.RUNNING, message, None, now)
            tx.ring(f"job/{job.number}")
            tx.ring(f"jobs/{job.owner_id}")

    def _order(self, job: Any, pilot: Any) -> JobOrder:
        spec, needs = job.spec, job.spec["requirements"]
        is_whole = needs.get("whole_node", False)
        return JobOrder(
            number=job.number,
            command=spec["command"],
            cores=pilot.cores if is_whole else needs["cores"],
            memory_mib=pilot.memory_mib if is_whole else needs["memory_mib"],
            wall_time_s=needs["wall_time_s"],
            gpus=len(pilot.gpus) if is_whole else needs["gpus"],
            gpus_like=None if is_whole else gpus_for(needs_of(needs), pilot),
            env=spec["env"],
            names=spec["names"],
            inputs=[protocol.File(**file) for file in spec["inputs"]],
            outputs=spec["outputs"],
            setup=spec["setup"],
            output_limit_bytes=self._file_settings.limit_bytes,
            log_limit_bytes=self._settings.log_limit_bytes,
            array=spec["array"],
            signal=(spec.get("warning") or {}).get("signal", 0),
            signal_before_s=(spec.get("warning") or {}).get("before_s", 0),
            image=spec.get("image"),
            mounts=list(needs.get("mounts") or ()),
            checkpoint=spec.get("checkpoint"),
            checkpoint_every_s=spec.get("checkpoint_every_s", 300.0),
        )


def _is_new_at(job: Any, pilot: Any) -> bool:
    return pilot.site not in (job.sites or [])


def _marks(job: Any, pilot: Any, now: datetime) -> dict[str, Any]:
    """What changes of a job when tasks of it go to this pilot: that it has started, and where. Pure."""
    values: dict[str, Any] = {}
    if job.started is None:
        values |= {"started": now, "phase": Phase.RUNNING.value, "reason": "jobs.running", "since": now}
        values |= {"message": _started_message(pilot), "waiting_on": Party.NOBODY.value}
    if _is_new_at(job, pilot):
        values["sites"] = [*(job.sites or []), pilot.site]
    return values | {"version": job.version + 1} if values else values


def _started_message(pilot: Any) -> str:
    return f"Tasks are given to a pilot at {pilot.site}."


async def _lease(tx: Tx, given: dict[str, Any]) -> Lease:
    job = given["row"]
    rows = None
    if job.has_rows:
        plain = await store.rows_of(tx, job, given["first"], given["last"])
        rows = [TaskRow(row["values"], [protocol.File(**file) for file in row["inputs"]]) for row in plain]
    if job.spec.get("checkpoint") and given["attempt"] > 1:
        kept = await store_checkpoints.of_tasks(tx, job.number, given["first"], given["last"])
        rows = rows or [TaskRow() for _ in range(given["first"], given["last"] + 1)]
        rows = [replace(row, inputs=[*row.inputs, *kept.get(given["first"] + n, [])]) for n, row in enumerate(rows)]
    return Lease(given["id"], job.number, given["first"], given["last"], given["attempt"], rows)
