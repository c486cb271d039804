"""Pages of jobs: the table, one job, its tasks, logs and files, and the form."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse

from hansa.identity.policy import Permission
from hansa.identity.provider.browser import Browser
from hansa.identity.vos import VoService
from hansa.jobs.logs import LogChoice
from hansa.jobs.service import JobService
from hansa.jobs.wire import Job, JobSpec, Phase, Selection
from hansa.kernel.errors import Fault
from hansa.kernel.http import MOST, provided
from hansa.kernel.wire import encode
from hansa.portal import charts, job_form, snippets
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor
from hansa.sites.service import SiteService

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Jobs = Annotated[JobService, Depends(provided(JobService))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
Reader = Annotated[Visit, visitor(Permission.JOBS_READ)]
Writer = Annotated[Visit, visitor(Permission.JOBS_WRITE)]
Number = Annotated[int, Path(le=MOST)]
Index = Annotated[int | None, Query(ge=0, le=MOST)]
Stream = Literal["stdout", "stderr", "setup"]
PAGE = 50
_LOG_BYTES = 64 * 1024
_SORTABLE = ("index", "phase", "wall_s", "cpu_s", "memory_mib", "exit_code")


@router.get("/jobs")
async def list_jobs(
    visit: Reader,
    jobs: Jobs,
    portal: Pages,
    phase: Phase | Literal[""] | None = None,
    q: Annotated[str, Query(max_length=1000)] = "",
    after: str | None = None,
) -> Response:
    """The table, with its filters in the address."""
    wanted = Phase(phase) if phase else None
    found = await jobs.list_jobs(visit.caller, phase=wanted, query=q, cursor=after, limit=PAGE)
    counts = await jobs.summary(visit.caller)
    template = "jobs/_table.html" if visit.is_live else "jobs/list.html"
    return portal.page(visit, template, found=found, counts=counts, phase=wanted, q=q, phases=list(Phase))


@router.post("/jobs/act")
async def act_on_jobs(visit: Writer, jobs: Jobs, portal: Pages, browser: Cookies) -> Response:
    """Kill or retry the jobs that were ticked."""
    form = await own_form(visit, browser)
    numbers = [int(name[4:]) for name in form if name.startswith("job.") and name[4:18].isdigit()]
    act = jobs.retry if form.get("act") == "retry" else jobs.kill
    done, refused = 0, ""
    for number in numbers:
        try:
            await act(visit.caller, min(number, MOST), Selection())
            done += 1
        except Fault as fault:
            refused = fault.detail
    said = f"{done} of {len(numbers)} jobs: asked for." if numbers else "No job was ticked."
    return portal.redirect("/jobs", f"{said} {refused}".strip())


@router.get("/jobs/new")
async def new_job(
    visit: Writer, jobs: Jobs, sites: Sites, vos: Vos, portal: Pages, like: Annotated[int | None, Query(le=MOST)] = None
) -> Response:
    """The form, empty or as another job was."""
    values = job_form.fields_of(await jobs.get(visit.caller, like)) if like is not None else job_form.blank()
    return await _form(visit, sites, vos, portal, values, [])


@router.post("/jobs/new")
async def submit_job(visit: Writer, jobs: Jobs, sites: Sites, vos: Vos, portal: Pages, browser: Cookies) -> Response:
    """Submit, or say what is wrong beside each field."""
    form = await own_form(visit, browser)
    spec, wrong = job_form.read(form)
    if spec is not None:
        try:
            job = await jobs.submit(visit.caller, spec, form.get("key", "")[:100] or None)
        except Fault as fault:
            wrong = [job_form.Wrong("", f"{fault.detail} {fault.hint or ''}".strip())]
        else:
            return portal.redirect(f"/jobs/{job.number}")
    return await _form(visit, sites, vos, portal, job_form.blank() | form, wrong, status=422)


@router.post("/jobs/preview")
async def preview_job(visit: Writer, portal: Pages, browser: Cookies) -> Response:
    """The form in the three other languages, while it is being filled in."""
    spec, wrong = job_form.read(await own_form(visit, browser))
    return portal.page(visit, "jobs/_preview.html", spec=spec, snippets=_snippets(spec, portal), wrong=wrong)


async def _form(
    visit: Visit,
    sites: SiteService,
    vos: VoService,
    portal: Portal,
    values: dict[str, str],
    wrong: list[job_form.Wrong],
    status: int = 200,
) -> Response:
    spec, _ = job_form.read(values)
    offers = await sites.list_sites(visit.caller)
    mine = await vos.list_mine(visit.caller.user_id)
    return portal.page(
        visit,
        "jobs/new.html",
        status=status,
        values=values,
        wrong=defaultdict(str, {one.field: one.message for one in wrong}),
        sites=[site.name for site in offers.items],
        vos=[one.vo for one in mine if one.is_active],
        spec=spec,
        snippets=_snippets(spec, portal),
    )


def _snippets(spec: JobSpec | None, portal: Portal) -> list[snippets.Snippet]:
    return snippets.of_job(spec, portal.browser.url) if spec is not None else []


@router.get("/jobs/{job}")
async def show_job(job: Number, visit: Reader, jobs: Jobs, portal: Pages) -> Response:
    """One job: how it is going, why it is where it is, what has happened."""
    found = await jobs.get(visit.caller, job)
    explained = await jobs.explain(visit.caller, job, None)
    return portal.page(
        visit,
        "jobs/_state.html" if visit.is_live else "jobs/show.html",
        job=found,
        explained=explained,
        bar=charts.stack(_counts(found)),
        columns=charts.columns(await jobs.picture(visit.caller, job)) if found.array else [],
        timeline=await jobs.timeline(visit.caller, job),
        tab="overview",
    )


def _counts(job: Job) -> dict[str, int]:
    counts = job.counts
    return {kind: getattr(counts, kind) for kind in charts.ORDER}


@router.get("/jobs/{job}/tasks")
async def list_tasks(
    job: Number,
    visit: Reader,
    jobs: Jobs,
    portal: Pages,
    phase: Phase | Literal[""] | None = None,
    after: str | None = None,
    sort: str = "index",
    down: bool = False,
    plot_x: str = "index",
    plot_y: str = "wall_s",
) -> Response:
    """Results as a table that can be sorted, and a quick plot of two columns."""
    wanted = Phase(phase) if phase else None
    page = await jobs.tasks(visit.caller, job, phase=wanted, cursor=after, limit=200)
    fields = sorted({name for task in page.items for name in task.fields or {}})[:12]
    names = sorted({name for task in page.items for name in task.values})[:12]
    every = [*_SORTABLE, *names, *fields]
    rows = sorted(page.items, key=lambda task: _order(_cell(task, sort)), reverse=down) if sort in every else page.items
    points = [(x, y, f"{job}.{t.index}") for t in rows if (x := _real(t, plot_x)) is not None
              and (y := _real(t, plot_y)) is not None]  # fmt: skip
    return portal.page(
        visit,
        "jobs/tasks.html",
        job=await jobs.get(visit.caller, job),
        page=page,
        rows=rows,
        names=names,
        fields=fields,
        columns=every,
        phase=wanted,
        phases=list(Phase),
        sort=sort,
        down=down,
        plot_x=plot_x,
        plot_y=plot_y,
        dots=charts.dots(points),
        points=points,
        cell=_cell,
        tab="tasks",
    )


def _cell(task: Any, name: str) -> Any:
    if name in task.values:
        return task.values[name]
    if task.fields and name in task.fields:
        return task.fields[name]
    return getattr(task, name, None) if name in _SORTABLE else None


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers first, then texts, then nothing."""
    if value is None:
        return (2, 0.0, "")
    try:
        return (0, float(value), "")
    except (TypeError, ValueError):
        return (1, 0.0, str(value))


