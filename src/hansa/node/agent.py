"""The agent: one thread that decides and starts, around it couriers, workers and the spawner."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import selectors
import signal
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence, Set, Tuple

from . import linux
from .backoff import Backoff
from .beside import Channels
from .checkpoint import Checkpoints
from .config import Places
from .containers.settings import read_only_roots, store_root
from .core import Arrivals, Core, Job, Refusal, SetupPhase, Signal, Task
from .curves import Curves, Gpus
from .doubts import STOPPED, Doubts, taken_away
from .files import Cache, InputError
from .finish import (
    basic_result,
    collect,
    left_nothing,
    tail_of,
    upload_file,
    with_note,
    with_problem,
)
from .images import Ended, Shelf, prepare_runtime, share_of_disk, users
from .isolation import is_below
from .launch import Launcher, inputs_of, user_env
from .outbox import Speaker
from .protocol import INPUT, NODE, NOT_STARTED, PREEMPTED, OutputFile, PilotConfig, TaskResult
from .sampling import Sampler, read_processes
from .spawnlink import SpawnerLink
from .talker import Talker
from .transport import Endpoint, open_transport
from .wire import clean_text
from .workers import Workers, remove_tree

_log = logging.getLogger("hansa.node")

TICK_S = 0.1
STILL_S = 5.0
"""An agent that did nothing for so long, though it has something to do each second, was suspended with its tasks."""
SAMPLE_S = 0.3
SAMPLE_AGE_S = 0.2
IN_MEMORY_LOG_BYTES = 256 * 1024
SETUP_TRIES = 3
DEATHS = 10
DEATHS_S = 60.0
"""A spawner that dies DEATHS times in DEATHS_S seconds is not started again."""
PRUNE_S = 30.0
LEAVE_S = 5.0
"""So long before its end a pilot waits for no answer any more: what it has to say is left in the spool."""
_NOW_DEADLINE_S = 10.0
_END_DEADLINE_S = 60.0
_NO_MEMORY = (11, 12)  # EAGAIN, ENOMEM from starting a process


class Agent:
    """One pilot's life. ``clock`` is monotonic seconds, the same as the spawner's."""

    def __init__(
        self,
        config: PilotConfig,
        places: Places,
        hidden_files: Tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        rng: Optional[random.Random] = None,
    ) -> None:
        self._config = config
        self._places = places
        self._clock = clock
        self._rng = rng or random.Random()
        self._hidden_files = (*hidden_files, config.token_file, places.key)
        cpus, is_bound = choose_cpus(config)
        ends_at = None if config.wall_time_s is None else clock() + config.wall_time_s
        self.core = Core(cpus, config.memory_mib, config.gpus, ends_at)
        self._endpoint = Endpoint(config.urls, config.pilot, config.token_file, config.ca_file, places.key)
        self._cache = Cache(places.cache, lambda digest: self._endpoint.path(f"files/{digest}"))
        self._store, below = store_root(os.environ), read_only_roots(os.environ)
        self._keep = [places.tasks, *self._store_places(config, below)]
        self._cache_limit_bytes = config.cache_limit_bytes or share_of_disk(places.root)
        self._shelf = Shelf(self._store, below, places.runtime, config.cache_limit_bytes)
        self._launcher = Launcher(
            config, places, self._cache, user_env(os.environ, config.keep_env), self._shelf, is_bound=is_bound
        )
        self._mail: Deque[Callable[[], None]] = deque()
        self._wake_reader, self._wake_writer = os.pipe()
        for fd in (self._wake_reader, self._wake_writer):
            os.set_blocking(fd, False)
        self._fetchers = Workers("fetch", 4)
        self._pullers = Workers("pull", 2)
        self._handlers = Workers("files", 8)
        self._removers = Workers("remove", 1)
        self._sent: Set[int] = set()  # serials of commands that the spawner has
        self._setup_tries: Dict[int, int] = {}
        self._setup_speakers: Dict[int, Task] = {}
        self._awaited: Dict[str, List[Job]] = {}  # jobs that wait for a container image
        self._deaths: Deque[float] = deque(maxlen=DEATHS)
        self._next_prune = 0.0
        self._sampler = Sampler()
        self._curves = Curves(Gpus(self._handlers.do, clock))
        self._next_sample = 0.0
        self._next_tick = 0.0
        self._busy_at = self._round_at = clock()
        self._stop_now: Optional[str] = None  # reason
        self._doubts = Doubts(shares_signals=config.shares_signals)
        self._ending: Optional[str] = None
        self._deadline: Optional[float] = None
        self._is_over = False
        self._leaves = False
        self.talker = Talker(
            config, self.core, self._endpoint, places.journal, self._post, clock, self._rng,
            on_reply=self._apply, live=self._live_speakers, remove=self._remove,
        )  # fmt: skip
        self.talker.image_progress = self._shelf.progress
        self._channels = Channels(
            self._endpoint, places.tasks, self._start_beside, self._end_beside, self.core.next_serial
        )
        self._checkpoints = Checkpoints(self._endpoint, self._rng, self._pause)
        self._link = self._new_link()
        self._selector = selectors.DefaultSelector()

    # -- life ------------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Serve until the end; returns the reason."""
        linux.become_subreaper()
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._selector.register(self._link, selectors.EVENT_READ)
        self.talker.start()
        self._round_at = self._clock()
        try:
            while not self._is_over:
                self._round()
        finally:
            self._is_over = True
            self._channels.close()
            self._shelf.close()
            self._link.close()
        reason = self._ending or "stopped"
        self.talker.finish(reason, self._clock() + (_NOW_DEADLINE_S if self._stop_now else _END_DEADLINE_S))
        return reason

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stop_now = self._stop_now or "stopped"

    def _post(self, work: Callable[[], None]) -> None:
        """From any thread: run it in the agent's."""
        self._mail.append(work)
        try:
            os.write(self._wake_writer, b"\0")
        except BlockingIOError:
            pass  # it is awake already

    def _round(self) -> None:
        now = self._clock()
        timeout = max(0.0, min(self._next_tick - now, self.talker.due_in(now)))
        heard = self._selector.select(timeout)
        last, self._round_at = self._round_at, self._clock()
        if self._round_at - last > timeout + STILL_S:
            self._stood_still(self._round_at - last)
        for key, _ in heard:
            if key.fileobj is self._link:
                self._hear_spawner()
            else:
                os.read(self._wake_reader, 4096)
        while self._mail:
            self._mail.popleft()()
        now = self._clock()
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            self._tick(now)
        if self._ending is None:
            for task in self.core.startable(now):
                self._start(task)
        if not self._link.flush():
            self._next_tick = min(self._next_tick, now + 0.005)
        self.talker.talk(self._clock())

    def _stood_still(self, seconds: float) -> None:
        _log.warning("nothing went on here for %.0f s: the pilot was suspended", seconds)
        self.core.stood_still(seconds)
        self._busy_at += seconds

    def _tick(self, now: float) -> None:
        for task, result, when in self._doubts.due(now, is_stopped=self._stop_now is not None):
            self.core.ending.pop(task.serial, None)
            self._judge(task, result, when)
        self._signal(self.core.due(now))
        if now >= self._next_sample:
            self._next_sample = now + SAMPLE_S
            self._sample(now)
        for task in self.core.active.values():
            if self._checkpoints.is_due(task, now):
                self._handlers.do(lambda task=task: self._checkpoints.save_running(task))  # type: ignore[misc]
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_S
            for number in self.core.prune():
                self._launcher.forget(number)
            self._shelf.keep_only(users(self.core.jobs.values()))
            self._channels.prune()
            self._make_room()
        self.talker.tick(now)
        if not self.core.is_idle or len(self.talker.outbox):
            self._busy_at = now
        if self._ending is None:
            reason = self._reason_to_end(now)
            if reason is not None:
                self._begin_to_end(reason, now)
        else:
            self._go_on_ending(now)

    def _make_room(self) -> None:
        """Keep the input cache within its limit."""

        def needed() -> Set[str]:
            return {file.digest for task in self.core.tasks.values() for file in inputs_of(task)}

        try:
            gone = self._cache.make_room(self._cache_limit_bytes, needed)
        except OSError as error:
            _log.warning("the cache of input files cannot be looked through: %s", error)
            return
        if gone:
            _log.info("removed %d bytes of input files that were not used for the longest time", gone)

    def _reason_to_end(self, now: float) -> Optional[str]:
        if self.talker.refusal is not None:
            self._stop_now = f"fault: {self.talker.refusal}"
        if self._stop_now is None and self.core.remaining_s(now) == 0.0:
            self._stop_now = "wall_time"
        if self._stop_now is None and self.talker.told_to_stop:
            self._stop_now = "stopped"
        if self._stop_now is not None:
            return self._stop_now
        if self.core.has_no_time(now):
            return "wall_time"
        if not self.core.is_idle:
            return None
        if self.core.draining:
            return "stopped"
        away_s = self.talker.away_s(now)
        if away_s is not None:
            return "fault: the server was away for too long" if away_s >= self._config.server_away_s else None
        if now - self._busy_at >= self._config.idle_timeout_s:
            return "idle"
        return None

    def _begin_to_end(self, reason: str, now: float) -> None:
        _log.info("ends: %s", reason)
        self.core.draining = True
        self._ending = reason
        grace = _NOW_DEADLINE_S if self._stop_now else _END_DEADLINE_S
        self._deadline = now + grace
        for task in list(self.core.active.values()):
            self._signal(self.core.stop(task, PREEMPTED, STOPPED, now).signals)

    def _go_on_ending(self, now: float) -> None:
        is_away = self.talker.away_s(now) is not None or (
            self._deadline is not None and now >= self._deadline - LEAVE_S
        )
        self._leaves = self._leaves or is_away
        is_refused = self.talker.refusal is not None
        is_quiet = not self.core.active and not self.core.ending and (is_refused or self.talker.is_empty)
        if is_quiet or (self._deadline is not None and now >= self._deadline):
            self._is_over = True

    # -- the spawner -----------------------------------------------------------------------------------------

    def _new_link(self) -> SpawnerLink:
        hide = [*self._config.hide, self._places.root]
        return SpawnerLink(self._keep, hide, self._hidden_files)

    def _store_places(self, config: PilotConfig, below: Sequence[str]) -> List[str]:
        """Stores of container images that lie in a hidden directory: they stay visible to tasks."""
        hidden = [os.path.realpath(path) for path in (*config.hide, self._places.root)]
        found = [path for path in (self._store, *below) if any(is_below(os.path.realpath(path), one) for one in hidden)]
        if self._store in found:
            os.makedirs(self._store, mode=0o700, exist_ok=True)  # it must be there to be kept
        return found

    def _hear_spawner(self) -> None:
        messages = self._link.receive()
        if messages is None:
            self._replace_spawner()
            return
        for message in messages:
            if message[0] == "ended":
                self._on_ended(*message[1:])
            elif message[0] == "started":
                self._on_started(message[1], message[2], message[3])
            elif message[0] == "failed":
                self._on_failed(message[1], message[2], message[3])
            elif message[0] == "hello":
                _log.info("isolation: %s %s", message[1], message[2])
                self.talker.introduce(message[1], message[2])

    def _replace_spawner(self) -> None:
        _log.warning("the spawner (process %d) died", self._link.pid)
        self._deaths.append(self._clock())
        if len(self._deaths) == DEATHS and self._deaths[-1] - self._deaths[0] < DEATHS_S:
            raise RuntimeError("the process that starts tasks dies again and again; see the log")
        self._selector.unregister(self._link)
        self._link.bury()
        lost = [self.core.active[serial] for serial in self._sent if serial in self.core.active]
        for task in lost:
            self._channels.task_ended(task.serial)
        self._sent.clear()
        self._link = self._new_link()
        self._selector.register(self._link, selectors.EVENT_READ)
        for task in lost:
            if task.is_setup:
                self._end_setup(task, "the process that starts tasks died", can_retry=True)
            else:
                self._end_early(task, NODE, "the process that starts tasks died on this node")

    def _signal(self, signals: List[Signal]) -> None:
        for task, number in signals:
            self._link.send(("kill", task.serial, int(number)))

    def _on_started(self, serial: int, pid: int, when: float) -> None:
        task = self.core.active.get(serial)
        if task is not None:
            wish = self.core.started(task, pid, when)
            if wish is not None:
                self._signal([wish])

    def _start_beside(self, task: Task, serial: int, base: str, words: List[str]) -> None:
        def prepare() -> None:
            """In a worker thread."""
            try:
                prepare_runtime(self._places.runtime)
            except OSError as error:
                problem = f"A shell cannot be prepared on this node: {error.strerror}."
                self._post(lambda: self._remove(self._channels.ended(serial, problem)))
            else:
                self._post(start)

        def start() -> None:
            if task.serial not in self.core.active or self._is_over:
                self._remove(self._channels.ended(serial, "The task has ended."))
                return
            try:
                command = self._launcher.beside(task, serial, base, words)
            except OSError as error:
                self._remove(self._channels.ended(serial, f"The shell's container cannot be prepared: {error}."))
            else:
                self._link.send(command)

        self._handlers.do(prepare)

    def _end_beside(self, serial: int) -> None:
        self._link.send(("kill", serial, int(signal.SIGKILL)))

    def _on_failed(self, serial: int, number: int, message: str) -> None:
        if self._channels.owns(serial):
            self._remove(self._channels.ended(serial, message))
            return
        task = self.core.active.get(serial)
        self._sent.discard(serial)
        if task is None:
            return
        if task.is_setup:
            self._end_setup(task, message, can_retry=False)
        else:
            self._end_early(task, NODE if number in _NO_MEMORY else NOT_STARTED, message)

    def _on_ended(self, serial: int, status: int, cpu_s: float, max_rss_kib: int, when: float) -> None:
        if self._channels.owns(serial):
            self._remove(self._channels.ended(serial))
            return
        self._channels.task_ended(serial)
        task = self.core.active.get(serial)
        self._sent.discard(serial)
        if task is None:
            return
        result = basic_result(task, status, cpu_s, max_rss_kib, when)
        if task.job.order.image:
            result = with_problem(task, result)
        now = self._clock()
        self.core.ended(task, now)  # its cores are free, whatever is still to be found out
        if self._stop_now is not None:
            self._judge(task, taken_away(result), when)
        elif self._doubts.has(result):
            self.core.ending[serial] = task
            self._doubts.add(task, result, when, now)
        else:
            self._judge(task, result, when)

    def _judge(self, task: Task, result: TaskResult, when: float) -> None:
        """How a task ended is known: bring it to its end."""
        if task.is_setup:
            self._judge_setup(task, result)
        elif task.drop:
            self._remove(task.base)
        elif left_nothing(task.base + "/work"):
            self._deliver(task, result, when)
        else:
            self.core.ending[task.serial] = task
            self._handlers.do(lambda: self._collect(task, result, when))

    # -- starting --------------------------------------------------------------------------------------------

    def _start(self, task: Task) -> None:
        files = inputs_of(task)
        if files:
            self._handlers.do(lambda: self._stage(task))
            return
        try:
            self._launcher.make_directory(task)
        except OSError as error:
            self._give_up(task, NODE, f"no directory for the task: {error.strerror}")
            return
        self._launch(task)

    def _stage(self, task: Task) -> None:
        """In a worker thread: directory and inputs."""
        try:
            self._launcher.make_directory(task)
            self._launcher.lay_inputs(task)
        except InputError as error:
            problem = (INPUT, str(error))
        except OSError as error:
            problem = (NODE, f"inputs cannot be put into the task's directory: {error.strerror}")
        else:
            self._post(lambda: self._launch(task))
            return
        self._post(lambda: self._give_up(task, *problem))

    def _launch(self, task: Task) -> None:
        if task.stop_outcome is not None:
            self._give_up(task, task.stop_outcome, task.stop_message)
            return
        if task.is_setup:
            self._begin_setup(task)
        else:
            self._launcher.open_streams(task)
        try:
            command = self._launcher.command(task)
        except OSError as error:
            self._give_up(task, NODE, f"the task's container cannot be prepared: {error.strerror}")
            return
        self._link.send(command)
        self._sent.add(task.serial)

    def _give_up(self, task: Task, outcome: str, message: str) -> None:
        if task.is_setup:
            self._end_setup(task, message, can_retry=False)
        else:
            self._end_early(task, outcome, message)

    def _end_early(self, task: Task, outcome: str, message: str) -> None:
        """A task with cores ends without having ended by itself."""
        self.core.ended(task, self._clock())
        self._refuse(Refusal(task, outcome, message))

    def _refuse(self, refusal: Refusal) -> None:
        task = refusal.task
        if task.drop:
            self._remove(task.base)
            return
        result = TaskResult(task.lease, task.index, refusal.outcome, message=clean_text(refusal.message))
        self._deliver(task, result, self._clock())

    # -- setups ----------------------------------------------------------------------------------------------

    def _begin_setup(self, setup: Task) -> None:
        job = setup.job
        job.setup_dir = setup.base + "/work"
        self._launcher.forget(job.order.number)
        if job.parked:
            speaker = job.parked[0]
            self._launcher.open_setup_stream(setup, speaker)
            self._setup_speakers[job.order.number] = speaker
        self.talker.setup_changed(job.order.number)

    def _judge_setup(self, setup: Task, result: TaskResult) -> None:
        if setup.stop_outcome is None and result.exit_code == 0:
            self._end_setup(setup, "", can_retry=False)
            return
        if result.outcome == PREEMPTED:  # its tasks go back as they came
            self.core.ended(setup, self._clock())
            setup.job.setup = SetupPhase.WANTED
            return
        how = f"exit code {result.exit_code}" if result.signal is None else f"signal {result.signal}"
        if setup.stop_message:
            how = setup.stop_message
        last = tail_of((setup.base + "/stdout",))
        self._end_setup(setup, f"the job's setup failed on this node: {how}" + (f"; {last}" if last else ""),
                        can_retry=False)  # fmt: skip

    def _end_setup(self, setup: Task, problem: str, *, can_retry: bool) -> None:
        job = setup.job
        self.core.ended(setup, self._clock())
        tries = self._setup_tries[job.order.number] = self._setup_tries.get(job.order.number, 0) + 1
        if (can_retry and tries < SETUP_TRIES) or (problem and not job.parked):
            job.setup = SetupPhase.WANTED  # for the next task of this job
        else:
            for refusal in self.core.setup_ended(job, clean_text(problem)):
                self._refuse(refusal)
        self.talker.setup_changed(job.order.number)

    # -- ending ----------------------------------------------------------------------------------------------

    def _collect(self, task: Task, result: TaskResult, when: float) -> None:
        """In a worker thread: fields and outputs."""
        try:
            problem = self._checkpoints.save_last(task, result)
            result = with_note(collect(task, result, self._launcher.values(task), self._upload), problem)
        except Exception as error:
            _log.exception("outputs of %d.%d", task.lease, task.index)
            result = TaskResult(task.lease, task.index, NODE, message=f"outputs could not be collected: {error}")
        self._post(lambda: self._collected(task, result, when))

    def _collected(self, task: Task, result: TaskResult, when: float) -> None:
        self.core.ending.pop(task.serial, None)
        self._deliver(task, result, when)

    def _upload(self, work: str, output: OutputFile) -> None:
        path = self._endpoint.path(f"files/{output.digest}")
        with contextlib.closing(open_transport(self._endpoint)) as transport:
            upload_file(transport, path, work, output, Backoff(self._rng), self._pause, lambda: self._leaves)

    def _deliver(self, task: Task, result: TaskResult, when: float) -> None:
        """A result is complete: to the outbox, and away with the directory."""
        number = task.job.order.number
        if self._setup_speakers.get(number) is task:
            del self._setup_speakers[number]
        speaker = task.speaker or Speaker(task.lease, task.index, [])
        for stream in speaker.streams:
            stream.close()
        speaker.streams = [stream for stream in speaker.streams if stream.unread]
        directory = None
        if speaker.streams:
            if speaker.unread <= IN_MEMORY_LOG_BYTES:
                for stream in speaker.streams:
                    stream.take_into_memory()
            else:
                directory = task.base
        self.talker.report(result, speaker, when, directory)
        if directory is None:
            self._remove(task.base)

    def _remove(self, base: str) -> None:
        if base and not self._launcher.reuse(base):
            self._removers.do(lambda: remove_tree(base))

    def _pause(self, seconds: float) -> bool:
        """In a worker thread: wait; False if the pilot is over."""
        until = self._clock() + seconds
        could_leave = self._leaves
        while self._clock() < until and not self._is_over and could_leave == self._leaves:
            time.sleep(min(0.1, seconds))
        return not self._is_over

    # -- what the server says --------------------------------------------------------------------------------

    def _apply(self, arrivals: Arrivals) -> None:
        for task in arrivals.fetch:
            files = inputs_of(task)
            if self._cache.missing(files):
                self._fetchers.do(lambda task=task: self._fetch(task))  # type: ignore[misc]
            else:
                self._fetched(task, None)
        self._signal(arrivals.signals)
        for channel in arrivals.channels:
            self._channels.open(channel, self.core.tasks.get((channel.lease, channel.index)))
        self._follow(arrivals)

    def _follow(self, arrivals: Arrivals) -> None:
        for job in arrivals.pulls:
            self._want_image(job)
        for refusal in arrivals.refusals:
            self._refuse(refusal)

    # -- container images ------------------------------------------------------------------------------------

    def _want_image(self, job: Job) -> None:
        image = job.order.image or ""
        if self._shelf.ready(image) is not None:
            self._follow(self.core.image_ended(job, "", "", self._clock()))
            return
        job.image_started = self._clock()
        waiting = self._awaited.setdefault(image, [])
        waiting.append(job)
        self.talker.setup_changed(job.order.number)
        if len(waiting) == 1:
            self._pullers.do(lambda: self._pull(image, job.order.registry_auth))

    def _pull(self, image: str, auth: Optional[Dict[str, str]]) -> None:
        """In a worker thread."""

        def changed() -> None:
            self._post(lambda: self._say_progress(image))

        try:
            ended = self._shelf.bring(image, auth, changed, Backoff(self._rng), self._pause)
        except Exception as error:
            _log.exception("container image %s", image)
            ended = Ended(None, NODE, f"the container image {image} could not be brought here: {error}")
        self._post(lambda: self._pulled(image, ended))

    def _say_progress(self, image: str) -> None:
        for job in self._awaited.get(image, ()):
            self.talker.setup_changed(job.order.number)

    def _pulled(self, image: str, ended: Ended) -> None:
        if ended.ready is not None:
            self._shelf.put(image, ended.ready)
            os.makedirs(self._places.engines, mode=0o700, exist_ok=True)
        for job in self._awaited.pop(image, []):
            self._launcher.forget(job.order.number)
            arrivals = self.core.image_ended(job, ended.outcome, clean_text(ended.message), self._clock())
            self.talker.setup_changed(job.order.number)
            self._follow(arrivals)

    # -- inputs ----------------------------------------------------------------------------------------------

    def _fetch(self, task: Task) -> None:
        """In a worker thread: bring the inputs to the cache."""
        problem: Optional[str] = None
        try:
            with contextlib.closing(open_transport(self._endpoint)) as transport:
                for file in inputs_of(task):
                    self._cache.fetch(file, transport, Backoff(self._rng), self._pause)
        except InputError as error:
            problem = str(error)
        except Exception as error:
            problem = f"inputs could not be fetched: {error}"
        self._post(lambda: self._fetched(task, problem))

    def _fetched(self, task: Task, problem: Optional[str]) -> None:
        stopped = problem is not None
        now = self._clock()
        self._follow(self.core.stop(task, INPUT, problem or "", now) if stopped else self.core.fetched(task, now))

    # -- watching --------------------------------------------------------------------------------------------

    def _sample(self, now: float) -> None:
        old = {task.pid: task for task in self.core.active.values() if task.pid and now - task.started > SAMPLE_AGE_S}
        if not old:
            return
        usages = self._sampler.sample(read_processes(), {pid: task.serial for pid, task in old.items()})
        for task in old.values():
            usage = usages[task.serial]
            task.cpu_s = usage.cpu_s
            self._curves.note(task, usage, self._sampler.members[task.serial], now)
            self._signal(self.core.over_memory(task, usage.memory_mib, now))

    def _live_speakers(self, now: float) -> List[Speaker]:
        """Those with something new to say."""
        out = []
        tasks: List[Any] = [
            task for task in self.core.active.values() if task.pid and now - task.started > SAMPLE_AGE_S
        ]
        tasks += [task for task in self._setup_speakers.values() if not task.has_room]
        for task in tasks:
            if task.speaker is not None:
                for stream in task.speaker.streams:
                    stream.look()
                if task.speaker.unread:
                    out.append(task.speaker)
        return out


def choose_cpus(config: PilotConfig) -> Tuple[List[int], bool]:
    """The cores that tasks get, and whether they are bound to them.

    They are when the pilot was given all the cores that it may use, or fewer: then from a place that
    depends on its name, so that pilots side by side do not all take the first ones. With more than there
    are, nothing is bound.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if config.cores > len(allowed):
        return list(range(config.cores)), False
    start = 0
    if config.cores < len(allowed):
        start = sum(config.pilot.encode()) * config.cores % len(allowed)
    return [allowed[(start + place) % len(allowed)] for place in range(config.cores)], True
