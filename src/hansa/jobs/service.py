"""The use cases of jobs: submit, look, kill, retry, explain."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from hansa.engines.egress import EgressPolicy
from hansa.identity import vo_store
from hansa.identity.authority import AuthorityService
from hansa.identity.model import Caller
from hansa.identity.vos import VoService
from hansa.images.endorsing import check_container
from hansa.jobs import errors, leases, links, overview, search, store, store_files, store_pilots
from hansa.jobs.access import check_index, own_job
from hansa.jobs.drivers.places import Paths, PathsAt
from hansa.jobs.explain import explain_job
from hansa.jobs.files import FileService
from hansa.jobs.kills import kill_all, kill_some
from hansa.jobs.log_search import Found, Wanted, find_lines
from hansa.jobs.logs import LogChoice, LogStore, OpenLog
from hansa.jobs.measured import measured
from hansa.jobs.model import has_more
from hansa.jobs.needs import Needs, fill_needs, needs_of
from hansa.jobs.notices import NoticePolicy
from hansa.jobs.placing import Known, choice_for, offer_of, platforms_of, why_never
from hansa.jobs.query import Term
from hansa.jobs.reopen import reopen
from hansa.jobs.search import read_query
from hansa.jobs.submission import begin, check_spec, inputs_of, new_row, plain_spec
from hansa.jobs.views import job_view, pilot_view, result_view, waiting_view
from hansa.jobs.wire import (
    Explanation,
    Following,
    Job,
    JobPage,
    JobSpec,
    LogLine,
    Phase,
    PilotPage,
    Selection,
    Task,
    TaskFile,
    TaskFilePage,
    TaskPage,
)
from hansa.kernel import idempotency
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import DriverError, Fault
from hansa.kernel.events import Event, EventLog, StoredEvent
from hansa.kernel.http import decode_cursor, encode_cursor
from hansa.kernel.ids import new_id
from hansa.kernel.settings import JobSettings, MailSettings
from hansa.kernel.status import Party, Status
from hansa.kernel.wire import decode
from hansa.node.protocol import File
from hansa.placement.authority import lapsed_at, of_others
from hansa.placement.model import Choice
from hansa.placement.service import grants_left
from hansa.sites.model import SiteView
from hansa.sites.service import SiteService

_FOLLOW_BYTES = 1024 * 1024


class JobService:
    """What users do with jobs."""

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        files: FileService,
        logs: LogStore,
        sites: SiteService,
        vos: VoService,
        settings: JobSettings,
        notices: NoticePolicy | None = None,
        paths: Paths | None = None,
        authority: AuthorityService | None = None,
    ) -> None:
        self._authority = authority
        self._paths = paths
        self._database = database
        self._events = events
        self._clock = clock
        self._files = files
        self._logs = logs
        self._sites = sites
        self._vos = vos
        self._settings = settings
        self._changes = overview.Changes(database, events)
        self._notices = notices or NoticePolicy(MailSettings(), EgressPolicy())

    async def submit(self, caller: Caller, spec: JobSpec, key: str | None = None) -> Job:
        """Queue a job: durable on return. The same ``key`` and spec again give the same job.

        Raises Fault: ``jobs.bad_spec``, ``jobs.array_limit``, ``jobs.no_site``, ``jobs.file_limit``,
        ``jobs.file_missing``, ``kernel.idempotency_reused``, and for its VO ``identity.no_vo``,
        ``identity.vo_ambiguous``, ``identity.vo_suspended`` or ``images.registry_refused``. Nothing is changed then.
        """
        check_spec(spec, self._settings.array_limit, self._clock.now())
        self._notices.check(spec.notify)
        needs = fill_needs(
            spec.requirements,
            cores=self._settings.cores,
            memory_mib=self._settings.memory_mib,
            wall_time_s=self._settings.wall_time_s,
        )
        choice = await self._check_site(caller, spec.vo, needs)
        await self._check_mounts(caller, choice, needs)
        inputs = inputs_of(spec)
        self._files.check_sizes([(file.path, file.size) for file in inputs])
        plain = plain_spec(spec, needs)
        rows = [asdict(row) for row in spec.rows] if spec.rows is not None else None
        request = idempotency.fingerprint("jobs.submit", json.dumps([plain, rows], sort_keys=True).encode())
        now = self._clock.now()
        async with self._database.begin() as tx:
            number = await idempotency.recall(tx, caller.user_id, key, request)
            if number is None:
                vo = await self._may_submit(tx, caller, spec, inputs)
                number = await self._insert(tx, caller, vo, spec, needs, plain, rows, now)
                await idempotency.remember(tx, self._clock, caller.user_id, key, request, number)
            return await self._view(tx, await own_job(tx, caller, number))

    async def _may_submit(self, tx: Tx, caller: Caller, spec: JobSpec, inputs: Sequence[File]) -> str | None:
        """Refuse what its VO does not allow, or whose files are not here; the VO."""
        vo = await self._vos.check_may_start(tx, caller, spec.vo)
        await self._check_group(tx, caller, vo, spec.vo_group)
        await _check_image(tx, vo, spec.image)
        await self._check_inputs(tx, caller, inputs)
        return vo

    async def _insert(
        self,
        tx: Tx,
        caller: Caller,
        vo: str | None,
        spec: JobSpec,
        needs: Needs,
        plain: dict[str, Any],
        rows: list[dict[str, Any]] | None,
        now: datetime,
    ) -> int:
        """Write a job and all that belongs to it; its number."""
        needed = await links.check(tx, caller, spec.after)
        unmet = [link["needs"] for link in needed if not link["met"]]
        beginning = begin(spec, unmet)
        owner: dict[str, Any] = {"id": new_id("job"), "owner_id": caller.user_id, "owner_name": caller.name, "vo": vo}
        owner["queue_id"] = await store.queue_for(tx, caller.user_id, needs, vo, spec.vo_group)
        number = await store.insert_job(tx, owner | new_row(spec, plain, beginning, len(unmet), now), rows)
        await store_files.add_inputs(tx, number, [file.digest for file in inputs_of(spec)])
        await store.mark(tx, caller.user_id, [number], "label", spec.labels)
        await links.insert(tx, number, needed)
        said = ("waiting", beginning.reason, beginning.message)
        await self._events.record(tx, Event(caller.actor, f"job/{number}", *said, caller.user_id, vo))
        tx.ring(f"work/{caller.user_id}")
        tx.ring("demand")
        return number

    async def get(self, caller: Caller, number: int) -> Job:
        """One job. Raises Fault ``jobs.not_found`` where it is not the caller's, too."""
        async with self._database.read() as tx:
            return await self._view(tx, await own_job(tx, caller, number))

    async def list_jobs(
        self,
        caller: Caller,
        *,
        phase: Phase | None = None,
        name: str | None = None,
        query: str = "",
        cursor: str | None = None,
        limit: int = 100,
    ) -> JobPage:
        """The caller's jobs that a query (see ``query.py``) is about, newest first. Raises Fault ``jobs.bad_query``."""
        before = decode_cursor(cursor, int)
        terms = [*read_query(query, self._clock.now())]
        terms += [Term("state", ":", (phase.value,))] if phase else []
        terms += [Term("name", ":", (name,))] if name else []
        async with self._database.read() as tx:
            last = before[0] if before else None
            rows = await search.find(tx, caller.user_id, terms, before=last, limit=limit)
            running = await store.running_counts(tx, [row.number for row in rows])
            standings = await store.standings(tx, [row.queue_id for row in rows])
        following = encode_cursor(rows[-1].number) if len(rows) == limit else None
        views = [job_view(row, running.get(row.number, 0), standings.get(row.queue_id)) for row in rows]
        return JobPage(views, following)

    async def summary(self, caller: Caller) -> dict[str, int]:
        """The caller's jobs by phase."""
        async with self._database.read() as tx:
            return await overview.count_phases(tx, caller.user_id)

    async def picture(self, caller: Caller, number: int, most: int = 400) -> list[overview.Bucket]:
        """An array in at most ``most`` stretches, with the tasks of each counted by phase."""
        async with self._database.read() as tx:
            return await overview.picture(tx, await own_job(tx, caller, number), most)

    async def sample(self, caller: Caller, number: int, most: int = 300) -> list[overview.Used]:
        """What tasks that have ended used: of a large array, of some spread over all that were given out."""
        async with self._database.read() as tx:
            return await overview.sample(tx, await own_job(tx, caller, number), most)

    async def spec(self, caller: Caller, number: int, *, rows: bool = True) -> JobSpec:
        """What a job was submitted as, to submit it again: not held, and without its deadline."""
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
            last = job.first + job.count - 1
            found = await store.rows_of(tx, job, job.first, last) if rows and job.has_rows else None
            needs = (await self._view(tx, job)).requirements  # they are kept in another form
        plain = {name: value for name, value in job.spec.items() if name not in ("requirements", "deadline", "hold")}
        return replace(decode(JobSpec, {**plain, "rows": found}), requirements=needs)

    async def find_in_log(self, caller: Caller, number: int, index: int | None, stream: str, wanted: Wanted) -> Found:
        """Wanted lines of one stream of one task, by number. Raises Fault ``jobs.no_task``."""
        found = await self.log(caller, number, index, LogChoice(stream))
        return await find_lines(found.pieces, wanted)

    async def find_in_logs(
        self, caller: Caller, number: int, wanted: Wanted, streams: Sequence[str], since: datetime | None
    ) -> AsyncIterator[list[LogLine]]:
        """Wanted lines of all tasks of a job, as they came. Raises Fault ``jobs.logs_gone``."""
        await self._own_logs(caller, number)
        return self._logs.search(number, wanted, streams, since)

    async def timeline(self, caller: Caller, number: int, limit: int = 50) -> Sequence[StoredEvent]:
        """What has happened to a job, oldest first."""
        async with self._database.read() as tx:
            await own_job(tx, caller, number)
            return await self._events.timeline(tx, f"job/{number}", limit)

    def changes(self, caller: Caller, position: int, beat_s: float) -> AsyncIterator[tuple[int, list[str]] | None]:
        """Subjects of the caller's whenever they change, for live pages; None after ``beat_s`` of silence."""
        return self._changes.stream(caller, position, beat_s)

    async def follow(
        self,
        caller: Caller,
        number: int,
        cursor: str | None,
        wait_s: float,
        *,
        logs: bool = True,
        since: datetime | None = None,
    ) -> Following:
        """The job and its new log pieces; waits up to ``wait_s`` seconds for something new."""
        deadline = self._clock.now().timestamp() + wait_s
        with self._database.bells.listen(f"job/{number}") as bell:
            job = await self.get(caller, number)
            version, chunk = await self._start_of(number, cursor)
            if since is not None and not cursor:
                chunk = await self._logs.chunk_before(number, since)
            while True:
                pieces, chunk = await self._logs.since(number, chunk, _FOLLOW_BYTES) if logs else ([], chunk)
                left = deadline - self._clock.now().timestamp()
                if pieces or job.version != version or left <= 0 or self._database.bells.is_closing:
                    return Following(job, pieces, encode_cursor(job.version, chunk))
                await bell.wait(min(left, 5.0))
                job = await self.get(caller, number)

    async def _start_of(self, number: int, cursor: str | None) -> tuple[int, int]:
        if cursor == "now":
            async with self._database.read() as tx:
                return -1, await store.last_log_chunk(tx, number)
        start = decode_cursor(cursor, int, int)
        return (int(start[0]), int(start[1])) if start else (-1, 0)

    async def tasks(
        self,
        caller: Caller,
        number: int,
        *,
        phase: Phase | None,
        cursor: str | None,
        limit: int,
        index: int | None = None,
    ) -> TaskPage:
        """Tasks by index: those that ended with their results; the others as waiting or running."""
        after = decode_cursor(cursor, int)
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
            if index is not None:
                check_index(job, index)
                return TaskPage(await self._task_range(tx, job, index, index))
            start = int(after[0]) if after else job.first - 1
            if phase is not None and phase.is_final and job.killed_from is None:
                found = await store.results_page(tx, number, phase=phase.value, after=start, limit=limit)
                values = [await self._values(tx, job, row.index) for row in found]
                tasks = [result_view(row, value) for row, value in zip(found, values, strict=True)]
                following = encode_cursor(tasks[-1].index) if len(tasks) == limit else None
                return TaskPage(tasks, following)
            last = min(start + limit, job.first + job.count - 1)
            tasks = await self._task_range(tx, job, start + 1, last)
        kept = [task for task in tasks if phase is None or task.phase == phase]
        return TaskPage(kept, encode_cursor(last) if last < job.first + job.count - 1 else None)

    async def _values(self, tx: Tx, job: Any, index: int) -> dict[str, str]:
        if not job.has_rows:
            return {}
        rows = await store.rows_of(tx, job, index, index)
        return dict(zip(job.spec["names"], rows[0]["values"], strict=True))

    async def _task_range(self, tx: Tx, job: Any, first: int, last: int) -> list[Task]:
        if last < first:
            return []
        found = await store.results_page(tx, job.number, phase=None, after=first - 1, limit=last - first + 1)
        ended = {row.index: row for row in found if row.index <= last}
        running = await self._running(tx, job.number)
        again = await store.retries_of(tx, job.number, [i for i in range(first, last + 1) if i not in ended])
        rows = await store.rows_of(tx, job, first, last) if job.has_rows else None
        tasks = []
        for index in range(first, last + 1):
            names, values = job.spec["names"], rows[index - first]["values"] if rows else []
            given = dict(zip(names, values, strict=True))
            if index in ended:
                tasks.append(result_view(ended[index], given))
            else:
                tasks.append(waiting_view(job, index, given, running.get(index), again.get(index)))
        return tasks

    async def _running(self, tx: Tx, number: int) -> dict[int, Any]:
        """Running tasks of a job, with their pilots."""
        found: dict[int, Any] = {}
        for lease in await leases.of_job(tx, number):
            pilot = await store_pilots.get(tx, lease.pilot_id)
            if pilot is not None:
                found |= {index: pilot for owner, index in pilot.running if owner == lease.id}
        return found

    async def task_files(
        self, caller: Caller, number: int, *, index: int | None, cursor: str | None, limit: int
    ) -> TaskFilePage:
        after = decode_cursor(cursor, int, str)
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
            if job.files_gone is not None:
                raise gone(job)
            key = (int(after[0]), str(after[1])) if after else None
            rows = await store.task_files_page(tx, number, index=index, after=key, limit=limit)
        found = [TaskFile(row.index, row.path, row.digest, row.size, row.executable) for row in rows]
        following = encode_cursor(found[-1].index, found[-1].path) if len(found) == limit else None
        return TaskFilePage(found, following)

    async def inputs(self, caller: Caller, number: int, index: int | None) -> list[File]:
        """Input files of a job, with those of one of its tasks. Raises Fault ``jobs.files_gone``."""
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
            if index is not None:
                check_index(job, index)
            if job.files_gone is not None:
                raise gone(job)
            rows = await store.rows_of(tx, job, index, index) if job.has_rows and index is not None else []
        return [File(**file) for file in [*job.spec["inputs"], *(one for row in rows for one in row["inputs"])]]

    async def open_file(
        self, caller: Caller, number: int, index: int, path: str, start: int = 0
    ) -> tuple[int, AsyncIterator[bytes]]:
        """Size of an output file, and its content from ``start`` on. Raises Fault ``jobs.no_file``."""
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
            if job.files_gone is not None:
                raise gone(job)
            row = await store.task_file(tx, number, index, path)
        if row is None:
            raise Fault(
                errors.NO_FILE, f"Task {number}.{index} has no output {path!r}.", hint=f"hansa job fetch {number}"
            )
        return row.size, self._files.open(row.digest, start)

    async def log(self, caller: Caller, number: int, index: int | None, wanted: LogChoice) -> OpenLog:
        """One stream of one task. Raises Fault ``jobs.no_task``, ``jobs.logs_gone``."""
        job = await self._own_logs(caller, number)
        index = job.first if index is None else index
        check_index(job, index)
        return await self._logs.open(number, index, wanted)

    async def _own_logs(self, caller: Caller, number: int) -> Any:
        """The caller's job, whose output is there. Raises Fault ``jobs.logs_gone``."""
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
        if job.logs_gone is not None:
            raise Fault(
                errors.LOGS_GONE,
                f"The output of job {number} was kept until {job.logs_gone:%Y-%m-%d}.",
                hint="For how long is the operator's setting retention.logs_days.",
                job=number,
            )
        return job

    async def kill(self, caller: Caller, number: int, selection: Selection) -> Job:
        """Kill a job, or some of its tasks. What has ended stays as it is."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            job = await own_job(tx, caller, number, change=True)
            if Phase(job.phase).is_final:
                raise Fault(errors.ENDED, f"Job {number} has ended: {job.phase}.", job=number)
            if selection.tasks is None:
                if not job.kill_requested:
                    message = f"{caller.name} asked to kill it; running tasks are being stopped."
                    await kill_all(tx, self._events, job, caller.actor, message, now)
            else:
                for index in selection.tasks:
                    check_index(job, index)
                await kill_some(tx, self._events, job, caller, sorted(set(selection.tasks)), now)
            await self._ring_pilots(tx, number)
            return await self._view(tx, await own_job(tx, caller, number))

    async def hold(self, caller: Caller, number: int) -> Job:
        """Give out no more tasks of a job until it is released; what runs goes on."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            job = await own_job(tx, caller, number, change=True)
            if Phase(job.phase).is_final or job.kill_requested:
                raise Fault(errors.ENDED, f"Job {number} has ended: {job.phase}.", job=number)
            if not job.held:
                message = f"{caller.name} holds it."
                await self._say(tx, caller, job, "jobs.held", message, now, Party.USER, held=True, open=False)
            return await self._view(tx, await own_job(tx, caller, number))

    async def release(self, caller: Caller, number: int) -> Job:
        """Let a held job go on."""
        now = self._clock.now()
        async with self._database.begin() as tx:
            job = await own_job(tx, caller, number, change=True)
            if not job.held:
                raise Fault(errors.NOT_HELD, f"Job {number} is not held: it is {job.phase}.", job=number)
            if job.vo is not None:
                await self._vos.check_may_start(tx, caller, job.vo)
                await _check_image(tx, job.vo, job.spec.get("image"))
            reason = "jobs.blocked" if job.blockers else "jobs.queued"
            message = f"{caller.name} released it; it waits for {'other jobs' if job.blockers else 'a pilot'}."
            values = {"held": False, "wake_at": None, "open": has_more(job) and not job.blockers}
            await self._say(tx, caller, job, reason, message, now, Party.HANSA, **values)
            tx.ring(f"work/{job.owner_id}")
            tx.ring("demand")
            return await self._view(tx, await own_job(tx, caller, number))

    async def _say(
        self, tx: Tx, caller: Caller, job: Any, reason: str, message: str, now: Any, party: Party, **values: Any
    ) -> None:
        values |= {"reason": reason, "message": message, "waiting_on": party.value, "since": now}
        await store.update_job(tx, job.number, **values)
        await self._events.record(
            tx, Event(caller.actor, f"job/{job.number}", job.phase, reason, message, job.owner_id, job.vo)
        )
        tx.ring(f"job/{job.number}")

    async def retry(self, caller: Caller, number: int, selection: Selection) -> Job:
        """Run tasks again that failed or were killed (None: all of them). Their earlier ends are kept.

        New work of a VO, so it may not start while the VO or the membership is suspended.
        """
        now = self._clock.now()
        async with self._database.begin() as tx:
            job = await own_job(tx, caller, number, change=True)
            if job.kill_requested and not Phase(job.phase).is_final:
                raise Fault(errors.ENDED, f"Job {number} is being killed; retry it when it has ended.", job=number)
            if job.vo is not None:
                await self._vos.check_may_start(tx, caller, job.vo)
                await _check_image(tx, job.vo, job.spec.get("image"))
            await self._reopen(tx, caller, job, selection.tasks, now)
            tx.ring(f"work/{caller.user_id}")
            tx.ring(f"job/{number}")
            tx.ring("demand")
            return await self._view(tx, await own_job(tx, caller, number))

    async def _reopen(self, tx: Tx, caller: Caller, job: Any, wanted: Sequence[int] | None, now: Any) -> None:
        for index in wanted or []:
            check_index(job, index)
        if job.files_gone is not None and job.input_files:
            raise gone(job)
        count = await reopen(tx, job, wanted, now)
        if not count:
            raise Fault(errors.NOTHING_TO_RETRY, f"No task of job {job.number} failed or was killed.", job=job.number)
        message = f"{caller.name} asked to run {count:,} {'tasks' if count > 1 else 'task'} again."
        await self._events.record(
            tx, Event(caller.actor, f"job/{job.number}", "waiting", "jobs.retried", message, job.owner_id, job.vo)
        )

    async def explain(self, caller: Caller, number: int, index: int | None) -> Explanation:
        """Why a job, or a task, is where it is."""
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
            if index is not None:
                check_index(job, index)
            view = await self._view(tx, job)
            needs = needs_of(job.spec["requirements"])
            choice = await self._choice(tx, caller, job.vo, needs, job.vo_group, knows_nodes=True)
        return await explain_job(self._database, self._logs, self._events, job, view, index, choice, self._clock.now())

    async def pilots(self, caller: Caller, cursor: str | None, limit: int, *, live: bool) -> PilotPage:
        """The caller's pilots; an operator sees everybody's."""
        before = decode_cursor(cursor, str)
        async with self._database.read() as tx:
            owner = None if caller.is_operator else caller.user_id
            rows = await store_pilots.list_pilots(
                tx, owner, live=live, limit=limit, before=before[0] if before else None
            )
        return PilotPage([pilot_view(row) for row in rows], encode_cursor(rows[-1].id) if len(rows) == limit else None)

    async def pilots_of(self, caller: Caller, number: int, limit: int) -> PilotPage:
        """The pilots of a job: that run tasks of it, ran some, or were started for it. The newest ``limit``."""
        async with self._database.read() as tx:
            job = await own_job(tx, caller, number)
            rows = await store_pilots.of_job(tx, job, limit)
        return PilotPage([replace(pilot_view(row), script=row.script) for row in rows], None)

    async def _view(self, tx: Tx, row: Any) -> Job:
        running = await store.running_counts(tx, [row.number])
        standings = await store.standings(tx, [row.queue_id])
        return job_view(row, running.get(row.number, 0), standings.get(row.queue_id))

    async def _choice(
        self,
        tx: Tx,
        caller: Caller,
        vo: str | None,
        needs: Needs,
        vo_group: str | None = None,
        *,
        knows_nodes: bool = False,
    ) -> Choice:
        """Where a task could run, and why not elsewhere, for a user in a VO. ``knows_nodes``: by what pilots found on
        nodes of late, too, as demand does; tomorrow's may be others, so that no job is refused for it."""
        now = self._clock.now()
        vos = [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
        sites = await self._sites.serving(tx, caller.user_id, vos)
        names = [site.name for site in sites]
        known = Known(await measured(tx, names, now), await platforms_of(tx, names) if knows_nodes else {})
        name = vo or (vos[0] if len(vos) == 1 else None)
        grants = await grants_left(tx, sites, caller.user_id, name or "", vo_group or "", caller.name, now)
        lapsed = await self._lapsed(tx, sites, caller.user_id, name, needs, now)
        return choice_for(needs, name, sites, now, known, grants, lapsed)

    async def _lapsed(
        self, tx: Tx, sites: Sequence[SiteView], user_id: str, vo: str | None, needs: Needs, now: datetime
    ) -> dict[str, Status]:
        if self._authority is None:
            return {}
        until = now + timedelta(seconds=needs.wall_time_s)
        return await lapsed_at(tx, self._authority, of_others(sites), user_id, vo, until)

    async def _check_site(self, caller: Caller, vo: str | None, needs: Needs) -> Choice:
        """Refuse what no site can ever run. What passes (a downtime, a login that has lapsed) is waited for."""
        async with self._database.read() as tx:
            choice = await self._choice(tx, caller, vo, needs)
        reasons = [] if choice.order else why_never(choice)
        if reasons or not (choice.order or choice.rejected):
            said = "; ".join(reasons) or "no site serves you"
            raise Fault(
                errors.NO_SITE,
                f"No site can run this: {said}.",
                hint="Ask for less, or see what there is: hansa site list.",
                reasons=reasons,
            )
        return choice

    async def _check_mounts(self, caller: Caller, choice: Choice, needs: Needs) -> None:
        """Refuse paths that are not at their site."""
        if not needs.mounts or self._paths is None:
            return
        vo = choice.request.vo
        candidate = next(one for one in (*choice.order, *choice.rejected) if one.site == needs.site)
        async with self._database.read() as tx:
            vos = [one.vo for one in await vo_store.memberships(tx, caller.user_id)]
            sites = {one.name: one for one in await self._sites.serving(tx, caller.user_id, vos)}
        end = offer_of(candidate, sites, vo).endpoint
        place = PathsAt(candidate.site, end.id if end else None, vo)
        try:
            lost = await self._paths.missing(place, needs.mounts)
        except DriverError as error:
            said = f"Whether {', '.join(needs.mounts)} is at {needs.site} cannot be seen now: {error}"
            raise Fault(errors.NO_MOUNT, said, hint=f"hansa site show {needs.site}", site=needs.site) from error
        if lost:
            said = f"{needs.site} has no {', '.join(lost)} that you can read."
            raise Fault(errors.NO_MOUNT, said, hint="A path is written as it is there: SITE:/scratch/x", paths=lost)

    async def _check_group(self, tx: Tx, caller: Caller, vo: str | None, group: str | None) -> None:
        if group is None:
            return
        mine = await vo_store.get_membership(tx, vo, caller.user_id) if vo else None
        if mine is None or group not in mine.groups:
            raise Fault(
                errors.BAD_SPEC,
                f"You are in no group {group} of {vo or 'a VO'}.",
                hint=f"Your groups: {', '.join(mine.groups) or 'none'}." if mine else "Say which VO: --vo.",
            )

    async def _check_inputs(self, tx: Tx, caller: Caller, inputs: Sequence[Any]) -> None:
        digests = sorted({file.digest for file in inputs})
        owned = await store_files.use_owned(tx, caller.user_id, digests, self._clock.now())
        lost = [file.path for file in inputs if file.digest not in owned]
        if lost:
            raise Fault(
                errors.FILE_MISSING,
                f"The content of {lost[0]} has not been uploaded{f' (and {len(lost) - 1} more)' if lost[1:] else ''}.",
                hint="Ask POST /api/v1/files/missing, then PUT /api/v1/files/{digest}.",
                paths=lost[:100],
            )

    async def _ring_pilots(self, tx: Tx, number: int) -> None:
        for lease in await leases.of_job(tx, number):
            tx.ring(f"pilot/{lease.pilot_id}")


def gone(job: Any) -> Fault:
    """The files of the job were deleted by the retention."""
    return Fault(
        errors.FILES_GONE,
        f"The files of job {job.number} were kept until {job.files_gone:%Y-%m-%d}.",
        hint="Submit it again. For how long files are kept is the operator's setting retention.job_files_days.",
        job=job.number,
    )


async def _check_image(tx: Tx, vo: str | None, image: str | None) -> None:
    """Raise Fault ``images.registry_refused`` where the VO does not let its jobs take images from there."""
    if vo is not None and image is not None:
        await check_container(tx, vo, image)
