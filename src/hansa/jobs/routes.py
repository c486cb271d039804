"""HTTP routes of jobs and their files."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.jobs.channels import ChannelService
from hansa.jobs.files import FileService
from hansa.jobs.service import JobService
from hansa.jobs.wire import (
    Explanation,
    FileKeys,
    Following,
    Job,
    JobPage,
    JobSpec,
    MissingFiles,
    NewChannel,
    OpenedChannel,
    Phase,
    PilotPage,
    Selection,
    TaskFilePage,
    TaskPage,
)
from hansa.kernel.http import MOST, provided
from hansa.node.protocol import ChannelReply, ChannelRequest

router = APIRouter(tags=["jobs"])
Jobs = Annotated[JobService, Depends(provided(JobService))]
Files = Annotated[FileService, Depends(provided(FileService))]
Channels = Annotated[ChannelService, Depends(provided(ChannelService))]
Reader = Annotated[Caller, allowed(Permission.JOBS_READ)]
Writer = Annotated[Caller, allowed(Permission.JOBS_WRITE)]
Uploader = Annotated[Caller, allowed(Permission.FILES_WRITE)]
Number = Annotated[int, Path(le=MOST)]
TaskIndex = Annotated[int, Query(le=MOST)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Stream = Literal["stdout", "stderr", "setup"]


def upload_length(request: Request) -> int | None:
    """The Content-Length of an upload, if it has one."""
    value = request.headers.get("content-length", "")
    return int(value) if value.isdecimal() else None


@router.post("/jobs", status_code=201)
async def submit_job(
    body: JobSpec, who: Writer, jobs: Jobs, idempotency_key: Annotated[str | None, Header(max_length=200)] = None
) -> Job:
    """Submit a job; its input files were uploaded before. Durable when answered."""
    return await jobs.submit(who, body, idempotency_key)


@router.get("/jobs")
async def list_jobs(
    who: Reader,
    jobs: Jobs,
    phase: Phase | None = None,
    name: str | None = None,
    q: Annotated[str, Query(max_length=2000)] = "",
    after: str | None = None,
    limit: Limit = 100,
) -> JobPage:
    """The caller's jobs, newest first. ``q``: as in ``state:failed site:x label:a=b name~sim created<2d``."""
    return await jobs.list_jobs(who, phase=phase, name=name, query=q, cursor=after, limit=limit)


@router.get("/jobs/{job}")
async def get_job(job: Number, who: Reader, jobs: Jobs, response: Response) -> Job:
    """One job; its version is the ETag."""
    found = await jobs.get(who, job)
    response.headers["ETag"] = f'"{found.version}"'
    return found


@router.get("/jobs/{job}/follow")
async def follow_job(
    job: Number,
    who: Reader,
    jobs: Jobs,
    cursor: str | None = None,
    wait_s: Annotated[float, Query(ge=0, le=60)] = 0,
    logs: bool = True,
) -> Following:
    """The job and its new log pieces; waits for news up to ``wait_s`` seconds. Cursor ``now`` skips old logs."""
    return await jobs.follow(who, job, cursor, wait_s, logs=logs)


@router.get("/jobs/{job}/logs", response_class=StreamingResponse)
async def read_log(
    job: Number,
    who: Reader,
    jobs: Jobs,
    task: TaskIndex | None = None,
    stream: Stream = "stdout",
    attempt: Annotated[int | None, Query(le=2**31 - 1)] = None,
    tail_bytes: Annotated[int | None, Query(ge=1, le=64 * 1024**2)] = None,
) -> StreamingResponse:
    """One stream of one task, as plain text."""
    pieces = await jobs.log(who, job, task, stream, attempt, tail_bytes)
    return StreamingResponse(pieces, media_type="text/plain; charset=utf-8")


@router.get("/jobs/{job}/tasks")
async def list_tasks(
    job: Number,
    who: Reader,
    jobs: Jobs,
    phase: Phase | None = None,
    task: TaskIndex | None = None,
    after: str | None = None,
    limit: Limit = 500,
) -> TaskPage:
    """Tasks by index, with their results; or one task."""
    return await jobs.tasks(who, job, phase=phase, index=task, cursor=after, limit=limit)


@router.get("/jobs/{job}/files")
async def list_files(
    job: Number, who: Reader, jobs: Jobs, task: TaskIndex | None = None, after: str | None = None, limit: Limit = 1000
) -> TaskFilePage:
    """Output files, by task and path."""
    return await jobs.task_files(who, job, index=task, cursor=after, limit=limit)


@router.get("/jobs/{job}/tasks/{index}/files/{path:path}", response_class=StreamingResponse)
async def read_file(job: Number, index: Number, path: str, who: Reader, jobs: Jobs) -> StreamingResponse:
    """The content of an output file."""
    size, pieces = await jobs.open_file(who, job, index, path)
    headers = {"Content-Length": str(size), "X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


@router.post("/jobs/{job}/kill")
async def kill_job(job: Number, body: Selection, who: Writer, jobs: Jobs) -> Job:
    """Kill a job, or some of its tasks."""
    return await jobs.kill(who, job, body)


@router.post("/jobs/{job}/hold")
async def hold_job(job: Number, who: Writer, jobs: Jobs) -> Job:
    """Give out no more tasks of a job until it is released."""
    return await jobs.hold(who, job)


@router.post("/jobs/{job}/release")
async def release_job(job: Number, who: Writer, jobs: Jobs) -> Job:
    """Let a held job go on."""
    return await jobs.release(who, job)


@router.post("/jobs/{job}/retry")
async def retry_job(job: Number, body: Selection, who: Writer, jobs: Jobs) -> Job:
    """Run tasks again that failed or were killed."""
    return await jobs.retry(who, job, body)


@router.get("/jobs/{job}/explain")
async def explain_job(job: Number, who: Reader, jobs: Jobs, task: TaskIndex | None = None) -> Explanation:
    """Why a job, or one of its tasks, is where it is."""
    return await jobs.explain(who, job, task)


@router.post("/jobs/{job}/channels", status_code=201)
async def open_channel(job: Number, body: NewChannel, who: Writer, channels: Channels) -> OpenedChannel:
    """Open a shell beside a running task, or a forward to a port of its node."""
    return await channels.open(who, job, body)


@router.post("/channels/{channel}")
async def swap_channel(channel: str, body: ChannelRequest, who: Writer, channels: Channels) -> ChannelReply:
    """What the user's end says and hears; held up to ``wait_s`` seconds where there is nothing to hear."""
    return await channels.swap_user(who, channel, body)


@router.post("/files/missing")
async def missing_files(body: FileKeys, who: Uploader, files: Files) -> MissingFiles:
    """Which of these files the caller still has to upload; refuses what would be too large."""
    return await files.missing(who, body)


@router.put("/files/{digest}", status_code=204)
async def upload_file(digest: str, who: Uploader, files: Files, request: Request) -> None:
    """Upload content; checked against its digest and Content-Length while it arrives."""
    await files.upload(who, digest, upload_length(request), request.stream())


@router.get("/pilots")
async def list_pilots(
    who: Annotated[Caller, allowed(Permission.PILOTS_READ)],
    jobs: Jobs,
    after: str | None = None,
    limit: Limit = 100,
    live: bool = False,
) -> PilotPage:
    """Pilots, newest first: the caller's; for an operator everybody's."""
    return await jobs.pilots(who, after, limit, live=live)
