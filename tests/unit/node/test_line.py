"""The ends of a channel, and the process that has the terminal."""

from __future__ import annotations

import base64
import os
import socket
import threading

import pytest

from hansa.node.line import Away, Json, Line, Over
from hansa.node.protocol import ChannelReply, Frame
from hansa.node.shell import ERRORS, EXIT, INPUT, OUTPUT, Reader, Shell, message, serve


class Server:
    """Answers a line; what it says is kept, and every second request gets lost."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.accepted = 0
        self.says: list[tuple[int, list[Frame]]] = []
        self.closed: str | None = None
        self.requests = 0
        self.lock = threading.Lock()

    def ask(self, body: Json, _wait_s: float) -> ChannelReply:
        with self.lock:
            self.requests += 1
            if body.get("piece", 0) == self.accepted + 1:
                self.accepted += 1
                self.heard += [base64.b64decode(frame["data"]).decode() for frame in body["frames"]]
            self.closed = body.get("close", self.closed)
            if self.requests % 2:
                raise Away("the answer got lost")
            if not body.get("listen"):
                return ChannelReply(self.accepted, closed=self.closed)
            found = [one for one in self.says if one[0] > body["received"]]
            frames = [frame for _, some in found for frame in some]
            return ChannelReply(self.accepted, found[-1][0] if found else body["received"], frames, closed=self.closed)


def test_a_line_says_and_hears_each_thing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hansa.node.line.AGAIN_S", 0.001)
    server, heard, over = Server(), [], threading.Event()
    all_heard = threading.Event()
    server.says = [(n, [Frame("data", 1, str(n))]) for n in (1, 2, 3)]

    def hear(frame: Frame) -> None:
        heard.append(frame.data)
        if len(heard) >= 3:
            all_heard.set()

    line = Line(server.ask, server.ask, hear, lambda _reason: over.set())
    line.start()
    for n in range(50):
        line.say("data", 0, str(n).encode())
    assert all_heard.wait(60)
    line.close("done")
    assert over.wait(60)
    assert line.is_over
    assert server.heard == [str(n) for n in range(50)]
    assert heard == ["1", "2", "3"]


def test_a_line_ends_when_the_channel_does() -> None:
    def ask(_body: Json, _wait_s: float) -> ChannelReply:
        raise Over("there is no such channel")

    reasons: list[str] = []
    over = threading.Event()

    def end(reason: str) -> None:
        reasons.append(reason)
        over.set()

    line = Line(ask, ask, lambda _frame: None, end)
    line.start()
    assert over.wait(60)
    line.say("data", 0, b"to nobody")
    assert reasons == ["there is no such channel"]


def told(words: list[str], term: str | None, said: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Run a shell with this input; its code, and what it said by kind."""
    here, there = socket.socketpair()
    shell = Shell(words, term, 30, 100)
    here.sendall(message(INPUT, said))
    code = serve(there, shell)
    there.close()
    reader, found = Reader(), []
    while data := here.recv(65536):
        found += reader.feed(data)
    here.close()
    for fd in shell.outputs:
        os.close(fd)
    return code, found


def test_without_a_terminal_there_are_three_streams() -> None:
    code, found = told(["/bin/sh", "-c", "read x; echo out $x; echo err >&2; exit 5"], None, b"in\n")
    assert code == 5
    assert sorted(found) == [(OUTPUT, b"out in\n"), (ERRORS, b"err\n")]


def test_a_terminal_has_a_size_and_a_name() -> None:
    code, found = told(["/bin/sh", "-c", "stty size; echo $TERM; test -t 0; kill -9 $$"], "vt100", b"")
    text = b"".join(body for kind, body in found if kind == OUTPUT)
    assert code == 137
    assert b"30 100" in text
    assert b"vt100" in text


def test_messages_are_cut_where_they_end() -> None:
    reader = Reader()
    whole = message(EXIT, b"0") + message(OUTPUT, b"x" * 9)
    found = [one for byte in whole for one in reader.feed(bytes([byte]))]
    assert found == [(EXIT, b"0"), (OUTPUT, b"x" * 9)]
