"""Wire models of jobs: what the API takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MaxLen, MinLen

from hansa.kernel.status import Status
from hansa.kernel.wire import STRICT
from hansa.node.protocol import File, TaskRow

Name = Annotated[str, MaxLen(200)]
LabelName = Annotated[str, MinLen(1), MaxLen(100)]
Names = Annotated[list[Annotated[str, MinLen(1), MaxLen(200)]], MaxLen(100)]


class Phase(StrEnum):
    """Where a job, or a task, is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    KILLED = "killed"

    @property
    def is_final(self) -> bool:
        return self in (Phase.DONE, Phase.FAILED, Phase.KILLED)


@dataclass(frozen=True)
class Requirements:
    """What one task needs."""

    __pydantic_config__: ClassVar = STRICT

    cores: Annotated[int, Ge(1), Le(4096)] | None = None
    """Cores. Default: the server's setting job.cores."""
    memory_mib: Annotated[int, Ge(1)] | None = None
    """Memory in MiB. Default: the server's setting job.memory_mib."""
    gpus: Annotated[int, Ge(0), Le(1024)] = 0
    """Number of GPUs."""
    wall_time_s: Annotated[int, Ge(1), Le(2**31 - 1)] | None = None
    """Wall time in seconds. Default: the server's setting job.wall_time_s."""
    site: Name | None = None
    """Run only at this site. Default: Hansa chooses."""
    disk_mib: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    """Free disk in MiB that the node must have for the task's directory."""
    gpu_model: Name | None = None
    """Part of the name of a GPU's model, as in ``A100``; case does not matter."""
    gpu_memory_mib: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    """Memory of each GPU in MiB."""
    tags: Names = field(default_factory=list)
    """What the site must offer by name. A site may also demand tags: it takes only jobs that have them."""
    os: Name | None = None
    """Operating system: ``linux``, ``debian``, ``debian12``, ``el9``."""
    arch: Name | None = None
    """Processor architecture, as ``uname -m`` says: ``x86_64``, ``aarch64``."""
    glibc: Annotated[str, MaxLen(20)] | None = None
    """The oldest glibc that will do, as in ``2.28``."""
    cpu_features: Names = field(default_factory=list)
    """Flags that the processor must have, as /proc/cpuinfo lists them: ``avx2``."""
    sites: Names = field(default_factory=list)
    """Run only at one of these sites."""
    banned_sites: Names = field(default_factory=list)
    """Do not run at these sites."""
    preferred_sites: Names = field(default_factory=list)
    """Rather run at these sites, the most wanted first."""
    data: Names = field(default_factory=list)
    """Data sets that must be at the site: it has the tag ``data:NAME``."""
    near_data: Names = field(default_factory=list)
    """Data sets that it is better to be near to: at the site, or else at another one in its country."""
    whole_node: bool = False
    """Whether a task has a node, or a pilot, to itself: all its cores."""
    nodes: Annotated[int, Ge(1), Le(100_000)] = 1
    """Nodes of a batch system that each task has at the same time, as for MPI; cores, memory and GPUs are of each."""
    batch: Annotated[dict[LabelName, Annotated[str, MaxLen(500)]], MaxLen(50)] = field(default_factory=dict)
    """Options for the batch system, by their long names: ``partition``, ``account``, ``qos``, ``constraint``."""
    mounts: Names = field(default_factory=list)
    """Paths of ``site`` that tasks use, as ``/scratch/x``: they must be there when the job is submitted."""


@dataclass(frozen=True)
class After:
    """A job that must come first: ``ok`` until it is done, ``any`` until it has ended, ``started`` until it began."""

    __pydantic_config__: ClassVar = STRICT

    job: Annotated[int, Ge(1), Le(2**53)]
    how: Literal["ok", "any", "started"] = "ok"


@dataclass(frozen=True)
class Notice:
    """A signal that tasks get some time before their wall time is over."""

    __pydantic_config__: ClassVar = STRICT

    signal: Annotated[int, Ge(1), Le(64)]
    """Its number: 10 is USR1."""
    before_s: Annotated[int, Ge(1), Le(86_400)] = 60
    """Seconds before the end."""


