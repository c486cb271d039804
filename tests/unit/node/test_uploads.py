"""Outputs that break off on their way."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from hansa.node.backoff import Backoff
from hansa.node.files import Cache
from hansa.node.finish import UploadRefused, upload_file
from hansa.node.protocol import RESUME_BYTES, File, OutputFile
from hansa.node.transport import Endpoint, Refused, Unreachable, open_transport

SIZE = RESUME_BYTES + 1000


class Server:
    """Breaks off now and then; keeps what came. ``knows``: whether it can say how much that is."""

    can_leave = False

    def __init__(self, knows: bool = True) -> None:
        self.knows = knows
        self.kept = b""
        self.sent = 0
        self.breaks = [RESUME_BYTES // 2, RESUME_BYTES // 4]

    def get(self, path: str, write: Callable[[bytes], object], _leaves: Callable[[], bool]) -> int:
        assert path == f"files/x/received?size={SIZE}"
        if not self.knows:
            raise Refused(404, "")
        write(json.dumps({"received": len(self.kept)}).encode())
        return 1

    def put_file(self, path: str, stream: BinaryIO, size: int, _leaves: Callable[[], bool]) -> None:
        offset = int(path.partition("?offset=")[2] or 0)
        assert offset == (len(self.kept) if self.knows else 0)
        assert size == SIZE - offset
        if not self.knows:
            self.kept = b""
        length = self.breaks.pop(0) if self.breaks else size
        data = stream.read(length)
        self.kept += data
        self.sent += len(data)
        if length < size:
            raise Unreachable("broken")


@pytest.mark.parametrize("knows", [True, False])
def test_an_output_goes_on_where_it_broke_off(tmp_path: Path, knows: bool) -> None:
    data = random.Random(1).randbytes(SIZE)
    (tmp_path / "out").write_bytes(data)
    server = Server(knows)
    output = OutputFile("out", f"sha256:{hashlib.sha256(data).hexdigest()}", SIZE)
    upload_file(server, "files/x", str(tmp_path), output, Backoff(random.Random(0)), lambda _: True)  # type: ignore[arg-type]
    assert server.kept == data
    assert (server.sent == SIZE) == knows


def test_it_is_given_up_when_the_pilot_ends(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(bytes(SIZE))
    output = OutputFile("out", "sha256:x", SIZE)
    with pytest.raises(UploadRefused, match="not sent before the pilot ended"):
        upload_file(Server(), "files/x", str(tmp_path), output, Backoff(random.Random(0)), lambda _: False)  # type: ignore[arg-type]


def test_it_is_left_in_the_spool_when_nobody_answers_and_the_pilot_ends(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(bytes(SIZE))
    (tmp_path / "token").write_text("t")
    (tmp_path / "token").chmod(0o600)
    transport = open_transport(Endpoint([f"spool:{tmp_path}/spool"], "p", str(tmp_path / "token")))
    looks = iter([False, False])
    output = OutputFile("out", "sha256:x", SIZE)
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return True

    upload_file(
        transport, "files/x", str(tmp_path), output, Backoff(random.Random(0)),
        pause, lambda: next(looks, True),
    )  # fmt: skip
    found = [json.loads(path.read_text()) for path in (tmp_path / "spool/out").glob("*.json")]
    (put,) = [head for head in found if head["method"] == "PUT"]
    assert (put["path"], put["size"]) == ("files/x", SIZE), "all of it: how much is there nobody could say"
    assert (tmp_path / "spool/out" / f"{put['id']}.body").stat().st_size == SIZE
    assert len(pauses) == 1


class Source:
    def __init__(self, data: bytes, *, knows: bool = True) -> None:
        self.data = data
        self.knows = knows
        self.calls = 0
        self.sent = 0

    def get(self, path: str, write: Callable[[bytes], object]) -> int:
        self.calls += 1
        offset = int(path.partition("?offset=")[2] or 0) if self.knows else 0
        part = self.data[offset : offset + 70] if self.calls < 3 else self.data[offset:]
        write(part)
        self.sent += len(part)
        if self.calls < 3:
            raise Unreachable("broken")
        return len(part)


@pytest.mark.parametrize("knows", [True, False])
def test_an_input_goes_on_where_it_broke_off(tmp_path: Path, knows: bool) -> None:
    data = random.Random(2).randbytes(300)
    file = File("in", f"sha256:{hashlib.sha256(data).hexdigest()}", 300)
    source = Source(data, knows=knows)
    cache = Cache(str(tmp_path), lambda digest: f"files/{digest}")
    cache.fetch(file, source, Backoff(random.Random(0)), lambda _: True)
    assert Path(cache.place(file.digest)).read_bytes() == data
    assert not list(tmp_path.glob("*.part"))
    assert (source.sent == 300) == knows
