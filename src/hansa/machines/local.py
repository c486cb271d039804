"""The drivers of this computer, as its settings name them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hansa.kernel.settings import MachineSettings
from hansa.machines.drivers.base import Machines
from hansa.machines.drivers.fake import FakeMachines
from hansa.machines.drivers.nspawn import root
from hansa.machines.drivers.nspawn.driver import Nspawn
from hansa.machines.drivers.qemu import kvm
from hansa.machines.drivers.qemu.driver import Qemu

_NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "debugfs": "e2fsprogs"}


@dataclass(frozen=True)
class Way:
    """A way to run machines here. ``said``: how well, or why not; ``hint``: what to do about it."""

    name: str
    works: bool
    said: str
    hint: str = ""


def drivers(settings: MachineSettings, folder: Path) -> Mapping[str, Machines]:
    """Those that are asked for and work here, the preferred one first. Looks for programs; starts no machine."""
    found: dict[str, Machines] = {}
    for name in settings.local:
        if name == "fake":
            found[name] = FakeMachines()
        elif name == "nspawn" and (probed := root.probe(folder / name)).works:
            helper = root.find_helper(folder / name / "store")
            if helper is not None:
                found[name] = Nspawn(folder / name, helper, is_isolated=probed.is_isolated)
        elif name == "qemu" and _qemu().works:
            found[name] = Qemu(folder / name)
    return found


def ways(folder: Path) -> list[Way]:
    """How machines could be run here, and why not; the fast way first."""
    return [_nspawn(folder / "nspawn"), _qemu()]


def _nspawn(folder: Path) -> Way:
    probed = root.probe(folder)
    if not probed.works:
        return Way("nspawn", False, probed.problem, probed.hint)
    if probed.is_isolated:
        return Way("nspawn", True, "containers of a whole system, their root is nobody here")
    return Way("nspawn", True, f"containers of a whole system, for trusted users only: {probed.problem}")


def _qemu() -> Way:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = sorted({package for name, package in _NEEDED.items() if shutil.which(name, path=path) is None})
    if missing:
        return Way("qemu", False, f"{', '.join(missing)} is not installed", f"apt install {' '.join(missing)}")
    seen = kvm.glance()
    if seen.works is False:
        return Way("qemu", True, f"emulated, which is slow: {seen.reason}")
    return Way("qemu", True, f"with KVM if it works: {seen.reason}")
