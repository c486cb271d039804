"""A terminal for a container: a pseudo-terminal of the container's own, relayed to the caller's."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty
from typing import Any, List, Optional

from . import launcher

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431


def open_pair(channel: socket.socket) -> int:
    """In the container: open a pair, send its master side over ``channel``; returns the other side."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, b"\0" * 4))[0]
    side = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    socket.send_fds(channel, [b"t"], [master])
    os.close(master)
    return side


def take(side: int) -> None:
    """The leader of a fresh session takes a terminal as its own and as its three streams."""
    fcntl.ioctl(side, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(side, fd)
    if side > 2:
        os.close(side)


def relay(pid: int, master: int, *, has_stdin: bool) -> int:
    """Copy between our streams and the container's terminal until its first process ends; the exit code."""
    is_terminal = os.isatty(0)
    saved: Optional[List[Any]] = None
    if is_terminal and has_stdin:
        saved = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is kept
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_reader, False)
    os.set_blocking(wake_writer, False)
    watched = launcher.WATCHED - {signal.SIGWINCH, signal.SIGCHLD}
    handlers = {}
    for number in (*watched, signal.SIGWINCH, signal.SIGCHLD):
        handlers[number] = signal.signal(number, lambda _number, _frame: None)
    previous = signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, launcher.WATCHED)
    try:
        _copy_size(master)
        return _loop(pid, master, wake_reader, has_stdin=has_stdin)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, launcher.WATCHED)
        signal.set_wakeup_fd(previous)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        for fd in (wake_reader, wake_writer, master):
            os.close(fd)


def _copy_size(master: int) -> None:
    for fd in (1, 0, 2):
        try:
            size = fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8)
        except OSError:
            continue
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        return


def _loop(pid: int, master: int, wake: int, *, has_stdin: bool) -> int:
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(wake, select.POLLIN)
    if has_stdin:
        poll.register(0, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == wake:
                for number in os.read(wake, 512):
                    if number == signal.SIGWINCH:
                        _copy_size(master)
                    elif number != signal.SIGCHLD:
                        launcher._send(pid, number)
            elif fd == master:
                if not _pass(master, 1):
                    poll.unregister(master)
            elif not _pass(0, master):
                poll.unregister(0)
                if not os.isatty(0):
                    os.write(master, b"\x04")  # the end of a piped input, as a terminal tells it
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended == pid:
            while _is_ready(master) and _pass(master, 1):
                pass
            return launcher.exit_code(status)


def _is_ready(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def _pass(source: int, target: int) -> bool:
    """Copy what is there; False at the end."""
    try:
        data = os.read(source, 65536)
    except OSError as error:
        if error.errno == errno.EIO:  # nobody has the other side open
            return False
        raise
    rest = data
    while rest:
        rest = rest[os.write(target, rest) :]
    return bool(data)
