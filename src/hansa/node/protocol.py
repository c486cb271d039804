"""The node protocol, version 2: what a pilot and a server say to each other.

A pilot makes one kind of call, the *exchange*: `POST /api/v1/pilots/{id}/exchange` with an
:class:`ExchangeRequest`, answered by an :class:`ExchangeReply`. Files go by
`GET` and `PUT /api/v1/pilots/{id}/files/{digest}`. Both ends use these dataclasses: the server validates
them, the node reads and writes them as plain JSON.

Promises:

- **Delivery is at least once, acceptance exactly once.** A pilot repeats a request until it gets an answer,
  with the same ``session`` and ``sequence``; the server answers a repeated sequence with the same leases.
  A result is identified by ``(lease, index)`` and is accepted once, whatever is repeated.
- **A lease is a range of task indices of one job, for one pilot.** The pilot reports every index of it, once.
  A lease that the server no longer knows is answered in ``dropped``: the pilot stops those tasks and forgets them.
- **Requests may overlap.** A request with ``wait_s`` is held by the server until there is something to say, or
  until another request of the same pilot arrives: then the held one is answered at once, with nothing.
- Times are seconds and measured by the node's monotonic clock; the server turns ages into dates.
- Unknown fields are ignored by both ends; a server speaks this version and the one before it. A pilot of the version
  before finishes what it has and gets nothing new: it would not understand all of an order.
- What is told of a running task's use over time (``series``) is whole each time, so that a piece which is lost or comes
  twice does no harm. It has a default, as all that came within a version: either end may be older.
- Version 2 brought container images: ``JobOrder.image``, the outcome IMAGE, and their progress in ``setups``.

Sizes: a request stays below :data:`EXCHANGE_LIMIT_BYTES`; logs and outputs that do not fit wait for the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

PROTOCOL_VERSION = 2
EXCHANGE_LIMIT_BYTES = 8 * 1024 * 1024
INLINE_OUTPUT_LIMIT_BYTES = 64 * 1024
"""Outputs up to this size travel inside the exchange; larger ones are uploaded first."""
RESUME_BYTES = 8 * 1024 * 1024
"""Of larger files the server keeps what came when an upload breaks off."""
RESULT_JSON_LIMIT_BYTES = 64 * 1024
"""A ``result.json`` up to this size becomes the fields of the task's row of results."""

# How a task ended. Only EXITED can be a success (exit code 0).
EXITED = "exited"  # ran to its end: exit_code, or signal if a signal ended it
WALL_TIME = "wall_time"  # stopped by the pilot: over its wall time
MEMORY = "memory"  # stopped by the pilot: over its memory
KILLED = "killed"  # stopped because the server said so
NOT_STARTED = "not_started"  # the command could not be started (no such file, no permission): message says why
SETUP = "setup"  # the job's setup command failed on this node: message and the setup's log say why
IMAGE = "image"  # the job's container image cannot be had or used: message says why and what to do
INPUT = "input"  # an input file could not be brought here
OUTPUT = "output"  # ran, but its outputs break a limit or could not be sent: message says which and what to do
NODE = "node"  # a fault of the node (spawner died, disk full): the task is innocent and may run again
PREEMPTED = "preempted"  # its pilot was stopped, or its wall time is over: nobody's fault, the task runs again

OUTCOMES = (EXITED, WALL_TIME, MEMORY, KILLED, NOT_STARTED, SETUP, IMAGE, INPUT, OUTPUT, NODE)

DRAIN = "drain"  # what a pilot is told that shall take nothing new, and end when it is idle


@dataclass(frozen=True)
class File:
    """A file by content. ``path`` is relative, with ``/``, below the task's directory; never ``..``."""

    path: str
    digest: str  # "sha256:" and 64 hex digits
    size: int  # bytes
    executable: bool = False


@dataclass(frozen=True)
class OutputFile:
    """An output of a task. Content up to INLINE_OUTPUT_LIMIT_BYTES rides along as base64 in ``data``."""

    path: str
    digest: str
    size: int
    executable: bool = False
    data: Optional[str] = None


@dataclass(frozen=True)
class TaskRow:
    """What differs between the tasks of an array: the values of the job's ``names``, and files of its own."""

    values: List[str] = field(default_factory=list)
    inputs: List[File] = field(default_factory=list)


