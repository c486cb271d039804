"""The folder that a task keeps across its attempts: sent to the server now and then, and when an attempt ends.

A task writes what it wants to find again into the job's checkpoint folder (``HANSA_CHECKPOINT``), best under another
name first and renamed when it is whole. What an attempt has left there is there when the next one starts, on whatever
node: it comes as inputs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
from typing import Callable, Dict, List, Tuple

from .backoff import Backoff
from .core import Task
from .files import Stamp
from .finish import UploadRefused, upload_file
from .outputs import Found, read_output, select
from .protocol import EXITED, KILLED, NODE, File, OutputFile, TaskResult
from .transport import Endpoint, Refused, Unreachable, open_transport
from .wire import encode

_log = logging.getLogger("hansa.node")
_WITHOUT = (KILLED, NODE)
Kept = Dict[str, Tuple[Stamp, OutputFile]]


class Checkpoints:
    """All of a pilot. ``pause`` waits in a worker thread; False: the pilot is over."""

    def __init__(self, endpoint: Endpoint, rng: random.Random, pause: Callable[[float], bool]) -> None:
        self._endpoint = endpoint
        self._rng = rng
        self._pause = pause
        self._kept: Dict[int, Kept] = {}
        self._locks: Dict[int, threading.Lock] = {}

    def is_due(self, task: Task, now: float) -> bool:
        """Whether a running task's folder is to be looked at; the next time is noted. In the agent's thread."""
        order = task.job.order
        if order.checkpoint is None or not task.pid or task.is_setup:
            return False
        if now - max(task.started, task.saved_at) < order.checkpoint_every_s:
            return False
        task.saved_at = now
        return True

    def save_running(self, task: Task) -> None:
        """In a worker thread: send what is new. What changes while it is read comes the next time."""
        try:
            self._save(task)
        except (UploadRefused, OSError, Refused) as error:
            _log.info("the checkpoint of %d.%d comes later: %s", task.lease, task.index, error)

    def save_last(self, task: Task, result: TaskResult) -> str:
        """In a worker thread: what an attempt that may be repeated has left. Returns what went wrong, or nothing."""
        is_done = result.outcome == EXITED and result.exit_code == 0
        problem = ""
        if task.job.order.checkpoint is not None and not is_done and result.outcome not in _WITHOUT:
            try:
                self._save(task)
            except (UploadRefused, OSError, Refused) as error:
                problem = f"its checkpoint was not kept: {error}"
        self._kept.pop(task.serial, None)
        self._locks.pop(task.serial, None)
        return problem

    def _save(self, task: Task) -> None:
        with self._locks.setdefault(task.serial, threading.Lock()):
            order, folder = task.job.order, order_folder(task)
            chosen = select(folder, lambda _path: True, {}, order.output_limit_bytes, order.output_limit_files)
            if chosen.violation:
                raise UploadRefused(chosen.violation)
            before = self._kept.get(task.serial, {})
            now = {found.path: self._send(folder, found, before) for found in chosen.files}
            if now == before:
                return
            files = [
                File(f"{order.checkpoint}/{path}", one.digest, one.size, one.executable)
                for path, (_, one) in sorted(now.items())
            ]
            self._tell(task, files)
            self._kept[task.serial] = now

    def _send(self, folder: str, found: Found, before: Kept) -> Tuple[Stamp, OutputFile]:
        status = os.lstat(os.path.join(folder, found.path))
        stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
        known = before.get(found.path)
        if known is not None and known[0] == stamp:
            return known
        output = read_output(folder, found, 0)
        path = self._endpoint.path(f"files/{output.digest}")
        with contextlib.closing(open_transport(self._endpoint)) as transport:
            upload_file(transport, path, folder, output, Backoff(self._rng), self._pause)
        return stamp, output

    def _tell(self, task: Task, files: List[File]) -> None:
        body = encode({"lease": task.lease, "index": task.index, "files": [vars(file) for file in files]})
        backoff = Backoff(self._rng)
        with contextlib.closing(open_transport(self._endpoint)) as transport:
            while True:
                try:
                    transport.post(self._endpoint.path("checkpoints"), body, 60.0)
                    return
                except Unreachable as error:
                    if not self._pause(backoff.next_s()):
                        raise UploadRefused(f"the pilot ended before it was told: {error}") from error


def order_folder(task: Task) -> str:
    """Where a task's checkpoint is."""
    return f"{task.base}/work/{task.job.order.checkpoint}"
