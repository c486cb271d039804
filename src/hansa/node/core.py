"""The pilot's state: what is leased, waits, runs and stops. No I/O; the clock is an argument (monotonic
seconds)."""

from __future__ import annotations

import enum
from collections import deque
from typing import Deque, Dict, Iterable, List, NamedTuple, Optional, Tuple

from .backlog import Rate, free_soon, wanted
from .outbox import Speaker
from .protocol import (
    DRAIN,
    IMAGE,
    KILLED,
    MEMORY,
    NODE,
    PREEMPTED,
    SETUP,
    WALL_TIME,
    Channel,
    ExchangeReply,
    JobOrder,
    Lease,
    TaskRow,
)
from .series import Recorder

TERM_GRACE_S = {WALL_TIME: 10.0, MEMORY: 0.0}
KILL_GRACE_S = 5.0
BACKFILL_S = 5.0
"""A task that does not fit lets later ones pass for so long; then cores are kept free for it."""
SETUP_TIME_S = 3600.0
"""A setup may take the job's wall time, or so long if that is more."""

IMAGE_AGAIN_S = 60.0
"""An image that could not be had is not asked for again for so long: its job's tasks fail at once meanwhile."""

SIGKILL = 9
SIGTERM = 15


class Phase(enum.Enum):
    """Where a task is on this pilot."""

    FETCHING = "fetching"  # its inputs come to the cache
    PARKED = "parked"  # its job's image is not here, or its setup is not done
    WAITING = "waiting"  # could start as soon as there is room
    STARTING = "starting"  # has its cores; directory and process are being made
    RUNNING = "running"
    ENDED = "ended"  # its process is gone, or never was


_NOT_STARTED = (Phase.WAITING, Phase.PARKED, Phase.FETCHING)


class SetupPhase(enum.Enum):
    """A job's setup command on this pilot."""

    NONE = ""
    WANTED = "wanted"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ImagePhase(enum.Enum):
    """A job's container image on this pilot."""

    NONE = ""
    WANTED = "wanted"
    PULLING = "pulling"
    READY = "ready"
    FAILED = "failed"


class Job:
    """A job as far as this pilot knows it."""

    __slots__ = (
        "image",
        "image_failed_at",
        "image_message",
        "image_outcome",
        "image_parked",
        "image_started",
        "order",
        "parked",
        "setup",
        "setup_dir",
        "setup_message",
        "setup_started",
    )  # fmt: skip

    def __init__(self, order: JobOrder) -> None:
        self.order = order
        self.image = ImagePhase.WANTED if order.image else ImagePhase.NONE
        self.image_outcome = IMAGE
        self.image_message = ""
        self.image_started = 0.0
        self.image_failed_at = 0.0
        self.image_parked: List[Task] = []
        self.setup = SetupPhase.WANTED if order.setup else SetupPhase.NONE
        self.setup_dir: Optional[str] = None
        self.setup_message = ""
        self.setup_started = 0.0
        self.parked: List[Task] = []


class Task:
    """One index of a lease, or (``index`` -1) a job's setup."""

    __slots__ = (
        "attempt",
        "base",
        "cores",
        "cpu_s",
        "drop",
        "gpus",
        "has_room",
        "index",
        "inputs",
        "job",
        "kill_at",
        "lease",
        "memory_mib",
        "peak_mib",
        "phase",
        "pid",
        "queued_at",
        "recorder",
        "row",
        "saved_at",
        "serial",
        "speaker",
        "started",
        "stop_message",
        "stop_outcome",
        "told",
        "warned",
    )  # fmt: skip

    def __init__(self, serial: int, job: Job, lease: int, index: int, attempt: int, row: Optional[TaskRow]) -> None:
        self.serial = serial
        self.job = job
        self.lease = lease
        self.index = index
        self.attempt = attempt
        self.row = row
        self.phase = Phase.WAITING
        self.has_room = False
        self.cores: Tuple[int, ...] = ()
        self.gpus: Tuple[str, ...] = ()
        self.pid = 0
        self.queued_at = 0.0
        self.started = 0.0
        self.saved_at = 0.0  # when its checkpoint was last looked at
        self.stop_outcome: Optional[str] = None
        self.stop_message = ""
        self.kill_at: Optional[float] = None
        self.drop = False  # the server does not want to hear of it any more
        self.warned = False  # its signal before the end was sent
        self.told = False  # the server knows that it runs
        self.memory_mib = 0.0
        self.peak_mib = 0.0
        self.cpu_s = 0.0
        self.base = ""
        self.inputs: Dict[str, Tuple[int, int, int]] = {}
        self.speaker: Optional[Speaker] = None
        self.recorder: Optional[Recorder] = None  # of what it uses over its time, once it has run for a while

    @property
    def is_setup(self) -> bool:
        return self.index < 0


