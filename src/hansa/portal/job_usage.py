"""The page of what a job's tasks use: one task over its time, and how the tasks of an array differ."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from hansa.identity.policy import Permission
from hansa.jobs.service import JobService
from hansa.jobs.usage import UsageService
from hansa.kernel.http import MOST, provided
from hansa.portal.curves import curves_of, histograms_of
from hansa.portal.frame import PageRoute, Portal, Visit, visitor

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_OFFERED = 40


@router.get("/jobs/{job}/usage")
async def show_usage(
    job: Annotated[int, Path(le=MOST)],
    visit: Annotated[Visit, visitor(Permission.JOBS_READ)],
    jobs: Annotated[JobService, Depends(provided(JobService))],
    usages: Annotated[UsageService, Depends(provided(UsageService))],
    portal: Annotated[Portal, Depends(provided(Portal))],
    task: Annotated[str, Query(pattern=r"^\s*\d{0,15}\s*$")] = "",
    attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Response:
    """Without a task: the first one of which more is known than its sums."""
    found = await jobs.get(visit.caller, job)
    all_tasks = await usages.of_job(visit.caller, job)
    index = int(task) if task.strip() else next(iter(all_tasks.with_series), found.first)
    usage = await usages.of_task(visit.caller, job, index, attempt)
    return portal.page(
        visit,
        "jobs/_usage.html" if visit.is_live else "jobs/usage.html",
        job=found,
        usage=usage,
        curves=curves_of(usage),
        histograms=histograms_of(all_tasks) if found.array else [],
        sampled=all_tasks.sampled,
        offered=all_tasks.with_series[:_OFFERED],
        tab="usage",
    )
