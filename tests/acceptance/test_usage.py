"""What a task uses over its time, from its processes to the command line and the Python API."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from typing import Any

from hansa import Hansa
from tests.support.cli import Desk

HELD_MIB = 150
BURNT_S = 2.5
PROGRAM = f"""
import os, sys, time
held = bytearray({HELD_MIB} << 20)
while time.process_time() < {BURNT_S}:
    sum(range(10_000))
deadline = time.monotonic() + 300
while not os.path.exists(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(0.05)
"""


def test_a_known_amount_of_memory_and_cpu(desk: Desk) -> None:
    go = desk.folder / "go"
    with Hansa(home=desk.home) as hansa:
        job = hansa.submit([sys.executable, "-c", PROGRAM, str(go)], name="burns", memory="512M")
        deadline = time.monotonic() + 180
        live: Any = job.usage()
        while sum(live.cores) * live.every_s < BURNT_S * 0.8 or max(live.memory_mib, default=0) < HELD_MIB:
            assert time.monotonic() < deadline, live
            time.sleep(0.2)
            live = job.usage()
        assert live.phase == "running"
        assert live.started is not None
        go.touch()
        job.wait(timeout=120)
        usage = job.usage()
        assert (usage.phase, usage.memory_asked_mib, usage.cores_asked) == ("done", 512, 1)
        count = len(usage.cores)
        lengths = [usage.every_s] * (count - 1) + [usage.span_s - (count - 1) * usage.every_s]
        row = job.results()[0]
        used = sum(cores * length for cores, length in zip(usage.cores, lengths, strict=True))
        # a last stretch that is shorter than a tenth of the others is shown together with the one before it
        assert abs(used - row["cpu_s"]) < 0.25 + 0.1 * usage.every_s, (usage, row)
        assert used > BURNT_S * 0.9
        assert HELD_MIB < max(usage.memory_mib) <= row["memory_mib"] + 1
        assert abs(usage.span_s - row["wall_s"]) < 0.1
        assert [one.name for one in job.usage_of_tasks().spreads] == ["wall_s", "cores", "memory_mib"]
        number = job.number
    said = desk.hansa("job", "usage", str(number)).out
    assert f"task {number}.0 done" in said
    assert "asked for 512 MiB" in said
    rows = list(csv.DictReader(io.StringIO(desk.hansa("job", "usage", f"{number}.0", "-o", "csv").out)))
    assert [float(row["cores"]) for row in rows] == usage.cores
    assert json.loads(desk.hansa("job", "usage", str(number), "-o", "json").out)["memory_mib"] == usage.memory_mib
    records = csv.DictReader(io.StringIO(desk.hansa("usage", "--by", "site,kind", "-o", "csv").out))
    assert ("local", "job") in {(row["site"], row["kind"]) for row in records if int(row["tasks"]) >= 1}
    assert "has had no attempt 3" in desk.hansa("job", "usage", str(number), "--attempt", "3", code=None).err
    desk.hansa("run", "--array", "0-9", "--no-fetch", "--", "true")
    said = desk.hansa("job", "usage", "last").out
    assert "10 of 10 tasks that ended" in said
    assert "only of tasks that run for 2 s or longer" in desk.hansa("job", "usage", "last.3").out
