"""The Python API: :class:`Hansa`. It performs operations; what is done is in :mod:`hansa.client.verbs`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Unpack

from hansa.accounting.wire import UsageRow
from hansa.client import api, job_api, machines, operations, people_api, results, site_api, verbs, volumes
from hansa.client.connect import connect
from hansa.client.files import Progress
from hansa.client.machine_handles import MachineHandle
from hansa.client.results import TaskResults
from hansa.client.transport import Transport
from hansa.client.verbs import Command, Function, JobOptions, JobProgress, KnownJob
from hansa.client.volume_handles import VolumeHandle
from hansa.identity.wire import Vo
from hansa.jobs.wire import Explanation, Job, JobUsage, TaskUsage
from hansa.machines.volume_wire import NewVolume
from hansa.machines.wire import NewMachine
from hansa.placement.wire import Plan, PlanRequest
from hansa.sites.capacity_wire import Grant
from hansa.sites.wire import Site


class JobHandle(KnownJob):
    """A job that was submitted. Made by :meth:`Hansa.submit` and :meth:`Hansa.job`."""

    def __init__(self, transport: Transport, job: Job) -> None:
        super().__init__(job)
        self._transport = transport

    def refresh(self) -> JobHandle:
        """Ask the server how the job is."""
        self._job = self._transport.run(job_api.job(self.number))
        return self

    def wait(
        self, timeout: float | None = None, progress: JobProgress | None = None, *, check: bool = False
    ) -> JobHandle:
        """Wait for the end. ``progress`` hears the job whenever it changed.

        Raises Timeout after ``timeout`` seconds (the job goes on), and JobFailed if ``check`` is set.
        """
        self._job = self._transport.run(verbs.wait(self.number, timeout, progress, check=check))
        return self

    def logs(
        self,
        task: int | None = None,
        stream: str = "stdout",
        *,
        attempt: int | None = None,
        tail: int | None = None,
        since: datetime | timedelta | None = None,
        grep: str | None = None,
    ) -> str:
        """The output of a task so far; of a single job without ``task``. Streams: stdout, stderr, setup.

        ``tail``: only so many lines of its end. ``since``: only what came since a moment, or in the last such time.
        ``grep``: only lines in which this regular expression is found, of which ``tail`` then counts. ``attempt``: of
        an earlier one. The server looks through the log: what is not asked for does not travel.
        """
        return self._transport.run(
            verbs.read_log(self.number, task, stream, attempt=attempt, tail=tail, since=since, grep=grep)
        )

    def results(self) -> TaskResults:
        """A row per task: parameters, state, exit code, resources used, fields of its result.json."""
        return self._transport.run(results.gather(self._job))

    def fetch(self, folder: str | Path | None = None) -> Path | None:
        """Bring the output files into ``folder`` (``hansa-JOB``); None where there are none."""
        return self._transport.run(verbs.fetch_files(self._job, folder, self._transport.endpoint.url))

    def kill(self, tasks: Sequence[int] | None = None) -> JobHandle:
        """Stop the job, or some of its tasks."""
        self._job = self._transport.run(verbs.kill(self.number, tasks))
        return self

    def hold(self) -> JobHandle:
        """Give out no more tasks of it until it is released."""
        self._job = self._transport.run(verbs.hold(self.number))
        return self

    def release(self) -> JobHandle:
        """Let a held job go on."""
        self._job = self._transport.run(verbs.release(self.number))
        return self

    def retry(self, tasks: Sequence[int] | None = None) -> JobHandle:
        """Run failed and killed tasks again: all, or those named."""
        self._job = self._transport.run(verbs.retry(self.number, tasks))
        return self

    def usage(self, task: int | None = None, attempt: int | None = None) -> TaskUsage:
        """What a task used over its time, live while it runs: by default the job's first task, its last attempt."""
        index = self.job.first if task is None else task
        return self._transport.run(job_api.task_usage(self.number, index, attempt))

    def usage_of_tasks(self) -> JobUsage:
        """How the job's tasks differ in wall time, busy cores and memory, beside what was asked for."""
        return self._transport.run(job_api.job_usage(self.number))

    def explain(self, task: int | None = None) -> Explanation:
        """Why the job, or one of its tasks, is where it is."""
        return self._transport.run(job_api.explain(self.number, task))


