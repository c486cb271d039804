"""The Python API for asyncio: :class:`AsyncHansa`, the twin of :class:`hansa.client.hansa.Hansa`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Unpack

from hansa.accounting.wire import UsageRow
from hansa.client import api, job_api, machines, operations, people_api, results, site_api, verbs, volumes
from hansa.client.async_transport import AsyncTransport
from hansa.client.connect import connect
from hansa.client.files import Progress
from hansa.client.machine_handles import AsyncMachineHandle
from hansa.client.results import TaskResults
from hansa.client.verbs import Command, Function, JobOptions, JobProgress, KnownJob
from hansa.client.volume_handles import AsyncVolumeHandle
from hansa.identity.wire import Vo
from hansa.jobs.wire import Explanation, Job, JobUsage, TaskUsage
from hansa.machines.volume_wire import NewVolume
from hansa.machines.wire import NewMachine
from hansa.placement.wire import Plan, PlanRequest
from hansa.sites.capacity_wire import Grant
from hansa.sites.wire import Site


class AsyncJobHandle(KnownJob):
    """A job that was submitted. Made by :meth:`AsyncHansa.submit` and :meth:`AsyncHansa.job`."""

    def __init__(self, transport: AsyncTransport, job: Job) -> None:
        super().__init__(job)
        self._transport = transport

    async def refresh(self) -> AsyncJobHandle:
        """Ask the server how the job is."""
        self._job = await self._transport.run(job_api.job(self.number))
        return self

    async def wait(
        self, timeout: float | None = None, progress: JobProgress | None = None, *, check: bool = False
    ) -> AsyncJobHandle:
        """Wait for the end. ``progress`` hears the job whenever it changed.

        Raises Timeout after ``timeout`` seconds (the job goes on), and JobFailed if ``check`` is set.
        """
        self._job = await self._transport.run(verbs.wait(self.number, timeout, progress, check=check))
        return self

    async def logs(
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
        return await self._transport.run(
            verbs.read_log(self.number, task, stream, attempt=attempt, tail=tail, since=since, grep=grep)
        )

    async def results(self) -> TaskResults:
        """A row per task: parameters, state, exit code, resources used, fields of its result.json."""
        return await self._transport.run(results.gather(self._job))

    async def fetch(self, folder: str | Path | None = None) -> Path | None:
        """Bring the output files into ``folder`` (``hansa-JOB``); None where there are none."""
        return await self._transport.run(verbs.fetch_files(self._job, folder, self._transport.endpoint.url))

    async def kill(self, tasks: Sequence[int] | None = None) -> AsyncJobHandle:
        """Stop the job, or some of its tasks."""
        self._job = await self._transport.run(verbs.kill(self.number, tasks))
        return self

    async def hold(self) -> AsyncJobHandle:
        """Give out no more tasks of it until it is released."""
        self._job = await self._transport.run(verbs.hold(self.number))
        return self

    async def release(self) -> AsyncJobHandle:
        """Let a held job go on."""
        self._job = await self._transport.run(verbs.release(self.number))
        return self

    async def retry(self, tasks: Sequence[int] | None = None) -> AsyncJobHandle:
        """Run failed and killed tasks again: all, or those named."""
        self._job = await self._transport.run(verbs.retry(self.number, tasks))
        return self

    async def usage(self, task: int | None = None, attempt: int | None = None) -> TaskUsage:
        """What a task used over its time, live while it runs: by default the job's first task, its last attempt."""
        index = self.job.first if task is None else task
        return await self._transport.run(job_api.task_usage(self.number, index, attempt))

    async def usage_of_tasks(self) -> JobUsage:
        """How the job's tasks differ in wall time, busy cores and memory, beside what was asked for."""
        return await self._transport.run(job_api.job_usage(self.number))

    async def explain(self, task: int | None = None) -> Explanation:
        """Why the job, or one of its tasks, is where it is."""
        return await self._transport.run(job_api.explain(self.number, task))