@dataclass(frozen=True)
class Notify:
    """Somebody who is told of a job."""

    __pydantic_config__: ClassVar = STRICT

    to: Annotated[str, MinLen(1), MaxLen(2000)]
    """``https://…``, which gets a POST of JSON, or ``mailto:NAME@HOST``."""
    on: Annotated[list[Literal["started", "done", "failed", "killed", "ended"]], MinLen(1), MaxLen(5)] = field(
        default_factory=lambda: ["ended"]
    )
    """When: it started; it is done, failed or killed; it has ended, however."""


@dataclass(frozen=True)
class JobSpec:
    """A job to submit. In command, env, outputs: ``{i}`` and ``{NAME}`` as in hansa.node.protocol.JobOrder."""

    __pydantic_config__: ClassVar = STRICT

    command: Annotated[list[str], MinLen(1), MaxLen(10_000)]
    """The program and its arguments; no shell is involved."""
    name: Name | None = None
    """A name for people; need not be unique."""
    vo: Name | None = None
    """The virtual organisation that the job is run for. Default: the only one, or none."""
    array: bool = False
    """Whether this is an array, even if of one task."""
    first: Annotated[int, Ge(0), Le(2**53)] = 0
    """Index of the array's first task."""
    count: Annotated[int, Ge(1), Le(2**53)] = 1
    """Number of tasks; their indices are first … first + count - 1."""
    names: list[Annotated[str, MinLen(1), MaxLen(100)]] = field(default_factory=list)
    """Names of the parameters whose values ``rows`` hold."""
    rows: list[TaskRow] | None = None
    """One per task, in order of index: values for ``names``, and input files of that task alone."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of the tasks."""
    inputs: list[File] = field(default_factory=list)
    """Files that every task finds in its directory. Their content is uploaded before (PUT /files/{digest})."""
    outputs: list[str] = field(default_factory=lambda: ["**"])
    """Globs of files to bring back, relative to the task's directory. ``**``: all that is new or changed."""
    setup: Annotated[str, MaxLen(65_536)] | None = None
    """A shell command, run once per node in a directory with the job's inputs (``{node}``, HANSA_NODE_DIR)."""
    image: Annotated[str, MinLen(1), MaxLen(512)] | None = None
    """A container image in which setup and command run: ``docker://python:3.12-slim``, any OCI or Docker registry.
    Its entry point is not used: the command is run as it is given."""
    requirements: Requirements = field(default_factory=Requirements)
    retries: Annotated[int, Ge(0), Le(100)] = 0
    """How often a task that failed is run again. Faults of nodes do not count."""
    priority: Annotated[int, Ge(0), Le(10)] = 5
    """0 to 10, among the owner's own jobs; more is earlier."""
    retry_on: Annotated[list[Annotated[int, Ge(0), Le(255)]], MaxLen(100)] = field(default_factory=list)
    """Exit codes after which a task is run again, as ``hansa run`` gives them: 137 for a limit. Default: all."""
    backoff_s: Annotated[float, Ge(0), Le(86_400)] = 0.0
    """Seconds to wait before the first retry, twice as long before each further one, at most an hour."""
    crash_limit: Annotated[int, Ge(1), Le(100)] | None = None
    """A task under which so many pilots died is stopped. Default: the server's setting job.crash_limit."""
    hold: bool = False
    """Whether it waits until it is released."""
    after: Annotated[list[After], MaxLen(1000)] = field(default_factory=list)
    """Jobs that must come first."""
    deadline: datetime | None = None
    """When it is killed if it has not ended."""
    warning: Notice | None = None
    """A signal before the end of the wall time."""
    vo_group: Name | None = None
    """The group of the VO for whose share it runs. Default: none."""
    group: Name | None = None
    """The name of a set of jobs that belong together."""
    labels: Annotated[dict[LabelName, Annotated[str, MaxLen(200)]], MaxLen(50)] = field(default_factory=dict)
    """Words of your own to find the job by."""
    comment: Annotated[str, MaxLen(2000)] | None = None
    """A remark for people."""
    checkpoint: Annotated[str, MinLen(1), MaxLen(200)] | None = None
    """A folder in the task's directory that is kept across attempts: an attempt finds there what the one before has
    left. It is no output. ``HANSA_CHECKPOINT`` is its path."""
    checkpoint_every_s: Annotated[float, Ge(1), Le(86_400)] = 300.0
    """Seconds between two looks at it while a task runs: what a lost pilot's task can lose."""
    notify: Annotated[list[Notify], MaxLen(10)] = field(default_factory=list)
    """Who is told when it starts or ends."""


