"""What is not kept any more goes: files, logs and attempts of jobs that ended long ago, and content of nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import structlog

from hansa.jobs import store, store_files
from hansa.jobs.files import FileService
from hansa.jobs.logs import LogStore
from hansa.jobs.tables import attempts, job_inputs, jobs, log_chunks, task_checkpoints, task_files, task_series
from hansa.kernel.clock import Clock
from hansa.kernel.database import Database, Tx
from hansa.kernel.errors import Fault
from hansa.kernel.settings import RetentionSettings

log = structlog.get_logger(__name__)
_EVERY_S = 3600.0
_AT_ONCE = 500
_OVERLAP = timedelta(days=1)


class Retention:
    """A loop. Several servers may run it: each step is one that may be done twice."""

    def __init__(
        self, database: Database, clock: Clock, files: FileService, logs: LogStore, settings: RetentionSettings
    ) -> None:
        self._database = database
        self._clock = clock
        self._files = files
        self._logs = logs
        self._settings = settings
        self._swept: dict[str, datetime] = {}
        """Up to when all jobs that ended have the mark."""

    async def run(self) -> None:
        """For ever, once an hour."""
        while True:
            try:
                await self.sweep()
            except Fault as fault:  # the database or the object store is away for a while
                log.warning("retention.waits", error=str(fault))
            await asyncio.sleep(_EVERY_S)

    async def sweep(self) -> None:
        """All that is due now. Whatever kills it in between, the next one does the rest."""
        days = self._settings
        await self._end_all("files_gone", days.job_files_days, task_files, task_series)
        await self._end_all("logs_gone", days.logs_days, log_chunks)
        await self._end_all("attempts_gone", days.attempts_days, attempts)
        now = self._clock.now()
        while await self._forget_unused(now - timedelta(days=days.uploads_days)) == _AT_ONCE:
            pass
        await self._doom(now - timedelta(days=days.unclaimed_days))
        while await self._delete_doomed() == _AT_ONCE:
            pass

    async def _end_all(self, mark: str, days: int, *tables: sa.Table) -> None:
        """Mark the jobs that ended so long ago, when their rows of the tables, and what those name, are gone."""
        if not days:
            return
        now = self._clock.now()
        before = now - timedelta(days=days)
        ended = [jobs.c.ended < before, jobs.c[mark].is_(None)]
        if mark in self._swept:
            ended.append(jobs.c.ended > self._swept[mark] - _OVERLAP)
        found: Sequence[Any] = [None] * _AT_ONCE
        while len(found) == _AT_ONCE:
            has_some = [sa.exists().where(table.c.job == jobs.c.number).label(table.name) for table in tables]
            query = sa.select(jobs.c.number, *has_some).where(*ended)
            async with self._database.read() as tx:
                found = (await tx.execute(query.order_by(jobs.c.ended).limit(_AT_ONCE))).all()
            for number, table in [(row.number, table) for row in found for table in tables if row._mapping[table.name]]:
                if table is log_chunks:
                    await self._end_logs(number, before)
                else:
                    await self._delete_rows(number, before, table)
            numbers = [row.number for row in found]
            async with self._database.begin() as tx:
                marked = sa.update(jobs).where(jobs.c.number.in_(numbers), *ended).values(**{mark: now})
                done = list((await tx.execute(marked.returning(jobs.c.number))).scalars())
                if task_files in tables:
                    await tx.execute(sa.delete(job_inputs).where(job_inputs.c.job.in_(done)))
                    await tx.execute(sa.delete(task_checkpoints).where(task_checkpoints.c.job.in_(done)))
        self._swept[mark] = before

    async def _end_logs(self, number: int, before: datetime) -> None:
        while True:
            async with self._database.read() as tx:
                may = await _may_go(tx, number, before)
                rows = await store.log_chunks_of(tx, number, limit=_AT_ONCE) if may else []
            if not rows:
                return
            for row in rows:
                await self._logs.delete(row.object)
            async with self._database.begin() as tx:
                await store.delete_log_chunks(tx, [row.id for row in rows])

    async def _delete_rows(self, number: int, before: datetime, table: sa.Table) -> None:
        """Of one job, some at a time, so that others may write in between."""
        columns = [column for column in table.primary_key.columns if column.name != "job"]
        while True:
            async with self._database.begin() as tx:
                if not await _may_go(tx, number, before, lock=True):
                    return
                some = sa.select(*columns).where(table.c.job == number).order_by(*columns)
                edge = (await tx.execute(some.offset(_AT_ONCE * 10).limit(1))).first()
                query = sa.delete(table).where(table.c.job == number)
                await tx.execute(query if edge is None else query.where(sa.tuple_(*columns) < sa.tuple_(*edge)))
            if edge is None:
                return

    async def _forget_unused(self, before: datetime) -> int:
        async with self._database.begin() as tx:
            return await store_files.forget_unused(tx, before, _AT_ONCE)

    async def _doom(self, before: datetime) -> None:
        after = ""
        while True:
            async with self._database.read() as tx:
                found = await store_files.unclaimed(tx, before, after, _AT_ONCE)
            if found:
                after = found[-1]
                async with self._database.begin() as tx:
                    await store_files.doom(tx, found, before)
            if len(found) < _AT_ONCE:
                return

    async def _delete_doomed(self) -> int:
        async with self._database.read() as tx:
            found = await store_files.doomed(tx, _AT_ONCE)
        for digest in found:
            await self._files.delete(digest)
        if found:
            async with self._database.begin() as tx:
                await store_files.forget_doomed(tx, found)
            log.info("retention.deleted", contents=len(found))
        return len(found)


async def _may_go(tx: Tx, number: int, before: datetime, *, lock: bool = False) -> bool:
    """Whether the job is still one that ended so long ago: somebody may have run it again."""
    job = await store.get_job(tx, number, lock=lock)
    return job is not None and job.ended is not None and job.ended < before
