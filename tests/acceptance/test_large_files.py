"""Large files on their way: whoever is killed in the middle, the rest is sent and nothing is sent twice."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys

from tests.support.cli import PATIENCE_S, Desk

MIB = 1 << 20
SIZE = 40 * MIB
_SEND = """
import os, signal, sys
from hansa import Hansa
from hansa.client.connect import connect
from hansa.server.launch import server_status
home, mode = sys.argv[1:]
first, is_over = None, mode == "whole"

def progress(what, done, total):
    global first, is_over
    if what != "sending":
        return
    first = done if first is None else first
    if done > 25 * 2**20 and not is_over:
        is_over = True
        os.kill(os.getpid() if mode == "client" else server_status(home).pid, signal.SIGKILL)

from pathlib import Path
home = Path(home)
with Hansa(home=home) as hansa:
    job = hansa.submit(["sha256sum", "big"], inputs=["big"], upload=progress, memory="256M")
    job.wait()
    print(first, job.logs().split()[0])
"""
_FETCH = """
import os, signal, sys
from pathlib import Path
from hansa.client import fetch, job_api
from hansa.client.connect import connect
from hansa.client.transport import Transport
from hansa.server.launch import server_status
home, mode, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
seen, is_over, add = 0, mode == "whole", fetch._Whole.add

def counting(self, piece):
    global seen, is_over
    add(self, piece)
    seen += len(piece)
    if seen > 25 * 2**20 and not is_over:
        is_over = True
        self._stream.flush()
        os.kill(os.getpid() if mode == "client" else server_status(home).pid, signal.SIGKILL)

fetch._Whole.add = counting
transport = Transport(*connect(None, None, home))
transport.run(fetch.fetch(transport.run(job_api.job(number)), Path(mode), "here"))
print(seen)
"""


def python(desk: Desk, program: str, *words: str, code: int = 0) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, str(desk.home), *words],
        cwd=desk.folder,
        env=desk.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout.split()


def test_uploads_go_on_where_they_broke_off(desk: Desk) -> None:
    desk.hansa("up")
    for number, victim in enumerate(["client", "server"]):
        data = random.Random(number).randbytes(SIZE)
        (desk.folder / "big").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        if victim == "client":
            python(desk, _SEND, "client", code=-9)
            first, seen = python(desk, _SEND, "whole")
            assert int(first) >= 16 * MIB, "what had come was not sent again"
        else:
            _, seen = python(desk, _SEND, "server")
        assert seen == digest, "the task got what was sent"
        kept = [path for path in (desk.home / "blobs/parts").rglob(f"{digest}/*/*") if path.is_file()]
        assert len(kept) <= SIZE // (8 * MIB) + 1, "no part was kept twice, but for the one that was on its way"


def test_downloads_go_on_where_they_broke_off(desk: Desk) -> None:
    data = random.Random(7).randbytes(SIZE)
    (desk.folder / "big").write_bytes(data)
    desk.hansa("run", "--detach", "--input", "big=in", "--output", "out", "--", "cp", "in", "out")
    desk.hansa("job", "wait", "1")
    python(desk, _FETCH, "client", "1", code=-9)
    assert not (desk.folder / "client/out").exists()
    (part,) = (desk.folder / "client").glob(".out.*.part")
    there = part.stat().st_size
    assert there > 20 * MIB
    (desk.folder / "client").rename(desk.folder / "whole")
    (seen,) = python(desk, _FETCH, "whole", "1")
    assert int(seen) == SIZE - there
    assert (desk.folder / "whole/out").read_bytes() == data
    (seen,) = python(desk, _FETCH, "server", "1")
    assert int(seen) == SIZE, "no byte came twice, though the server was killed in between"
    assert (desk.folder / "server/out").read_bytes() == data
