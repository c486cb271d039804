"""The conversation with the server: when to send what, and what an answer changes."""

from __future__ import annotations

import logging
import platform
import random
import socket
import uuid
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from .backoff import Backoff
from .core import Arrivals, Core, ImagePhase, Job, Phase, SetupPhase, Task
from .courier import Courier, Nudge, Report
from .facts import node_facts
from .journal import Journal
from .outbox import Content, Item, Outbox, Parcel, Speaker
from .protocol import PROTOCOL_VERSION, PilotConfig, TaskResult
from .series import is_due
from .transport import AnyTransport, Endpoint, Refused, Unreachable, open_transport
from .wire import encode, result_json, series_json

_log = logging.getLogger("hansa.node")

HOLD_S = 20.0
REPORT_S = 0.1
"""Busy pilots report so often at most: exchanges then carry many results each."""
LOG_S = 0.3
QUIET_S = 0.25
"""After so long without a report, or with nothing left to start, a request is left with the server."""
USAGE_S = 10.0
SERIES_S = 5.0
"""How often the server hears of a young task's use over time; of an older one more rarely."""
SERIES_AT_ONCE = 16
MEMORY_ITEMS = 5000
"""Of results kept in memory while the server is away; more are on disk only."""

Json = Dict[str, Any]


class Talker:
    """Two couriers, so that one request may be held by the server while the other reports at once."""

    def __init__(
        self,
        config: PilotConfig,
        core: Core,
        endpoint: Endpoint,
        journal_path: str,
        post: Callable[[Callable[[], None]], None],
        clock: Callable[[], float],
        rng: random.Random,
        *,
        on_reply: Callable[[Arrivals], None],
        live: Callable[[float], List[Speaker]],
        remove: Callable[[str], None],
    ) -> None:
        self._config = config
        self._core = core
        self._endpoint = endpoint
        self._post = post
        self._clock = clock
        self._on_reply = on_reply
        self._live = live
        self._remove = remove
        self._rng = rng
        self.outbox = Outbox()
        self._journal = Journal(journal_path)
        self._session = uuid.uuid4().hex
        self._sequence = 0
        self._node: Optional[Json] = None
        self._is_introduced = False
        nudge = Nudge()
        path = endpoint.path("exchange")
        self._couriers = [
            Courier(name, path, open_transport(endpoint), self._hear, nudge, rng) for name in ("courier-1", "courier-2")
        ]
        self._idle = list(self._couriers)
        self._flying: Dict[int, Parcel] = {}
        self._of: Dict[int, Courier] = {}
        self._held: Optional[Parcel] = None
        self._sent_at = self._held_at = clock() - 60.0
        self._logs_at = 0.0
        self._usage_at = clock()
        self._setups: Dict[int, bool] = {}
        self.image_progress: Mapping[str, Tuple[int, int]] = {}
        self._logs_due: List[Speaker] = []
        self._news = False
        self._away_since: Optional[float] = None
        self._reached_at = clock()
        self.refusal: Optional[Refused] = None
        self.told_to_stop = False
        self._read_back(first=True)

    # -- what there is to say --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the couriers."""
        for courier in self._couriers:
            courier.start()

    def introduce(self, isolation: str, reason: str) -> None:
        """What this node is; nothing is said before it is known."""
        if self._node is None:
            self._node = {
                "hostname": socket.gethostname(),
                "python": platform.python_version(),
                **node_facts(self._config.work_dir, bool(self._config.gpus)),
                "cores": self._config.cores,
                "memory_mib": self._config.memory_mib,
                "gpus": len(self._config.gpus),
                "isolation": isolation,
                "channels": 1,
            }
            if reason:
                self._node["isolation_reason"] = reason
            self._news = True

    def setup_changed(self, job: int) -> None:
        """A setup began or ended."""
        self._setups[job] = True
        self._news = True

    def report(self, result: TaskResult, speaker: Speaker, ended_at: float, directory: Optional[str]) -> None:
        """A task has ended."""
        document = result_json(result)
        size = 400
        if result.outputs or result.fields or result.message or result.series:
            size = len(encode(document)) + 100
        item = Item(document, speaker, ended_at, size, directory)
        if self._away_since is not None and self._spill([item], len(self.outbox) >= MEMORY_ITEMS):
            return
        self.outbox.add(item)

    def _spill(self, items: List[Item], is_crowded: bool) -> bool:
        """Write results to disk. True if memory need not keep them."""
        is_only_copy = is_crowded or self._journal.unread > 0
        try:
            self._journal.append(items, is_only_copy)
        except OSError as error:
            _log.warning("results cannot be written to disk: %s", error)
            return False
        for item in items:
            item.is_spilled = True
        return is_only_copy

    def _read_back(self, *, first: bool = False) -> None:
        """Bring results from disk to memory when there is room for them."""
        if self._journal.unread and len(self.outbox) < MEMORY_ITEMS // 2:
            for item in self._journal.read(MEMORY_ITEMS // 2):
                if first:
                    lease = item.result["lease"]
                    self._core.owed[lease] = self._core.owed.get(lease, 0) + 1
                self.outbox.add(item)
        elif self._journal.size and not self._journal.unread and not len(self.outbox):
            self._journal.clear()

    # -- when to say it --------------------------------------------------------------------------------------

    def due_in(self, now: float) -> float:
        """Seconds until ``talk`` may have something to do; it is called after every event too."""
        if self._idle and (self.outbox.ready or self._news):
            return max(0.0, self._sent_at + REPORT_S - now)
        return 1.0

    def tick(self, now: float) -> None:
        """A few times a second: running tasks' logs and usage, and results that lie on disk."""
        if now - self._logs_at >= LOG_S:
            self._logs_at = now
            self._logs_due = self._live(now)
            self._news = self._news or bool(self._logs_due)
        if self._journal.size and self._away_since is None:
            self._read_back()
        for task in self._core.active.values():
            if not task.told and task.phase is Phase.RUNNING and now - task.started > LOG_S and not task.is_setup:
                self._news = True
        if self._core.active and (now - self._usage_at >= USAGE_S or self._due_series(now)):
            self._news = True

    def talk(self, now: float) -> None:
        """Send a request if it is time for one."""
        if not self._idle or self._node is None or self.refusal is not None:
            return
        is_starved = not self._core.active
        if (self.outbox.ready or self._news) and (now - self._sent_at >= REPORT_S or is_starved):
            if self.outbox.ready or self._news or self._held is None:
                self._send(now, 0.0)
        elif self._held is None and not self.outbox.ready and self._may_hold(now):
            self._send(now, HOLD_S)

    def _may_hold(self, now: float) -> bool:
        if now - self._held_at < REPORT_S:
            return False  # a server that does not hold requests must not be flooded with them
        return not self._core.waiting or now - self._sent_at >= QUIET_S

    def _send(self, now: float, wait_s: float) -> None:
        if self._held is not None:
            # The server answers it with nothing as soon as this request arrives: it asks for nothing any
            # more.
            self._core.asked -= self._held.asked
            self._held.asked = 0
        parcel = self._compose(now, wait_s)
        self._core.asked += parcel.asked
        courier = self._idle.pop()
        self._flying[id(parcel)] = parcel
        self._of[id(parcel)] = courier
        if parcel.is_held:
            self._held = parcel
            self._held_at = now
        else:
            self._sent_at = now
        courier.carry(parcel)

    def _compose(self, now: float, wait_s: float) -> Parcel:
        content = self.outbox.compose(self._logs_due)
        self._logs_due = []
        self._news = False
        want = self._core.want(now)
        self._sequence += 1
        body: Json = {"protocol": PROTOCOL_VERSION, "session": self._session, "sequence": self._sequence}
        cores, memory_mib, gpus = self._core.room(now)
        body.update(want=want, wait_s=wait_s, cores_free=cores, memory_free_mib=memory_mib, gpus_free=gpus)
        remaining_s = self._core.remaining_s(now)
        if remaining_s is not None:
            body["remaining_s"] = round(remaining_s, 3)
        body["held"] = self._owed_after(content)
        self._add_content(body, content, now)
        if not self._is_introduced and self._node is not None:
            body["node"] = self._node
        return Parcel(body, content.items, content.speakers, want, wait_s > 0)

    def _owed_after(self, content: Content) -> List[int]:
        """Leases of which results are still to come when those in ``content`` have arrived."""
        done: Dict[int, int] = {}
        for item in content.items:
            lease = item.result["lease"]
            done[lease] = done.get(lease, 0) + 1
        return [lease for lease, left in self._core.owed.items() if left > done.get(lease, 0)]

    def _add_content(self, body: Json, content: Content, now: float) -> None:
        for item in content.items:
            item.result["ended_ago_s"] = round(max(0.0, now - item.ended_at), 3) if item.ended_at else 0.0
        body["results"] = [item.result for item in content.items]
        if content.chunks:
            body["logs"] = content.chunks
        running = self._running(now)
        if running:
            self._usage_at = now
            body["running"] = running
        if self._setups:
            body["setups"] = [self._setup_state(number, now) for number in self._setups if number in self._core.jobs]
            self._setups = {}

    def _running(self, now: float) -> List[Json]:
        running: List[Json] = []
        told = set(map(id, self._due_series(now)))
        for task in (*self._core.active.values(), *self._core.ending.values()):
            if task.phase in (Phase.RUNNING, Phase.ENDED) and not task.is_setup and now - task.started > 0.1:
                task.told = True
                said: Json = {
                    "lease": task.lease, "index": task.index, "age_s": round(now - task.started, 3),
                    "cpu_s": round(task.cpu_s, 3), "memory_mib": round(task.memory_mib, 1),
                }  # fmt: skip
                if id(task) in told and task.recorder is not None:
                    task.recorder.sent_at = now
                    said["series"] = series_json(task.recorder.series())
                running.append(said)
        return running

    def _due_series(self, now: float) -> List[Task]:
        """Running tasks of whose use over time the server should hear: of many, those first that waited longest."""
        due = [
            (task.recorder.sent_at, task.serial, task)
            for task in self._core.active.values()
            if task.recorder is not None and is_due(task.recorder, now - task.started, now, SERIES_S)
        ]
        return [task for _, _, task in sorted(due)[:SERIES_AT_ONCE]]

    def _setup_state(self, number: int, now: float) -> Json:
        job = self._core.jobs[number]
        if job.image in (ImagePhase.PULLING, ImagePhase.FAILED) or (job.order.image and job.setup is SetupPhase.NONE):
            return self._image_state(job, now)
        state = {SetupPhase.DONE: "done", SetupPhase.FAILED: "failed"}.get(job.setup, "running")
        return {"job": number, "state": state, "age_s": round(max(0.0, now - job.setup_started), 3)}

    def _image_state(self, job: Job, now: float) -> Json:
        image = job.order.image or ""
        state = {ImagePhase.READY: "done", ImagePhase.FAILED: "failed"}.get(job.image, "running")
        document: Json = {"job": job.order.number, "state": state, "image": image}
        document["age_s"] = round(max(0.0, now - job.image_started), 3)
        document["done_bytes"], document["total_bytes"] = self.image_progress.get(image, (0, 0))
        return document

    # -- what comes back -------------------------------------------------------------------------------------

    def _hear(self, report: Report) -> None:
        """From a courier's thread."""
        self._post(lambda: self._answer(report))

    def _answer(self, report: Report) -> None:
        now = self._clock()
        parcel = report.parcel
        if report.reply is None and report.refused is None:
            if self._away_since is None:
                _log.warning("the server cannot be reached: %s", report.problem)
                self._away_since = self._reached_at
                if not self._journal.unread:
                    self._spill([item for item in self.outbox.unanswered() if not item.is_spilled], False)
            return
        self._release(parcel)
        if report.refused is not None:
            _log.error("the server refuses this pilot: %s", report.refused)
            self.refusal = report.refused
            return
        self._reached_at = now
        if self._away_since is not None:
            _log.info("the server answers again")
            self._away_since = None
        self._is_introduced = self._is_introduced or "node" in parcel.body
        self.outbox.answered(parcel)
        for item in parcel.items:
            self._core.acknowledged(item.result["lease"])
            if item.directory is not None:
                self._remove(item.directory)
        if report.reply is not None:
            self.told_to_stop = self.told_to_stop or report.reply.stop == "now"
            arrivals = self._core.accept(report.reply, now)
            for lease in arrivals.dropped:
                for item in self.outbox.forget_lease(lease):
                    if item.directory is not None:
                        self._remove(item.directory)
            self._on_reply(arrivals)

    def _release(self, parcel: Parcel) -> None:
        del self._flying[id(parcel)]
        self._idle.append(self._of.pop(id(parcel)))
        self._core.asked -= parcel.asked
        if self._held is parcel:
            self._held = None

    def away_s(self, now: float) -> Optional[float]:
        """For how long the server has not been reached; None while it answers."""
        return None if self._away_since is None else now - self._away_since

    @property
    def is_empty(self) -> bool:
        """Every result has been acknowledged."""
        return not len(self.outbox) and not self._journal.unread

    def finish(self, reason: str, deadline: float) -> None:
        """The last exchange, repeated until the deadline; results that do not arrive stay on disk."""
        if self.refusal is None:
            self._spill_rest()
            self._last_exchange(reason, deadline)
        for courier in self._couriers:
            courier.end()

    def _spill_rest(self) -> None:
        rest = [item for item in self.outbox.unanswered() if not item.is_spilled]
        if rest and not self._journal.unread:
            self._spill(rest, False)

    def _last_exchange(self, reason: str, deadline: float) -> None:
        path = self._endpoint.path("exchange")
        parcel = self._rest()
        goodbye = {**parcel.body, "held": [], "ending": reason}
        transport = open_transport(self._endpoint)
        backoff = Backoff(self._rng)
        while self._away_since is None or not transport.can_leave:
            try:
                transport.post(path, encode(goodbye), 10.0)
            except Refused:
                return
            except Unreachable:
                wait_s = backoff.next_s()
                if self._clock() + wait_s >= deadline or self._away_since is not None:
                    break
                _pause(wait_s)
                continue
            self.outbox.answered(parcel)
            if self.is_empty:
                self._journal.clear()
            return
        self._leave_all(transport, parcel, reason)

    def _rest(self) -> Parcel:
        """What is left to say, as much as a request holds; no more tasks are asked for."""
        parcel = self._compose(self._clock(), 0.0)
        parcel.body["want"] = 0
        parcel.body.pop("running", None)
        return parcel

    def _leave_all(self, transport: AnyTransport, parcel: Parcel, reason: str) -> None:
        """Leave all that the server has not acknowledged, in as many requests as that takes; the last says goodbye.

        What cannot be left stays on disk.
        """
        path = self._endpoint.path("exchange")
        for flying in list(self._flying.values()):  # it may have arrived: then it counts once
            if not transport.leave(path, encode({**flying.body, "want": 0, "wait_s": 0.0})):
                return
            self._is_left(flying)
        while True:
            self._is_left(parcel)
            if self._journal.unread:
                self._read_back()
            following = self._rest()
            if not (following.items or following.body.get("logs")):
                break
            if not transport.leave(path, encode(parcel.body)):
                return
            parcel = following
        transport.leave(path, encode({**parcel.body, "held": [], "ending": reason}))

    def _is_left(self, parcel: Parcel) -> None:
        self.outbox.answered(parcel)
        for item in parcel.items:
            self._core.acknowledged(item.result["lease"])


def _pause(seconds: float) -> None:
    import time

    time.sleep(seconds)
