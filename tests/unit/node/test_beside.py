"""Shells beside tasks: the agent's side."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

from hansa.node.beside import Beside, Channels, _Shell
from hansa.node.protocol import Channel
from hansa.node.shell import EXIT, OUTPUT, message


class Said:
    """A line that remembers what it carried."""

    is_over = False

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.is_closed = threading.Event()

    def say(self, kind: str, _stream: int = 0, data: bytes = b"") -> None:
        self.heard.append((kind, data))

    def close(self, reason: str) -> None:
        self.heard.append(("close", reason.encode()))
        self.is_closed.set()


def beside(folder: Path) -> tuple[Channels, Said]:
    nothing: Any = None
    channels, line, shell = Channels(nothing, str(folder), nothing, nothing, nothing), Said(), _Shell()
    spoken: Any = line
    shell.open_door(str(folder), spoken)
    order = Channel("c", 1, 0, "shell", ["true"], None, 24, 80, 0)
    channels._known["c"] = Beside(order, 1, spoken, 7, shell)
    return channels, line


def test_the_last_words_of_a_shell_are_carried_though_its_process_has_gone(tmp_path: Path) -> None:
    channels, line = beside(tmp_path)
    with socket.socket(socket.AF_UNIX) as process:
        process.connect(str(tmp_path / "door"))
        channels.ended(7)
        process.sendall(message(OUTPUT, b"42") + message(EXIT, b"0"))
    assert line.is_closed.wait(60)
    assert line.heard == [("data", b"42"), ("exit", b"0"), ("close", b"The shell has ended.")]


def test_a_shell_that_never_came_ends(tmp_path: Path) -> None:
    channels, line = beside(tmp_path)
    channels.ended(7)
    assert line.is_closed.wait(60)
    assert line.heard == [("close", b"The shell has ended.")]
