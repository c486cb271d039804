"""The process beside a task that a shell runs under: it has the terminal, and a socket to the agent.

``shell DOOR ROWS COLUMNS TERM|- WORD...`` runs the words in the current directory and environment. On the socket, both
ways: one byte (what it is), four bytes (a length), and as many bytes. The spawner has made this process as it makes
tasks, so that it sees and may what the task does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
from typing import Callable, Dict, List, Optional, Sequence, Tuple

HEAD = struct.Struct("!cI")
INPUT, END, RESIZE = b"i", b"e", b"r"
OUTPUT, ERRORS, EXIT = b"o", b"x", b"c"
_PIECE = 65536


def message(kind: bytes, data: bytes = b"") -> bytes:
    """One message."""
    return HEAD.pack(kind, len(data)) + data


class Reader:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Tuple[bytes, bytes]]:
        """The messages that are complete now."""
        self._buffer += data
        found = []
        while len(self._buffer) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._buffer)
            if len(self._buffer) < HEAD.size + length:
                break
            found.append((kind, bytes(self._buffer[HEAD.size : HEAD.size + length])))
            del self._buffer[: HEAD.size + length]
        return found


class Shell:
    """The words, running; ``write`` gets what they say."""

    def __init__(self, words: Sequence[str], term: Optional[str], rows: int, columns: int) -> None:
        self.outputs: Dict[int, bytes] = {}
        self._input: Optional[int] = None
        self._terminal: Optional[int] = None
        if term is None:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
            pipes = [pipe for pipe in (process.stdin, process.stdout, process.stderr) if pipe is not None]
            self._input, output, errors = (os.dup(pipe.fileno()) for pipe in pipes)
            self.outputs = {output: OUTPUT, errors: ERRORS}
            for pipe in pipes:
                pipe.close()
        else:
            here, there = os.openpty()
            self._terminal = self._input = here
            self.resize(rows, columns)
            process = subprocess.Popen(
                words,
                stdin=there,
                stdout=there,
                stderr=there,
                env={**os.environ, "TERM": term},
                start_new_session=True,
                preexec_fn=_take_terminal,
            )
            os.close(there)
            self.outputs = {here: OUTPUT}
        self.process = process

    def resize(self, rows: int, columns: int) -> None:
        """The size of the terminal; the kernel tells the program."""
        if self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def hear(self, data: bytes) -> None:
        """Its input."""
        view = memoryview(data)
        while view and self._input is not None:
            try:
                view = view[os.write(self._input, view) :]
            except OSError:
                return  # it does not read any more

    def end_input(self) -> None:
        """There is no more input."""
        if self._terminal is not None:
            self.hear(b"\x04")
        elif self._input is not None:
            os.close(self._input)
            self._input = None

    def end(self) -> None:
        """As if the terminal were closed, and then for certain."""
        for number in (signal.SIGHUP, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except (ProcessLookupError, PermissionError):
                return
            try:
                self.process.wait(2.0)
            except subprocess.TimeoutExpired:
                continue


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def serve(channel: socket.socket, shell: Shell) -> int:
    """Carry bytes until the shell has ended and all was said, or the agent is gone. Returns its exit code."""
    reader = Reader()
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    for fd in shell.outputs:
        selector.register(fd, selectors.EVENT_READ)
    while shell.outputs:
        ready = [key.fd for key, _ in selector.select(0.2)]
        for fd in ready:
            if fd == channel.fileno():
                data = channel.recv(_PIECE)
                if not data:
                    shell.end()
                    return 129
                for kind, body in reader.feed(data):
                    _obey(shell, kind, body)
            elif not _copy(fd, shell.outputs[fd], channel.sendall):
                selector.unregister(fd)
                del shell.outputs[fd]
        if not ready and shell.process.poll() is not None:
            break  # something that it has left behind still holds its output
    code = shell.process.wait()
    return code if code >= 0 else 128 - code


def _obey(shell: Shell, kind: bytes, body: bytes) -> None:
    if kind == INPUT:
        shell.hear(body)
    elif kind == END:
        shell.end_input()
    elif kind == RESIZE:
        rows, columns = body.split()
        shell.resize(int(rows), int(columns))


def _copy(fd: int, kind: bytes, send: Callable[[bytes], object]) -> bool:
    """What there is to read. False at the end."""
    try:
        data = os.read(fd, _PIECE)
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal that nobody has open any more
            return False
        raise
    if data:
        send(message(kind, data))
    return bool(data)


def main(arguments: Sequence[str]) -> int:
    """See the head of this file."""
    door, rows, columns, term, *words = arguments
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.connect(door)
    try:
        shell = Shell(words, None if term == "-" else term, int(rows), int(columns))
    except OSError as error:
        channel.sendall(message(ERRORS, f"{words[0]}: {error.strerror}\n".encode()) + message(EXIT, b"127"))
        return 127
    code = serve(channel, shell)
    channel.sendall(message(EXIT, str(code).encode()))
    channel.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
