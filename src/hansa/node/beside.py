"""What people do beside running tasks: shells, and connections to ports. The agent's side of channels.

Nothing here decides about tasks. A channel has threads of its own; what ends them is its other end, its task's end, or
the end of its process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional

from .core import Task
from .line import Away, Json, Line, Over, bytes_of
from .protocol import Channel, ChannelReply, Frame
from .shell import END, ERRORS, EXIT, INPUT, OUTPUT, RESIZE, Reader, message
from .transport import AnyTransport, Endpoint, Refused, Unreachable, open_transport
from .wire import WireError, encode, parse_channel

_log = logging.getLogger("hansa.node")
DOOR_TIMEOUT_S = 60.0
_DOOR_LOOK_S = 0.2
CONNECT_TIMEOUT_S = 10.0
MOST_CHANNELS = 16
MOST_STREAMS = 64
_PIECE = 65536
_KINDS = {OUTPUT: ("data", 1), ERRORS: ("data", 2), EXIT: ("exit", 0)}
_ANY_SHELL = ["/bin/sh", "-c", "if command -v bash > /dev/null; then exec bash; else exec sh; fi"]


@dataclass
class Beside:
    """An open channel; ``serial`` is that of a shell's process."""

    channel: Channel
    task: int
    line: Line
    serial: int = 0
    shell: Optional[_Shell] = None


class Channels:
    """All channels of a pilot. Called from the agent's thread but where said."""

    def __init__(
        self,
        endpoint: Endpoint,
        folder: str,
        run: Callable[[Task, int, str, List[str]], None],
        kill: Callable[[int], None],
        serial: Callable[[], int],
    ) -> None:
        self._endpoint = endpoint
        self._folder = folder
        self._run = run
        self._kill = kill
        self._serial = serial
        self._known: Dict[str, Optional[Beside]] = {}

    def open(self, channel: Channel, task: Optional[Task]) -> None:
        """Answer a channel that the server tells of, once; without a task that runs, by closing it."""
        if channel.channel in self._known:
            return
        is_crowded = sum(one is not None and not one.line.is_over for one in self._known.values()) >= MOST_CHANNELS
        refusal = ""
        if task is None or not task.pid:
            refusal = "The task does not run any more."
        elif is_crowded:
            refusal = "Too many shells and forwards are open beside this pilot's tasks; close one."
        end = _Forward(channel.port) if channel.kind == "forward" else _Shell()
        line = self._line(channel.channel, end)
        self._known[channel.channel] = None
        line.start()
        if refusal:
            line.close(refusal)
            return
        assert task is not None  # refused above, for the type checker
        beside = self._known[channel.channel] = Beside(channel, task.serial, line)
        if isinstance(end, _Shell):
            self._start_shell(beside, end, task)
        else:
            end.begin(line)

    def _line(self, name: str, end: Any) -> Line:
        path = self._endpoint.path(f"channels/{name}")
        speak, listen = _asker(self._endpoint, path), _asker(self._endpoint, path)
        return Line(speak, listen, end.hear, end.over)

    def _start_shell(self, beside: Beside, end: _Shell, task: Task) -> None:
        channel = beside.channel
        serial = beside.serial = self._serial()
        beside.shell = end
        base = f"{self._folder}/{serial}"
        try:
            os.mkdir(base, 0o700)
            end.open_door(base, beside.line)
            words = [str(channel.rows), str(channel.columns), channel.terminal or "-", *(channel.command or _ANY_SHELL)]
            self._run(task, serial, base, [f"../../{serial}/door", *words])
        except OSError as error:
            beside.line.close(f"The shell cannot be started: {error.strerror}.")

    def task_ended(self, serial: int) -> None:
        """What is beside a task ends with it."""
        for beside in self._known.values():
            if beside is not None and beside.task == serial and not beside.line.is_over:
                beside.line.close("The task has ended.")
                if beside.serial:
                    self._kill(beside.serial)

    def owns(self, serial: int) -> bool:
        """Whether a process of the spawner's is one of the shells."""
        return any(beside is not None and beside.serial == serial for beside in self._known.values())

    def ended(self, serial: int, problem: str = "") -> str:
        """A shell's process is gone, or never was; gives back its directory, to be removed."""
        for name, beside in self._known.items():
            if beside is not None and beside.serial == serial:
                if problem or beside.shell is None:
                    beside.line.close(problem or "The shell has ended.")
                else:  # what it said last may not have been read yet
                    beside.shell.is_gone = True
                self._known[name] = None
        return f"{self._folder}/{serial}"

    def prune(self) -> None:
        """Forget forwards that are over."""
        for name, beside in self._known.items():
            if beside is not None and beside.line.is_over and not beside.serial:
                self._known[name] = None

    def close(self) -> None:
        """The pilot ends."""
        for beside in self._known.values():
            if beside is not None:
                beside.line.close("The pilot ends.")


