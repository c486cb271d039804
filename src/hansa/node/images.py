"""Container images of jobs: brought here by a process of its own, one for each image at a time."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .backoff import Backoff
from .protocol import IMAGE, NODE

_log = logging.getLogger("hansa.node")

TRIES = 3
"""How often an image is asked for where the registry is away, before the task is given back."""
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from hansa.node.containers.bring import main; sys.exit(main())"
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # a directory or a zipapp


class Ready(NamedTuple):
    """An image on this node; ``info`` is what ``containers.bring`` says of it."""

    info: Dict[str, Any]
    pin: int


class Ended(NamedTuple):
    """How bringing an image ended: ``outcome`` and ``message`` where it failed."""

    ready: Optional[Ready]
    outcome: str = IMAGE
    message: str = ""


class Shelf:
    """The images of one pilot. Called from the agent's thread but where it is said otherwise."""

    def __init__(self, store: str, below: Sequence[str], runtime: str, limit_bytes: Optional[int]) -> None:
        self._store = store
        self._below = list(below)
        self._runtime = runtime
        self._limit_bytes = limit_bytes
        self._ready: Dict[str, Ready] = {}
        self._lock = threading.Lock()
        self._processes: Dict[int, subprocess.Popen[bytes]] = {}
        self._is_closed = False
        self.progress: Dict[str, Tuple[int, int]] = {}
        """Bytes done and in all, of images that are on their way."""

    def ready(self, image: str) -> Optional[Ready]:
        """The image, if it is here."""
        return self._ready.get(image)

    def put(self, image: str, ready: Ready) -> None:
        """Remember an image that has come."""
        before = self._ready.pop(image, None)
        if before is not None:
            os.close(before.pin)
        self._ready[image] = ready
        self.progress.pop(image, None)

    def keep_only(self, images: Sequence[str]) -> None:
        """Give those free that no job here needs any more."""
        for image in [one for one in self._ready if one not in images]:
            os.close(self._ready.pop(image).pin)

    def close(self) -> None:
        """End what is on its way."""
        with self._lock:
            self._is_closed = True
            for process in self._processes.values():
                process.kill()

    def bring(
        self,
        image: str,
        auth: Optional[Dict[str, str]],
        changed: Callable[[], None],
        backoff: Backoff,
        pause: Callable[[float], bool],
    ) -> Ended:
        """In a worker thread: bring an image, again where the registry is away. ``changed``: there is progress."""
        try:
            prepare_runtime(self._runtime)
        except OSError as error:
            return Ended(None, NODE, f"containers cannot be prepared on this node: {error.strerror}")
        tries = 0
        while True:
            failure = self._bring_once(image, auth, changed)
            if isinstance(failure, Ready):
                return Ended(failure)
            tries += 1
            message = f"container image {image}: {failure['message']}"
            if failure.get("hint"):
                message += f" ({failure['hint']})"
            _log.warning("%s", message)
            if not failure["is_retryable"]:
                return Ended(None, IMAGE, message)
            if tries >= TRIES or not pause(backoff.next_s()):
                return Ended(None, NODE, message)

    def _bring_once(self, image: str, auth: Optional[Dict[str, str]], changed: Callable[[], None]) -> Any:
        """A Ready, or what failed."""
        order: Dict[str, Any] = {"store": self._store, "below": self._below, "image": image, "auth": auth}
        order["limit_bytes"] = self._limit_bytes or share_of_disk(self._store)
        problem = {"message": "the process that brings it died", "is_retryable": True}
        with contextlib.suppress(OSError, ValueError):
            for document in self._talk(json.dumps(order).encode("ascii")):
                if "ready" in document:
                    return Ready(document["ready"], self._pin(document["ready"]["id"]))
                if "failed" in document:
                    problem = document["failed"]
                else:
                    self.progress[image] = (document["done"], document["total"])
                    changed()
        return problem

    def _talk(self, order: bytes) -> Any:
        with self._lock:
            if self._is_closed:
                return
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _CODE, _ROOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._processes[process.pid] = process
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with process.stdin as stream:
                stream.write(order)
            with process.stdout as lines:
                for line in lines:
                    yield json.loads(line)
        finally:
            process.kill()
            process.wait()
            with self._lock:
                del self._processes[process.pid]

    def _pin(self, image_id: str) -> int:
        from .containers.collect import pin
        from .containers.store import Store

        return pin(Store(self._store), image_id)


def share_of_disk(path: str) -> int:
    """A quarter of the file system of a path that need not be there yet: what may be kept where nobody says."""
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    status = os.statvfs(path)
    return status.f_frsize * status.f_blocks // 4


def prepare_runtime(target: str) -> None:
    """Put this program's files where tasks can read them: what starts a task's container runs among the tasks."""
    if os.path.isdir(target):
        return
    fresh = f"{target}.{os.getpid()}.{threading.get_ident()}"
    try:
        if os.path.isdir(_ROOT):
            shutil.copytree(
                os.path.join(_ROOT, "hansa", "node"),
                os.path.join(fresh, "hansa", "node"),
                ignore=shutil.ignore_patterns("__pycache__"),
            )
            with open(os.path.join(fresh, "hansa", "__init__.py"), "w", encoding="ascii"):
                pass
        else:
            with zipfile.ZipFile(_ROOT) as archive:
                archive.extractall(fresh, [name for name in archive.namelist() if name.startswith("hansa/")])
        os.rename(fresh, target)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not os.path.isdir(target):
            raise


def users(jobs: Any) -> List[str]:
    """The images that jobs name."""
    return [job.order.image for job in jobs if job.order.image]
