"""What a container uses, as its cgroup counts it. Everybody may read that: the helper of root is not asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hansa.machines.drivers.base import Key, Meter
from hansa.machines.drivers.nspawn.helper.cgroups import Cgroup
from hansa.machines.drivers.nspawn.helper.store import Store

_MIB = 1 << 20
_V2 = ("cpu.stat", "memory.current", "memory.stat")
_V1 = ("cpuacct/cpuacct.usage", "memory/memory.usage_in_bytes", "memory/memory.stat")


def read_meter(store: str, key: Key) -> Meter | None:
    """None where it does not run. Raises OSError where the kernel does not tell."""
    cgroup = Cgroup(Store(store).machine(key))
    if not cgroup.processes():  # of a machine that was stopped it stays
        return None
    try:
        files = {name: _read(cgroup.path(name)) for name in (_V2 if cgroup.unified else _V1)}
    except FileNotFoundError:
        return None
    return meter_of(files, unified=cgroup.unified)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="ascii")


def meter_of(files: Mapping[str, str], *, unified: bool) -> Meter:
    """What these files of a cgroup say. Memory is without the files' pages that nobody misses. Pure."""
    cpu, memory, details = (files[name] for name in (_V2 if unified else _V1))
    idle = int(_words(details).get("inactive_file" if unified else "total_inactive_file", "0"))
    cpu_s = int(_words(cpu)["usage_usec"]) / 1e6 if unified else int(cpu) / 1e9
    return Meter(cpu_s, max(0, int(memory) - idle) / _MIB)


def _words(text: str) -> dict[str, str]:
    return dict(line.split(None, 1) for line in text.splitlines() if " " in line)