def _asker(endpoint: Endpoint, path: str) -> Callable[[Json, float], ChannelReply]:
    """Requests over a connection of their own."""
    held: List[AnyTransport] = []

    def ask(body: Json, wait_s: float) -> ChannelReply:
        try:
            if not held:
                held.append(open_transport(endpoint))
            return parse_channel(held[0].post(path, encode(body), wait_s + 30.0))
        except Refused as error:
            raise Over(str(error)) from error
        except (Unreachable, WireError, OSError) as error:
            raise Away(str(error)) from error

    return ask


class _Shell:
    """Between a line and the process of :mod:`hansa.node.shell`."""

    def __init__(self) -> None:
        self._socket: Optional[socket.socket] = None
        self._door: Optional[socket.socket] = None
        self._early: List[bytes] = []
        self.is_gone = False
        """Its process has ended. Whatever it said is in the socket until :meth:`_serve` has read it."""
        self._lock = threading.Lock()

    def open_door(self, base: str, line: Line) -> None:
        """Listen in the shell's own directory. OSError."""
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(base, os.O_PATH | os.O_DIRECTORY)
        try:
            self._door.bind(f"/proc/self/fd/{folder}/door")  # a socket's path is short
        finally:
            os.close(folder)
        self._door.listen(1)
        self._door.settimeout(_DOOR_LOOK_S)
        threading.Thread(target=self._serve, args=(line,), name="shell", daemon=True).start()

    def _serve(self, line: Line) -> None:
        found = self._accept()
        if found is None:
            line.close("The shell has ended." if self.is_gone else "The shell did not start in time.")
            return
        with self._lock:
            self._socket = found
            for data in self._early:
                found.sendall(data)
        reader = Reader()
        with found, contextlib.suppress(OSError):
            while True:
                data = found.recv(_PIECE)
                if not data:
                    break
                for kind, body in reader.feed(data):
                    name, stream = _KINDS[kind]
                    line.say(name, stream, body)
        line.close("The shell has ended.")

    def _accept(self) -> Optional[socket.socket]:
        """The process at the door; None if none came in time, or it has gone without having been here."""
        door = self._door
        assert door is not None  # opened before, for the type checker
        deadline = time.monotonic() + DOOR_TIMEOUT_S
        with door:
            while True:
                is_last = self.is_gone or time.monotonic() > deadline  # looked at before: who came, waits at the door
                try:
                    return door.accept()[0]
                except socket.timeout:
                    if is_last:
                        return None
                except OSError:  # the channel is over
                    return None

    def hear(self, frame: Frame) -> None:
        """From the other end, in the listening thread."""
        kind = {"data": INPUT, "end": END, "resize": RESIZE}.get(frame.kind)
        if kind is None:
            return
        data = message(kind, bytes_of(frame))
        with self._lock:
            if self._socket is None:
                self._early.append(data)
                return
        with contextlib.suppress(OSError):  # it has ended; its other thread says so
            self._socket.sendall(data)

    def over(self, reason: str) -> None:
        """The channel is closed: so is the terminal."""
        _log.info("a shell is over: %s", reason)
        for one in (self._socket, self._door):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


class _Forward:
    """Between a line and connections to one port of this node."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._line: Optional[Line] = None
        self._streams: Dict[int, socket.socket] = {}

    def begin(self, line: Line) -> None:
        self._line = line

    def hear(self, frame: Frame) -> None:
        """From the other end, in the listening thread."""
        if frame.kind == "open":
            self._connect(frame.stream)
            return
        found = self._streams.get(frame.stream)
        if found is None:
            return
        try:
            if frame.kind == "data":
                found.sendall(bytes_of(frame))
            elif frame.kind == "end":
                found.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(frame.stream)

    def _connect(self, stream: int) -> None:
        found: Optional[socket.socket] = None
        for host in ("127.0.0.1", "::1"):
            try:
                found = socket.create_connection((host, self._port), CONNECT_TIMEOUT_S)
                break
            except OSError:
                continue
        line = self._line
        assert line is not None  # begun, for the type checker
        if found is None or len(self._streams) >= MOST_STREAMS:
            line.say("end", stream)
            return
        found.settimeout(CONNECT_TIMEOUT_S)
        self._streams[stream] = found
        threading.Thread(target=self._read, args=(stream, found, line), name="forward", daemon=True).start()

    def _read(self, stream: int, found: socket.socket, line: Line) -> None:
        while not line.is_over:
            try:
                data = found.recv(_PIECE)
            except socket.timeout:
                continue
            except OSError:
                break
            if not data:
                break
            line.say("data", stream, data)
        line.say("end", stream)

    def _drop(self, stream: int) -> None:
        found = self._streams.pop(stream, None)
        if found is not None:
            found.close()

    def over(self, reason: str) -> None:
        """The channel is closed: so are the connections."""
        _log.info("a forward is over: %s", reason)
        for stream in list(self._streams):
            self._drop(stream)
