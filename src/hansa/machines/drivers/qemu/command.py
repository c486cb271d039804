"""The command line of QEMU, and what a guest is told of its network. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KERNEL_LINE = "root=LABEL=cloudroot console=ttyS0 net.ifnames=0 quiet mitigations=off"
RING_BYTES = 256 * 1024
SWITCH = "switch"
VVFAT_LABEL = "CIDATA"


@dataclass(frozen=True)
class Run:
    """What one start of a machine needs. Paths are relative to the machine's folder, where QEMU runs."""

    folder: str
    """Absolute: the process is known by it."""
    name: str
    cores: int
    memory_mib: int
    port: int
    """On loopback: the guest's port 22."""
    mac: str
    accelerator: str
    kernel: str | None = None
    initrd: str | None = None
    kernel_line: str = KERNEL_LINE
    network: str | None = None
    """Path of the switch of a private network."""
    private_mac: str = ""
    volumes: tuple[tuple[str, str], ...] = ()
    """Further disks: (key, path)."""
    has_egress: bool = True


def command(run: Run) -> list[str]:
    """Detached: it returns when the machine is up, or with words that say why not."""
    is_kvm = run.accelerator == "kvm"
    argv = [
        "qemu-system-x86_64", "-name", run.name, "-machine", "pc", "-no-user-config", "-nodefaults", "-display", "none",
        "-accel", "kvm" if is_kvm else "tcg,thread=multi,tb-size=128", "-cpu", "host" if is_kvm else "Nehalem",
        "-smp", str(run.cores), "-m", str(run.memory_mib), "-sandbox", "on,obsolete=deny",
        "-drive", "if=none,id=root,file=disk.qcow2,format=qcow2,cache=writeback,discard=unmap",
        "-device", "virtio-blk-pci,drive=root,bootindex=1",
        "-blockdev", json.dumps(seed_disk(run.folder)), "-device", "virtio-blk-pci,drive=seed",
        "-netdev", f"user,id=out,restrict={'off' if run.has_egress else 'on'},hostfwd=tcp:127.0.0.1:{run.port}-:22",
        "-device", f"virtio-net-pci,netdev=out,mac={run.mac},romfile=",
        "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0",
        "-device", "vmgenid,guid=auto",
        "-chardev", f"ringbuf,id=console,size={RING_BYTES}", "-serial", "chardev:console",
        "-qmp", "unix:qmp,server=on,wait=off", "-pidfile", f"{run.folder}/pid", "-daemonize",
    ]  # fmt: skip
    if run.kernel is not None and run.initrd is not None:
        argv += ["-kernel", run.kernel, "-initrd", run.initrd, "-append", run.kernel_line]
    if run.network is not None:
        argv += ["-netdev", f"stream,id=lan,server=off,addr.type=unix,addr.path={run.network}"]
        argv += ["-device", f"virtio-net-pci,netdev=lan,mac={run.private_mac},romfile="]
    for key, path in run.volumes:
        argv += ["-blockdev", json.dumps(volume_disk(key, path))]
        argv += ["-device", f"virtio-blk-pci,drive={node(key)},id={device(key)},serial={serial(key)}"]
    return argv


def seed_disk(folder: str) -> dict[str, Any]:
    """A small read-only disk of the folder ``seed``: absolute, as QEMU opens its files only when they are read."""
    files = {"driver": "vvfat", "dir": f"{folder}/seed", "label": VVFAT_LABEL, "rw": False, "fat-type": 16}
    return {"node-name": "seed", "driver": "raw", "read-only": True, "file": files}


def volume_disk(key: str, path: str) -> dict[str, Any]:
    return {"node-name": node(key), "driver": "qcow2", "discard": "unmap", "file": {"driver": "file", "filename": path}}


def node(key: str) -> str:
    """A name for QEMU: of at most 31 letters, and no two alike."""
    return f"v{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def device(key: str) -> str:
    return f"d{hashlib.sha256(key.encode()).hexdigest()[:24]}"


def serial(key: str) -> str:
    """What the guest sees as the disk's serial number: /dev/disk/by-id/virtio-SERIAL."""
    return hashlib.sha256(key.encode()).hexdigest()[:20]


def mac(key: str, which: str) -> str:
    """A hardware address that only this machine has."""
    digest = hashlib.sha256(f"{which}/{key}".encode()).hexdigest()
    return "52:54:00:" + ":".join(digest[at : at + 2] for at in (0, 2, 4))


def seed_files(key: str, name: str, user_data: bytes, ssh_keys: Sequence[str], lan: str | None) -> dict[str, bytes]:
    """cloud-init's NoCloud files. ``lan``: the address in the private network."""
    meta = {"instance-id": key, "local-hostname": name, "public-keys": list(ssh_keys)}
    ethernets: dict[str, Any] = {
        "eth0": {"match": {"macaddress": mac(key, "out")}, "dhcp4": True, "set-name": "eth0"},
    }
    if lan is not None:
        ethernets["eth1"] = {
            "match": {"macaddress": mac(key, "lan")},
            "addresses": [f"{lan}/24"],
            "set-name": "eth1",
        }
    return {
        "meta-data": json.dumps(meta).encode(),
        "user-data": user_data or b"#cloud-config\n{}\n",
        "network-config": json.dumps({"version": 2, "ethernets": ethernets}).encode(),
    }