def _real(task: Any, name: str) -> float | None:
    order = _order(_cell(task, name))
    return order[1] if order[0] == 0 else None


@router.get("/jobs/{job}/log")
async def show_log(
    job: Number, visit: Reader, jobs: Jobs, portal: Pages, task: Index = None, stream: Stream = "stdout", q: str = ""
) -> Response:
    """The end of a stream of a task; the script adds what comes."""
    found = await jobs.get(visit.caller, job)
    following = await jobs.follow(visit.caller, job, "now", 0)
    index = found.first if task is None else task
    end = await jobs.log(visit.caller, job, index, LogChoice(stream, tail_bytes=_LOG_BYTES))
    tail = b"".join([piece async for piece in end.pieces])
    lines = tail.decode(errors="replace").splitlines()
    if q:
        lines = [line for line in lines if q.lower() in line.lower()]
    return portal.page(
        visit,
        "jobs/log.html",
        job=found,
        index=index,
        stream=stream,
        lines=lines,
        is_cut=len(tail) >= _LOG_BYTES,
        cursor=following.cursor,
        q=q,
        tab="log",
    )


@router.get("/jobs/{job}/log/more")
async def more_log(job: Number, visit: Reader, jobs: Jobs, cursor: str) -> JSONResponse:
    """What has been written since; the script shows what belongs to its task."""
    found = await jobs.follow(visit.caller, job, cursor, 0)
    return JSONResponse({"pieces": encode(found.logs), "cursor": found.cursor}, headers={"Cache-Control": "no-store"})


@router.get("/jobs/{job}/log/raw")
async def download_log(
    job: Number, visit: Reader, jobs: Jobs, task: Index = None, stream: Stream = "stdout"
) -> StreamingResponse:
    """A whole stream, as a file."""
    log = await jobs.log(visit.caller, job, task, LogChoice(stream))
    name = f"job-{job}{'' if task is None else f'.{task}'}-{stream}.txt"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(log.pieces, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/jobs/{job}/files")
async def list_files(
    job: Number, visit: Reader, jobs: Jobs, portal: Pages, task: Index = None, after: str | None = None
) -> Response:
    """Output files, by task and path."""
    page = await jobs.task_files(visit.caller, job, index=task, cursor=after, limit=200)
    return portal.page(
        visit, "jobs/files.html", job=await jobs.get(visit.caller, job), page=page, task=task, tab="files"
    )


@router.get("/jobs/{job}/tasks/{index}/files/{path:path}")
async def download_file(job: Number, index: Number, path: str, visit: Reader, jobs: Jobs) -> StreamingResponse:
    """An output file: always as a download, never shown as a page of ours."""
    size, pieces = await jobs.open_file(visit.caller, job, index, path)
    headers = {"Content-Length": str(size), "X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


@router.post("/jobs/{job}/act")
async def act_on_job(job: Number, visit: Writer, jobs: Jobs, portal: Pages, browser: Cookies) -> Response:
    """Kill or retry a job, or some of its tasks."""
    form = await own_form(visit, browser)
    act = jobs.retry if form.get("act") == "retry" else jobs.kill
    found = await act(visit.caller, job, Selection(job_form.indices(form.get("tasks", ""))))
    return portal.redirect(f"/jobs/{job}", found.status.message)
