"""What running tasks use: one pass over ``/proc`` per round."""

from __future__ import annotations

import os
from typing import Dict, Iterable, List, Mapping, NamedTuple, Tuple

_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One process as ``/proc/PID/stat`` has it."""

    pid: int
    parent: int
    session: int
    started: int  # ticks since boot: with the pid, an identity
    cpu_s: float  # with children it has waited for
    memory_mib: float


class Usage(NamedTuple):
    """Of a task's whole process tree."""

    cpu_s: float
    memory_mib: float


def parse_stat(pid: int, raw: bytes) -> Process:
    """One line of ``/proc/PID/stat``. The name may hold anything, brackets and blanks too."""
    fields = raw[raw.rindex(b")") + 2 :].split()
    ticks = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), ticks * _TICK_S, int(fields[21]) * _PAGE_MIB)


def read_processes() -> Dict[int, Process]:
    """All processes that can be seen now."""
    out = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb", buffering=0) as stream:
                    out[int(name)] = parse_stat(int(name), stream.read(2048))
            except (OSError, ValueError, IndexError):
                continue  # it has ended meanwhile
    return out


class Sampler:
    """Attributes processes to tasks: by descent, by session, and, once known, for ever."""

    def __init__(self) -> None:
        self._known: Dict[Tuple[int, int], int] = {}
        self.members: Dict[int, List[int]] = {}
        """Processes of each task, by its serial, as the last sample found them."""

    def sample(self, processes: Mapping[int, Process], roots: Mapping[int, int]) -> Dict[int, Usage]:
        """Usage by the serial of the task. ``roots``: pid of a task's first process -> serial."""
        serials = set(roots.values())
        owner: Dict[int, int] = {}
        for pid in processes:
            self._find(pid, processes, roots, serials, owner)
        self._known = {(pid, processes[pid].started): serial for pid, serial in owner.items() if serial >= 0}
        out = dict.fromkeys(serials, Usage(0.0, 0.0))
        self.members = {serial: [] for serial in serials}
        for pid, serial in owner.items():
            if serial >= 0:
                self.members[serial].append(pid)
                used, process = out[serial], processes[pid]
                out[serial] = Usage(used.cpu_s + process.cpu_s, used.memory_mib + process.memory_mib)
        return out

    def _find(
        self,
        pid: int,
        processes: Mapping[int, Process],
        roots: Mapping[int, int],
        serials: Iterable[int],
        owner: Dict[int, int],
    ) -> None:
        """Set ``owner`` for a process and its ancestors: a serial, or -1."""
        path = []
        found = -1
        while pid in processes and pid not in owner:
            process = processes[pid]
            path.append(pid)
            owner[pid] = -1
            known = self._known.get((pid, process.started), -1)
            found = roots.get(pid, roots.get(process.session, known))
            if found >= 0 and found in serials:
                break
            found = -1
            pid = process.parent
        else:
            found = owner.get(pid, -1)
        for one in path:
            owner[one] = found
