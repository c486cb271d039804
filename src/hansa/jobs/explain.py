"""Why a job or a task is where it is, in sentences. Reads; decides nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hansa.jobs import notices, store, store_checkpoints, store_pilots
from hansa.jobs.image_rules import ImageRules
from hansa.jobs.logs import LogStore
from hansa.jobs.model import STOPPED_BY_SITE, duration, how_it_ended
from hansa.jobs.needs import Needs, lacks, needs_of, place_of_pilot
from hansa.jobs.placing import said_of
from hansa.jobs.views import status_of
from hansa.jobs.wire import Explanation, Job, Phase
from hansa.kernel.database import Database
from hansa.kernel.events import EventLog
from hansa.kernel.status import Party, Status
from hansa.placement import choose
from hansa.placement.model import Choice

_TAIL_BYTES = 2000
_FAILED_SHOWN = 3
_PLACES_SHOWN = 5


async def explain_job(
    database: Database,
    logs: LogStore,
    events: EventLog,
    job: Any,
    view: Job,
    index: int | None,
    choice: Choice,
    now: datetime,
) -> Explanation:
    """The explanation that CLI, API and portal show, the same text."""
    if index is not None:
        return await _explain_task(database, logs, job, index)
    lines: list[str] = []
    phase = Phase(view.status.phase)
    async with database.read() as tx:
        if not phase.is_final:
            lines += await _waiting_lines(tx, job, choice, now)
        failed = await store.failed_results(tx, job.number, _FAILED_SHOWN) if view.counts.failed else []
        timeline = await events.timeline(tx, f"job/{job.number}", 20)
        told = await notices.of_job(tx, job.number) if job.spec.get("notify") else []
    for row in failed:
        lines += await _failed_lines(logs, job, row)
    if view.counts.failed > len(failed) > 0:
        lines.append(f"… and {view.counts.failed - len(failed):,} more: hansa job results {job.number}")
    lines += [_notice_line(notice) for notice in told]
    lines += [f"{event.time:%Y-%m-%d %H:%M:%S} {event.actor}: {event.message}" for event in timeline]
    return Explanation(f"job/{job.number}", view.status, lines)


def _notice_line(notice: Any) -> str:
    what = f"that it is {notice.body['phase']}"
    if notice.phase == notices.SENT:
        return f"{notice.address} was told {what}."
    state = "was not told" if notice.phase == notices.FAILED else "is being told"
    return f"{notice.address} {state} {what}{f': {notice.message}' if notice.message else '.'}"


async def _waiting_lines(tx: Any, job: Any, choice: Choice, now: datetime) -> list[str]:
    needs = needs_of(job.spec["requirements"])
    asked = f"{needs.cores} cores, {needs.memory_mib:,} MiB, {needs.gpus} GPUs, {duration(needs.wall_time_s)}"
    nodes = f" on each of {needs.nodes} nodes" if needs.nodes > 1 else ""
    lines = [f"A task needs {asked}{nodes}."]
    if job.spec.get("image"):
        lines.append(f"It runs in the container image {job.spec['image']}.")
        refused = "" if job.held else await ImageRules(now).refusal(tx, job)
        lines += [f"{refused} When its turn comes, it will be held."] if refused else []
    sites = list(dict.fromkeys(one.site for one in (*choice.order, *choice.rejected)))
    pilots = {name: await store_pilots.live_at(tx, name, job.owner_id) for name in sites}
    for rank, candidate in enumerate(choice.order, 1):
        serving = [one for one in pilots.pop(candidate.site, []) if one.vo is None or one.vo == (job.vo or "")]
        fit = [one for one in serving if not lacks(needs, place_of_pilot(one))]
        if not fit:
            lines.append(f"Possible at {candidate.site}; {await _why_no_pilot(tx, candidate.site, job.owner_id)}")
        for pilot in fit:
            lines.append(_pilot_line(pilot, needs, now))
            mine = [s for s in pilot.setups if s["job"] == job.number and s["state"] == "running"]
            lines += [_preparing_line(setup, pilot) for setup in mine]
        if rank <= _PLACES_SHOWN:
            lines.append(f"  Why it is number {rank} of {len(choice.order)}: {choose.why(choice, candidate)}")
    for candidate in choice.rejected:
        lines.append(f"Not possible at {said_of(choice, candidate)}.")
        for finding in choose.explain(choice, candidate).findings:
            if finding.remedy:
                lines.append(f"  What would change that: {finding.remedy}")
    if job.again:
        waiting = f"{job.again:,} tasks wait" if job.again > 1 else "A task waits"
        lines.append(f"{waiting} to run again after an earlier attempt.")
    example = await store_pilots.an_attempt_of(tx, job.number)
    if example is not None:
        task = f" of task {job.number}.{example.index}" if job.spec["array"] else ""
        lines.append(_attempt_line(example, task))
    return lines


def _attempt_line(row: Any, task: str = "") -> str:
    """How an attempt ended; where its place was taken from it, with what its pilot's batch system says."""
    place = f" at {row.site}" if row.site else ""
    line = f"Attempt {row.attempt}{task}{place} ended {row.ended:%Y-%m-%d %H:%M:%S}: {row.outcome}. {row.message}"
    if row.pilot_reason == STOPPED_BY_SITE and row.pilot_message != row.message:
        line = f"{line.rstrip().rstrip('.')}. Of its pilot: {row.pilot_message}"
    return line.rstrip()


