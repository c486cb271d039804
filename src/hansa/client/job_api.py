"""Calls of the API about jobs: tasks, logs, files, pilots, channels, and what the registries are told."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote

from hansa.client.api import FIRST_DELAY_S, LAST_DELAY_S, PATIENCE_S, Trying, _read, call, get, part, post, send
from hansa.client.effects import FileBody, Now, Operation, Pause, Reconnect, Request
from hansa.client.errors import HansaError, ServerAway
from hansa.jobs.wire import (
    Explanation,
    FileKey,
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
    NewRegistryLogin,
    OpenedChannel,
    PilotPage,
    Received,
    RegistryLogin,
    RegistryLoginList,
    Selection,
    TaskFilePage,
    TaskPage,
    TaskUsage,
)
from hansa.kernel.wire import decode
from hansa.node.protocol import ChannelReply, ChannelRequest, File

LONG_POLL_SLACK_S = 15.0
RESUME_BYTES = 8 * 1024**2
"""Of larger files the server keeps what came when an upload breaks off."""
OFFSET = "jobs.offset"
NOT_FOUND = "kernel.not_found"


def submit(spec: JobSpec, key: str | None = None) -> Operation[Job]:
    """Submit a job. The Idempotency-Key makes it safe to repeat."""
    return (yield from post(Job, "/jobs", spec, {"Idempotency-Key": key or uuid.uuid4().hex}))


def job(number: int | str) -> Operation[Job]:
    return (yield from get(Job, f"/jobs/{quote(str(number), safe='')}"))


def jobs(
    phase: str | None = None,
    name: str | None = None,
    limit: int | None = None,
    after: str | None = None,
    query: str | None = None,
) -> Operation[JobPage]:
    return (yield from get(JobPage, "/jobs", phase=phase, name=name, q=query or None, limit=limit, after=after))


def follow(
    number: int,
    cursor: str,
    wait_s: float,
    *,
    logs: bool,
    trying: Trying | None = None,
    since: datetime | None = None,
) -> Operation[Following]:
    """The job and what is new since the cursor; held by the server for up to ``wait_s``."""
    query = {"cursor": cursor or None, "wait_s": f"{wait_s:.3f}", "logs": None if logs else "false"}
    query["since"] = since.isoformat() if since else None
    request = Request("GET", f"/jobs/{number}/follow", query, timeout_s=wait_s + LONG_POLL_SLACK_S)
    response = yield from call(request, trying)
    return _read(Following, response)


def tasks(
    number: int,
    after: str | None = None,
    limit: int | None = None,
    phase: str | None = None,
    task: int | None = None,
) -> Operation[TaskPage]:
    path = f"/jobs/{number}/tasks"
    return (yield from get(TaskPage, path, after=after, limit=limit, phase=phase, task=task))


def task_files(
    number: int, task: int | None = None, after: str | None = None, limit: int | None = None
) -> Operation[TaskFilePage]:
    return (yield from get(TaskFilePage, f"/jobs/{number}/files", task=task, after=after, limit=limit))


def download(
    number: int, index: int, path: str, sink: Callable[[bytes], None], restart: Callable[[], object], start: int = 0
) -> Operation[None]:
    """The content of an output file from ``start`` on; see :func:`download_from`."""
    yield from download_from(f"/jobs/{number}/tasks/{index}/files/{quote(path)}", sink, restart, start)


def content(
    digest: str, sink: Callable[[bytes], None], restart: Callable[[], object], start: int = 0
) -> Operation[None]:
    """A content that the caller has uploaded, in the same way."""
    yield from download_from(f"/files/{quote(digest)}", sink, restart, start)


def inputs(number: int, task: int | None = None) -> Operation[list[File]]:
    """The input files of a job; with those of one of its tasks."""
    return (yield from get(JobInputs, f"/jobs/{number}/inputs", task=task)).items


def history(number: int) -> Operation[list[HistoryEntry]]:
    """What has happened to a job, the oldest first."""
    return (yield from get(History, f"/jobs/{number}/history")).items


def download_from(
    address: str, sink: Callable[[bytes], None], restart: Callable[[], object], start: int
) -> Operation[None]:
    """A content from ``start`` on, piece by piece; where the connection breaks it goes on there.

    ``restart`` is called where it begins anew after all.
    """
    at = _Position(start, sink, restart)
    moved: float = yield Now()
    delay = FIRST_DELAY_S
    while True:
        before = at.bytes
        headers = {"Range": f"bytes={before}-"} if before else {}
        try:
            yield from call(Request("GET", address, {}, None, headers, None, False, at.add, at.restart))
            return
        except ServerAway:
            now: float = yield Now()
            moved = now if at.bytes > before else moved
            if now - moved > PATIENCE_S:
                raise
        yield Reconnect()
        yield Pause(delay)
        delay = min(delay * 2, LAST_DELAY_S)


class _Position:
    """How far a download has come."""

    def __init__(self, start: int, sink: Callable[[bytes], None], restart: Callable[[], object]) -> None:
        self.bytes = start
        self._sink = sink
        self._restart = restart

    def add(self, piece: bytes) -> None:
        self._sink(piece)
        self.bytes += len(piece)

    def restart(self) -> None:
        self._restart()
        self.bytes = 0


def log(
    number: int,
    task: int | None,
    stream: str,
    sink: Callable[[bytes], None],
    tail_bytes: int | None = None,
    attempt: int | None = None,
    *,
    tail_lines: int | None = None,
    since: datetime | None = None,
    grep: str | None = None,
) -> Operation[tuple[int, int]]:
    """One stream of one task, piece by piece; of which attempt that is, and at which offset it began."""
    query: dict[str, str | int | None] = {"task": task, "stream": stream, "attempt": attempt}
    query |= {"tail_bytes": tail_bytes, "tail_lines": tail_lines, "since": since.isoformat() if since else None}
    query["grep"] = grep
    response = yield from call(Request("GET", f"/jobs/{number}/logs", query, sink=sink, repeatable=False))
    return int(response.headers.get("x-log-attempt", 0)), int(response.headers.get("x-log-start", 0))


def lines(
    number: int, grep: str, stream: str, hear: Callable[[LogLine], None], since: datetime | None = None
) -> Operation[None]:
    """Lines of all tasks of a job in which a regular expression is found, as they came."""
    rest = b""

    def sink(piece: bytes) -> None:
        nonlocal rest
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line:
                hear(decode(LogLine, json.loads(line)))

    query = {"grep": grep, "stream": stream, "since": since.isoformat() if since else None}
    yield from call(Request("GET", f"/jobs/{number}/lines", query, sink=sink, repeatable=False))


def kill(number: int, tasks: list[int] | None = None) -> Operation[Job]:
    return (yield from post(Job, f"/jobs/{number}/kill", Selection(tasks)))


def retry(number: int, tasks: list[int] | None = None) -> Operation[Job]:
    return (yield from post(Job, f"/jobs/{number}/retry", Selection(tasks), {"Idempotency-Key": uuid.uuid4().hex}))


def hold(number: int) -> Operation[Job]:
    return (yield from post(Job, f"/jobs/{number}/hold", {}))


def release(number: int) -> Operation[Job]:
    return (yield from send(Job, "POST", f"/jobs/{number}/release", repeatable=False))


def explain(number: int, task: int | None = None) -> Operation[Explanation]:
    return (yield from get(Explanation, f"/jobs/{number}/explain", task=task))


def task_usage(number: int, task: int, attempt: int | None = None) -> Operation[TaskUsage]:
    return (yield from get(TaskUsage, f"/jobs/{number}/tasks/{task}/usage", attempt=attempt))


def job_usage(number: int) -> Operation[JobUsage]:
    return (yield from get(JobUsage, f"/jobs/{number}/usage"))


def missing(keys: list[FileKey]) -> Operation[list[str]]:
    """Which of these contents the server lacks."""
    found = yield from post(MissingFiles, "/files/missing", FileKeys(keys))
    return found.missing


def upload(digest: str, body: FileBody | bytes) -> Operation[None]:
    """Send one content. Repeating it does no harm: it is named by its digest."""
    query = {"offset": body.offset or None} if isinstance(body, FileBody) else {}
    yield from call(Request("PUT", f"/files/{digest}", query, body=body, timeout_s=300.0))


def upload_file(digest: str, body: FileBody) -> Operation[None]:
    """Send one file; a large one goes on where an earlier upload of it, or this one, broke off."""
    sent = 0

    def count(number: int) -> None:
        nonlocal sent
        sent += number
        if body.progress is not None:
            body.progress(number)

    best = -1
    moved: float = yield Now()
    while True:
        offset = (yield from _received(digest, body.size)) if body.size > RESUME_BYTES else 0
        count(offset - sent)
        now: float = yield Now()
        moved, best = (now, offset) if offset > best else (moved, best)
        rest = FileBody(body.path, body.size, count, offset)
        query = {"offset": offset or None}
        try:
            yield from call(Request("PUT", f"/files/{digest}", query, rest, timeout_s=300.0, repeatable=False))
            return
        except ServerAway:
            now = yield Now()
            if now - moved > PATIENCE_S:
                raise
            yield Reconnect()
            yield Pause(FIRST_DELAY_S * 5)
        except HansaError as error:
            if error.code.code != OFFSET or offset == best == 0:
                raise


def _received(digest: str, size: int) -> Operation[int]:
    """How much of it the server has; 0 where it does not know that question."""
    try:
        return (yield from get(Received, f"/files/{digest}/received", size=size)).received
    except HansaError as error:
        if error.code.code != NOT_FOUND:
            raise
        return 0


def pilots_of(job: int, limit: int | None = None) -> Operation[PilotPage]:
    """The pilots of a job, with what their batch systems were given."""
    return (yield from get(PilotPage, f"/jobs/{job}/pilots", limit=limit))


def pilots(limit: int | None = None, after: str | None = None) -> Operation[PilotPage]:
    return (yield from get(PilotPage, "/pilots", limit=limit, after=after))


def registry_logins() -> Operation[RegistryLoginList]:
    """Where the caller's jobs sign in to get container images."""
    return (yield from get(RegistryLoginList, "/registry-logins"))


def put_registry_login(registry: str, username: str, password: str) -> Operation[RegistryLogin]:
    """Keep a login for the caller's jobs."""
    body = NewRegistryLogin(username, password)
    return (yield from send(RegistryLogin, "PUT", f"/registry-logins/{part(registry)}", body))


def remove_registry_login(registry: str) -> Operation[None]:
    yield from call(Request("DELETE", f"/registry-logins/{part(registry)}", repeatable=False))


def open_channel(number: int, new: NewChannel) -> Operation[OpenedChannel]:
    """Open a shell or a forward beside a running task."""
    return (yield from send(OpenedChannel, "POST", f"/jobs/{number}/channels", new, repeatable=False))


def swap_channel(channel: str, body: ChannelRequest) -> Operation[ChannelReply]:
    """Say and hear what there is to say on a channel."""
    return (yield from post(ChannelReply, f"/channels/{quote(channel, safe='')}", body))
