"""The verbs of the Python API as operations, shared by its synchronous and its asynchronous face."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict

from hansa.client import fetch, job_api, operations, results
from hansa.client.arrays import Array
from hansa.client.draft import Draft, Options, prepare
from hansa.client.effects import Operation, Work
from hansa.client.errors import USAGE, HansaError
from hansa.client.files import Progress
from hansa.client.functions import Calls, returned, rows_of
from hansa.jobs.wire import Job
from hansa.kernel.status import Status

Command = str | Sequence[str | Path]
Function = Callable[[Any], Any]
JobProgress = Callable[[Job], None]


class JobOptions(TypedDict, total=False):
    """What may be said of a job besides its command; the words of ``hansa run --help``."""

    name: str | None
    array: str | None
    """Indices of tasks: ``0-199``, ``1,5,9``, ``0-100:10``."""
    params: str | Path | Sequence[Mapping[str, Any]] | None
    """A .csv, .tsv or .jsonl file, or rows as mappings."""
    env: Mapping[str, str]
    inputs: Sequence[str]
    outputs: Sequence[str]
    workdir: str | Path | None
    setup: str | None
    image: str | None
    """A container image to run in: ``docker://python:3.12-slim``."""
    cores: int | None
    memory: str | int | None
    """``2G``, ``512M``, or MiB."""
    wall_time: str | int | float | None
    """``30m``, ``2h``, or seconds."""
    gpus: int
    gpu_model: str | None
    gpu_memory: str | int | None
    disk: str | int | None
    whole_node: bool
    nodes: int
    """Nodes of each task, as for MPI."""
    batch: Mapping[str, str] | Sequence[str]
    """Options for the batch system: ``{"partition": "long"}``."""
    mounts: Sequence[str]
    """Paths of one site, as ``mycluster:/scratch/x``."""
    site: str | None
    sites: Sequence[str]
    banned_sites: Sequence[str]
    preferred_sites: Sequence[str]
    """Rather there, the most wanted first."""
    tags: Sequence[str]
    data: Sequence[str]
    near_data: Sequence[str]
    """Data sets that it is better to be near to."""
    platform: Sequence[str]
    """``el9``, ``x86_64``, ``glibc=2.28``, ``avx2``."""
    group: str | None
    labels: Mapping[str, str]
    comment: str | None
    vo_group: str | None
    retries: int
    retry_on: Sequence[int]
    backoff: str | int | float | None
    crash_limit: int | None
    hold: bool
    after: Sequence[int]
    """Jobs that must have begun; ``after_ok``: that must be done; ``after_any``: that must have ended."""
    after_ok: Sequence[int]
    after_any: Sequence[int]
    deadline: str | datetime | None
    warn: str | None
    """``USR1@60``: this signal so many seconds before the wall time is over."""
    checkpoint: str | None
    """A folder that is kept across attempts; ``HANSA_CHECKPOINT`` is its path."""
    checkpoint_every: str | int | float | None
    notify: Sequence[str]
    """Mail addresses and URLs that are told; ``notify_on``: ``ended``, or some of ``started,done,failed,killed``."""
    notify_on: str
    per_file: str | None
    """A task for each file that matches; ``{file}`` is its path."""
    priority: int
    vo: str | None


def make_options(given: JobOptions, array: Array | None = None) -> Options:
    """The options as drafts take them."""
    words: dict[str, Any] = dict(given)
    params = words.pop("params", None)
    if isinstance(params, Mapping):
        raise HansaError(
            USAGE,
            "params is a mapping; it is a list with one mapping for each task.",
            hint='As in params=[{"rate": 0.1}, {"rate": 0.2}]; for all combinations see itertools.product.',
        )
    if params is not None and not isinstance(params, str | Path):
        words["array"], params = rows_of(list(params)), None
    if array is not None:
        words["array"] = array
    workdir = words.pop("workdir", None)
    return Options(
        params=Path(params) if params is not None else None,
        workdir=Path(workdir) if workdir is not None else None,
        **words,
    )


def make_words(command: Command) -> list[str]:
    """A command as words; a line is split as a shell would, but nothing is expanded."""
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def submit(command: Command, options: JobOptions, upload: Progress | None) -> Operation[Job]:
    draft: Draft = yield Work(lambda: prepare(make_words(command), make_options(options)))
    return (yield from operations.submit(draft, upload))


def wait(number: int, timeout: float | None, progress: JobProgress | None, *, check: bool) -> Operation[Job]:
    follower = operations.Follower(job=progress)
    job = yield from operations.follow(number, follower, timeout_s=timeout)
    if check and (error := operations.failure(job)) is not None:
        raise error
    return job


def run_map(
    work: Command | Function,
    values: Iterable[Any],
    options: JobOptions,
    timeout: float | None,
    progress: JobProgress | None,
) -> Operation[list[Any]]:
    if callable(work):
        return (yield from _map_function(work, values, options, timeout, progress))
    words = [word.replace("{}", "{value}") for word in make_words(work)]
    array = rows_of(list(values))
    draft: Draft = yield Work(lambda: prepare(words, make_options(options, array)))
    job = yield from operations.submit(draft)
    ended = yield from wait(job.number, timeout, progress, check=True)
    return (yield from results.gather(ended))


def _map_function(
    function: Function,
    values: Iterable[Any],
    options: JobOptions,
    timeout: float | None,
    progress: JobProgress | None,
) -> Operation[list[Any]]:
    calls: Calls = yield Work(lambda: Calls(function, values))
    try:
        draft: Draft = yield Work(lambda: calls.draft(make_options(options)))
        job = yield from operations.submit(draft)
    finally:
        calls.close()
    ended = yield from wait(job.number, timeout, progress, check=False)
    return (yield from returned(ended))


def read_log(
    number: int,
    task: int | None,
    stream: str,
    *,
    attempt: int | None = None,
    tail: int | None = None,
    since: datetime | timedelta | None = None,
    grep: str | None = None,
) -> Operation[str]:
    pieces: list[bytes] = []
    moment = datetime.now(UTC) - since if isinstance(since, timedelta) else since
    if moment is not None and moment.tzinfo is None:
        moment = moment.astimezone()  # a time without a zone is one of the clock on the wall
    yield from job_api.log(
        number, task, stream, pieces.append, attempt=attempt, tail_lines=tail, since=moment, grep=grep
    )
    return b"".join(pieces).decode(errors="replace")


def kill(number: int, tasks: Sequence[int] | None) -> Operation[Job]:
    return (yield from job_api.kill(number, None if tasks is None else list(tasks)))


def retry(number: int, tasks: Sequence[int] | None) -> Operation[Job]:
    return (yield from job_api.retry(number, None if tasks is None else list(tasks)))


def hold(number: int) -> Operation[Job]:
    return (yield from job_api.hold(number))


def release(number: int) -> Operation[Job]:
    return (yield from job_api.release(number))


def fetch_files(job: Job, folder: str | Path | None, server: str) -> Operation[Path | None]:
    found = yield from fetch.fetch(job, Path(folder or f"hansa-{job.number}"), server)
    return found.folder


class KnownJob:
    """What a handle knows of its job without asking."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def number(self) -> int:
        """The job's number."""
        return self._job.number

    @property
    def job(self) -> Job:
        """The job as the server showed it last; ``refresh`` asks again."""
        return self._job

    @property
    def status(self) -> Status:
        """Phase, reason, message, who must act: as of the last time the server was asked."""
        return self._job.status

    def __repr__(self) -> str:
        return f"<job {self.number}: {self.status.phase}>"
