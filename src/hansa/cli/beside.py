"""``hansa job shell`` and ``hansa job forward``: into the directory of a running task, and to its ports."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from hansa.cli import refs
from hansa.cli.jobs import examples, job_argument
from hansa.cli.session import note, open_session
from hansa.client import job_api
from hansa.client.errors import USAGE, HansaError, ServerAway
from hansa.client.transport import Transport
from hansa.jobs.wire import NewChannel, OpenedChannel
from hansa.kernel.errors import Exit
from hansa.node.line import Ask, Away, Json, Line, Over, bytes_of
from hansa.node.protocol import ChannelReply, ChannelRequest, Frame

_PIECE = 65536
_LOOK_S = 0.2


def _asker(channel: str) -> Ask:
    """Requests over a connection of their own."""
    held: list[Transport] = []

    def ask(body: Json, wait_s: float) -> ChannelReply:  # noqa: ARG001 - the body says it too
        frames = [Frame(**frame) for frame in body.pop("frames", [])]
        request = ChannelRequest(frames=frames, **body)
        body["frames"] = [vars(frame) for frame in frames]
        try:
            if not held:
                held.append(open_session())
            return held[0].run(job_api.swap_channel(channel, request))
        except ServerAway as error:
            raise Away(str(error)) from error
        except HansaError as error:
            raise Over(str(error)) from error

    return ask


def _line(channel: str, hear: Callable[[Frame], None], over: Callable[[str], None]) -> Line:
    return Line(_asker(channel), _asker(channel), hear, over)


@click.command(
    epilog=examples("hansa job shell 12", "hansa job shell 12.17 -- top", "hansa job shell last -- tail -f log.txt"),
    context_settings={"ignore_unknown_options": True},
)
@job_argument(name="JOB[.TASK]")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def shell(job: str, command: tuple[str, ...]) -> int:
    """Open a shell beside a running task: in its directory, with its environment, in its container image.

    It ends with the task. What it uses counts as the pilot's, not as the task's. The exit code is the shell's.
    """
    session = open_session()
    ref = refs.one(session, job)
    has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not has_terminal and not command:
        raise HansaError(USAGE, "There is no terminal here.", hint=f"Say what to run: hansa job shell {job} -- ls")
    size = shutil.get_terminal_size()
    term = os.environ.get("TERM", "dumb") if has_terminal else None
    new = NewChannel("shell", ref.task, list(command), term, size.lines, size.columns)
    opened = session.run(job_api.open_channel(ref.number, new))
    if has_terminal and not command:
        note(f"beside task {opened.job}.{opened.task} at {opened.node or opened.site}; exit or Ctrl-D leaves it")
    return _run_shell(opened, has_terminal=has_terminal)


def _run_shell(opened: OpenedChannel, *, has_terminal: bool) -> int:
    news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def hear(frame: Frame) -> None:
        if frame.kind == "data":
            out = sys.stderr.buffer if frame.stream == 2 else sys.stdout.buffer
            out.write(bytes_of(frame))
            out.flush()
        elif frame.kind == "exit":
            news.put(("exit", int(bytes_of(frame))))

    line = _line(opened.id, hear, lambda reason: news.put(("over", reason)))
    if has_terminal:
        signal.signal(signal.SIGWINCH, lambda _number, _frame: _tell_size(line))
    with _raw() if has_terminal else contextlib.nullcontext():
        line.start()
        threading.Thread(target=_copy_input, args=(line,), name="input", daemon=True).start()
        code = _wait(news)
    if code is None:
        return Exit.FAILED
    return code


def _wait(news: queue.SimpleQueue[tuple[str, Any]]) -> int | None:
    """The exit code; None where the channel was over without one, which is said."""
    code: int | None = None
    while True:
        try:
            kind, value = news.get(timeout=_LOOK_S)  # a signal is heard between two looks
        except queue.Empty:
            continue
        if kind == "exit":
            code = int(value)
        else:
            if code is None:
                sys.stderr.write("\r\n")
                note(str(value))
            return code


def _tell_size(line: Line) -> None:
    size = shutil.get_terminal_size()
    threading.Thread(
        target=line.say, args=("resize", 0, f"{size.lines} {size.columns}".encode()), daemon=True
    ).start()  # a signal's handler must not wait


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """The terminal gives every key, and shows nothing by itself."""
    import termios
    import tty

    saved = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)


def _copy_input(line: Line) -> None:
    while not line.is_over:
        if not select.select([0], [], [], _LOOK_S)[0]:
            continue
        data = os.read(0, _PIECE)
        if not data:
            line.say("end")
            return
        line.say("data", 0, data)


@click.command(epilog=examples("hansa job forward 12 8888", "hansa job forward 12.17 6006 --local 16006"))
@job_argument(name="JOB[.TASK]")
@click.argument("port", type=click.IntRange(1, 65535), metavar="PORT")
@click.option("--local", type=click.IntRange(0, 65535), metavar="PORT", help="Port here. [default: the same]")
def forward(job: str, port: int, local: int | None) -> int:
    """Make a port of a running task's node reachable on this computer, until Ctrl-C or the task's end.

    For what a task serves on its node's loopback: a notebook, TensorBoard, a debugger. Prints the address.
    """
    session = open_session()
    ref = refs.one(session, job)
    door = _listen(port, local)
    opened = session.run(job_api.open_channel(ref.number, NewChannel("forward", ref.task, port=port)))
    bridge = _Bridge(opened.id, door)
    click.echo(f"127.0.0.1:{door.getsockname()[1]}")
    note(f"goes to port {port} beside task {opened.job}.{opened.task} at {opened.node or opened.site}; Ctrl-C ends it")
    try:
        reason = bridge.serve()
    except KeyboardInterrupt:
        bridge.close()
        return 0
    note(reason)
    return Exit.FAILED


def _listen(port: int, local: int | None) -> socket.socket:
    wishes = [port, 0] if local is None else [local]
    for wish in wishes:
        try:
            return socket.create_server(("127.0.0.1", wish))
        except OSError as error:
            problem = error
    raise HansaError(USAGE, f"Port {wishes[-1]} cannot be used here: {problem.strerror}.", hint="Choose: --local PORT")


class _Bridge:
    """Local connections, each a stream of the channel."""

    def __init__(self, channel: str, door: socket.socket) -> None:
        self._door = door
        self._streams: dict[int, socket.socket] = {}
        self._reason: str | None = None
        self._line = _line(channel, self._hear, self._over)

    def serve(self) -> str:
        """Until the channel is over; why."""
        self._line.start()
        self._door.settimeout(_LOOK_S)
        number = 0
        while self._reason is None:
            try:
                found, _ = self._door.accept()
            except TimeoutError:
                continue
            number += 1
            found.settimeout(None)
            self._streams[number] = found
            self._line.say("open", number)
            threading.Thread(target=self._read, args=(number, found), daemon=True).start()
        return self._reason

    def close(self) -> None:
        self._line.close("The user ended it.")
        with contextlib.suppress(KeyboardInterrupt):
            for _ in range(50):
                if self._reason is not None:
                    return
                threading.Event().wait(_LOOK_S / 2)

    def _read(self, stream: int, found: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := found.recv(_PIECE):
                self._line.say("data", stream, data)
        self._line.say("end", stream)

    def _hear(self, frame: Frame) -> None:
        found = self._streams.get(frame.stream)
        if found is None:
            return
        try:
            if frame.kind == "data":
                found.sendall(bytes_of(frame))
            elif frame.kind == "end":
                found.shutdown(socket.SHUT_WR)
        except OSError:
            self._streams.pop(frame.stream, None)
            found.close()

    def _over(self, reason: str) -> None:
        self._reason = reason or "It is over."
        for found in list(self._streams.values()):
            with contextlib.suppress(OSError):
                found.shutdown(socket.SHUT_RDWR)
