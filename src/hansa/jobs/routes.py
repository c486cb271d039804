"""HTTP routes of jobs and their files."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.jobs.channels import ChannelService
from hansa.jobs.files import FileService
from hansa.jobs.log_search import Wanted
from hansa.jobs.logs import LogChoice
from hansa.jobs.service import JobService
from hansa.jobs.usage import UsageService
from hansa.jobs.wire import (
    Explanation,
    FileKeys,
    Following,
    History,
    HistoryEntry,
    Job,
    JobInputs,
    JobPage,
    JobSpec,
    JobUsage,
    LogLine,
    MissingFiles,
    NewChannel,
    OpenedChannel,
    Phase,
    PilotPage,
    Received,
    Selection,
    TaskFilePage,
    TaskPage,
    TaskUsage,
)
from hansa.kernel.http import API, MOST, provided
from hansa.kernel.wire import encode
from hansa.node.protocol import ChannelReply, ChannelRequest

router = APIRouter(prefix=API, tags=["jobs"])
Jobs = Annotated[JobService, Depends(provided(JobService))]
Files = Annotated[FileService, Depends(provided(FileService))]
Usage = Annotated[UsageService, Depends(provided(UsageService))]
Channels = Annotated[ChannelService, Depends(provided(ChannelService))]
Reader = Annotated[Caller, allowed(Permission.JOBS_READ)]
Writer = Annotated[Caller, allowed(Permission.JOBS_WRITE)]
Uploader = Annotated[Caller, allowed(Permission.FILES_WRITE)]
Number = Annotated[int, Path(le=MOST)]
TaskIndex = Annotated[int, Query(le=MOST)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Size = Annotated[int, Query(ge=0, le=MOST)]
_RANGE = re.compile(r"bytes=(\d{1,18})-")
_HISTORY = 1000
Stream = Literal["stdout", "stderr", "setup"]
Expression = Annotated[str, Query(min_length=1, max_length=500)]
_BEAT_S = 5.0


def upload_length(request: Request) -> int | None:
    """The Content-Length of an upload, if it has one."""
    value = request.headers.get("content-length", "")
    return int(value) if value.isdecimal() else None


def aware(moment: datetime | None) -> datetime | None:
    """A moment with its time zone: UTC where none was said."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def range_start(value: str | None) -> int:
    """Where ``bytes=N-`` begins; 0 for anything else, as a range may be ignored."""
    match = _RANGE.fullmatch(value or "")
    return int(match[1]) if match else 0


def ranged(size: int, start: int) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer with the bytes from ``start`` on."""
    if start > size:
        return 416, {"Content-Length": "0", "Content-Range": f"bytes */{size}"}
    if start <= 0:
        return 200, {"Content-Length": str(size), "Accept-Ranges": "bytes"}
    span = f"bytes {start}-{max(start, size - 1)}/{size}"
    return 206, {"Content-Length": str(size - start), "Content-Range": span, "Accept-Ranges": "bytes"}


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
    since: datetime | None = None,
) -> Following:
    """The job and its new log pieces; waits for news up to ``wait_s`` seconds. Cursor ``now`` skips old logs.

    Without a cursor ``since`` skips what came before that moment.
    """
    return await jobs.follow(who, job, cursor, wait_s, logs=logs, since=aware(since))


@router.get("/jobs/{job}/logs", response_class=StreamingResponse)
async def read_log(
    job: Number,
    who: Reader,
    jobs: Jobs,
    task: TaskIndex | None = None,
    stream: Stream = "stdout",
    attempt: Annotated[int | None, Query(le=2**31 - 1)] = None,
    tail_bytes: Annotated[int | None, Query(ge=1, le=64 * 1024**2)] = None,
    tail_lines: Annotated[int | None, Query(ge=1, le=100_000)] = None,
    since: datetime | None = None,
    contains: Annotated[str | None, Query(min_length=1, max_length=500)] = None,
    grep: Expression | None = None,
) -> StreamingResponse:
    """One stream of one task, as plain text: all, its end, what came since a moment, or lines that are looked for.

    ``contains`` is a text, ``grep`` a regular expression; with either, ``tail_lines`` counts lines that were found.
    """
    choice = LogChoice(stream, attempt, tail_bytes, tail_lines, aware(since), contains, grep)
    found = await jobs.log(who, job, task, choice)
    headers = {"X-Log-Attempt": str(found.attempt), "X-Log-Start": str(found.start)}
    return StreamingResponse(found.pieces, headers=headers, media_type="text/plain; charset=utf-8")


@router.get("/jobs/{job}/lines", response_class=StreamingResponse)
async def find_lines(
    job: Number,
    who: Reader,
    jobs: Jobs,
    grep: Expression,
    stream: Literal["both", "stdout", "stderr", "setup"] = "both",
    since: datetime | None = None,
) -> StreamingResponse:
    """Lines of all tasks in which a regular expression is found, as they came: a JSON object (LogLine) a line.

    ``both`` streams are stdout and stderr. Where nothing is found for a while an empty line comes.
    """
    streams = ["stdout", "stderr"] if stream == "both" else [stream]
    found = await jobs.find_in_logs(who, job, Wanted(grep), streams, aware(since))
    return StreamingResponse(_json_lines(found), media_type="application/jsonl")


async def _json_lines(found: AsyncIterator[list[LogLine]]) -> AsyncIterator[bytes]:
    beat = time.monotonic()
    async for lines in found:
        if lines or time.monotonic() - beat > _BEAT_S:
            beat = time.monotonic()
            yield "".join(f"{json.dumps(encode(line))}\n" for line in lines).encode() or b"\n"


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


@router.get("/jobs/{job}/usage")
async def job_usage(job: Number, who: Reader, usage: Usage) -> JobUsage:
    """How the tasks of a job differ in wall time, busy cores and memory, beside what was asked for."""
    return await usage.of_job(who, job)


@router.get("/jobs/{job}/tasks/{index}/usage")
async def task_usage(
    job: Number, index: Number, who: Reader, usage: Usage, attempt: Annotated[int | None, Query(le=2**31 - 1)] = None
) -> TaskUsage:
    """What a task's last attempt, or another one, used over its time, while it runs and after."""
    return await usage.of_task(who, job, index, attempt)


