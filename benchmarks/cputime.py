"""CPU time of everything that a benchmark starts, also of what nobody waits for: by a cgroup of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PLACES = (("cpuacct", "cpuacct.usage"), ("unified", "cpu.stat"), ("", "cpu.stat"))


class CpuTime:
    """Milliseconds of CPU time so far; None where this user may make no cgroup."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def ms(self) -> float | None:
        if self._file is None:
            return None
        text = self._file.read_text(encoding="ascii")
        return int(text) / 1e6 if self._file.name == "cpuacct.usage" else int(text.split()[1]) / 1e3


@contextmanager
def counted() -> Iterator[CpuTime]:
    """This process, and all that it starts meanwhile, in a new cgroup."""
    for name, file in _PLACES:
        parent = Path("/sys/fs/cgroup", name)
        group = parent / f"hansa-bench-{os.getpid()}"
        if not (parent / file).exists():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
            yield CpuTime(group / file)
        finally:
            (parent / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
            group.rmdir()
        return
    yield CpuTime(None)
