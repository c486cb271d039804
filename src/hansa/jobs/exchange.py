"""The pilots' exchange: results are accepted, tasks given out, in one unit of work."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import structlog

from hansa.accounting.store import Charge, charge
from hansa.identity.service import revoke_pilot_tokens
from hansa.jobs import budget as grants
from hansa.jobs import (
    errors,
    leases,
    matching,
    store,
    store_checkpoints,
    store_files,
    store_pilots,
    store_series,
    store_shares,
)
from hansa.jobs.budget import Budget
from hansa.jobs.files import FileService, hex_of
from hansa.jobs.giving import ExchangeCounters, Giving
from hansa.jobs.logs import LogStore, Piece
from hansa.jobs.model import LOST, Again, Final, PilotPhase, judge, storable
from hansa.jobs.registry_logins import RegistryKeys
from hansa.jobs.settle import (
    Change,
    apply_changes,
    give_back,
    history_of,
    is_attempt_of,
    limits_of,
    retry_row,
)
from hansa.jobs.wire import Phase
from hansa.kernel import errors as kernel_errors
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.events import EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.settings import FileSettings, JobSettings
from hansa.node import protocol
from hansa.node.protocol import (
    Checkpoint,
    ExchangeReply,
    ExchangeRequest,
    TaskResult,
    UsageSeries,
)

log = structlog.get_logger(__name__)
_LONGEST_HOLD_S = 30.0
_LOOK_AGAIN_S = 2.0
_SLURM = "slurm"


class _News(Enum):
    NONE = "none"
    SOME = "some"
    SUPERSEDED = "superseded"


@dataclass
class _Books:
    """What one exchange changes, gathered before it is written."""

    changes: dict[int, Change] = field(default_factory=dict)
    final: list[dict[str, Any]] = field(default_factory=list)
    earlier: list[dict[str, Any]] = field(default_factory=list)
    again: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    series: list[store_series.Ended] = field(default_factory=list)
    known: dict[tuple[int, int], Any] = field(default_factory=dict)
    """Rows of ``retries`` of the tasks that are reported."""
    recount: set[int] = field(default_factory=set)
    """Leases of which something was reported that did not count."""
    reported: dict[int, set[int]] = field(default_factory=dict)
    busy_s: float = 0.0
    """Core seconds of what was accepted."""

    def change(self, job: int) -> Change:
        return self.changes.setdefault(job, Change())


class ExchangeService:
    """What pilots talk to."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        files: FileService,
        logs: LogStore,
        settings: JobSettings,
        file_settings: FileSettings,
        registry_keys: RegistryKeys,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._files = files
        self._logs = logs
        self._settings = settings
        self.counters = ExchangeCounters()
        self._giving = Giving(events, settings, file_settings, registry_keys, self.counters)

    async def exchange(self, pilot_id: str, request: ExchangeRequest) -> ExchangeReply:
        """Answer one exchange; held up to ``wait_s`` where there is nothing to say yet.

        Raises Fault ``jobs.protocol``, or ``jobs.pilot_gone`` where the pilot's life is over.
        """
        if request.protocol not in (protocol.PROTOCOL_VERSION, protocol.PROTOCOL_VERSION - 1):
            raise Fault(errors.PROTOCOL, f"This server speaks version {protocol.PROTOCOL_VERSION} of the protocol.")
        self.counters.exchanges += 1
        arrival = new_id("arrival")
        chunks = await self._store_content(pilot_id, request)
        reply, owner_id = await self._settle(pilot_id, request, chunks, arrival)
        if request.wait_s <= 0 or request.ending or _says_something(reply):
            return reply
        return await self._hold(pilot_id, owner_id, request, arrival)

    async def _hold(self, pilot_id: str, owner_id: str, request: ExchangeRequest, arrival: str) -> ExchangeReply:
        """Wait for something to say; nothing once the pilot has sent another request, or the same one again."""
        deadline = self._clock.now() + timedelta(seconds=min(request.wait_s, _LONGEST_HOLD_S))
        with self._database.bells.listen(f"work/{owner_id}", f"pilot/{pilot_id}") as bell:
            while (left := (deadline - self._clock.now()).total_seconds()) > 0 and not self._database.bells.is_closing:
                news = await self._news(pilot_id, request, arrival)
                if news is _News.SUPERSEDED:
                    break
                if news is _News.SOME:
                    reply = await self._settle_held(pilot_id, request, arrival)
                    if _says_something(reply):
                        return reply
                await bell.wait(min(left, _LOOK_AGAIN_S))
        return ExchangeReply()

    async def _news(self, pilot_id: str, request: ExchangeRequest, arrival: str) -> _News:
        async with self._database.read() as tx:
            pilot = await store_pilots.get(tx, pilot_id)
            if pilot is not None and pilot.arrival != arrival:
                return _News.SUPERSEDED
            if pilot is None or pilot.stop or pilot.called or PilotPhase(pilot.phase).is_final:
                return _News.SOME
            if await store_pilots.has_kills(tx, pilot_id):
                return _News.SOME
            some = request.want > 0 and bool(
                await matching.eligible_queues(tx, pilot, request)
                or await leases.has_due(tx, pilot.owner_id, self._clock.now())
            )
            return _News.SOME if some else _News.NONE

    async def _settle_held(self, pilot_id: str, request: ExchangeRequest, arrival: str) -> ExchangeReply:
        """What there is to say now to a request that was settled before: its results are in, only tasks go out."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            pilot = await self._live_pilot(tx, pilot_id)
            if pilot.arrival != arrival:
                return ExchangeReply()
            held = await leases.of_pilot(tx, pilot_id)
            jobs = await store.get_jobs(tx, sorted({lease.job for lease in held.values()}), lock=True)
            budget = await grants.open_budget(tx, pilot)
            if budget is not None:
                budget.start(held.values(), jobs)
            reply = await self._giving.answer(tx, pilot, request, held, jobs, now, may_take=True, budget=budget)
            if budget is not None:
                await budget.hold(tx, now)
            return reply

    async def _store_content(self, pilot_id: str, request: ExchangeRequest) -> list[dict[str, Any]]:
        """Put outputs and logs into the object store, before the unit of work that mentions them."""
        if named := [output.digest for result in request.results for output in result.outputs]:
            await self._files.announce(named)
        for result in request.results:
            for output in result.outputs:
                if output.data is not None:
                    await self._files.store_inline(output.digest, output.data)
                elif not await self._files.has(output.digest):
                    raise Fault(errors.FILE_MISSING, f"The output {output.path} has not been uploaded.")
        if not request.logs:
            return []
        async with self._database.read() as tx:
            held = await leases.of_pilot(tx, pilot_id)
        pieces: dict[int, list[Piece]] = {}
        for chunk in request.logs:
            lease = held.get(chunk.lease)
            if lease is not None and lease.first <= chunk.index <= lease.last:
                piece = Piece(chunk.index, lease.attempt, chunk.stream, chunk.offset, _bytes(chunk.data))
                pieces.setdefault(lease.job, []).append(piece)
        return [await self._logs.write(job, some) for job, some in pieces.items()]

    async def _settle(
        self, pilot_id: str, request: ExchangeRequest, chunks: list[dict[str, Any]], arrival: str
    ) -> tuple[ExchangeReply, str]:
        now = self._clock.now()
        async with self._database.begin() as tx:
            pilot = await self._live_pilot(tx, pilot_id)
            held = await leases.of_pilot(tx, pilot_id)
            jobs = await store.get_jobs(tx, sorted({lease.job for lease in held.values()}), lock=True)
            await store.add_log_chunks(tx, chunks)
            says_more = request.results or request.want > 0 or pilot.session != request.session
            budget = await grants.open_budget(tx, pilot) if says_more else None
            if budget is not None:
                budget.remember(jobs.values())
            books = await self._accept(tx, pilot, request, held, jobs, now, budget)
            for number in {row["job"] for row in chunks} - books.changes.keys():
                tx.ring(f"job/{number}")
                tx.ring(f"jobs/{pilot.owner_id}")
            await self._forget_old_sessions(tx, pilot, request, held, now)
            is_first = pilot.session != request.session or request.sequence > pilot.sequence
            is_newest = is_first or request.sequence == pilot.sequence
            if is_newest:  # of what runs, a request that was overtaken knows less
                await self._note_running(tx, pilot, held, request, now)
            if request.ending:
                await self._end(tx, pilot, request.ending, now, books.busy_s)
                return ExchangeReply(), pilot.owner_id
            if budget is not None:
                budget.start((await leases.of_pilot(tx, pilot_id)).values(), jobs)
            reply = await self._giving.answer(tx, pilot, request, held, jobs, now, may_take=is_first, budget=budget)
            if budget is not None:
                await budget.hold(tx, now)
            await store_pilots.heard(tx, pilot, request, arrival, now, books.busy_s, is_newest=is_newest)
        # A held request of this pilot is answered now; one that another server holds looks by itself.
        self._database.bells.ring(f"pilot/{pilot_id}")
        return reply, pilot.owner_id

    async def _live_pilot(self, tx: Tx, pilot_id: str) -> Any:
        pilot = await store_pilots.get(tx, pilot_id, lock=True)
        if pilot is None or PilotPhase(pilot.phase).is_final:
            raise Fault(errors.PILOT_GONE, "This pilot is not wanted any more.")
        return pilot

    async def _accept(
        self,
        tx: Tx,
        pilot: Any,
        request: ExchangeRequest,
        held: dict[int, Any],
        jobs: dict[int, Any],
        now: datetime,
        budget: Budget | None,
    ) -> _Books:
        books = _Books(known=await _known_retries(tx, request.results, held))
        for result in request.results:
            lease = held.get(result.lease)
            if lease is None or not lease.first <= result.index <= lease.last:
                self.counters.ignored += 1  # an old lease: somebody else's result counts
                continue
            retry = books.known.get((lease.job, result.index))
            reported = books.reported.setdefault(lease.id, set())
            if result.index in reported or (retry is not None and not is_attempt_of(retry, lease)):
                self.counters.ignored += 1  # it came before
                books.recount.add(lease.id)
                continue
            reported.add(result.index)
            self._book(books, pilot, jobs[lease.job], lease, result, retry, now)
        await self._write(tx, books, pilot, jobs, held, now, budget)
        return books

    def _book(
        self, books: _Books, pilot: Any, job: Any, lease: Any, result: TaskResult, retry: Any, now: datetime
    ) -> None:
        history = history_of(retry, lease.attempt)
        verdict = judge(
            result.outcome, result.exit_code, result.message, history, limits_of(job, self._settings), result.signal
        )
        if (job.kill_requested or result.index in lease.kill) and isinstance(verdict, Again):
            verdict = Final(Phase.KILLED, "Killed on request.")
        elif pilot.stop and result.outcome == protocol.NODE:  # we stopped it: that is nobody's fault
            verdict = Again(replace(history, attempt=history.attempt + 1), 0.0, result.message)
        row = {
            "job": job.number,
            "index": result.index,
            "attempt": lease.attempt,
            "lease": lease.id,
            "outcome": result.outcome,
            "exit_code": result.exit_code,
            "signal": result.signal,
            "message": storable(verdict.message),
            "pilot_id": pilot.id,
            "ended": now - timedelta(seconds=max(0.0, result.ended_ago_s)),
            "wall_s": result.wall_s,
            "cpu_s": result.cpu_s,
            "memory_mib": result.memory_mib,
        }
        if result.series is not None:
            books.series.append(store_series.Ended((job.number, result.index, lease.attempt), result.series))
        if isinstance(verdict, Final):
            books.final.append(row | {"phase": verdict.phase.value, "fields": storable(result.fields)})
            books.files += [
                {
                    "job": job.number,
                    "index": result.index,
                    "path": output.path,
                    "digest": output.digest,
                    "size": output.size,
                    "executable": output.executable,
                }
                for output in result.outputs
            ]
        else:
            books.earlier.append(row | {"phase": Phase.FAILED.value})
            books.again.append(retry_row(job.number, result.index, verdict, now))

    async def _write(
        self,
        tx: Tx,
        books: _Books,
        pilot: Any,
        jobs: dict[int, Any],
        held: dict[int, Any],
        now: datetime,
        budget: Budget | None,
    ) -> None:
        accepted = await store.insert_results(tx, books.final, jobs.values())
        retried = await store_pilots.insert_attempts(tx, await _without_result(tx, books.earlier))
        again = [row for row in books.again if (row["job"], row["index"], row["attempt"] - 1) in retried]
        await store.upsert_retries(tx, again)
        for row in again:
            books.change(row["job"]).again += 1
        used: dict[int, list[dict[str, Any]]] = {}
        for row in books.final:
            if (row["job"], row["index"]) in accepted:
                books.change(row["job"]).add(row["phase"])
                used.setdefault(row["job"], []).append(row)
            else:
                books.recount.add(row["lease"])
        for row in books.earlier:
            if (row["job"], row["index"], row["attempt"]) in retried:
                used.setdefault(row["job"], []).append(row)
            else:
                books.recount.add(row["lease"])
        self.counters.accepted += len(accepted)
        outputs = [f for f in books.files if (f["job"], f["index"]) in accepted]
        await store_files.touch(tx, [f["digest"] for f in outputs], now)
        await store.insert_task_files(tx, outputs)
        for number, rows in used.items():
            repeated = [row["index"] for row in rows if "fields" in row and (number, row["index"]) in books.known]
            await store.delete_retries(tx, number, repeated)
            if jobs[number].spec.get("checkpoint"):
                done = [row["index"] for row in rows if row["phase"] == Phase.DONE.value]
                await store_checkpoints.forget(tx, number, done)
        if books.series:
            counted = {(row["job"], row["index"], row["attempt"]) for rows in used.values() for row in rows}
            ended = [one for one in books.series if one.key in counted]
            kept = {number: jobs[number].series_kept for number in used}
            limit = self._settings.usage_series_limit
            for number, more in (await store_series.keep(tx, ended, kept, limit, now)).items():
                books.change(number).series = more
        await self._close_leases(tx, books, held)
        charges = {number: _charge(pilot, jobs[number], rows) for number, rows in used.items()}
        await charge(tx, now.date(), list(charges.values()))
        books.busy_s = sum(one.core_s for one in charges.values())
        if budget is not None:
            await budget.spend(tx, self._events, charges.values())
        shares: dict[tuple[str, str, str], float] = {}
        for number, one in charges.items():
            whose = (one.vo or "", jobs[number].vo_group or "", one.owner_id)
            shares[whose] = shares.get(whose, 0.0) + one.core_s
        await store_shares.use(tx, shares, now, self._settings.share_half_life_s)
        changes = [(jobs[number], change) for number, change in sorted(books.changes.items())]
        await apply_changes(tx, self._events, changes, now, f"pilot/{pilot.id}")

    async def _close_leases(self, tx: Tx, books: _Books, held: dict[int, Any]) -> None:
        finished = []
        for lease_id, indices in books.reported.items():
            lease = held[lease_id]
            remaining = lease.remaining - len(indices)
            if lease_id in books.recount:  # something came twice: count anew
                remaining = len(await leases.outstanding(tx, lease))
            if remaining <= 0:
                finished.append(lease_id)
            else:
                values = {"kill": [index for index in lease.kill if index not in indices]} if lease.kill else {}
                await leases.update(tx, lease_id, remaining=remaining, **values)
        await leases.delete(tx, finished)
        for lease_id in finished:
            del held[lease_id]

    async def _note_running(
        self, tx: Tx, pilot: Any, held: dict[int, Any], request: ExchangeRequest, now: datetime
    ) -> None:
        running: dict[int, int] = {}
        told: dict[store_series.Key, UsageSeries] = {}
        for task in request.running:
            running[task.lease] = running.get(task.lease, 0) + 1
            lease = held.get(task.lease) if task.series is not None else None
            if lease is not None and task.series is not None and lease.first <= task.index <= lease.last:
                told[lease.job, task.index, lease.attempt] = task.series
        for number in await store_series.note(tx, told, now) if told else ():
            await store.update_job(tx, number)  # whoever looks at it has something new to see
            tx.ring(f"job/{number}")
            tx.ring(f"jobs/{pilot.owner_id}")
        for lease in held.values():
            if lease.running != running.get(lease.id, 0):
                await leases.update(tx, lease.id, running=running.get(lease.id, 0))
                tx.ring(f"job/{lease.job}")

    async def _forget_old_sessions(
        self, tx: Tx, pilot: Any, request: ExchangeRequest, held: dict[int, Any], now: datetime
    ) -> None:
        """The pilot's process was started anew: what the old one held died with it, but for what it still names.

        Slurm starts a script anew only where it had taken its place away: no task is to blame.
        """
        named = set(request.held)
        gone = [lease for lease in held.values() if lease.session != request.session and lease.id not in named]
        if gone:
            running = {(lease, index) for lease, index in pilot.running}
            outcome = protocol.PREEMPTED if pilot.driver == _SLURM else LOST
            why = "The pilot was started anew."
            await give_back(tx, self._events, self._settings, gone, running, now, why, outcome)
            for lease in gone:
                del held[lease.id]

    async def _end(self, tx: Tx, pilot: Any, why: str, now: datetime, busy_s: float) -> None:
        held = list((await leases.of_pilot(tx, pilot.id)).values())
        await give_back(tx, self._events, self._settings, held, set(), now, f"The pilot ended: {why}.")
        await revoke_pilot_tokens(tx, pilot.id)
        await store_pilots.end(
            tx, self._events, pilot, PilotPhase.ENDED, f"pilots.{_code(why)}", f"It ended: {why}.", now, busy_s
        )

    async def keep_checkpoint(self, pilot_id: str, found: Checkpoint) -> None:
        """What a task's checkpoint folder holds now. Nothing is changed by a pilot that has the task no more.

        Raises Fault ``jobs.bad_spec``, ``jobs.file_missing``, ``jobs.pilot_gone``.
        """
        await self._files.announce([file.digest for file in found.files])
        for file in found.files:
            if not await self._files.has(file.digest):
                raise Fault(errors.FILE_MISSING, f"The content of {file.path} has not been uploaded.")
        now = self._clock.now()
        async with self._database.begin() as tx:
            pilot = await self._live_pilot(tx, pilot_id)
            lease = (await leases.of_pilot(tx, pilot_id)).get(found.lease)
            if lease is None or not lease.first <= found.index <= lease.last:
                return
            job = await store.get_job(tx, lease.job, lock=True)
            again = (await store.retries_of(tx, lease.job, [found.index])).get(found.index)
            is_over = bool(await store.ended_of(tx, lease.job, [found.index]))
            if job is None or is_over or (again is not None and not is_attempt_of(again, lease)):
                return
            folder = f"{job.spec.get('checkpoint')}/"
            if not all(file.path.startswith(folder) and ".." not in file.path.split("/") for file in found.files):
                raise Fault(errors.BAD_SPEC, "A checkpoint holds files of the job's checkpoint folder only.")
            await store_files.own(tx, pilot.owner_id, [(file.digest, file.size) for file in found.files], now)
            await store_checkpoints.replace(tx, lease.job, found.index, found.files)

    async def check_download(self, pilot_id: str, digest: str) -> None:
        """Whether a pilot may read this content: its owner brought it. Raises Fault ``jobs.no_file``."""
        hex_of(digest)
        async with self._database.read() as tx:
            pilot = await store_pilots.get(tx, pilot_id)
            owned = await store.owned_digests(tx, pilot.owner_id, [digest]) if pilot else {}
        if digest not in owned:
            raise Fault(errors.NO_FILE, f"There is no content {digest} for this pilot.")


async def _known_retries(tx: Tx, found: Iterable[TaskResult], held: dict[int, Any]) -> dict[tuple[int, int], Any]:
    """What is known of earlier attempts of the tasks that are reported, by (job, index)."""
    wanted: dict[int, set[int]] = {}
    for result in found:
        lease = held.get(result.lease)
        if lease is not None and lease.first <= result.index <= lease.last:
            wanted.setdefault(lease.job, set()).add(result.index)
    alone: dict[int, list[int]] = {}  # jobs of which one task is reported, by its index: single jobs, mostly
    for number, indices in wanted.items():
        if len(indices) == 1:
            alone.setdefault(next(iter(indices)), []).append(number)
    known = {
        (number, index): row
        for index, numbers in alone.items()
        for number, row in (await store.retries_at(tx, numbers, index)).items()
    }
    for number, indices in wanted.items():
        if len(indices) > 1:
            rows = await store.retries_of(tx, number, sorted(indices))
            known |= {(number, index): row for index, row in rows.items()}
    return known


async def _without_result(tx: Tx, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose task has not ended: an end that was accepted stays."""
    wanted: dict[int, list[int]] = {}
    for row in rows:
        wanted.setdefault(row["job"], []).append(row["index"])
    ended = {(number, index) for number, some in wanted.items() for index in await store.ended_of(tx, number, some)}
    return [row for row in rows if (row["job"], row["index"]) not in ended]


def _charge(pilot: Any, job: Any, rows: list[dict[str, Any]]) -> Charge:
    wall = sum(row["wall_s"] for row in rows)
    needs = job.spec["requirements"]
    is_whole = needs.get("whole_node", False)
    cores, gpus = (pilot.cores, len(pilot.gpus)) if is_whole else (needs["cores"], needs.get("gpus", 0))
    cores, gpus = cores * needs.get("nodes", 1), gpus * needs.get("nodes", 1)
    cpu = sum(row["cpu_s"] for row in rows)
    return Charge(
        job.owner_id, job.vo, pilot.site, len(rows), wall, wall * cores, cpu, wall * gpus, vo_group=job.vo_group
    )


def _bytes(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise Fault(kernel_errors.INVALID, "A log chunk is not base64.") from error


def _says_something(reply: ExchangeReply) -> bool:
    return bool(reply.leases or reply.kill or reply.dropped or reply.stop or reply.channels)


def _code(why: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in why.partition(":")[0].strip().lower()) or "ended"