@dataclass(frozen=True)
class JobOrder:
    """What a pilot needs to know of a job to run its tasks.

    In ``command``, ``env`` values and ``outputs``, ``{i}`` is the task's index, ``{job}`` the job's number,
    ``{node}`` the directory that ``setup`` prepared, and ``{NAME}`` the task's value for NAME in ``names``.
    Any other brace is left as it is. No shell is involved, except for ``setup``, which is a shell command.
    """

    number: int
    command: List[str]
    cores: int
    memory_mib: int
    wall_time_s: int
    gpus: int = 0
    env: Dict[str, str] = field(default_factory=dict)
    names: List[str] = field(default_factory=list)
    inputs: List[File] = field(default_factory=list)  # the same for every task
    outputs: List[str] = field(default_factory=lambda: ["**"])  # globs; "**" is every new or changed file
    setup: Optional[str] = None
    output_limit_bytes: int = 2 * 1024**3  # of one file
    output_limit_files: int = 10_000  # of one task
    log_limit_bytes: int = 64 * 1024**2  # of one stream of one task; the rest is dropped and counted
    array: bool = False  # False: a single job; ``{i}`` is then not replaced
    signal: int = 0  # sent once, ``signal_before_s`` before the wall time is over; 0: none
    signal_before_s: int = 0
    mounts: List[str] = field(default_factory=list)  # paths of the site that its containers see, too
    image: Optional[str] = None
    """A container image (``docker://python:3.12-slim``): setup and command run in it. Its entry point is not used."""
    checkpoint: Optional[str] = None
    """A folder in the task's directory that is kept across attempts: what it holds goes to the server, and comes back
    among the inputs of the next attempt. HANSA_CHECKPOINT is its path."""
    checkpoint_every_s: float = 300.0
    gpus_like: Optional[List[str]] = None  # of the pilot's GPUs, those that will do; None: any
    registry_auth: Optional[Dict[str, str]] = field(default=None, repr=False)
    """``username`` and ``password`` for the image's registry. For the pilot alone: in no file of its own, no argument,
    no log. By way of a spool it lies in a file of the user's (0600) until it is read, as the pilot's token does."""


@dataclass(frozen=True)
class Lease:
    """Tasks ``first``..``last`` (inclusive) of a job, given to this pilot."""

    lease: int
    job: int
    first: int
    last: int
    attempt: int  # 1 for the first attempt
    rows: Optional[List[TaskRow]] = None  # one per index, or None where the job has no rows


@dataclass(frozen=True)
class UsageSeries:
    """What a task used over its time: stretches of ``every_s`` seconds from its start, all but the last one whole.

    Rates are means of a stretch, sizes the most that was seen in it. What a node cannot tell is None.
    """

    every_s: float
    span_s: float  # from the task's start to the end of the last stretch
    cores: List[float]  # busy ones
    memory_mib: List[float]
    read_mib_s: Optional[List[float]] = None  # from disks and to them; what stayed in memory does not count
    written_mib_s: Optional[List[float]] = None
    gpus: Optional[List[float]] = None  # busy ones
    gpu_memory_mib: Optional[List[float]] = None


@dataclass(frozen=True)
class RunningTask:
    """A task whose process is alive: what it used so far. ``series`` comes every few seconds, and is all of it."""

    lease: int
    index: int
    age_s: float
    cpu_s: float = 0.0
    memory_mib: float = 0.0
    series: Optional[UsageSeries] = None


@dataclass(frozen=True)
class TaskResult:
    """How one task ended, and what it used (getrusage of its process tree; memory is the peak)."""

    lease: int
    index: int
    outcome: str
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    message: str = ""
    ended_ago_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_mib: float = 0.0
    outputs: List[OutputFile] = field(default_factory=list)
    fields: Optional[Dict[str, Any]] = None  # of result.json, if the task wrote one
    series: Optional[UsageSeries] = None  # of a task that ran for two seconds or longer


@dataclass(frozen=True)
class LogChunk:
    """Bytes of a task's ``stdout``, ``stderr`` or ``setup`` stream at ``offset``, base64 in ``data``."""

    lease: int
    index: int
    stream: str
    offset: int
    data: str


@dataclass(frozen=True)
class SetupState:
    """Progress of what comes before a job's tasks on this node: of its container image (``image`` names it, sizes in
    bytes as they travel) or of its setup command. ``running``, ``done`` or ``failed``."""

    job: int
    state: str
    age_s: float = 0.0
    image: Optional[str] = None
    done_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class ExchangeRequest:
    """From the pilot: what happened since the last answered request, and what it would take now.

    ``held`` names every lease of which the pilot still owes a result; ``running`` only what has been started.
    ``want`` is the number of one-core tasks that it would take (it keeps a small backlog so that no core idles);
    ``cores_free``, ``memory_free_mib`` and ``gpus_free`` bound what one task may need to start right now.
    ``ending`` is set in the last request of a pilot's life: it holds no lease any more.
    """

    protocol: int
    session: str
    sequence: int
    want: int = 0
    wait_s: float = 0.0
    cores_free: int = 0
    memory_free_mib: int = 0
    gpus_free: int = 0
    remaining_s: Optional[float] = None  # of the pilot's own wall time; None: no end
    held: List[int] = field(default_factory=list)
    running: List[RunningTask] = field(default_factory=list)
    results: List[TaskResult] = field(default_factory=list)
    logs: List[LogChunk] = field(default_factory=list)
    setups: List[SetupState] = field(default_factory=list)
    ending: Optional[str] = None  # why the pilot ends: "idle", "stopped", "wall_time", "fault: …"
    node: Optional[Dict[str, Any]] = None  # once per session: hostname, python, cores, memory_mib, isolation


