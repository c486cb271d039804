"""Machines made by hand, as somebody would who knows how: the peers of :mod:`benchmarks.at_hand`, of the same image."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from hansa.machines.drivers.base import Life, Observed, Ssh
from hansa.machines.drivers.nspawn.helper.cgroups import hierarchies
from hansa.machines.drivers.qemu.command import KERNEL_LINE
from hansa.machines.drivers.qemu.processes import free_port

SEED = "var/lib/cloud/seed/nocloud"
NETWORK = "10.88.77"
LOGIN = "debian"


def run(*argv: str | Path) -> None:
    subprocess.run([str(word) for word in argv], check=True, stdin=subprocess.DEVNULL)


class Containers:
    """systemd-nspawn on an overlay: a bridge, a seed for cloud-init, a cgroup, root of this computer."""

    bridge = "bench0"

    def __init__(self, folder: Path, base: Path, key: str) -> None:
        self._folder, self._base, self._key = folder, base, key
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Containers:
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "address", "add", f"{NETWORK}.1/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._started):
            self.delete(name)
        run("ip", "link", "delete", self.bridge)

    async def create(self, name: str, number: int) -> Observed:
        return await asyncio.to_thread(self._create, name, number)

    def _create(self, name: str, number: int) -> Observed:
        place, address = self._folder / name, f"{NETWORK}.{10 + number}"
        for part in ("up", "work", "root"):
            (place / part).mkdir(parents=True)
        layers = f"lowerdir={self._base},upperdir={place}/up,workdir={place}/work"
        run("mount", "-t", "overlay", "overlay", "-o", layers, place / "root")
        seed = place / "root" / SEED
        seed.mkdir(parents=True, exist_ok=True)
        meta = {"instance-id": f"{name}-{os.getpid()}", "local-hostname": name, "public-keys": [self._key]}
        (seed / "meta-data").write_text(json.dumps(meta))
        (seed / "user-data").write_text("#cloud-config\n{}\n")
        network = {"version": 2, "ethernets": {"host0": {"addresses": [f"{address}/24"], "gateway4": f"{NETWORK}.1"}}}
        (seed / "network-config").write_text(json.dumps(network))
        cgroups = [Path(root) / f"bench-{name}" for root in hierarchies()]
        for cgroup in cgroups:
            cgroup.mkdir(exist_ok=True)
        argv = ["systemd-nspawn", "-q", "-D", str(place / "root"), f"--machine={name}", "--register=no", "--keep-unit"]
        argv += [f"--network-bridge={self.bridge}", "--console=pipe", "--kill-signal=SIGRTMIN+3", "-b"]
        with (place / "log").open("wb") as log:
            self._started[name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_joins(cgroups)
            )
        return Observed(name, ssh=Ssh(address, LOGIN), life=Life.RUNNING)

    def delete(self, name: str) -> None:
        process = self._started.pop(name)
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        for root in hierarchies():
            for folder, _, _ in os.walk(f"{root}/bench-{name}", topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)  # noqa: PTH106 - a cgroup
        run("umount", self._folder / name / "root")
        shutil.rmtree(self._folder / name)


def _joins(cgroups: list[Path]) -> Callable[[], None]:
    def join() -> None:
        for cgroup in cgroups:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    return join


class Emulator:
    """QEMU without KVM, with all that is known to make it quick: the kernel and its initrd are handed to it."""

    def __init__(self, folder: Path, disk: Path, kernel: Path, initrd: Path, key: str) -> None:
        self._folder, self._disk, self._kernel, self._initrd, self._key = folder, disk, kernel, initrd, key
        self._process: subprocess.Popen[bytes] | None = None

    async def create(self) -> Observed:
        return await asyncio.to_thread(self._create)

    def _create(self) -> Observed:
        folder = self._folder
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "seed").mkdir(parents=True)
        meta = {"instance-id": "by-hand", "local-hostname": "by-hand", "public-keys": [self._key]}
        (folder / "seed" / "meta-data").write_text(json.dumps(meta))
        (folder / "seed" / "user-data").write_text("#cloud-config\n{}\n")
        seed: list[str | Path] = ["-o", folder / "seed.iso", "-V", "cidata", "-J", "-r", folder / "seed"]
        run(shutil.which("genisoimage") or "xorrisofs", "-quiet", *seed)
        overlay = folder / "disk.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self._disk, overlay)
        port = free_port()
        argv = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,thread=multi,tb-size=128", "-cpu", "Nehalem"]
        argv += ["-smp", "2", "-m", "512", "-nodefaults", "-display", "none"]
        argv += ["-kernel", str(self._kernel), "-initrd", str(self._initrd), "-append", KERNEL_LINE]
        argv += ["-drive", f"if=none,id=d0,file={overlay},cache=unsafe", "-device", "virtio-blk-pci,drive=d0"]
        argv += ["-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:22"]
        argv += ["-device", "virtio-net-pci,netdev=n0,romfile="]
        argv += ["-drive", f"if=none,id=cd0,file={folder}/seed.iso,format=raw,readonly=on"]
        argv += ["-device", "virtio-blk-pci,drive=cd0", "-serial", f"file:{folder}/console"]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        return Observed("by-hand", ssh=Ssh("127.0.0.1", LOGIN, port), life=Life.RUNNING)

    def delete(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