class AsyncHansa:
    """A connection to a server for asyncio; arguments and meanings as of :class:`hansa.Hansa`.

    Example:
        >>> async def main() -> None:
        ...     async with AsyncHansa() as hansa:
        ...         job = await hansa.run(["python", "fit.py", "{rate}"], params="rates.csv")
        ...         print(await job.results())
    """

    def __init__(self, server: str | None = None, token: str | None = None, home: str | Path | None = None) -> None:
        self._place = (server, token, home)
        self._transport: AsyncTransport | None = None

    async def __aenter__(self) -> AsyncHansa:
        await self._connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Jobs go on."""
        if self._transport is not None:
            await self._transport.close()

    async def _connect(self) -> AsyncTransport:
        if self._transport is None:
            endpoint, reconnect = await asyncio.to_thread(connect, *self._place)
            self._transport = self._transport or AsyncTransport(endpoint, reconnect)
        return self._transport

    async def submit(
        self, command: Command, *, upload: Progress | None = None, **options: Unpack[JobOptions]
    ) -> AsyncJobHandle:
        """Submit a job, as :meth:`hansa.Hansa.submit`."""
        transport = await self._connect()
        return AsyncJobHandle(transport, await transport.run(verbs.submit(command, options, upload)))

    async def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float | None = None,
        progress: JobProgress | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncJobHandle:
        """Submit a job and wait for its end. Raises JobFailed if it failed, unless ``check`` is False."""
        handle = await self.submit(command, **options)
        return await handle.wait(timeout, progress, check=check)

    async def map(
        self,
        work: Command | Function,
        values: Iterable[Any],
        *,
        timeout: float | None = None,
        progress: JobProgress | None = None,
        **options: Unpack[JobOptions],
    ) -> list[Any]:
        """Do something for each value, one task each, as :meth:`hansa.Hansa.map`."""
        return await (await self._connect()).run(verbs.run_map(work, values, options, timeout, progress))

    async def job(self, number: int) -> AsyncJobHandle:
        """A job by its number. Raises HansaError ``jobs.not_found`` or the like where there is none."""
        transport = await self._connect()
        return AsyncJobHandle(transport, await transport.run(job_api.job(number)))

    async def jobs(
        self, phase: str | None = None, name: str | None = None, limit: int = 100, query: str = ""
    ) -> list[AsyncJobHandle]:
        """Jobs, the newest first; ``query`` as in ``state:failed label:a=b created<2d``."""
        transport = await self._connect()
        page = await transport.run(job_api.jobs(phase, name, limit, query=query))
        return [AsyncJobHandle(transport, job) for job in page.items]

    async def sites(self) -> list[Site]:
        """Sites: where jobs can run."""
        return await (await self._connect()).run(operations.collect(site_api.sites))

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Whatever of the API has no method here, as :meth:`hansa.Hansa.call`."""
        return await (await self._connect()).run(api.raw(method, path, body))

    async def site(self, name: str) -> Site:
        """One site, with its endpoints and their health. Raises HansaError ``sites.not_found``."""
        return await (await self._connect()).run(site_api.site(name))

    async def vos(self) -> list[Vo]:
        """The virtual organisations that you are in."""
        return await (await self._connect()).run(operations.collect(people_api.vos))

    async def grants(self) -> list[Grant]:
        """Capacity grants: of your organisations, and at the sites that you administer."""
        return await (await self._connect()).run(operations.collect(site_api.grants))

    async def grant(self, vo: str, site: str) -> Grant:
        """What a site grants an organisation, and what of it is used. Raises HansaError ``capacity.not_found``."""
        return await (await self._connect()).run(site_api.grant(vo, site))

    async def usage(self, by: str = "vo,site", **asked: Any) -> list[UsageRow]:
        """What was used: yours, or with ``everybody=True`` all that you may see. ``by``: vo, group, user, site, kind,
        day, month; ``asked``: since, until (``2026-01-31``), vo, site, user, everybody."""
        return (await (await self._connect()).run(site_api.usage(by, **asked))).items

    async def plan(self, **needs: Any) -> Plan:
        """Where something would run now, ranked, and why not elsewhere; needs as of :class:`PlanRequest`."""
        return await (await self._connect()).run(site_api.plan(PlanRequest(**needs)))

    async def create_machine(self, image: str, name: str | None = None, **options: Any) -> AsyncMachineHandle:
        """Have a machine made; options are those of :class:`hansa.machines.wire.NewMachine`. It is not waited for.

        Without ``ssh_keys`` it gets those of this computer.
        """
        transport = await self._connect()
        new = NewMachine(image, name, **options)
        made = machines.create(new) if new.ssh_keys else machines.create_with_keys(new)
        return AsyncMachineHandle(transport, await transport.run(made))

    async def create_volume(self, name: str, size_gib: int, **options: Any) -> AsyncVolumeHandle:
        """Have a volume made; options are those of :class:`hansa.machines.volume_wire.NewVolume`. Not waited for."""
        transport = await self._connect()
        made = await transport.run(volumes.create(NewVolume(name, size_gib, **options)))
        return AsyncVolumeHandle(transport, made)

    async def volume(self, name: str) -> AsyncVolumeHandle:
        """A volume by name or id. Raises HansaError ``machines.no_volume``."""
        transport = await self._connect()
        return AsyncVolumeHandle(transport, await transport.run(volumes.volume(name)))

    async def volumes(self) -> list[AsyncVolumeHandle]:
        """The volumes at all sites, by name."""
        transport = await self._connect()
        found = await transport.run(operations.collect(volumes.volumes))
        return [AsyncVolumeHandle(transport, one) for one in found]

    async def machine(self, name: str) -> AsyncMachineHandle:
        """A machine by name or id. Raises HansaError ``machines.not_found``."""
        transport = await self._connect()
        return AsyncMachineHandle(transport, await transport.run(machines.machine(name)))

    async def machines(self, site: str | None = None) -> list[AsyncMachineHandle]:
        """The machines at all sites, by name."""
        transport = await self._connect()
        found = await transport.run(operations.collect(lambda after: machines.machines(after, site)))
        return [AsyncMachineHandle(transport, one) for one in found]
