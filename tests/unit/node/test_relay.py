"""The far end of a spool."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import hansa.node.relay
from hansa.node.protocol import RESUME_BYTES
from hansa.node.relay import Relay, Unframer
from hansa.node.spool import Left, Spool

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


def test_what_an_ended_pilot_left_is_carried_in_its_order_after_all_else_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hansa.node.relay, "AGAIN_S", 0.0)
    spool, other = Spool(str(tmp_path / "spool"), "p"), Spool(str(tmp_path / "spool"), "q")
    first, last = (spool.leave("POST", "/x", "t", b"{}") for _ in range(2))
    elses = other.leave("POST", "/x", "t", b"{}")
    with pytest.raises(Left):
        spool.ask("PUT", "/file", "t", b"data", None, lambda: True)
    wire = Wire()
    relay = Relay(str(tmp_path / "spool"), wire.send)

    def begun() -> list[str]:
        drain(relay)
        return [head["id"] for head in wire.heads if "method" in head]

    asked, *more = sorted(begun(), key=lambda name: "-left-" in name)
    assert asked.startswith("p-"), "what it waited for goes first"
    assert more == [elses], "what others left waits for nobody"
    relay.hear({"id": asked, "status": 201, "last": True}, b"")
    assert begun()[2:] == [first]
    relay.hear({"id": first, "status": 503, "last": True}, b"")
    assert begun()[2:] == [first, first], "nobody else would say it again"
    relay.hear({"id": first, "status": 200, "last": True}, b"{}")
    assert begun()[4:] == [last]
    relay.hear({"id": last, "status": 410, "last": True}, b"{}")
    assert not [name for name in begun() if (tmp_path / "spool/out" / f"{name}.json").exists() and name != elses]
