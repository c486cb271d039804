"""A terminal in a container."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from tests.integration.containers.conftest import Home

DEADLINE_S = 120.0


class Terminal:
    """Our end of a terminal at which a command runs."""

    def __init__(self, home: Home, *words: str) -> None:
        self.fd, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        streams = {"stdin": side, "stdout": side, "stderr": side}
        self.process: subprocess.Popen[str] = home.start(*words, streams=streams)
        self.side = side
        self.seen = ""

    def read_until(self, text: str, again: str = "") -> str:
        """What was seen, once ``text`` is among it. ``again`` is typed every second until then."""
        deadline = time.monotonic() + DEADLINE_S
        typed = time.monotonic() if again else float("inf")
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if time.monotonic() > typed + 1:
                self.write(again)
                typed = time.monotonic()
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode()
                except OSError:  # EIO: nobody has the other side open
                    break
        return self.seen

    def write(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def close(self) -> int:
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.fd)
            os.close(self.side)


def test_a_shell_at_a_terminal(home: Home) -> None:
    terminal = Terminal(home, "run", "--rm", "-it", "box:1", "sh")
    before = termios.tcgetattr(terminal.side)
    terminal.read_until("# ")
    terminal.write("tty; stty size; echo $((40+2)) done\n")
    seen = terminal.read_until("42 done")
    assert "/dev/pts/0" in seen
    assert "33 101" in seen
    fcntl.ioctl(terminal.side, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 122, 0, 0))
    os.kill(terminal.process.pid, 28)
    terminal.read_until("44 122", again="stty size\n")
    terminal.write("exit 6\n")
    assert terminal.process.wait(DEADLINE_S) == 6
    assert termios.tcgetattr(terminal.side) == before, "the caller's terminal is as it was"
    assert terminal.close() == 6


def test_the_interrupt_key_reaches_the_program(home: Home) -> None:
    terminal = Terminal(home, "run", "--rm", "-it", "box:1", "sh", "-c", "echo ready; exec sleep 1000")
    terminal.read_until("ready")
    time.sleep(0.1)
    terminal.write("\x03")
    assert terminal.close() == 130


def test_a_terminal_is_not_waited_for_in_batch(home: Home) -> None:
    """``-it`` out of habit in a job script: runs, with what is on stdin, and ends."""
    done = home("run", "--rm", "-it", "box:1", "sh", "-c", "tty; cat", text="input")
    assert done.returncode == 0
    assert "not a tty" in done.stdout
    assert done.stdout.endswith("input")


def is_running(*words: str) -> bool:
    wanted = b"".join(word.encode() + b"\0" for word in words)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == wanted:
                return True
    return False


def test_job_control_works(home: Home) -> None:
    terminal = Terminal(home, "run", "--rm", "-it", "box:1", "sh")
    terminal.read_until("# ")
    terminal.write("sleep 1003\n")
    deadline = time.monotonic() + DEADLINE_S
    while not is_running("sleep", "1003"):  # from then on it is what the keys are for
        assert time.monotonic() < deadline, terminal.seen
        time.sleep(0.05)
    terminal.write("\x1a")
    terminal.read_until("Stopped")
    time.sleep(0.5)  # the shell asks the terminal where its cursor is before it reads on
    terminal.write("kill -9 %1\n")
    time.sleep(0.5)
    terminal.write("exit 0\nexit 0\n")  # the first one may only warn of stopped jobs
    assert terminal.close() == 0