class Hansa:
    """A connection to a server.

    Without arguments: the server of HANSA_SERVER (with HANSA_TOKEN or HANSA_TOKEN_FILE) or a config file,
    else the embedded server of HANSA_HOME, started when it does not run. Not for several threads at once.

    Example:
        >>> from hansa import Hansa
        >>> with Hansa() as hansa:                                               # doctest: +SKIP
        ...     job = hansa.run(["python", "fit.py", "{rate}"], params="rates.csv")
        ...     best = max(job.results(), key=lambda row: row["accuracy"])
        ...     squares = hansa.map(lambda x: x * x, range(10))
    """

    def __init__(self, server: str | None = None, token: str | None = None, home: str | Path | None = None) -> None:
        self._transport = Transport(*connect(server, token, home))

    def __enter__(self) -> Hansa:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Jobs go on."""
        self._transport.close()

    def submit(self, command: Command, *, upload: Progress | None = None, **options: Unpack[JobOptions]) -> JobHandle:
        """Submit a job; its files are sent before. A command is a list of words, or a line without a shell.

        Options are those of :class:`JobOptions`. Raises HansaError and submits nothing if something is wrong.

        Example:
            >>> job = Hansa().submit("python train.py --seed {i}", array="0-9")  # doctest: +SKIP
        """
        return JobHandle(self._transport, self._transport.run(verbs.submit(command, options, upload)))

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float | None = None,
        progress: JobProgress | None = None,
        **options: Unpack[JobOptions],
    ) -> JobHandle:
        """Submit a job and wait for its end. Raises JobFailed if it failed, unless ``check`` is False."""
        return self.submit(command, **options).wait(timeout, progress, check=check)

    def map(
        self,
        work: Command | Function,
        values: Iterable[Any],
        *,
        timeout: float | None = None,
        progress: JobProgress | None = None,
        **options: Unpack[JobOptions],
    ) -> list[Any]:
        """Do something for each value, one task each; returns a list in the order of the values.

        A function is called with each value, and what it returns comes back; an exception is raised here,
        with the traceback from there as its cause. In a command, ``{}`` is the value (``{name}``, if
        values are mappings), and rows of results come back; JobFailed is raised if a task failed.

        Example:
            >>> Hansa().map(len, ["one", "three"])                               # doctest: +SKIP
            [3, 5]
        """
        return self._transport.run(verbs.run_map(work, values, options, timeout, progress))

    def job(self, number: int) -> JobHandle:
        """A job by its number. Raises HansaError ``jobs.not_found`` or the like where there is none."""
        return JobHandle(self._transport, self._transport.run(job_api.job(number)))

    def jobs(
        self, phase: str | None = None, name: str | None = None, limit: int = 100, query: str = ""
    ) -> list[JobHandle]:
        """Jobs, the newest first; ``query`` as in ``state:failed label:a=b created<2d``."""
        page = self._transport.run(job_api.jobs(phase, name, limit, query=query))
        return [JobHandle(self._transport, job) for job in page.items]

    def sites(self) -> list[Site]:
        """Sites: where jobs can run."""
        return self._transport.run(operations.collect(site_api.sites))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Whatever of the API has no method here: ``call("POST", "/sites/NEBULA/drain", {"why": "…"})``.

        ``path`` is behind ``/api/v1``; the answer is parsed JSON, None where there is none. Raises HansaError.
        """
        return self._transport.run(api.raw(method, path, body))

    def site(self, name: str) -> Site:
        """One site, with its endpoints and their health. Raises HansaError ``sites.not_found``."""
        return self._transport.run(site_api.site(name))

    def vos(self) -> list[Vo]:
        """The virtual organisations that you are in."""
        return self._transport.run(operations.collect(people_api.vos))

    def grants(self) -> list[Grant]:
        """Capacity grants: of your organisations, and at the sites that you administer."""
        return self._transport.run(operations.collect(site_api.grants))

    def grant(self, vo: str, site: str) -> Grant:
        """What a site grants an organisation, and what of it is used. Raises HansaError ``capacity.not_found``."""
        return self._transport.run(site_api.grant(vo, site))

    def usage(self, by: str = "vo,site", **asked: Any) -> list[UsageRow]:
        """What was used: yours, or with ``everybody=True`` all that you may see. ``by``: vo, group, user, site, kind,
        day, month; ``asked``: since, until (``2026-01-31``), vo, site, user, everybody."""
        return self._transport.run(site_api.usage(by, **asked)).items

    def plan(self, **needs: Any) -> Plan:
        """Where something would run now, ranked, and why not elsewhere; needs as of :class:`PlanRequest`.

        Example:
            >>> Hansa().plan(cores=16, memory_mib=65536).message                 # doctest: +SKIP
            'It would run at local.'
        """
        return self._transport.run(site_api.plan(PlanRequest(**needs)))

    def create_machine(self, image: str, name: str | None = None, **options: Any) -> MachineHandle:
        """Have a machine made; options are those of :class:`hansa.machines.wire.NewMachine`. It is not waited for.

        Without ``ssh_keys`` it gets those of this computer.
        """
        new = NewMachine(image, name, **options)
        made = machines.create(new) if new.ssh_keys else machines.create_with_keys(new)
        return MachineHandle(self._transport, self._transport.run(made))

    def create_volume(self, name: str, size_gib: int, **options: Any) -> VolumeHandle:
        """Have a volume made; options are those of :class:`hansa.machines.volume_wire.NewVolume`. Not waited for."""
        made = self._transport.run(volumes.create(NewVolume(name, size_gib, **options)))
        return VolumeHandle(self._transport, made)

    def volume(self, name: str) -> VolumeHandle:
        """A volume by name or id. Raises HansaError ``machines.no_volume``."""
        return VolumeHandle(self._transport, self._transport.run(volumes.volume(name)))

    def volumes(self) -> list[VolumeHandle]:
        """The volumes at all sites, by name."""
        found = self._transport.run(operations.collect(volumes.volumes))
        return [VolumeHandle(self._transport, one) for one in found]

    def machine(self, name: str) -> MachineHandle:
        """A machine by name or id. Raises HansaError ``machines.not_found``."""
        return MachineHandle(self._transport, self._transport.run(machines.machine(name)))

    def machines(self, site: str | None = None) -> list[MachineHandle]:
        """The machines at all sites, by name."""
        found = self._transport.run(operations.collect(lambda after: machines.machines(after, site)))
        return [MachineHandle(self._transport, one) for one in found]