@dataclass(frozen=True)
class Kill:
    """Stop these tasks: the whole lease, or one index of it. They are still reported, as KILLED."""

    lease: int
    index: Optional[int] = None


@dataclass(frozen=True)
class Channel:
    """Somebody wants to be let in beside a running task. The pilot answers at `POST /pilots/{id}/channels/{channel}`
    (:class:`ChannelRequest`), by which the two ends then talk. It is told again until the pilot has answered once."""

    channel: str
    lease: int
    index: int
    kind: str  # "shell": a process in the task's directory; "forward": connections to a port of the node
    command: List[str] = field(default_factory=list)  # of a shell; nothing: an interactive one
    terminal: Optional[str] = None  # what TERM is; None: no terminal, but three streams
    rows: int = 24
    columns: int = 80
    port: int = 0


@dataclass(frozen=True)
class Frame:
    """A piece of what the two ends of a channel say to each other.

    Of a shell, stream 0 is its input, 1 its output, 2 its errors; of a forward, each connection is a stream.
    """

    kind: str  # "open", "data", "end" (of this direction of the stream), "resize", "exit" (of the shell)
    stream: int = 0
    data: str = ""  # base64; of resize "ROWS COLUMNS", of exit the code


@dataclass(frozen=True)
class ChannelRequest:
    """From either end: its next piece, and how far it has heard the other.

    Pieces are numbered from 1 in each direction, and the next one is sent when ``accepted`` names the last one: so a
    request may be repeated. Each end has one request for speaking and one, held up to ``wait_s``, for listening.
    """

    piece: int = 0  # 0: none
    frames: List[Frame] = field(default_factory=list)
    received: int = 0  # the last piece of the other end that has arrived here
    listen: bool = False
    wait_s: float = 0.0
    close: Optional[str] = None  # why this end is over


@dataclass(frozen=True)
class ChannelReply:
    """``frames`` are of all pieces after ``received`` up to ``piece``; ``closed`` says why there will be no more."""

    accepted: int = 0
    piece: int = 0
    frames: List[Frame] = field(default_factory=list)
    is_open: bool = True  # the pilot has answered
    closed: Optional[str] = None


@dataclass(frozen=True)
class Checkpoint:
    """`POST /pilots/{id}/checkpoints`: the whole checkpoint folder of a task, its contents uploaded before."""

    lease: int
    index: int
    files: List[File] = field(default_factory=list)


CHANNEL_PIECE_BYTES = 256 * 1024
"""About how much goes into one piece."""


@dataclass(frozen=True)
class ExchangeReply:
    """From the server. Everything in the request counts as received once this has arrived."""

    leases: List[Lease] = field(default_factory=list)
    jobs: List[JobOrder] = field(default_factory=list)  # every job that ``leases`` names
    kill: List[Kill] = field(default_factory=list)
    dropped: List[int] = field(default_factory=list)  # leases that are no longer this pilot's: stop, do not report
    stop: Optional[str] = None  # "drain": take nothing new and end when idle; "now": kill, report and end
    channels: List[Channel] = field(default_factory=list)


@dataclass(frozen=True)
class PilotConfig:
    """The file, mode 0600, with which a pilot is started: ``node.pyz pilot --config FILE``.

    ``token_file`` holds the pilot's token and nothing else, mode 0600. ``work_dir`` belongs to this pilot alone.
    ``hide`` are directories that tasks must not see (the server's home): they are covered inside the tasks' mount
    namespace where the node allows one.
    """

    pilot: str
    urls: List[str]  # of the server, tried in this order
    token_file: str
    work_dir: str
    cores: int
    memory_mib: int
    gpus: List[str] = field(default_factory=list)  # device indices or UUIDs, as CUDA_VISIBLE_DEVICES takes them
    wall_time_s: Optional[float] = None
    idle_timeout_s: float = 300.0
    server_away_s: float = 604800.0  # an idle pilot ends when it has not reached the server for so long
    hide: List[str] = field(default_factory=list)
    ca_file: Optional[str] = None
    keep_env: List[str] = field(default_factory=list)
    """Variables of the pilot's environment that tasks get, by the beginning of their names."""
    shares_signals: bool = False
    """What ends the pilot sends its signal to the tasks as well: a batch system does."""
    cache_limit_bytes: Optional[int] = None
    """Of the input files kept here, and of the store of container images: beyond it the longest unused go. None: a
    quarter of the file system, each."""
