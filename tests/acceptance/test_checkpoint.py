"""A task that goes on where it stopped, after a failure and after its pilot was killed."""

from __future__ import annotations

import os
import signal
import time

from hansa.jobs.drivers.local import live_pilots
from tests.support.cli import PATIENCE_S, Desk

GOES_ON = """
import os, pathlib, sys, time
folder = pathlib.Path(os.environ["HANSA_CHECKPOINT"])
n = len(list(folder.iterdir())) + 1
(folder / f"step{n}").write_text("x" * n)
print("step", n, flush=True)
if n == 1:
    sys.exit(75)
if n == 2:
    time.sleep(3600)
pathlib.Path("out").write_text("done")
"""


def test_an_attempt_finds_what_the_one_before_left(desk: Desk) -> None:
    desk.write("goes_on.py", GOES_ON)
    words = ("--retry", "1", "--retry-on", "75", "--checkpoint", "state", "--checkpoint-every", "1s")
    job = desk.hansa("job", "submit", "-q", *words, "--", "python3", "goes_on.py").out.strip()
    deadline = time.monotonic() + PATIENCE_S
    while "2 files, 3 bytes" not in desk.hansa("job", "explain", f"{job}.0").out:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for pilot in live_pilots(desk.home / "run" / "pilots"):
        os.kill(pilot, signal.SIGKILL)
    desk.hansa("job", "wait", job, "-q", "--timeout", "120s")
    assert desk.hansa("job", "logs", job, "--stream", "stdout").out == "step 3\n"
    desk.hansa("job", "fetch", job, "--to", "got")
    assert [
        file.name for file in (desk.folder / "got").rglob("*") if file.is_file() and not file.name.startswith(".")
    ] == ["out"]