class Signal(NamedTuple):
    """Send a signal to a task's process group."""

    task: Task
    number: int


class Refusal(NamedTuple):
    """A task that ends without having run."""

    task: Task
    outcome: str
    message: str


class Arrivals(NamedTuple):
    """What an answer of the server asks for."""

    fetch: List[Task]
    signals: List[Signal]
    refusals: List[Refusal]
    dropped: List[int]
    pulls: List[Job]
    """Jobs whose container image is to be brought here; answered by :meth:`Core.image_ended`."""
    channels: List[Channel]
    """Of people who want to be let in beside tasks."""


def no_arrivals() -> Arrivals:
    """Nothing, to be added to."""
    return Arrivals([], [], [], [], [], [])


class Core:
    """Everything that a pilot decides."""

    def __init__(
        self,
        cores: Iterable[int],
        memory_mib: int,
        gpus: Iterable[str] = (),
        ends_at: Optional[float] = None,
    ) -> None:
        self.free_cores: Deque[int] = deque(cores)
        self.free_gpus: Deque[str] = deque(gpus)
        self.slots = len(self.free_cores)
        self.gpu_count = len(self.free_gpus)
        self.memory_mib = memory_mib
        self.free_memory_mib = memory_mib
        self.ends_at = ends_at
        self.jobs: Dict[int, Job] = {}
        self._with_setup: Dict[int, Job] = {}
        self.tasks: Dict[Tuple[int, int], Task] = {}  # that have not ended
        self.active: Dict[int, Task] = {}  # by serial: starting or running, setups too
        self.ending: Dict[int, Task] = {}  # gone, but how it ended or what it leaves is still being found out
        self.waiting: Deque[Task] = deque()
        self.owed: Dict[int, int] = {}  # lease -> results not yet acknowledged
        self.rate = Rate()
        self.draining = False
        self.asked = 0  # tasks asked for by requests in flight
        self._queued_cores = 0
        self._serial = 0
        self._blocked: Optional[Tuple[Task, float]] = None

    # -- what the server says --------------------------------------------------------------------------------

    def accept(self, reply: ExchangeReply, now: float) -> Arrivals:
        """Take in an answer. Tasks whose inputs may be missing are returned in ``fetch``; the others wait."""
        arrivals = no_arrivals()
        for order in reply.jobs:
            if order.number not in self.jobs:
                job = self.jobs[order.number] = Job(order)
                if job.setup is SetupPhase.WANTED:
                    self._with_setup[order.number] = job
        for lease in reply.leases:
            self._take(lease, arrivals, now)
        for kill in reply.kill:
            for task in self._of(kill.lease, kill.index):
                self._stop(task, KILLED, "stopped at the server's request", now, arrivals)
        for number in reply.dropped:
            for task in self._of(number, None):
                task.drop = True
                self._stop(task, KILLED, "no longer this pilot's", now, arrivals)
            if self.owed.pop(number, None) is not None:
                arrivals.dropped.append(number)
        if reply.stop is not None:
            self.draining = True
        if reply.stop == DRAIN:  # what runs may take its time: what has not started is given back, for others to run
            for task in list(self.tasks.values()):
                if task.phase in _NOT_STARTED:
                    self._stop(task, PREEMPTED, "not started: its pilot was told to end", now, arrivals)
        arrivals.channels.extend(reply.channels)
        return arrivals

    def _take(self, lease: Lease, arrivals: Arrivals, now: float) -> None:
        job = self.jobs.get(lease.job)
        if lease.lease in self.owed:
            return
        self.owed[lease.lease] = lease.last - lease.first + 1
        if job is None:
            job = Job(JobOrder(lease.job, [], 1, 1, 1))
        order = job.order
        problem = self._misfit(order)
        for index in range(lease.first, lease.last + 1):
            row = lease.rows[index - lease.first] if lease.rows is not None else None
            task = self._new_task(job, lease.lease, index, lease.attempt, row, now)
            self.tasks[lease.lease, index] = task
            self._queued_cores += order.cores
            if problem or not order.command:
                arrivals.refusals.append(self._refuse(task, NODE, problem or "the server sent no order for this job"))
            elif order.inputs or (row is not None and row.inputs):
                task.phase = Phase.FETCHING
                arrivals.fetch.append(task)
            else:
                self._ready(task, arrivals, now)

    def prune(self) -> List[int]:
        """Forget jobs of which nothing is here; returns their numbers. Every lease brings its job along.

        A job with a setup stays: what its setup made may be of use again.
        """
        used = {task.job.order.number for task in self.tasks.values()}
        gone = [number for number in self.jobs if number not in used and number not in self._with_setup]
        for number in gone:
            del self.jobs[number]
        return gone

    def next_serial(self) -> int:
        """Of a process that is no task."""
        self._serial += 1
        return self._serial

    def _new_task(self, job: Job, lease: int, index: int, attempt: int, row: Optional[TaskRow], now: float) -> Task:
        self._serial += 1
        task = Task(self._serial, job, lease, index, attempt, row)
        task.queued_at = now
        return task

    def _misfit(self, order: JobOrder) -> str:
        """Why a task of this job can never start here, or nothing."""
        for what, need, have in (
            ("cores", order.cores, self.slots),
            ("MiB of memory", order.memory_mib, self.memory_mib),
            ("GPUs", order.gpus, self.gpu_count if order.gpus_like is None else len(order.gpus_like)),
        ):
            if need > have:
                return f"this pilot has {have:,} {what}, the task needs {need:,}"
        return ""

    def _of(self, lease: int, index: Optional[int]) -> List[Task]:
        if index is not None:
            task = self.tasks.get((lease, index))
            return [task] if task is not None else []
        return [task for (number, _), task in self.tasks.items() if number == lease]

    # -- from leased to running ------------------------------------------------------------------------------

    def fetched(self, task: Task, now: float = 0.0) -> Arrivals:
        """Its inputs are in the cache."""
        arrivals = no_arrivals()
        if task.phase is Phase.FETCHING:
            self._ready(task, arrivals, now)
        return arrivals

    def _ready(self, task: Task, arrivals: Arrivals, now: float) -> None:
        job, setup = task.job, task.job.setup
        if job.image is ImagePhase.FAILED and now - job.image_failed_at >= IMAGE_AGAIN_S:
            job.image = ImagePhase.WANTED
        if job.image is ImagePhase.FAILED:
            arrivals.refusals.append(self._refuse(task, job.image_outcome, job.image_message))
        elif job.image in (ImagePhase.WANTED, ImagePhase.PULLING):
            task.phase = Phase.PARKED
            job.image_parked.append(task)
            if job.image is ImagePhase.WANTED:
                job.image = ImagePhase.PULLING
                arrivals.pulls.append(job)
        elif setup in (SetupPhase.NONE, SetupPhase.DONE):
            task.phase = Phase.WAITING
            self.waiting.append(task)
        elif setup is SetupPhase.FAILED:
            arrivals.refusals.append(self._refuse(task, SETUP, task.job.setup_message))
        else:
            task.phase = Phase.PARKED
            task.job.parked.append(task)

    def startable(self, now: float) -> List[Task]:
        """Tasks, and setups, that start now; they have their cores, memory and GPUs."""
        out: List[Task] = []
        if not self.free_cores:
            return out
        for job in self._with_setup.values():
            if self._wants_setup(job) and self._fits(job.order, now):
                setup = self._new_task(job, job.parked[0].lease, -1, 1, None, now)
                job.setup = SetupPhase.RUNNING
                job.setup_started = now
                out.append(self._give_room(setup))
        misfits = set()
        passed: List[Task] = []
        while self.waiting and self.free_cores:
            task = self.waiting.popleft()
            if task.phase is not Phase.WAITING:
                continue
            number = task.job.order.number
            if number not in misfits and self._fits(task.job.order, now):
                self._queued_cores -= task.job.order.cores
                out.append(self._give_room(task))
                continue
            misfits.add(number)
            passed.append(task)
            if not self._may_backfill(passed[0], now):
                break
        self.waiting.extendleft(reversed(passed))
        return out

    def _may_backfill(self, head: Task, now: float) -> bool:
        if self._blocked is None or self._blocked[0] is not head:
            self._blocked = (head, now)
        return now - self._blocked[1] < BACKFILL_S

    @staticmethod
    def _wants_setup(job: Job) -> bool:
        return job.setup is SetupPhase.WANTED and bool(job.parked)

    def _fits(self, order: JobOrder, now: float) -> bool:
        return (
            order.cores <= len(self.free_cores)
            and order.memory_mib <= self.free_memory_mib
            and (not order.gpus or order.gpus <= len(self._gpus_for(order)))
            and (self.ends_at is None or now + order.wall_time_s <= self.ends_at)
        )

    def _gpus_for(self, order: JobOrder) -> List[str]:
        """Free GPUs that a task of this job may have."""
        return [gpu for gpu in self.free_gpus if order.gpus_like is None or gpu in order.gpus_like]

    def _give_room(self, task: Task) -> Task:
        order = task.job.order
        task.cores = tuple(self.free_cores.popleft() for _ in range(order.cores))
        task.gpus = tuple(self._gpus_for(order)[: order.gpus]) if order.gpus else ()
        for gpu in task.gpus:
            self.free_gpus.remove(gpu)
        self.free_memory_mib -= order.memory_mib
        task.has_room = True
        task.phase = Phase.STARTING
        self.active[task.serial] = task
        return task

    def started(self, task: Task, pid: int, when: float) -> Optional[Signal]:
        """Its process runs. A stop that was asked for in the meantime follows at once."""
        task.phase = Phase.RUNNING
        task.pid = pid
        task.started = when
        if task.stop_outcome is None:
            return None
        task.kill_at = when
        return Signal(task, SIGKILL)

    def ended(self, task: Task, now: float) -> None:
        """Its process is gone, or it will never have one: what it held is free."""
        if task.phase in (Phase.WAITING, Phase.PARKED, Phase.FETCHING) and not task.is_setup:
            self._queued_cores -= task.job.order.cores
        task.phase = Phase.ENDED
        if task.has_room:
            task.has_room = False
            self.free_cores.extendleft(reversed(task.cores))
            self.free_gpus.extendleft(reversed(task.gpus))
            self.free_memory_mib += task.job.order.memory_mib
            del self.active[task.serial]
            self.rate.add(1, now)
        self.tasks.pop((task.lease, task.index), None)

    def setup_ended(self, job: Job, message: str) -> List[Refusal]:
        """The setup is done, or failed with ``message``: then its tasks end with it."""
        parked, job.parked = job.parked, []
        arrivals = no_arrivals()
        job.setup = SetupPhase.FAILED if message else SetupPhase.DONE
        job.setup_message = message
        for task in parked:
            if task.phase is Phase.PARKED:
                self._ready(task, arrivals, 0.0)
        return arrivals.refusals

    def image_ended(self, job: Job, outcome: str, message: str, now: float) -> Arrivals:
        """The image is here, or could not be brought (``message``): then the tasks that wait for it end with it.

        A fault of the node (``outcome`` NODE) is tried anew for the next task.
        """
        parked, job.image_parked = job.image_parked, []
        arrivals = no_arrivals()
        job.image = ImagePhase.FAILED if message else ImagePhase.READY
        job.image_outcome, job.image_message, job.image_failed_at = outcome, message, now
        for task in parked:
            if task.phase is Phase.PARKED:
                self._ready(task, arrivals, now)
        if message and outcome == NODE:
            job.image = ImagePhase.WANTED
        return arrivals

    def acknowledged(self, lease: int) -> None:
        """One result of a lease has arrived at the server."""
        left = self.owed.get(lease)
        if left is None:
            return
        if left > 1:
            self.owed[lease] = left - 1
        else:
            del self.owed[lease]

    # -- stopping --------------------------------------------------------------------------------------------

    def stop(self, task: Task, outcome: str, message: str, now: float) -> Arrivals:
        """End a task with this outcome."""
        arrivals = no_arrivals()
        self._stop(task, outcome, message, now, arrivals)
        return arrivals

    def _stop(self, task: Task, outcome: str, message: str, now: float, arrivals: Arrivals) -> None:
        if task.phase is Phase.ENDED:
            return
        if task.phase in _NOT_STARTED:
            arrivals.refusals.append(self._refuse(task, outcome, message))
            for parked in (task.job.parked, task.job.image_parked):
                if task in parked:
                    parked.remove(task)
            return
        if task.stop_outcome is not None:
            return
        task.stop_outcome = outcome
        task.stop_message = message
        if task.phase is Phase.RUNNING:
            grace = TERM_GRACE_S.get(outcome, KILL_GRACE_S)
            task.kill_at = now + grace
            arrivals.signals.append(Signal(task, SIGTERM if grace else SIGKILL))

    def _refuse(self, task: Task, outcome: str, message: str) -> Refusal:
        self.ended(task, task.queued_at)
        return Refusal(task, outcome, message)

    def due(self, now: float) -> List[Signal]:
        """Signals for tasks that ran too long or did not heed a SIGTERM. Call it a few times a second."""
        arrivals = no_arrivals()
        for task in self.active.values():
            if task.phase is not Phase.RUNNING:
                continue
            limit = task.job.order.wall_time_s
            if task.is_setup:
                limit = max(limit, int(SETUP_TIME_S))
                if not task.job.parked and task.stop_outcome is None:
                    self._stop(task, KILLED, "no task waits for it any more", now, arrivals)
            if task.kill_at is not None:
                if now >= task.kill_at:
                    task.kill_at = now + 1.0
                    arrivals.signals.append(Signal(task, SIGKILL))
            elif not task.is_setup and not task.warned and self._is_near_its_end(task, now):
                task.warned = True
                arrivals.signals.append(Signal(task, task.job.order.signal))
            elif now - task.started >= limit:
                self._stop(task, WALL_TIME, f"ran longer than its wall time of {limit:,} s", now, arrivals)
        return arrivals.signals

    @staticmethod
    def _is_near_its_end(task: Task, now: float) -> bool:
        order = task.job.order
        return bool(order.signal) and now - task.started >= order.wall_time_s - order.signal_before_s

    def over_memory(self, task: Task, used_mib: float, now: float) -> List[Signal]:
        """A sample of a task's memory: a SIGKILL if it is over what it asked for."""
        task.memory_mib = used_mib
        task.peak_mib = max(task.peak_mib, used_mib)
        asked = task.job.order.memory_mib
        if used_mib <= asked:
            return []
        return self.stop(task, MEMORY, f"used {used_mib:,.0f} MiB, asked for {asked:,} MiB", now).signals

    # -- what to ask for -------------------------------------------------------------------------------------

    def want(self, now: float) -> int:
        """The number of one-core tasks to ask for now."""
        if self.draining or self.remaining_s(now) == 0.0:
            return 0
        return wanted(
            slots=self.slots,
            queued=self._queued_cores,
            running=self.slots - len(self.free_cores),
            asked=self.asked,
            per_second=self.rate.per_second(now),
        )

    def room(self, now: float) -> Tuple[int, int, int]:
        """Cores, MiB and GPUs that are free now or, at the present rate of completions, very soon."""
        rate = self.rate.per_second(now)
        running = len(self.active)
        return (
            free_soon(free=len(self.free_cores), used=self.slots - len(self.free_cores), running=running,
                      per_second=rate),
            free_soon(free=self.free_memory_mib, used=self.memory_mib - self.free_memory_mib, running=running,
                      per_second=rate),
            free_soon(free=len(self.free_gpus), used=self.gpu_count - len(self.free_gpus), running=running,
                      per_second=rate),
        )  # fmt: skip

    def remaining_s(self, now: float) -> Optional[float]:
        """Of the pilot's own wall time; None if it has no end."""
        return None if self.ends_at is None else max(0.0, self.ends_at - now)

    def stood_still(self, seconds: float) -> None:
        """Pilot and tasks were suspended together for so long: that counts for no limit, as in the batch system."""
        if self.ends_at is not None:
            self.ends_at += seconds
        for task in self.active.values():
            task.started += seconds
            if task.kill_at is not None:
                task.kill_at += seconds

    @property
    def is_idle(self) -> bool:
        """Nothing leased is unfinished."""
        return not self.tasks and not self.active and not self.ending

    def has_no_time(self, now: float) -> bool:
        """True if nothing runs and no leased task fits into what is left of the pilot's wall time."""
        left = self.remaining_s(now)
        if left is None or self.active:
            return False
        return left == 0.0 or (
            bool(self.tasks) and all(task.job.order.wall_time_s > left for task in self.tasks.values())
        )
