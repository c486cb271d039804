"""The page of a job's tasks and results: a table that can be sorted, and a quick plot of two of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response

from hansa.identity.policy import Permission
from hansa.jobs.service import JobService
from hansa.jobs.wire import Phase, Task
from hansa.kernel.http import MOST, provided
from hansa.portal import charts
from hansa.portal.frame import PageRoute, Portal, Visit, visitor

router = APIRouter(include_in_schema=False, route_class=PageRoute)
PAGE = 200
WHOLE = 1000
"""An array of so many tasks is sorted and drawn as a whole; a larger one page by page."""
SORTABLE = {
    "index": "Task",
    "phase": "State",
    "wall_s": "Wall time, s",
    "cpu_s": "CPU time, s",
    "memory_mib": "Memory, MiB",
    "exit_code": "Exit code",
}
"""What can be sorted by besides parameters and results, and what it is called."""


@router.get("/jobs/{job}/tasks")
async def list_tasks(
    job: Annotated[int, Path(le=MOST)],
    visit: Annotated[Visit, visitor(Permission.JOBS_READ)],
    jobs: Annotated[JobService, Depends(provided(JobService))],
    portal: Annotated[Portal, Depends(provided(Portal))],
    phase: Phase | Literal[""] | None = None,
    after: str | None = None,
    page: Annotated[int, Query(ge=1, le=MOST)] = 1,
    sort: str = "index",
    down: bool = False,
    plot_x: str = "index",
    plot_y: str = "wall_s",
) -> Response:
    """Results as a table that can be sorted, and a quick plot of two columns."""
    wanted = Phase(phase) if phase else None
    of = await jobs.get(visit.caller, job)
    is_whole = of.count <= WHOLE
    cursor, limit = (None, WHOLE) if is_whole else (after, PAGE)
    found = await jobs.tasks(visit.caller, job, phase=wanted, cursor=cursor, limit=limit)
    fields = sorted({name for task in found.items for name in task.fields or {}})[:12]
    names = sorted({name for task in found.items for name in task.values})[:12]
    every = [*SORTABLE, *names, *fields]
    rows = in_order(found.items, sort, down=down) if sort in every else found.items
    points = [(x, y, f"{job}.{t.index}") for t in rows if (x := _real(t, plot_x)) is not None
              and (y := _real(t, plot_y)) is not None]  # fmt: skip
    dots = charts.dots(points)
    start = (page - 1) * PAGE if is_whole else 0
    return portal.page(
        visit,
        "jobs/tasks.html",
        job=of,
        rows=rows[start : start + PAGE],
        next_page=page + 1 if is_whole and len(rows) > start + PAGE else None,
        previous_page=page - 1 if is_whole and page > 1 else None,
        next_after=None if is_whole else found.next,
        is_whole=is_whole,
        columns={name: SORTABLE.get(name, name) for name in every},
        phase=wanted,
        phases=list(Phase),
        sort=sort,
        down=down,
        plot_x=plot_x,
        plot_y=plot_y,
        dots=dots,
        ranges=_ranges(points),
        cloud=charts.points(dots),
        cell=cell,
        tab="tasks",
    )


def _ranges(points: Sequence[tuple[float, float, str]]) -> list[str]:
    """Left, right, bottom and top of the picture, in numbers."""
    return (
        [f"{edge([point[axis] for point in points]):.6g}" for axis in (0, 1) for edge in (min, max)] if points else []
    )


def in_order(tasks: Sequence[Task], by: str, *, down: bool) -> list[Task]:
    """Tasks by one of their columns. What has no value comes last, either way. Pure."""
    known = [task for task in tasks if cell(task, by) is not None]
    unknown = [task for task in tasks if cell(task, by) is None]
    return [*sorted(known, key=lambda task: _order(cell(task, by)), reverse=down), *unknown]


def cell(task: Task, name: str) -> object:
    """What a task has in a column: a parameter, a result, or one of its own figures; None for nothing."""
    if name in task.values:
        return task.values[name]
    if task.fields and name in task.fields:
        return task.fields[name]
    return getattr(task, name, None) if name in SORTABLE else None


def _order(value: object) -> tuple[int, float, str]:
    """Numbers first, then texts, then nothing."""
    if value is None:
        return (2, 0.0, "")
    try:
        return (0, float(value if isinstance(value, int | float) else str(value)), "")
    except ValueError:
        return (1, 0.0, str(value))


def _real(task: Task, name: str) -> float | None:
    order = _order(cell(task, name))
    return order[1] if order[0] == 0 else None
