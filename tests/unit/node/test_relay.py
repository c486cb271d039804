"""The far end of a spool."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from hansa.node.protocol import RESUME_BYTES
from hansa.node.relay import Relay, Unframer
from hansa.node.spool import Spool

SIZE = RESUME_BYTES + 1000


class Wire:
    """What a relay sent."""

    def __init__(self) -> None:
        self.unframer = Unframer()
        self.heads: list[dict[str, Any]] = []
        self.body = b""

    def send(self, data: bytes) -> None:
        for head, body in self.unframer.feed(data):
            self.heads.append(head)
            self.body += body


def drain(relay: Relay) -> None:
    while relay.look():
        pass


def test_a_large_upload_goes_on_where_an_earlier_relay_broke_off(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(SIZE)
    (tmp_path / "token").write_text("t")
    (tmp_path / "token").chmod(0o600)
    name = Spool(str(tmp_path / "spool"), "p").leave("PUT", "/x", str(tmp_path / "token"), data)
    for start in (0, 5_000_000, SIZE):
        wire = Wire()
        relay = Relay(str(tmp_path / "spool"), wire.send)
        drain(relay)
        assert (wire.heads[0]["size"], wire.body) == (SIZE, b""), "it asks first"
        relay.hear({"id": name, "start": start}, b"")
        drain(relay)
        assert wire.body == data[start:]
        assert wire.heads[-1] == {"id": name, "end": True, "broken": False}


def test_what_is_withdrawn_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "token").chmod(0o600)
    spool = Spool(str(tmp_path / "spool"), "p")
    name = spool.leave("PUT", "/x", str(tmp_path / "token"), bytes(SIZE))
    wire = Wire()
    relay = Relay(str(tmp_path / "spool"), wire.send)
    drain(relay)
    assert [relay.is_busy] == [True]
    for end in (".json", ".body"):
        (tmp_path / "spool" / "out" / (name + end)).unlink()
    drain(relay)
    assert [relay.is_busy] == [False]
    assert len(wire.heads) == 1