@router.get("/jobs/{job}/files")
async def list_files(
    job: Number, who: Reader, jobs: Jobs, task: TaskIndex | None = None, after: str | None = None, limit: Limit = 1000
) -> TaskFilePage:
    """Output files, by task and path."""
    return await jobs.task_files(who, job, index=task, cursor=after, limit=limit)


@router.get("/jobs/{job}/tasks/{index}/files/{path:path}", response_class=StreamingResponse)
async def read_file(
    job: Number,
    index: Number,
    path: str,
    who: Reader,
    jobs: Jobs,
    range_: Annotated[str | None, Header(alias="range", max_length=100)] = None,
) -> StreamingResponse:
    """The content of an output file; with ``Range: bytes=N-`` from byte N on."""
    start = range_start(range_)
    size, pieces = await jobs.open_file(who, job, index, path, start)
    status, headers = ranged(size, start)
    headers |= {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
    return StreamingResponse(pieces, status, headers, media_type="application/octet-stream")


@router.get("/jobs/{job}/inputs")
async def list_inputs(job: Number, who: Reader, jobs: Jobs, task: TaskIndex | None = None) -> JobInputs:
    """Input files that all tasks of a job have, and those of one of its tasks; contents are at GET /files/{digest}."""
    return JobInputs(await jobs.inputs(who, job, task))


@router.get("/jobs/{job}/history")
async def job_history(job: Number, who: Reader, jobs: Jobs) -> History:
    """What has happened to a job."""
    found = await jobs.timeline(who, job, _HISTORY)
    return History([HistoryEntry(e.time, e.phase, e.reason, e.message, e.actor) for e in found])


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


@router.get("/jobs/{job}/pilots")
async def pilots_of_job(job: Number, who: Reader, jobs: Jobs, limit: Limit = 100) -> PilotPage:
    """Pilots that run tasks of a job, ran some, or were started for it: newest first, with their batch scripts."""
    return await jobs.pilots_of(who, job, limit)


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


@router.get("/files/{digest}/received")
async def received_bytes(digest: str, size: Size, who: Uploader, files: Files) -> Received:
    """How much of an upload that broke off is here: it goes on there."""
    return await files.received(who, digest, size)


@router.get("/files/{digest}", response_class=StreamingResponse)
async def read_content(
    digest: str,
    who: Reader,
    files: Files,
    range_: Annotated[str | None, Header(alias="range", max_length=100)] = None,
) -> StreamingResponse:
    """Content that the caller has uploaded; with ``Range: bytes=N-`` from byte N on."""
    start = range_start(range_)
    size, pieces = await files.read(who, digest, start)
    status, headers = ranged(size, start)
    return StreamingResponse(pieces, status, headers, media_type="application/octet-stream")


@router.put("/files/{digest}", status_code=204)
async def upload_file(digest: str, who: Uploader, files: Files, request: Request, offset: Size = 0) -> None:
    """Upload content, or the rest of it from ``offset`` on; checked against its digest and length as it arrives."""
    await files.upload(who, digest, upload_length(request), request.stream(), offset)


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
