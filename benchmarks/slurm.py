"""Arrays of tasks that do nothing on a real Slurm of this computer: through pilots, beside Slurm's own arrays.

The pilots are started by Slurm within the time that is measured. Needs root and Debian's Slurm, as the tests do.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.slurm import Slurm

from benchmarks.embedded import Embedded, embedded
from benchmarks.harness import Better, Row, median, rounded, seconds, used_by_others
from hansa.client import site_api

TIMES_SLURM = 10.0
SITE = "cluster"
PATIENCE_S = 120.0


def run(quick: bool) -> list[Row]:
    """Rounds in which Slurm's array comes first and Hansa's second."""
    ours, theirs = (500, 100) if quick else (10_000, 1000)
    rates: list[float] = []
    slurms: list[float] = []
    noise = [used_by_others()]
    with cluster() as slurm:
        os.environ |= {"SLURM_CONF": str(slurm.conf), "HANSA_PILOT__BATCH_IDLE_TIMEOUT_S": "5"}
        for _ in range(1 if quick else 3):
            slurms.append(theirs / seconds(lambda: slurms_own(slurm, theirs)))
            with embedded() as server:
                join(server, slurm)
                rates.append(ours / seconds(lambda: server.finish(server.submit(["/bin/true"], ours, SITE))))
                eventually_idle(slurm)
    peer = rounded(median(slurms))
    detail = {"runs": {"Hansa": rates, "Slurm": slurms}, "used_by_others": noise, "slurm": f"an array of {theirs:,}"}
    return [
        Row(
            f"{ours:,} no-op tasks through Slurm pilots, their start included",
            "tasks/s",
            Better.HIGHER,
            rounded(median(rates)),
            peers={"Slurm's own array": peer},
            budget=rounded(TIMES_SLURM * peer),
            detail=detail,
        )
    ]


@contextmanager
def cluster() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        slurm = Slurm(Path(folder)).start()
        try:
            yield slurm
        finally:
            slurm.stop()


def slurms_own(slurm: Slurm, tasks: int) -> None:
    slurm.run("sbatch", "--parsable", f"--array=1-{tasks}", "--mem=64M", "--output=/dev/null", "--wrap=/bin/true")
    eventually_idle(slurm)


def eventually_idle(slurm: Slurm) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while slurm.run("squeue", "-h", "--states=pending,running,completing"):
        assert time.monotonic() < deadline, "Slurm does not come to its end"
        time.sleep(0.1)


def join(server: Embedded, slurm: Slurm) -> None:
    """Add the cluster, whose login node this computer is, and wait until its partitions are known."""
    settings = {
        "host": "login",
        "here": True,
        "folder": str(slurm.folder / "hansa"),
        "python": sys.executable,
        "transport": "https",
        "poll_s": 2,
    }
    end = {"kind": "slurm", "settings": settings}
    server.ask(site_api.add_site({"name": SITE, "visibility": "owner", "endpoints": [end]}))
    deadline = time.monotonic() + PATIENCE_S
    while server.ask(site_api.site(SITE)).endpoints[0].discovered is None:
        assert time.monotonic() < deadline, "the cluster is not seen"
        time.sleep(0.1)
