"""What ``run`` and ``wait`` show of a job on stderr: words, lines, or a live bar. Texts are pure."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import IO, Protocol

from hansa.client.units import show_bytes, show_count, show_time
from hansa.jobs.wire import Counts, Job, Phase

PATIENT_S = 2.0
"""A job that waits longer gets a line that says why."""
LINE_EVERY_S = 10.0
WINDOW_S = 30.0
BAR_CELLS = 24


def describe(job: Job) -> str:
    """``job 12: 1 core, 1024 MiB, 1 h``."""
    need = job.requirements
    parts = []
    if job.array:
        parts.append(show_count(job.count, "task") + (" of" if job.count == 1 else ", each with"))
    words = []
    if need.cores is not None:
        words.append(show_count(need.cores, "core"))
    if need.memory_mib is not None:
        words.append(f"{need.memory_mib} MiB")
    if need.gpus:
        words.append(show_count(need.gpus, "GPU"))
    if need.wall_time_s is not None:
        words.append(show_time(need.wall_time_s))
    if need.site is not None:
        words.append(f"at {need.site}")
    return f"job {job.number}: {' '.join([*parts, ', '.join(words)])}"


def ended(counts: Counts) -> int:
    return counts.done + counts.failed + counts.killed


def tally(counts: Counts) -> str:
    """``120 done, 2 failed, 8 running, 70 waiting``; done always, the others where there are any."""
    parts = [f"{counts.done:,} done"]
    for name in ("failed", "killed", "running", "waiting"):
        number = getattr(counts, name)
        if number:
            parts.append(f"{number:,} {name}")
    return ", ".join(parts)


class Pace:
    """How fast tasks end, over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, number: int) -> None:
        self._seen.append((now, number))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()

    def rate(self) -> float | None:
        """Tasks per second; None while it cannot be told."""
        if len(self._seen) < 2:
            return None
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return (after - before) / (last - first) if last > first and after > before else None


def outlook(counts: Counts, total: int, rate: float | None) -> str:
    """``12.3/s, 6 s to go``, or nothing."""
    if not rate:
        return ""
    left = total - ended(counts)
    speed = f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min"
    return f"{speed}, {show_time(max(1, left / rate))} to go" if left else speed


def bar(counts: Counts, total: int, rate: float | None, width: int, *, unicode: bool = True) -> str:
    """One line that fits in ``width`` columns."""
    share = ended(counts) / total if total else 1.0
    filled = int(share * BAR_CELLS)
    full, empty = ("█", "░") if unicode else ("#", ".")
    cells = full * filled + empty * (BAR_CELLS - filled)
    parts = [f"{ended(counts):,}/{total:,}", tally(counts), outlook(counts, total, rate)]
    text = "  ".join(part for part in parts if part)
    line = f"{cells}  {text}"
    return line if len(line) < width else text[: max(0, width - 1)]


class View(Protocol):
    """Hears of a job while it is followed."""

    def job(self, job: Job) -> None: ...

    def close(self) -> None: ...


class Waiting:
    """Says why a job waits, once per reason, if it waits long enough to be worth a line."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._began = clock()
        self._said: str | None = None

    def job(self, job: Job) -> None:
        text = job.status.message
        if job.status.phase == Phase.WAITING and text != self._said and self._clock() - self._began > PATIENT_S:
            self._said = text
            self._say(f"job {job.number} waits: {text}")

    def close(self) -> None:
        pass


class Lines:
    """Progress of an array where there is no terminal: a line now and then."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._pace = Pace()
        self._waiting = Waiting(say, clock)
        self._next = clock() + LINE_EVERY_S

    def job(self, job: Job) -> None:
        now = self._clock()
        self._pace.add(now, ended(job.counts))
        self._waiting.job(job)
        if now >= self._next and not Phase(job.status.phase).is_final:
            self._next = now + LINE_EVERY_S
            text = outlook(job.counts, job.count, self._pace.rate())
            self._say(f"job {job.number}: {tally(job.counts)}{'; ' + text if text else ''}")

    def close(self) -> None:
        pass


class Bar:
    """Progress of an array on a terminal: one line, drawn again and again."""

    def __init__(self, out: IO[str], width: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._width = width
        self._clock = clock
        self._pace = Pace()
        self._waiting = Waiting(self._say, clock)
        self._unicode = str(getattr(out, "encoding", "")).lower().startswith("utf")

    def job(self, job: Job) -> None:
        self._pace.add(self._clock(), ended(job.counts))
        self._waiting.job(job)
        line = bar(job.counts, job.count, self._pace.rate(), self._width(), unicode=self._unicode)
        self._out.write(f"\r\x1b[2K{line}")
        self._out.flush()

    def close(self) -> None:
        self._out.write("\r\x1b[2K")
        self._out.flush()

    def _say(self, text: str) -> None:
        self._out.write(f"\r\x1b[2Khansa: {text}\n")


def terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def view_of(job: Job, say: Callable[[str], None], *, quiet: bool) -> View:
    """What fits the job and the place where stderr goes."""
    if quiet:
        return Waiting(lambda _: None)
    if not job.array:
        return Waiting(say)
    return Bar(sys.stderr, terminal_width) if is_live() else Lines(say)


def is_live() -> bool:
    import os

    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Upload:
    """Says how far the sending of files is, on a terminal, if there is something to see."""

    def __init__(self, out: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._next = clock() + 0.5
        self._is_drawn = False

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if now >= self._next:
            self._next = now + 0.2
            self._is_drawn = True
            self._out.write(f"\r\x1b[2K{what} {show_bytes(done)} of {show_bytes(total)}")
            self._out.flush()

    def close(self) -> None:
        if self._is_drawn:
            self._out.write("\r\x1b[2K")
            self._out.flush()