async def _why_no_pilot(tx: Any, site: str, owner_id: str) -> str:
    """Why none is there now: they failed, or one is about to be started."""
    failures, _ = await store_pilots.speechless(tx, site, owner_id)
    if not failures:
        return "a pilot is about to be started there."
    last = await store_pilots.last_at(tx, site, owner_id)
    return f"the last {failures} pilots failed there, and another one is tried soon. {last.message if last else ''}"


def _preparing_line(setup: dict[str, Any], pilot: Any) -> str:
    """What a pilot does before a job's tasks can start there."""
    if not setup.get("image"):
        return f"The setup command has been running for {duration(setup['age_s'])}."
    node = (pilot.node or {}).get("hostname") or pilot.site
    total = setup.get("total_bytes") or 0
    size = f": {setup.get('done_bytes', 0) / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else ""
    return f"The container image {setup['image']} is on its way to {node}{size}, since {duration(setup['age_s'])}."


def _pilot_line(pilot: Any, needs: Needs, now: datetime) -> str:
    status = status_of(pilot)
    if pilot.last_seen is None or pilot.reason == "pilots.unseen":
        return f"A pilot at {pilot.site} is {status.phase}: {status.message}"
    silence = (now - pilot.last_seen).total_seconds()
    quiet = f", silent for {duration(silence)}" if silence > 30 else ""
    busy = f"runs {len(pilot.running)} tasks on {pilot.cores} cores" if pilot.running else "is free"
    need = "" if needs.cores <= pilot.cores else f" (too small: {needs.cores} cores are needed)"
    return f"A pilot at {pilot.site} {busy}{need}{quiet}."


async def _failed_lines(logs: LogStore, job: Any, row: Any) -> list[str]:
    name = f"{job.number}.{row.index}" if job.spec["array"] else str(job.number)
    used = f"{duration(row.wall_s)} wall, {row.cpu_s:.1f} s CPU, {row.memory_mib:,.0f} MiB at most"
    how = how_it_ended(row.outcome, row.exit_code, row.signal, row.message)
    node = (row.node or {}).get("hostname")
    where = f" at {row.site}{f' on {node}' if node else ''}" if row.site else ""
    lines = [f"Task {name} failed{where}: {how}. Used: {used}."]
    for stream in ("setup", "stderr"):
        tail = (await logs.tail(job.number, row.index, stream, _TAIL_BYTES)).decode(errors="replace").splitlines()
        lines += [f"  {stream}: {line}" for line in tail[-5:]]
    return lines


async def _explain_task(database: Database, logs: LogStore, job: Any, index: int) -> Explanation:
    async with database.read() as tx:
        row = await store.get_result(tx, job.number, index)
        again = (await store.retries_of(tx, job.number, [index])).get(index)
        earlier = await store_pilots.attempts_of(tx, job.number, index)
        kept = (await store_checkpoints.of_tasks(tx, job.number, index, index)).get(index, [])
    lines = [_attempt_line(one) for one in earlier]
    if kept:
        lines.append(f"Its checkpoint has {len(kept):,} files, {sum(file.size for file in kept):,} bytes.")
    subject = f"job/{job.number}.{index}"
    if row is not None:
        status = Status(row.phase, f"jobs.task_{row.phase}", row.message or row.outcome, Party.NOBODY, row.ended)
        if row.phase == Phase.FAILED.value:
            lines += await _failed_lines(logs, job, row)
        return Explanation(subject, status, lines)
    leased = again.leased if again is not None else index < job.next_index
    phase, message = (Phase.RUNNING, "A pilot has it.") if leased else (Phase.WAITING, "It waits for a pilot.")
    if job.killed_from is not None and index >= job.killed_from and again is None:
        phase, message = Phase.KILLED, "Killed on request, before it was given to a pilot."
    return Explanation(subject, Status(phase.value, f"jobs.task_{phase.value}", message, Party.HANSA, job.since), lines)
