"""Pages of jobs: the table, one job, its logs and files, and the form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse

from hansa.identity.policy import Permission
from hansa.identity.provider.browser import Browser
from hansa.identity.vos import VoService
from hansa.jobs.log_search import Wanted
from hansa.jobs.logs import LogChoice
from hansa.jobs.overview import Used
from hansa.jobs.service import JobService
from hansa.jobs.usage import SHORT_S, UsageService
from hansa.jobs.wire import Job, JobSpec, Phase, Selection
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.http import MOST, provided
from hansa.kernel.texts import _
from hansa.kernel.wire import encode
from hansa.portal import charts, job_form, snippets
from hansa.portal.curves import curves_of
from hansa.portal.frame import PageRoute, Portal, Visit, own_form, visitor, with_query
from hansa.sites.service import SiteService

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Jobs = Annotated[JobService, Depends(provided(JobService))]
Usages = Annotated[UsageService, Depends(provided(UsageService))]
Sites = Annotated[SiteService, Depends(provided(SiteService))]
Vos = Annotated[VoService, Depends(provided(VoService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Cookies = Annotated[Browser, Depends(provided(Browser))]
Reader = Annotated[Visit, visitor(Permission.JOBS_READ)]
Writer = Annotated[Visit, visitor(Permission.JOBS_WRITE)]
Number = Annotated[int, Path(le=MOST)]
Index = Annotated[int | None, Query(ge=0, le=MOST)]
Stream = Literal["stdout", "stderr", "setup"]
Text = Annotated[str, Query(max_length=500)]
PAGE = 50
_COLUMNS = 240
_LOG_BYTES = 64 * 1024


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
    return portal.page(
        visit,
        template,
        found=found,
        counts=counts,
        phase=wanted,
        q=q,
        phases=list(Phase),
        command=snippets.of_query(wanted, q),
    )


@router.post("/jobs/act")
async def act_on_jobs(visit: Writer, jobs: Jobs, portal: Pages, browser: Cookies) -> Response:
    """Kill, retry, hold or release the jobs that were ticked."""
    form = await own_form(visit, browser)
    numbers = [int(name[4:]) for name in form if name.startswith("job.") and name[4:18].isdigit()]
    done, refused = 0, ""
    for number in numbers:
        try:
            await _act(jobs, visit, min(number, MOST), form.get("act", ""), Selection())
            done += 1
        except Fault as fault:
            refused = fault.detail
    said = (
        _("{done} of {count} jobs: asked for.", done=done, count=len(numbers)) if numbers else _("No job was ticked.")
    )
    back = with_query("/jobs", {}, phase=form.get("phase"), q=form.get("q", "")[:1000])
    return portal.redirect(back, f"{said} {refused}".strip())


async def _act(jobs: JobService, visit: Visit, number: int, act: str, some: Selection) -> Job:
    match act:
        case "kill":
            return await jobs.kill(visit.caller, number, some)
        case "retry":
            return await jobs.retry(visit.caller, number, some)
        case "hold":
            return await jobs.hold(visit.caller, number)
        case "release":
            return await jobs.release(visit.caller, number)
    raise Fault(INVALID, _("A job is killed, run again, held or released: nothing else."))


@router.get("/jobs/new")
async def new_job(
    visit: Writer, jobs: Jobs, sites: Sites, vos: Vos, portal: Pages, like: Annotated[int | None, Query(le=MOST)] = None
) -> Response:
    """The form, empty or as another job was."""
    if like is None:
        return await _form(visit, sites, vos, portal, job_form.blank(), [])
    base = await jobs.spec(visit.caller, like, rows=False)
    return await _form(visit, sites, vos, portal, job_form.fields_of(base, like), [], base)


@router.post("/jobs/new")
async def submit_job(visit: Writer, jobs: Jobs, sites: Sites, vos: Vos, portal: Pages, browser: Cookies) -> Response:
    """Submit, or say what is wrong beside each field."""
    form = await own_form(visit, browser)
    base = await _base(visit, jobs, form)
    spec, wrong = job_form.read(form, base)
    if spec is not None:
        try:
            job = await jobs.submit(visit.caller, spec, form.get("key", "")[:100] or None)
        except Fault as fault:
            wrong = [job_form.Wrong("", f"{fault.detail} {fault.hint or ''}".strip())]
        else:
            return portal.redirect(f"/jobs/{job.number}")
    return await _form(visit, sites, vos, portal, job_form.blank() | form, wrong, base, status=422)


async def _base(visit: Visit, jobs: JobService, form: Mapping[str, str], *, rows: bool = True) -> JobSpec | None:
    like = job_form.like_of(form)
    return await jobs.spec(visit.caller, like, rows=rows) if like is not None else None


@router.post("/jobs/preview")
async def preview_job(visit: Writer, jobs: Jobs, portal: Pages, browser: Cookies) -> Response:
    """The form in the three other languages, while it is being filled in."""
    form = await own_form(visit, browser)
    spec, wrong = job_form.read(form, await _base(visit, jobs, form, rows=False))
    return portal.page(visit, "jobs/_preview.html", spec=spec, snippets=_snippets(spec, portal), wrong=wrong)


async def _form(
    visit: Visit,
    sites: SiteService,
    vos: VoService,
    portal: Portal,
    values: dict[str, str],
    wrong: list[job_form.Wrong],
    base: JobSpec | None = None,
    status: int = 200,
) -> Response:
    spec, _ = job_form.read(values, base)
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
        groups=sorted({group for one in mine for group in one.groups}),
        was=base,
        spec=spec,
        snippets=_snippets(spec, portal),
    )


def _snippets(spec: JobSpec | None, portal: Portal) -> list[snippets.Snippet]:
    return snippets.of_job(spec, portal.browser.url) if spec is not None else []


@router.get("/jobs/{job}")
async def show_job(job: Number, visit: Reader, jobs: Jobs, usages: Usages, portal: Pages) -> Response:
    """One job: how it is going, why it is where it is, what has happened."""
    found = await jobs.get(visit.caller, job)
    explained = await jobs.explain(visit.caller, job, None)
    used = await jobs.sample(visit.caller, job) if found.counts.done or found.counts.failed else []
    curves = None if found.array else curves_of(await usages.of_task(visit.caller, job, None))
    columns = charts.columns(await jobs.picture(visit.caller, job, _COLUMNS)) if found.array else []
    return portal.page(
        visit,
        "jobs/_state.html" if visit.is_live else "jobs/show.html",
        job=found,
        explained=explained,
        bar=charts.stack(_counts(found)),
        columns=columns,
        shapes=charts.shapes(columns),
        curves=curves,
        lanes=_lanes(found, used),
        sampled=len(used),
        timeline=await jobs.timeline(visit.caller, job),
        tab="overview",
    )


@dataclass(frozen=True)
class Lane:
    """What tasks used of one thing: a picture, and the same in numbers."""

    name: str
    unit: str
    dots: str
    line: float | None
    limit: float | None
    spread: charts.Spread | None


def _lanes(job: Job, used: Sequence[Used]) -> list[Lane]:
    """Wall time, busy cores and memory of tasks, against what was asked for."""
    needs = job.requirements
    found: list[tuple[str, str, list[float], float | None]] = [
        ("Wall time", "s", [one.wall_s for one in used], needs.wall_time_s),
        ("Busy cores", "", [one.cpu_s / max(one.wall_s, SHORT_S) for one in used], needs.cores),
        ("Memory at most", "MiB", [one.memory_mib for one in used], needs.memory_mib),
    ]
    lanes = []
    for name, unit, values, limit in found:
        near = limit if limit is not None and values and limit <= 4 * max(values) else None
        dots, line = charts.lane([(one.index, value) for one, value in zip(used, values, strict=True)], near)
        lanes.append(Lane(name, unit, charts.points(dots) if len(dots) > 1 else "", line, limit, charts.spread(values)))
    return [lane for lane in lanes if lane.spread is not None]


def _counts(job: Job) -> dict[str, int]:
    counts = job.counts
    return {kind: getattr(counts, kind) for kind in charts.ORDER}


@router.get("/jobs/{job}/log")
async def show_log(
    job: Number,
    visit: Reader,
    jobs: Jobs,
    portal: Pages,
    task: Index = None,
    stream: Stream = "stdout",
    q: Text = "",
    regex: bool = False,
) -> Response:
    """The end of a stream of a task; the script adds what comes. Or its lines with ``q``, a text or an expression."""
    found = await jobs.get(visit.caller, job)
    following = await jobs.follow(visit.caller, job, "now", 0)
    index = found.first if task is None else task
    hits = await jobs.find_in_log(visit.caller, job, index, stream, _wanted(q, regex=regex)) if q else None
    tail = b""
    if hits is None:
        end = await jobs.log(visit.caller, job, index, LogChoice(stream, tail_bytes=_LOG_BYTES))
        tail = b"".join([piece async for piece in end.pieces])
    return portal.page(
        visit,
        "jobs/log.html",
        job=found,
        index=index,
        stream=stream,
        lines=tail.decode(errors="replace").splitlines(),
        hits=hits,
        is_cut=len(tail) >= _LOG_BYTES,
        cursor=following.cursor,
        q=q,
        regex=regex,
        tab="log",
    )


def _wanted(text: str, *, regex: bool) -> Wanted:
    return Wanted(text) if regex else Wanted.text(text, any_case=True)


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
    """Kill or retry a job, or some of its tasks; hold or release it."""
    form = await own_form(visit, browser)
    some = Selection(job_form.indices(form.get("tasks", "")))
    found = await _act(jobs, visit, job, form.get("act", ""), some)
    return portal.redirect(f"/jobs/{job}", found.status.message)
