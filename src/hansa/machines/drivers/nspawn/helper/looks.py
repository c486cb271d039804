"""Looks at the computer: what works here, and what was left behind."""

from __future__ import annotations

import os
import shutil
from typing import Any

from hansa.machines.drivers.nspawn.helper.cgroups import CGROUPS, hierarchies
from hansa.machines.drivers.nspawn.helper.disks import as_guest
from hansa.machines.drivers.nspawn.helper.networks import ALIAS, LOCK, dead_tables
from hansa.machines.drivers.nspawn.helper.store import Store
from hansa.machines.drivers.nspawn.helper.tools import SYSTEM_PATH, locked
from hansa.machines.drivers.nspawn.helper.volumes import Disk
from hansa.machines.drivers.nspawn.helper.words import VERSION, Refusal


def verb_probe(store: Store) -> dict[str, Any]:  # noqa: ARG001 - every verb has it
    """What works here: a list of what is missing, and whether guests get user ids of their own."""
    needed = ("systemd-nspawn", "ip", "nft", "debugfs", "mke2fs")
    problems = [f"{name} is not installed" for name in needed if not shutil.which(name, path=SYSTEM_PATH)]
    with open("/proc/filesystems", encoding="ascii") as file:
        if "overlay" not in file.read().split() and not os.path.isdir("/sys/module/overlay"):
            problems.append("the kernel has no overlay file system")
    if not any(os.path.exists(f"{root}/memory.limit_in_bytes") or root == CGROUPS for root in hierarchies()):
        problems.append("memory cannot be limited: there is no memory cgroup")
    userns = ""
    try:
        as_guest(["true"], "/")
    except Refusal as refusal:
        userns = str(refusal)
    return {"problems": problems, "userns": userns, "version": VERSION}


def verb_sweep(store: Store) -> dict[str, Any]:
    """What is left of machines and networks that are not there any more: nothing, if all is well."""
    store.tidy()
    machines = {store.machine(key).path for key in store.names("machines")}
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split()[1] for line in file if line.split()[1].startswith(f"{store.root}/")]
    disks = [(disk.path, disk.about()) for disk in (Disk(store, key) for key in store.names("volumes"))]
    used = machines | {path for path, about in disks if about and about["attached"]}
    left = [f"mount {one}" for one in mounts if os.path.dirname(one) not in used]
    left += [f"file {path}" for path, about in disks if about is None]
    for root in hierarchies():
        folder = os.path.join(root, f"hansa-{store.mark}")
        there = os.listdir(folder) if os.path.isdir(folder) else []
        gone = [one for one in there if os.path.join(store.root, "machines", one) not in machines]
        left += [f"cgroup {folder}/{one}" for one in gone if os.path.isdir(os.path.join(folder, one))]
    known = {store.short("hz", f"network/{name[:-5]}") for name in store.names("networks")}
    for one in os.listdir("/sys/class/net"):
        if one.startswith("hz") and one not in known:
            with open(f"/sys/class/net/{one}/ifalias", encoding="utf-8") as file:
                left += [f"bridge {one}"] if file.read().startswith(f"{ALIAS}{store.mark}") else []
    with locked(LOCK):  # nobody makes or removes one just now
        left += [f"rules {one}" for one in dead_tables()]
    left += [f"file {one}" for one in store.names("work")]
    return {"left": sorted(left)}
