"""The agent's end of the spawner: starts it, sends commands in batches, gives back its messages."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any, List, Optional, Sequence, Tuple

from .frames import Unpacker, pack
from .spawner import children_by_scan

_CODE = "import sys; sys.path.insert(0, sys.argv[1]); from hansa.node.spawner import main; main(sys.argv[2:])"
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # a directory or a zipapp


class SpawnerLink:
    """One spawner process and the commands that wait to be sent to it."""

    def __init__(self, keep: Sequence[str], hide: Sequence[str], hide_files: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-I", "-S", "-c", _CODE, _ROOT, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"LANG": "C.UTF-8"},
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours
        self._unpacker = Unpacker()
        self._commands: List[Tuple[Any, ...]] = []
        self._unsent = b""
        self.send(("setup", list(keep), list(hide), list(hide_files)))

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def send(self, command: Tuple[Any, ...]) -> None:
        """Queue a command for the next flush."""
        self._commands.append(command)

    def flush(self) -> bool:
        """Send what is queued. False while some of it has to wait until the socket takes more."""
        if self._commands:
            self._unsent += pack(self._commands)
            self._commands = []
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError:
                self._unsent = b""  # it is dead; receive() says so
                return True
            self._unsent = self._unsent[sent:]
        return True

    def receive(self) -> Optional[List[Tuple[Any, ...]]]:
        """Its messages; None when it has died."""
        try:
            data = self._socket.recv(1 << 18)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._unpacker.feed(data) if data else None

    def bury(self) -> None:
        """After its death: end and collect every process that came to us from it. We are a subreaper too."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            orphans = children_by_scan(os.getpid())
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not orphans:
                return
            time.sleep(0.005)

    def close(self) -> None:
        """Let it end all tasks and leave."""
        self._socket.close()
        try:
            self._process.wait(timeout=20.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
