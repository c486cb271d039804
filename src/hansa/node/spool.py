"""The server by way of a shared file system: where nodes have no route to it.

A request is two files in ``SPOOL/out``: ``ID.body``, then ``ID.json`` (renamed into place, so it is whole when seen).
A relay on the login node (``relay.py``) carries it to the server and puts the answer into ``SPOOL/in/PILOT``, the same
way. Requests of a pilot that dies stay until somebody carries them: nothing is lost while nobody listens. One that ends
leaves what it still has to say; that is carried in its order, after all else of this pilot.

To look for a file, the directory is opened and listed: on NFS that asks the server, where looking for a name would be
answered from a cache for half a minute.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from typing import BinaryIO, Callable, Optional, Union

FIRST_LOOK_S = 0.005
LONGEST_LOOK_S = 0.25
HEARTBEAT = "alive"
HEARTBEAT_S = 2.0
SILENCE_S = 60.0
"""A transfer fails when the relay has shown no life for so long; it may take longer as a whole."""
SCHEME = "spool:"
LEFT = "-left-"
"""In the names of requests that an ended pilot left: PILOT-left-NUMBER-…"""


class NoAnswer(Exception):
    """Nobody answered in time. The request is withdrawn."""


class Left(Exception):
    """Nobody answers, and this pilot ends: the request stays, for whoever comes."""


class Answer:
    """Status and the file with the body, which the reader removes."""

    def __init__(self, status: int, path: str) -> None:
        self.status = status
        self.path = path

    def read(self) -> bytes:
        """The whole body; the file is gone afterwards."""
        with open(self.path, "rb") as stream:
            body = stream.read()
        os.unlink(self.path)
        return body


class Spool:
    """One pilot's end of a spool. ``interrupt`` may be called from another thread."""

    def __init__(
        self,
        folder: str,
        pilot: str,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._out = os.path.join(folder, "out")
        self._in = os.path.join(folder, "in", pilot)
        self._heartbeat = os.path.join(folder, HEARTBEAT)
        self._pilot = pilot
        self._clock = clock
        self._pause = pause
        self._interrupted = False
        self._left = 0
        for path in (self._out, self._in):
            os.makedirs(path, mode=0o700, exist_ok=True)

    def ask(
        self,
        method: str,
        path: str,
        token: str,
        body: Union[bytes, BinaryIO, None],
        timeout_s: Optional[float],
        leaves: Callable[[], bool] = bool,
    ) -> Answer:
        """Send a request and wait for its answer; without ``timeout_s``, as long as the relay lives.

        Left is raised, and the request stays, once ``leaves`` says that nobody waits any longer.
        """
        name = self._write(f"{self._pilot}-{uuid.uuid4().hex}", method, path, token, body)
        try:
            answer = self._await(name, timeout_s, leaves)
        except Left:
            raise
        except BaseException:
            self._withdraw(name)
            raise
        self._withdraw(name)
        return answer

    def leave(self, method: str, path: str, token: str, body: Union[bytes, BinaryIO, None]) -> str:
        """Write a request and do not wait: it is carried when somebody comes, after all that was left before."""
        self._left += 1
        name = f"{self._pilot}{LEFT}{self._left:06d}-{uuid.uuid4().hex[:8]}"
        return self._write(name, method, path, token, body)

    def _write(self, name: str, method: str, path: str, token: str, body: Union[bytes, BinaryIO, None]) -> str:
        place = os.path.join(self._out, name)
        with open(os.open(place + ".body", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            if isinstance(body, bytes):
                stream.write(body)
            elif body is not None:
                shutil.copyfileobj(body, stream, 1 << 20)
            stream.flush()
            size = os.fstat(stream.fileno()).st_size
        head = {"id": name, "pilot": self._pilot, "method": method, "path": path, "size": size}
        head["token"] = token
        write_whole(place + ".json", json.dumps(head).encode())
        return name

    def interrupt(self) -> None:
        """Make a request that waits fail, and all that come."""
        self._interrupted = True

    def _await(self, name: str, timeout_s: Optional[float], leaves: Callable[[], bool]) -> Answer:
        began = seen_at = self._clock()
        heartbeat = self._beat()
        look_s = FIRST_LOOK_S
        while not self._interrupted:
            if name + ".json" in os.listdir(self._in):
                return self._take(name)
            if leaves():
                raise Left
            now = self._clock()
            beat = self._beat()
            if beat != heartbeat:
                heartbeat, seen_at = beat, now
            if (now - seen_at if timeout_s is None else now - began) >= (timeout_s or SILENCE_S):
                break
            self._pause(look_s)
            look_s = min(LONGEST_LOOK_S, look_s * 1.3)
        raise NoAnswer("nobody carries the requests of this spool to the server")

    def _take(self, name: str) -> Answer:
        place = os.path.join(self._in, name)
        with open(place + ".json", "rb") as stream:
            head = json.loads(stream.read())
        os.unlink(place + ".json")
        return Answer(int(head["status"]), place + ".body")

    def _withdraw(self, name: str) -> None:
        for end in (".json", ".body"):
            try:
                os.unlink(os.path.join(self._out, name + end))
            except OSError:
                pass

    def _beat(self) -> int:
        try:
            return os.stat(self._heartbeat).st_mtime_ns
        except OSError:
            return 0


def write_whole(path: str, content: bytes) -> None:
    """A file that is there with all its content, or not at all; private."""
    part = f"{path}.{os.getpid()}.part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(part, path)