@dataclass(frozen=True)
class Counts:
    """Tasks by phase."""

    waiting: int
    running: int
    done: int
    failed: int
    killed: int


@dataclass(frozen=True)
class Job:
    """A job as the API shows it."""

    number: int
    id: str
    name: str | None
    owner: str
    vo: str | None
    status: Status
    counts: Counts
    command: list[str]
    array: bool
    first: int
    count: int
    names: list[str]
    requirements: Requirements
    retries: int
    priority: int
    setup: str | None
    input_files: int
    input_bytes: int
    outputs: list[str]
    created: datetime
    version: int
    """Counts up with every change; the ETag."""
    image: str | None = None
    """The container image that its tasks run in."""
    started: datetime | None = None
    ended: datetime | None = None
    group: str | None = None
    vo_group: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    comment: str | None = None
    held: bool = False
    after: list[After] = field(default_factory=list)
    deadline: datetime | None = None
    sites: list[str] = field(default_factory=list)
    """Where tasks of it have run."""
    files_gone: datetime | None = None
    """Since when its files are not kept any more."""
    logs_gone: datetime | None = None
    """Since when its output is not kept any more."""
    exit_code: int | None = None
    """Of a single job that has ended: what ``hansa run`` exits with. A signal n is 128 + n; 137 also for a limit."""


@dataclass(frozen=True)
class JobPage:
    items: list[Job]
    next: str | None = None


@dataclass(frozen=True)
class Task:
    """One task: its parameters, how it went, what it used."""

    job: int
    index: int
    phase: Phase
    attempt: int
    values: dict[str, str] = field(default_factory=dict)
    outcome: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    site: str | None = None
    node: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    memory_mib: float | None = None
    fields: dict[str, Any] | None = None
    """Of the task's result.json."""


@dataclass(frozen=True)
class TaskPage:
    items: list[Task]
    next: str | None = None


@dataclass(frozen=True)
class TaskFile:
    """An output file of a task; its content is at GET /jobs/{job}/tasks/{index}/files/{path}."""

    index: int
    path: str
    digest: str
    size: int
    executable: bool = False


@dataclass(frozen=True)
class TaskFilePage:
    items: list[TaskFile]
    next: str | None = None


@dataclass(frozen=True)
class LogPiece:
    """Bytes of one stream of one task, base64, at ``offset`` of that stream."""

    index: int
    attempt: int
    stream: str
    offset: int
    data: str


@dataclass(frozen=True)
class LogLine:
    """A line of a task's output that was looked for."""

    index: int
    attempt: int
    stream: str
    text: str


@dataclass(frozen=True)
class Following:
    """The job now, log pieces since the cursor, and the cursor to ask with next."""

    job: Job
    logs: list[LogPiece]
    cursor: str


@dataclass(frozen=True)
class Explanation:
    """Why a thing is where it is: its status, and what stands behind it, a sentence each."""

    subject: str
    status: Status
    lines: list[str]


@dataclass(frozen=True)
class Selection:
    """Some tasks of a job, by index; None: all that the operation is about."""

    __pydantic_config__: ClassVar = STRICT

    tasks: Annotated[list[int], MinLen(1), MaxLen(100_000)] | None = None


@dataclass(frozen=True)
class FileKey:
    """A file by content. ``digest`` is ``sha256:`` and 64 hex digits; ``size`` in bytes."""

    __pydantic_config__: ClassVar = STRICT

    digest: str
    size: int


@dataclass(frozen=True)
class FileKeys:
    __pydantic_config__: ClassVar = STRICT

    files: Annotated[list[FileKey], MaxLen(20_000)]


@dataclass(frozen=True)
class MissingFiles:
    """Digests that the server does not have from this user: upload them."""

    missing: list[str]


@dataclass(frozen=True)
class JobInputs:
    """Input files of a job, and of one of its tasks where one was named."""

    items: list[File]


@dataclass(frozen=True)
class HistoryEntry:
    """One thing that happened to a job."""

    time: datetime
    phase: str
    reason: str
    message: str
    actor: str


@dataclass(frozen=True)
class History:
    """What has happened to a job, the oldest first."""

    items: list[HistoryEntry]


@dataclass(frozen=True)
class Received:
    """How many bytes of an upload that broke off are here: the rest is sent with ``offset``."""

    received: int


