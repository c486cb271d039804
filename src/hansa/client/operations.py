"""What people do with jobs, each once, for the synchronous and the asynchronous client alike."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hansa.client import api, files, job_api
from hansa.client.api import Trying
from hansa.client.draft import Draft
from hansa.client.effects import FileBody, Now, Operation, Pause, Work
from hansa.client.errors import TIMED_OUT, HansaError, JobFailed, Timeout
from hansa.client.files import Progress, Source
from hansa.jobs.wire import FileKey, Following, Job, Phase

MISSING_BATCH = 5_000
POLL_S = 20.0
QUICK_POLL_S = 2.0
"""The first polls are short: a job that waits longer is worth a word."""


def submit(draft: Draft, progress: Progress | None = None, key: str | None = None) -> Operation[Job]:
    """Send the files that the server lacks, then the job. Nothing is submitted unless all of it is there.

    The same draft with the same ``key`` again is the same job.
    """
    digests: dict[Path, str] = {}
    if sources := draft.sources():
        found = yield from api.health()
        files.check_limits(sources, found.get("limits") or {})
        digests = yield from _hash(sources, progress)
        yield from _send(sources, digests, progress)
    return (yield from job_api.submit(draft.finish(digests), key or uuid.uuid4().hex))


def _hash(sources: list[Source], progress: Progress | None) -> Operation[dict[Path, str]]:
    total = sum(found.size for found in sources)
    count = _Counter("reading", total, progress)
    digests = {}
    for found in sources:
        digests[found.path] = yield Work(_digester(found, count))
    return digests


def _digester(found: Source, count: _Counter) -> Callable[[], str]:
    return lambda: files.digest(found, count.add)


@dataclass
class _Counter:
    what: str
    total: int
    progress: Progress | None
    done: int = 0

    def add(self, number: int) -> None:
        self.done += number
        if self.progress is not None:
            self.progress(self.what, self.done, self.total)


def _send(sources: list[Source], digests: dict[Path, str], progress: Progress | None) -> Operation[None]:
    by_digest = {digests[found.path]: found for found in sources}
    keys = [FileKey(name, found.size) for name, found in by_digest.items()]
    absent: list[str] = []
    for start in range(0, len(keys), MISSING_BATCH):
        absent += yield from job_api.missing(keys[start : start + MISSING_BATCH])
    count = _Counter("sending", sum(by_digest[name].size for name in absent), progress)
    for name in absent:
        yield from _send_one(name, by_digest[name], count)


def _send_one(name: str, found: Source, count: _Counter) -> Operation[None]:
    yield Work(lambda: files.check_unchanged(found))
    try:
        yield from job_api.upload_file(name, FileBody(found.path, found.size, count.add))
    except HansaError:
        yield Work(lambda: files.check_unchanged(found))  # the likelier story, if it is so
        raise
    yield Work(lambda: files.check_unchanged(found))


@dataclass
class Follower:
    """What to do with what is heard while a job is followed."""

    piece: Callable[[int, int, str, bytes], None] | None = None
    """Hears (index, attempt, stream, bytes) of the tasks' output; None: output is not asked for."""
    job: Callable[[Job], None] | None = None
    """Hears the job whenever the server has answered."""
    poll_s: float = POLL_S
    interval_s: float = 0.0
    """At least so long from one answer to the next question."""
    trying: Trying = field(default_factory=Trying)
    since: datetime | None = None
    """Output that came before is not heard."""
    ends: dict[tuple[int, int, str], int] = field(default_factory=dict)
    """Of (index, attempt, stream): how much of it was heard before."""
    task: int | None = None
    """Follow to the end of this task only."""


def follow(number: int, follower: Follower, cursor: str = "", timeout_s: float | None = None) -> Operation[Job]:
    """Follow a job to its end, and its output to its last byte. Returns the ended job.

    Raises Timeout when ``timeout_s`` is over; the job goes on.
    """
    began: float = yield Now()
    streams = _Streams(follower.piece, follower.ends)
    poll_s = min(QUICK_POLL_S, follower.poll_s)
    is_over = False
    while True:
        asked: float = yield Now()
        wait_s = poll_s
        if timeout_s is not None:
            wait_s = min(wait_s, began + timeout_s - asked)
            if wait_s < 0:
                raise Timeout(
                    TIMED_OUT,
                    f"Job {number} did not end within {timeout_s:g} s.",
                    hint=f"It goes on: hansa job wait {number}, or hansa job kill {number}.",
                )
        trying = Trying(follower.trying.patience_s, follower.trying.note)
        heard: Following = yield from job_api.follow(
            number,
            cursor,
            max(wait_s, 0.0),
            logs=follower.piece is not None,
            trying=trying,
            since=follower.since,
        )
        cursor = heard.cursor
        for piece in heard.logs:
            streams.add(piece.index, piece.attempt, piece.stream, piece.offset, base64.b64decode(piece.data))
        if follower.job is not None:
            follower.job(heard.job)
        if Phase(heard.job.status.phase).is_final or is_over:
            if not heard.logs:
                return heard.job
            poll_s = 0.0
            continue
        is_over = yield from _has_ended(number, follower.task)
        if is_over:  # what it wrote before its end is there now: once more, without waiting
            poll_s = 0.0
            continue
        poll_s = follower.poll_s if heard.job.status.phase != Phase.WAITING else poll_s
        now: float = yield Now()
        if (rest := follower.interval_s - (now - asked)) > 0:
            yield Pause(rest)


def replay(number: int, follower: Follower) -> Operation[None]:
    """The output of a job's tasks that is there now, in the order in which it came."""
    streams = _Streams(follower.piece, follower.ends)
    cursor = ""
    while True:
        heard: Following = yield from job_api.follow(number, cursor, 0.0, logs=True, since=follower.since)
        for piece in heard.logs:
            streams.add(piece.index, piece.attempt, piece.stream, piece.offset, base64.b64decode(piece.data))
        if not heard.logs:
            return
        cursor = heard.cursor


def _has_ended(number: int, task: int | None) -> Operation[bool]:
    """Whether a task of the job, if it is about one, has ended."""
    if task is None:
        return False
    page = yield from job_api.tasks(number, task=task)
    return any(one.index == task and Phase(one.phase).is_final for one in page.items)


class _Streams:
    """Puts pieces of output in order: each byte of each stream once, whatever is repeated."""

    def __init__(
        self, piece: Callable[[int, int, str, bytes], None] | None, ends: dict[tuple[int, int, str], int]
    ) -> None:
        self._piece = piece
        self._ends = dict(ends)

    def add(self, index: int, attempt: int, stream: str, offset: int, data: bytes) -> None:
        key = (index, attempt, stream)
        end = self._ends.get(key, offset)
        fresh = data[max(0, end - offset) :]
        self._ends[key] = max(end, offset + len(data))
        if fresh and self._piece is not None:
            self._piece(index, attempt, stream, fresh)


def failure(job: Job) -> JobFailed | None:
    """The error that a job which ended badly is, or None."""
    if job.status.phase == Phase.DONE:
        return None
    where = f" {job.number}"
    return JobFailed(
        job,
        f"Job{where} {'failed' if job.status.phase == Phase.FAILED else 'was stopped'}: {job.status.message}",
        hint=f"Look at: hansa job explain {job.number}, hansa job logs {job.number}",
    )


def collect(fetch_page: Callable[[str | None], Operation[Any]]) -> Operation[list[Any]]:
    """All items of a paged list."""
    items: list[Any] = []
    after = None
    while True:
        page = yield from fetch_page(after)
        items += page.items
        after = page.next
        if after is None:
            return items
