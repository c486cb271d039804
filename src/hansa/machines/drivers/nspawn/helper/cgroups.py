"""Limits that are enforced: a cgroup for each machine, of either version."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from hansa.machines.drivers.nspawn.helper.store import Machine
from hansa.machines.drivers.nspawn.helper.words import Refusal

CGROUPS = "/sys/fs/cgroup"
V1 = ("systemd", "unified", "memory", "pids", "cpu", "cpuacct", "freezer")
PIDS = 16384


def hierarchies() -> list[str]:
    """The folders in which a machine gets a cgroup: one of version 2, or several of version 1."""
    if os.path.exists(f"{CGROUPS}/cgroup.controllers"):
        return [CGROUPS]
    return [f"{CGROUPS}/{name}" for name in V1 if os.path.isdir(f"{CGROUPS}/{name}")]


def limits(cores: int, memory_mib: int, unified: bool) -> dict[str, int | str]:
    """Files of a cgroup and what they must say. Pure."""
    memory = memory_mib << 20
    if unified:
        return {"memory.max": memory, "memory.swap.max": 0, "pids.max": PIDS, "cpu.max": f"{cores * 100000} 100000"}
    return {
        "memory/memory.limit_in_bytes": memory,
        "memory/memory.memsw.limit_in_bytes": memory,
        "pids/pids.max": PIDS,
        "cpu/cpu.cfs_period_us": 100000,
        "cpu/cpu.cfs_quota_us": cores * 100000,
    }


class Cgroup:
    def __init__(self, machine: Machine) -> None:
        self.part = f"hansa-{machine.store.mark}/{machine.key}"
        self.roots = hierarchies()
        self.unified = self.roots == [CGROUPS]

    def folders(self) -> list[str]:
        return [os.path.join(root, self.part) for root in self.roots]

    def make(self, cores: int, memory_mib: int) -> None:
        """It is there, with these limits. Raises Refusal where they cannot be enforced."""
        for folder in self.folders():
            if self.unified:
                parent = os.path.dirname(folder)
                os.makedirs(parent, exist_ok=True)
                for where in (CGROUPS, parent):
                    self._set(os.path.join(where, "cgroup.subtree_control"), "+memory +pids +cpu")
            os.makedirs(folder, exist_ok=True)
        wanted = limits(cores, memory_mib, self.unified)
        for _ in range(2):  # memory and memsw depend on each other's order
            for name, value in wanted.items():
                path = self.path(name)
                optional = name.endswith(("memsw.limit_in_bytes", "swap.max"))
                if optional and not os.path.exists(path):
                    continue
                with contextlib.suppress(OSError):
                    self._set(path, value)
        for name in ("memory.max", "pids.max") if self.unified else ("memory/memory.limit_in_bytes", "pids/pids.max"):
            with open(self.path(name), encoding="ascii") as file:
                if file.read().strip() != str(wanted[name]):
                    raise Refusal("limits", f"the limit {name} of {wanted[name]} is not enforced here")

    def path(self, name: str) -> str:
        """A file of it; with version 1 the name begins with its controller."""
        if self.unified:
            return os.path.join(CGROUPS, self.part, name)
        controller, _, file = name.partition("/")
        return os.path.join(CGROUPS, controller, self.part, file)

    @staticmethod
    def _set(path: str, value: int | str) -> None:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(value))

    def join(self) -> None:
        for folder in self.folders():
            self._set(os.path.join(folder, "cgroup.procs"), os.getpid())

    def processes(self) -> set[int]:
        """Everything that runs in it, at any depth."""
        found: set[int] = set()
        for folder in self.folders():
            for where, _, files in os.walk(folder):
                if "cgroup.procs" in files:
                    with contextlib.suppress(OSError), open(os.path.join(where, "cgroup.procs")) as file:
                        found.update(int(line) for line in file)
        return found

    def first(self) -> int | None:
        """The guest's process 1."""
        for pid in self.processes():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as file:
                inside = next((line.split()[1:] for line in file if line.startswith("NSpid:")), list[str]())
                if len(inside) == 2 and inside[1] == "1":
                    return pid
        return None

    def freeze(self, is_frozen: bool) -> None:
        if self.unified:
            self._set(self.path("cgroup.freeze"), int(is_frozen))
        elif os.path.isdir(self.path("freezer/")):
            self._set(self.path("freezer/freezer.state"), "FROZEN" if is_frozen else "THAWED")

    def is_frozen(self) -> bool:
        name, word = ("cgroup.freeze", "1") if self.unified else ("freezer/freezer.state", "FROZEN")
        with contextlib.suppress(OSError), open(self.path(name), encoding="ascii") as file:
            return file.read().strip() == word
        return False

    def kill(self, deadline_s: float = 20.0) -> None:
        """Nothing runs in it any more."""
        end = time.monotonic() + deadline_s
        with contextlib.suppress(OSError):
            self.freeze(False)
        while found := self.processes():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                raise Refusal("busy", f"processes {sorted(found)} do not end", passing=True)
            time.sleep(0.01)

    def remove(self) -> None:
        for folder in self.folders():
            for where, _, _ in os.walk(folder, topdown=False):
                _rmdir_soon(where)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(folder))  # the store's own, when it was the last


def _rmdir_soon(path: str) -> None:
    """A cgroup is busy for a moment after its last process."""
    for _ in range(200):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise Refusal("busy", f"{path} cannot be removed yet", passing=True)
