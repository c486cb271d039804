"""What is said of a job while it runs."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime

from hansa.cli.progress import Bar, Lines, Pace, Waiting, bar, describe, outlook, tally
from hansa.jobs.wire import Counts, Job, Requirements
from hansa.kernel.status import Party, Status

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def job(phase: str = "running", counts: Counts | None = None, message: str = "Runs.", **more: object) -> Job:
    found = Job(
        number=12,
        id="job_1",
        name=None,
        owner="me",
        vo=None,
        status=Status(phase, "job.x", message, Party.HANSA, T0),
        counts=counts or Counts(0, 1, 0, 0, 0),
        command=["true"],
        array=True,
        first=0,
        count=200,
        names=[],
        requirements=Requirements(1, 1024, 0, 3600),
        retries=0,
        priority=5,
        setup=None,
        input_files=0,
        input_bytes=0,
        outputs=["**"],
        created=T0,
        version=1,
    )
    return replace(found, **more)  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_job_is_described() -> None:
    assert describe(job(array=False, count=1)) == "job 12: 1 core, 1024 MiB, 1 h"
    need = Requirements(4, 2048, 2, 5400, "local")
    assert (
        describe(job(requirements=need))
        == "job 12: 200 tasks, each with 4 cores, 2048 MiB, 2 GPUs, 1 h 30 min, at local"
    )


def test_counts_and_outlook() -> None:
    counts = Counts(waiting=70, running=8, done=120, failed=2, killed=0)
    assert tally(counts) == "120 done, 2 failed, 8 running, 70 waiting"
    assert outlook(counts, 200, 13.0) == "13.0/s, 6 s to go"
    assert outlook(counts, 200, 0.1) == "6.0/min, 13 min to go"
    assert outlook(counts, 200, None) == ""


def test_pace_forgets_the_past() -> None:
    pace = Pace()
    pace.add(0, 0)
    assert pace.rate() is None
    pace.add(10, 100)
    assert pace.rate() == 10
    pace.add(100, 100)
    pace.add(110, 200)
    assert pace.rate() == 10


def test_a_bar_fits_its_line() -> None:
    counts = Counts(waiting=100, running=0, done=100, failed=0, killed=0)
    assert bar(counts, 200, 10.0, 200).startswith("█" * 12 + "░" * 12 + "  100/200  100 done, 100 waiting")
    for width in (10, 40, 60, 80):
        assert len(bar(counts, 200, 10.0, width)) < width
    assert bar(counts, 200, None, 80, unicode=False).startswith("#" * 12 + "." * 12)


def test_waiting_is_explained_once_per_reason() -> None:
    said: list[str] = []
    clock = Clock()
    view = Waiting(said.append, clock)
    view.job(job("waiting", message="A"))
    assert said == []
    clock.now = 3
    for message in ("A", "A", "B"):
        view.job(job("waiting", message=message))
    assert said == ["job 12 waits: A", "job 12 waits: B"]


def test_lines_come_now_and_then() -> None:
    said: list[str] = []
    clock = Clock()
    view = Lines(said.append, clock)
    for second in range(25):
        clock.now = second
        view.job(job(counts=Counts(200 - second, 0, second, 0, 0)))
    assert said == [
        "job 12: 10 done, 190 waiting; 1.0/s, 3 min 10 s to go",
        "job 12: 20 done, 180 waiting; 1.0/s, 3 min to go",
    ]


def test_the_bar_leaves_no_trace() -> None:
    out = io.StringIO()
    view = Bar(out, lambda: 80, Clock())
    view.job(job())
    view.close()
    assert out.getvalue().endswith("\r\x1b[2K")
