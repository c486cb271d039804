"""Rows as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hansa.jobs.batch import options_from
from hansa.jobs.settle import counts_of
from hansa.jobs.wire import After, Job, Phase, PilotView, Requirements, Task
from hansa.kernel.status import Party, Status


def status_of(row: Any) -> Status:
    return Status(row.phase, row.reason, row.message, Party(row.waiting_on), row.since)


def _requirements(plain: dict[str, Any]) -> Requirements:
    return Requirements(**{**plain, "batch": options_from(plain.get("batch") or ())})


def job_status(row: Any, standing: Mapping[str, Any] | None, running: int = 0) -> Status:
    """A job's status: of one that waits for its turn, or of which nothing runs any more, what is said of its queue."""
    has_begun = row.phase == Phase.RUNNING.value and not running
    waits = row.phase == Phase.WAITING.value and row.reason == "jobs.queued"
    if standing is None or not (waits or has_begun):
        return status_of(row)
    since = datetime.fromisoformat(standing["since"])
    return Status(
        row.phase, standing["reason"], standing["message"], Party(standing["waiting_on"]), max(since, row.since)
    )


def job_view(row: Any, running: int, standing: Mapping[str, Any] | None = None) -> Job:
    spec = row.spec
    return Job(
        number=row.number,
        id=row.id,
        name=row.name,
        owner=row.owner_name,
        vo=row.vo,
        status=job_status(row, standing, running),
        counts=counts_of(row, running),
        command=spec["command"],
        array=spec["array"],
        first=row.first,
        count=row.count,
        names=spec["names"],
        requirements=_requirements(spec["requirements"]),
        retries=spec["retries"],
        priority=10 - row.rank,
        setup=spec["setup"],
        input_files=row.input_files,
        input_bytes=row.input_bytes,
        outputs=spec["outputs"],
        created=row.created,
        version=row.version,
        image=spec.get("image"),
        started=row.started,
        ended=row.ended,
        group=row.group_name,
        vo_group=row.vo_group,
        labels=row.labels or {},
        comment=row.comment,
        held=row.held,
        after=[After(**one) for one in spec.get("after", ())],
        deadline=row.deadline,
        sites=row.sites or [],
        files_gone=row.files_gone,
        logs_gone=row.logs_gone,
        exit_code=row.exit_code,
    )


def result_view(row: Any, values: dict[str, str]) -> Task:
    """A task that has ended; ``row`` is a result with its pilot's site and node."""
    return Task(
        job=row.job,
        index=row.index,
        phase=Phase(row.phase),
        attempt=row.attempt,
        values=values,
        outcome=row.outcome,
        exit_code=row.exit_code,
        signal=row.signal,
        message=row.message,
        site=row.site,
        node=(row.node or {}).get("hostname"),
        ended=row.ended,
        wall_s=row.wall_s,
        cpu_s=row.cpu_s,
        memory_mib=row.memory_mib,
        fields=row.fields,
    )


def waiting_view(job: Any, index: int, values: dict[str, str], pilot: Any | None, again: Any | None) -> Task:
    """A task that has not ended: running on ``pilot``, waiting, or killed before it was ever given out."""
    attempt = again.attempt if again is not None else 1
    if job.killed_from is not None and index >= job.killed_from and again is None:
        return Task(job.number, index, Phase.KILLED, 0, values, message="Killed on request.")
    if pilot is None:
        message = f"Waits to run again (attempt {attempt})." if again is not None else ""
        return Task(job.number, index, Phase.WAITING, attempt, values, message=message)
    node = (pilot.node or {}).get("hostname")
    return Task(job.number, index, Phase.RUNNING, attempt, values, site=pilot.site, node=node)


def pilot_view(row: Any) -> PilotView:
    node = row.node or {}
    return PilotView(
        id=row.id,
        site=row.site,
        status=status_of(row),
        cores=row.cores,
        memory_mib=row.memory_mib,
        created=row.created,
        node=node.get("hostname"),
        isolation=node.get("isolation"),
        last_seen=row.last_seen,
        tasks=len(row.running),
        nodes=row.nodes,
        batch_id=row.batch_id,
        vo=row.vo or None,
        job=row.job,
    )