@dataclass(frozen=True)
class NewChannel:
    """A shell beside a running task, or a forward to a port of its node."""

    __pydantic_config__: ClassVar = STRICT

    kind: Literal["shell", "forward"]
    task: Annotated[int, Ge(0), Le(2**53)] | None = None
    """Index of the task. Default: the only one."""
    command: Annotated[list[str], MaxLen(1000)] = field(default_factory=list)
    """Of a shell: what to run. Default: an interactive shell."""
    terminal: Annotated[str, MinLen(1), MaxLen(100)] | None = None
    """Of a shell: what TERM is. Default: no terminal, but three streams."""
    rows: Annotated[int, Ge(1), Le(10_000)] = 24
    columns: Annotated[int, Ge(1), Le(10_000)] = 80
    port: Annotated[int, Ge(0), Le(65_535)] = 0
    """Of a forward."""


@dataclass(frozen=True)
class OpenedChannel:
    """What was opened. The two ends talk at POST /channels/{id}: hansa.node.protocol.ChannelRequest."""

    id: str
    job: int
    task: int
    site: str
    node: str | None


@dataclass(frozen=True)
class PilotView:
    """A pilot as its owner and the operator see it."""

    id: str
    site: str
    status: Status
    cores: int
    memory_mib: int
    created: datetime
    node: str | None = None
    isolation: str | None = None
    last_seen: datetime | None = None
    tasks: int = 0
    nodes: int = 1
    """Cores and memory are those of each."""
    batch_id: str | None = None
    """Its number in the batch system."""
    vo: str | None = None
    """The VO that it serves; none: all of its owner's."""
    job: int | None = None
    """The first job that it was started for."""
    script: str | None = None
    """What the batch system was given. Only where pilots of one job are asked for."""


@dataclass(frozen=True)
class PilotPage:
    items: list[PilotView]
    next: str | None = None


@dataclass(frozen=True)
class NewRegistryLogin:
    """Who one is at a container registry. A token that may only read is enough."""

    __pydantic_config__: ClassVar = STRICT

    username: Annotated[str, MinLen(1), MaxLen(256)]
    password: Annotated[str, MinLen(1), MaxLen(16_384)] = field(repr=False)


@dataclass(frozen=True)
class RegistryLogin:
    """As whom a user's jobs get images from a container registry. The password is never shown."""

    registry: str
    username: str
    since: datetime


@dataclass(frozen=True)
class RegistryLoginList:
    items: list[RegistryLogin]
    next: str | None = None


@dataclass(frozen=True)
class TaskUsage:
    """What one attempt of a task used over its time, in stretches of ``every_s`` seconds from its start.

    The last stretch may be shorter: all of them end after ``span_s``. Rates are means of a stretch, sizes the most that
    was seen in it; a list is missing where the node cannot tell. Where there are no stretches, ``message`` says why.
    """

    job: int
    index: int
    attempt: int
    """0: it has not started."""
    attempts: list[int]
    """Those that were begun, or are under way."""
    phase: Phase
    cores_asked: int
    memory_asked_mib: int
    gpus_asked: int
    wall_time_asked_s: int
    every_s: float = 0.0
    span_s: float = 0.0
    cores: list[float] = field(default_factory=list)
    """Busy ones."""
    memory_mib: list[float] = field(default_factory=list)
    """Resident."""
    read_mib_s: list[float] | None = None
    """From disks: what was in the node's memory does not count."""
    written_mib_s: list[float] | None = None
    gpus: list[float] | None = None
    """Busy ones."""
    gpu_memory_mib: list[float] | None = None
    started: datetime | None = None
    seen: datetime | None = None
    """When its pilot told this."""
    message: str = ""


@dataclass(frozen=True)
class UsageBin:
    """Tasks that used at least ``low`` and less than ``high``; of the last one also those that used just that."""

    low: float
    high: float
    tasks: int


@dataclass(frozen=True)
class UsageSpread:
    """How tasks differ in what they used of one thing; ``cores`` are busy ones, on average."""

    name: Literal["wall_s", "cores", "memory_mib"]
    asked: float
    least: float
    half: float
    nine_of_ten: float
    most: float
    bins: list[UsageBin]


@dataclass(frozen=True)
class JobUsage:
    """What the tasks of a job used, of ``sampled`` tasks that have ended, spread evenly over the job.

    ``with_series`` are the first tasks whose use over time is kept.
    """

    job: int
    ended: int
    sampled: int
    spreads: list[UsageSpread]
    with_series: list[int]
