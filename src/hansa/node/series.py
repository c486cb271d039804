"""What a task uses over its time: stretches of equal length, never more than MOST, longer ones as it runs longer."""

from __future__ import annotations

import os
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from .protocol import UsageSeries

FIRST_S = 1.0
"""Of a young task's stretches; they double when there are MOST."""
MOST = 120
SHORTEST_S = 2.0
"""Tasks that ran shorter have no series: a thousand of them a second must cost nothing."""
_THIN = 0.1
"""A last stretch of less than this part of a whole one is shown together with the one before it."""
_PROCESSES = 64
_MIB = 1 << 20

CPU = "cpu_s"
READ = "read_mib"
WRITTEN = "written_mib"
GPU = "gpu_s"
MEMORY = "memory_mib"
GPU_MEMORY = "gpu_memory_mib"


class Recorder:
    """Takes samples in, in any rhythm, and keeps sums and peaks of stretches.

    Sums lose nothing: what the stretches hold together is what the totals grew by, but for what is more than
    ``ceilings`` allow in a second (a node cannot use more cores than it has).
    """

    __slots__ = ("_ages", "_ceilings", "_peaks", "_sums", "_totals", "every_s", "io_at", "sent_at", "span_s")

    def __init__(self, ceilings: Optional[Mapping[str, float]] = None) -> None:
        self.every_s = FIRST_S
        self.span_s = 0.0
        self.sent_at = 0.0  # when the server was last told, by the pilot's clock
        self.io_at = -1.0  # how old the task was when its files were last looked at
        self._ceilings = ceilings or {}
        self._ages: Dict[str, float] = {}  # of the task when a total was last seen
        self._totals: Dict[str, float] = {}
        self._sums: Dict[str, List[float]] = {}
        self._peaks: Dict[str, List[float]] = {}

    def add(self, age_s: float, totals: Mapping[str, float], levels: Mapping[str, float]) -> None:
        """A sample: ``totals`` since the task's start, and ``levels`` as they are now. Times only go forward."""
        if age_s <= self.span_s:
            return
        while age_s > MOST * self.every_s:
            self._double()
        self.span_s = age_s
        for name, total in totals.items():
            begin, before = self._ages.get(name, 0.0), self._totals.get(name, 0.0)
            self._ages[name], self._totals[name] = age_s, total
            grown = max(0.0, total - before)
            ceiling = self._ceilings.get(name)
            self._spread(name, begin, grown if ceiling is None else min(grown, ceiling * (age_s - begin)))
        for name, level in levels.items():
            self._raise(name, level)

    def total(self, name: str) -> float:
        """A total as the last sample had it."""
        return self._totals.get(name, 0.0)

    def _double(self) -> None:
        self.every_s *= 2
        for name, sums in self._sums.items():
            self._sums[name] = [sum(sums[at : at + 2]) for at in range(0, len(sums), 2)]
        for name, peaks in self._peaks.items():
            self._peaks[name] = [max(peaks[at : at + 2]) for at in range(0, len(peaks), 2)]

    def _spread(self, name: str, begin: float, grown: float) -> None:
        """Share out what a total grew by since ``begin``, by time."""
        sums = self._sums.setdefault(name, [])
        sums.extend([0.0] * (self.count - len(sums)))
        length = self.span_s - begin
        for number in range(min(int(begin / self.every_s), self.count - 1), self.count):
            start = max(begin, number * self.every_s)
            end = min(self.span_s, (number + 1) * self.every_s)
            sums[number] += grown * max(0.0, end - start) / length

    def _raise(self, name: str, level: float) -> None:
        """A stretch in which nobody looked has what was seen next."""
        peaks = self._peaks.setdefault(name, [])
        peaks.extend([level] * (self.count - len(peaks)))
        peaks[-1] = max(peaks[-1], level)

    @property
    def count(self) -> int:
        """How many stretches there are; the last one may not be over."""
        whole = int(self.span_s / self.every_s)
        return whole if whole * self.every_s >= self.span_s else whole + 1

    def series(self) -> UsageSeries:
        """All of it, as it travels."""
        count = self.count
        lengths = [self.every_s] * (count - 1) + [self.span_s - (count - 1) * self.every_s]
        is_thin = count > 1 and lengths[-1] < _THIN * self.every_s

        def rates(name: str, digits: int) -> Optional[List[float]]:
            sums = self._sums.get(name)
            if sums is None:
                return None
            sums = sums + [0.0] * (count - len(sums))
            found = [part / length for part, length in zip(sums, lengths)]
            if is_thin:
                found[-1] = sum(sums[-2:]) / sum(lengths[-2:])
            return [round(rate, digits) for rate in found]

        def peaks(name: str) -> Optional[List[float]]:
            found = self._peaks.get(name)
            return None if not found else [round(one, 1) for one in found + found[-1:] * (count - len(found))]

        load = rates(GPU, 3)
        return UsageSeries(
            every_s=self.every_s,
            span_s=round(self.span_s, 3),
            cores=rates(CPU, 3) or [],
            memory_mib=peaks(MEMORY) or [],
            read_mib_s=rates(READ, 3),
            written_mib_s=rates(WRITTEN, 3),
            gpus=load,
            gpu_memory_mib=peaks(GPU_MEMORY),
        )


def last_series(recorder: Recorder, wall_s: float, cpu_s: float) -> Optional[UsageSeries]:
    """Of a task that has ended: None if it ran too short for one."""
    if wall_s < SHORTEST_S:
        return None
    recorder.add(wall_s, {CPU: cpu_s}, {})
    return recorder.series()


def read_io(pids: Sequence[int]) -> Optional[Tuple[float, float]]:
    """MiB that processes read from disks and wrote to them; None where the kernel does not tell, or there are many."""
    if len(pids) > _PROCESSES:
        return None
    read = written = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/io", "rb", buffering=0) as stream:
                found = parse_io(stream.read(1024))
        except FileNotFoundError:  # it has ended meanwhile
            if not os.path.exists(f"/proc/{pid}"):
                continue
            return None
        except OSError:
            return None
        if found is None:
            return None
        read, written = read + found[0], written + found[1]
    return read / _MIB, written / _MIB


def parse_io(raw: bytes) -> Optional[Tuple[int, int]]:
    """Bytes read from disks and written to them, of ``/proc/PID/io``."""
    values = dict(line.split(b": ", 1) for line in raw.splitlines() if b": " in line)
    try:
        return int(values[b"read_bytes"]), max(0, int(values[b"write_bytes"]) - int(values[b"cancelled_write_bytes"]))
    except (KeyError, ValueError):
        return None


def is_due(recorder: Recorder, age_s: float, now: float, every_s: float) -> bool:
    """Whether the server should be told again what a running task uses: the older it is, the more rarely."""
    return age_s >= SHORTEST_S and now - recorder.sent_at >= max(every_s, age_s / 50)
