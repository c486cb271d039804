"""What there is of machines: made, looked at, deleted."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import stat
import time
from typing import Any

from hansa.machines.drivers.nspawn.helper.boot import is_local
from hansa.machines.drivers.nspawn.helper.cgroups import Cgroup
from hansa.machines.drivers.nspawn.helper.disks import base_name, bring_disk
from hansa.machines.drivers.nspawn.helper.networks import ensure_network, network_config, users_of, verb_remove_network
from hansa.machines.drivers.nspawn.helper.power import finish, launch
from hansa.machines.drivers.nspawn.helper.store import SEED, UIDS, Machine, Store
from hansa.machines.drivers.nspawn.helper.tools import locked, read_json, run, write
from hansa.machines.drivers.nspawn.helper.volumes import leave, make_file_system
from hansa.machines.drivers.nspawn.helper.words import Refusal


def verb_create(store: Store, key: str, **spec: Any) -> dict[str, Any]:
    """There is such a machine, and it runs, unless it was stopped."""
    machine = store.machine(key)
    if not os.path.isdir(os.path.join(store.root, "bases", base_name(spec["base"], spec["trusted"]))):
        raise Refusal("no_base", "its base is not here: import it")
    with machine.lock():
        if machine.spec() is None:
            _reserve(machine, spec)
        if not os.path.exists(machine.file("run.json")):
            Cgroup(machine).kill()  # one that was killed before it was written down
            launch(machine, is_first=True)
        elif machine.unfinished() is not None and machine.running() is not None:
            finish(machine)
    return look(machine)


def _reserve(machine: Machine, spec: dict[str, Any]) -> None:
    """Write down what it is, with an address that nobody else has."""
    store = machine.store
    with locked(store.lock):
        ensure = ensure_network(store, spec["network"])
        taken = {one["address"] for one in users_of(store, spec["network"] or "_")}
        hosts = list(ipaddress.ip_network(ensure["subnet"]).hosts())[9:]
        address = next((str(one) for one in hosts if str(one) not in taken), None)
        if address is None:
            raise Refusal("network", f"no address of {ensure['subnet']} is free")
        if spec["disk_gib"]:
            os.makedirs(machine.path, mode=0o700, exist_ok=True)
            make_file_system(f"{machine.disk}.img", spec["disk_gib"], 0)
            bring_disk(machine)
        seed = machine.file("seed")
        os.makedirs(seed, mode=0o755, exist_ok=True)
        meta = {"instance-id": f"{machine.key}", "local-hostname": spec["name"], "public-keys": spec["ssh_keys"]}
        spec["local"] = is_local(spec["user_data"])
        if spec["local"]:
            meta["dsmode"] = "local"
        files = {
            "meta-data": json.dumps(meta),
            "user-data": spec.pop("user_data") or "#cloud-config\n{}\n",
            "network-config": json.dumps(network_config(address, ensure["subnet"])),
        }
        owner = 0 if spec["trusted"] else UIDS
        for name, content in files.items():
            write(os.path.join(seed, name), content, 0o400, owner)
        place = machine.layer("")
        for part in ("upper", *SEED.split("/")):  # where the seed is mounted: nothing of the guest's is there yet
            place = os.path.join(place, part)
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o755)
            os.chown(place, owner, owner)
        write(machine.file("spec.json"), json.dumps({**spec, "address": address, "created": time.time()}))


def verb_resize(store: Store, key: str, cores: int, memory_mib: int) -> dict[str, Any]:
    machine = store.machine(key)
    with machine.lock():
        spec = machine.need()
        if os.path.isdir(Cgroup(machine).folders()[0]):
            Cgroup(machine).make(cores, memory_mib)
        write(machine.file("spec.json"), json.dumps({**spec, "cores": cores, "memory_mib": memory_mib}))
    return look(machine)


def verb_delete(store: Store, key: str) -> dict[str, Any]:
    """Nothing of it is left: process, mount, cgroup, file; nor the bridge of its network where nobody named one."""
    machine = store.machine(key)
    with machine.lock():
        spec = machine.spec()
        if os.path.isdir(machine.path):
            Cgroup(machine).kill()
            for place in (machine.root, machine.disk):
                while os.path.ismount(place):
                    run("umount", place)
            leave(machine)
            Cgroup(machine).remove()
            shutil.rmtree(machine.path)
        if spec is None or spec["network"] is None:  # one that was killed before it was written down may have made it
            verb_remove_network(store, None)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(store.root, "locks", key))
    return {}


def guest_file(machine: Machine, path: str, since: float) -> str | None:
    """A file that the guest wrote after ``since``, without following its links; None: there is none."""
    fd = None
    try:
        fd = os.open(machine.root, os.O_RDONLY | os.O_DIRECTORY)
        for part in path.split("/")[:-1]:
            following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = following
        with os.fdopen(
            os.open(path.split("/")[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd), "rb"
        ) as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode) or seen.st_mtime < since - 1:
                return None
            return file.read(65536).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        if fd is not None:
            os.close(fd)


def look(machine: Machine) -> dict[str, Any]:
    """How a machine is."""
    spec, ran = machine.spec(), read_json(machine.file("run.json"))
    if spec is None or ran is None:
        return {"state": "absent"}
    unfinished, is_running = machine.unfinished(), machine.running() is not None
    if unfinished is not None and is_running:  # who asks for it again finishes it
        if unfinished["is_first"]:
            return {"state": "absent"}
        is_running = False
    if is_running:
        thaw(machine)
    ended = read_json(machine.file("ended.json"))
    created = spec["created"]
    kinds = ("ed25519", "ecdsa", "rsa")
    host_keys = [guest_file(machine, f"etc/ssh/ssh_host_{kind}_key.pub", created) for kind in kinds]
    return {
        "state": "running" if is_running else "stopped",
        "ended": ended["status"] if ended and not is_running else None,
        "address": spec["address"], "cores": spec["cores"], "memory_mib": spec["memory_mib"],
        "disk_gib": spec.get("disk_gib", 0), "created": created, "trusted": spec["trusted"], "base": spec["base"],
        "login": spec["login"],
        "result": guest_file(machine, "var/lib/cloud/data/result.json", ran["since"] if is_running else created),
        "host_keys": [one.strip() for one in host_keys if one],
    }  # fmt: skip


def thaw(machine: Machine) -> None:
    """One that stands still goes on, where whoever wanted that was killed."""
    cgroup = Cgroup(machine)
    if cgroup.is_frozen():
        with machine.if_free() as is_free:
            if is_free:
                cgroup.freeze(False)


def verb_observe(store: Store, key: str) -> dict[str, Any]:
    return look(store.machine(key))


def verb_list(store: Store) -> dict[str, Any]:
    """All that is here, also what was never finished."""
    store.tidy()
    return {"keys": store.names("machines")}


def verb_console(store: Store, key: str) -> dict[str, Any]:
    machine = store.machine(key)
    machine.need()
    said = b""
    for name in ("console.log.1", "console.log"):
        with contextlib.suppress(FileNotFoundError), open(machine.file(name), "rb") as file:
            said += file.read()
    return {"log": said.decode("utf-8", "replace")}
