"""``node.pyz relay --spool DIR``: carries the requests of a spool over standard input and output.

It runs on a login node, at the end of an SSH connection whose other end is the server. Frames in both directions: two
lengths of four bytes, a head in JSON, and bytes. It holds nothing: a request's files stay until its answer is written,
so it may be killed at any moment, and two at once only do work twice, which the protocol bears.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import struct
import sys
import time
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Tuple

from .protocol import RESUME_BYTES
from .spool import HEARTBEAT, HEARTBEAT_S, LEFT, write_whole

LENGTHS = struct.Struct("!II")
PIECE_BYTES = 256 * 1024
FIRST_LOOK_S = 0.005
LONGEST_LOOK_S = 0.25
SILENCE_S = 60.0
"""Without a word from the server for so long it ends: somebody else will be started."""
_AWAY = (502, 503, 504)
"""Answers that mean: later. Anything else would be the same again."""
AGAIN_S = 1.0
Head = Dict[str, Any]


def frame(head: Head, body: bytes = b"") -> bytes:
    """One message."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


def is_resumed(head: Head) -> bool:
    """Whether the body of a request is so large that it goes on where it broke off: the server says from where on."""
    return head.get("method") == "PUT" and int(head["size"]) > RESUME_BYTES


class Unframer:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Tuple[Head, bytes]]:
        """The messages that are complete now."""
        self._buffer += data
        found = []
        while len(self._buffer) >= LENGTHS.size:
            head_size, body_size = LENGTHS.unpack_from(self._buffer)
            start = LENGTHS.size + head_size
            if len(self._buffer) < start + body_size:
                break
            head = json.loads(bytes(self._buffer[LENGTHS.size : start]))
            found.append((head, bytes(self._buffer[start : start + body_size])))
            del self._buffer[: start + body_size]
        return found


def is_its_turn(name: str, names: Iterable[str]) -> bool:
    """What a pilot left when it ended is carried in its order, after all else of that pilot: the goodbye comes last.

    >>> is_its_turn("p-left-000002-x", ["p-left-000001-y", "p-left-000002-x"])
    False
    """
    pilot, left, _ = name.partition(LEFT)
    if not left:
        return True
    return not any(other < name or LEFT not in other for other in names if other.startswith(pilot + "-"))


class Relay:
    """The far end. ``send`` may block: the server always reads."""

    def __init__(self, spool: str, send: Any) -> None:
        self._spool = spool
        self._out = os.path.join(spool, "out")
        self._send = send
        self._known: Dict[str, str] = {}  # id of a request that was sent: its pilot
        self._starts: Dict[str, int] = {}  # of large ones: from where on its body is wanted
        self._later: Dict[str, float] = {}  # id of a request that is to be carried again: not before
        self._uploads: List[Iterator[bool]] = []
        os.makedirs(self._out, mode=0o700, exist_ok=True)

    def look(self) -> bool:
        """Send what is new, a piece of each. True if there was something."""
        names = {name[:-5] for name in os.listdir(self._out) if name.endswith(".json")}
        for name in list(self._known):
            if name not in names:  # withdrawn
                self._forget(name)
        for name in sorted(names - set(self._known)):
            if is_its_turn(name, names) and time.monotonic() >= self._later.get(name, 0.0):
                self._begin(name)
        moved = False
        for upload in list(self._uploads):
            try:
                moved = next(upload) or moved
            except StopIteration:
                self._uploads.remove(upload)
        return moved

    def _forget(self, name: str) -> None:
        del self._known[name]
        self._later.pop(name, None)
        self._starts.pop(name, None)

    @property
    def is_busy(self) -> bool:
        """Whether requests wait for their answers."""
        return bool(self._known)

    def hear(self, head: Head, body: bytes) -> None:
        """A piece of an answer."""
        name = str(head.get("id", ""))
        pilot = self._known.get(name)
        if pilot is None:
            return
        if "start" in head:
            self._starts[name] = int(head["start"])
            return
        place = os.path.join(self._spool, "in", pilot, name)
        try:
            if body or not head.get("last") or not os.path.exists(place + ".body"):
                with open(os.open(place + ".body", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as stream:
                    stream.write(body)
            if head.get("last"):
                write_whole(place + ".json", json.dumps({"status": head["status"]}).encode())
        except OSError:  # the pilot's folder is gone
            pass
        if head.get("last"):
            self._forget(name)
            if LEFT in name and int(head["status"]) in _AWAY:
                self._later[name] = time.monotonic() + AGAIN_S
                return  # nobody else will say it again: it is carried once more
            for end in (".json", ".body"):
                try:
                    os.unlink(os.path.join(self._out, name + end))
                except OSError:
                    pass

    def _begin(self, name: str) -> None:
        try:
            with open(os.path.join(self._out, name + ".json"), "rb") as stream:
                head = json.loads(stream.read())
        except (OSError, ValueError):
            return
        pilot = str(head.get("pilot", ""))
        if head.get("id") != name or not pilot or "/" in pilot or pilot.startswith("."):
            return
        self._known[name] = pilot
        try:  # of an earlier relay that was cut off
            os.unlink(os.path.join(self._spool, "in", pilot, name + ".body"))
        except OSError:
            pass
        self._uploads.append(self._upload(name, head))

    def _upload(self, name: str, head: Head) -> Iterator[bool]:
        """A piece of a request with each step; False where there is nothing to send now."""
        left = int(head["size"])
        self._send(frame(head))
        while is_resumed(head) and name not in self._starts:  # how much of it came before is the server's to say
            if name not in self._known:
                return
            yield False
        try:
            with open(os.path.join(self._out, name + ".body"), "rb") as stream:
                start = self._starts.get(name, 0)
                stream.seek(start)
                left -= start
                while left > 0:
                    piece = stream.read(min(PIECE_BYTES, left))
                    if not piece:
                        break
                    left -= len(piece)
                    self._send(frame({"id": name}, piece))
                    yield True
        except OSError:
            pass
        self._send(frame({"id": name, "end": True, "broken": left > 0}))


def main(arguments: Sequence[str]) -> int:
    """Until standard input ends, or the server says nothing for a minute."""
    parser = argparse.ArgumentParser(prog="node.pyz relay")
    parser.add_argument("--spool", required=True, metavar="DIR", help="the folder of the spool")
    options = parser.parse_args(arguments)
    relay = Relay(options.spool, _write)
    _write(frame({"hello": 1}))
    unframer = Unframer()
    heard = time.monotonic()
    beat = heard - HEARTBEAT_S
    look_s = FIRST_LOOK_S
    while True:
        now = time.monotonic()
        if now - beat >= HEARTBEAT_S:
            beat = now
            write_whole(os.path.join(options.spool, HEARTBEAT), b"")
            _write(frame({"beat": 1}))
        has_more = relay.look()
        readable, _, _ = select.select([0], [], [], 0.0 if has_more else look_s)
        look_s = FIRST_LOOK_S if has_more else min(LONGEST_LOOK_S, look_s * 1.2)
        if readable:
            data = os.read(0, 1 << 20)
            if not data:
                return 0
            heard = time.monotonic()
            for head, body in unframer.feed(data):
                if "id" in head:
                    look_s = FIRST_LOOK_S  # a pilot that has got an answer will soon say more
                    relay.hear(head, body)
        elif time.monotonic() - heard > SILENCE_S:
            return 0


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
