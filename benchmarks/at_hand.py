"""Machines on the computer at hand: from the wish to a sign-in over SSH, and gone again. Needs root for containers."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

from tests.support.ssh_in import new_key
from tests.support.vmimage import debian_image

from benchmarks.harness import Better, Row, median, rounded, used_by_others
from hansa.machines.drivers.base import Image, Machines, MachineSpec, Observed, Size
from hansa.machines.drivers.nspawn.driver import Nspawn
from hansa.machines.drivers.nspawn.root import find_helper, probe
from hansa.machines.drivers.qemu.driver import Qemu

LIMIT_S = 600.0


def image() -> Image:
    """A Debian image made by Hansa itself, kept from one run to the next."""
    path = debian_image()
    return Image(f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}", path=path, login="debian")


async def signed_in(driver: Machines, seen: Observed, key_file: Path) -> None:
    """Returns when a command over SSH has run in the guest."""
    end = time.monotonic() + LIMIT_S
    options = ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR", "-oBatchMode=yes"]
    while time.monotonic() < end:
        ssh = seen.ssh
        if ssh is not None and await asyncio.to_thread(_answers, ssh.host, ssh.port):
            argv = ["ssh", "-i", str(key_file), "-p", str(ssh.port), *options, f"{ssh.user}@{ssh.host}", "true"]
            process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
            if await process.wait() == 0:
                return
        await asyncio.sleep(0.05)
    raise TimeoutError(f"nobody could sign in to {seen.provider_id} within {LIMIT_S} s")


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 2) as link:
            link.settimeout(2)
            return link.recv(4) == b"SSH-"
    except OSError:
        return False


async def create(driver: Machines, spec: MachineSpec, key: str, key_file: Path) -> float:
    """Seconds from the wish to a sign-in."""
    started = time.perf_counter()
    await signed_in(driver, await driver.ensure(spec, key), key_file)
    return time.perf_counter() - started


async def measure(driver: Machines, spec: MachineSpec, key_file: Path, rounds: int, at_once: int) -> dict[str, float]:
    single, gone = [], []
    for number in range(rounds):
        single.append(await create(driver, spec, f"one{number}", key_file))
        started = time.perf_counter()
        await driver.delete(f"one{number}")
        gone.append(time.perf_counter() - started)
    found = {"create": median(single), "delete": median(gone)}
    if at_once:
        started = time.perf_counter()
        await asyncio.gather(*(create(driver, spec, f"many{number}", key_file) for number in range(at_once)))
        found["at once"] = time.perf_counter() - started
        for number in range(at_once):
            await driver.delete(f"many{number}")
    return found


def run(quick: bool) -> list[Row]:
    """Containers, and where it is not to be quick, a virtual machine as well."""
    with tempfile.TemporaryDirectory(prefix="hansa-bench-machines-") as name:
        folder = Path(name)
        key_file, start = new_key(folder), image()
        spec = MachineSpec("bench", start, Size(2, 512), ssh_keys=(key_file.with_suffix(".pub").read_text().strip(),))
        rows = _nspawn(folder / "nspawn", spec, key_file, 1 if quick else 5)
        if not quick and shutil.which("qemu-system-x86_64"):
            rows += _qemu(folder / "qemu", spec, key_file)
    return rows


def _nspawn(folder: Path, spec: MachineSpec, key_file: Path, rounds: int) -> list[Row]:
    probed, helper = probe(folder), find_helper(folder / "store")
    if os.geteuid() != 0 or helper is None or not probed.works:
        return []
    driver = Nspawn(folder, helper, is_isolated=probed.is_isolated)
    noise = used_by_others()
    asyncio.run(driver.prepare(spec.image))
    found = asyncio.run(measure(driver, spec, key_file, rounds, 4))
    detail = {"used_by_others": noise, "is_isolated": probed.is_isolated, "load": os.getloadavg()[0]}
    works = {
        "create": ("container of nspawn, wish to sign-in", 2.0),
        "at once": ("four containers of nspawn at once, wish to the last sign-in", 4.0),
        "delete": ("container of nspawn, deleted with all that belongs to it", 0.3),
    }
    return [
        Row(said, "s", Better.LOWER, rounded(found[name]), {}, budget, detail) for name, (said, budget) in works.items()
    ]


def _qemu(folder: Path, spec: MachineSpec, key_file: Path) -> list[Row]:
    driver = Qemu(folder)
    noise = used_by_others()
    asyncio.run(driver.prepare(spec.image))
    found = asyncio.run(measure(driver, spec, key_file, 1, 0))
    by_hand = 21.0  # measured once, on a quiet computer, with two emulated processors
    detail = {"used_by_others": noise, "load": os.getloadavg()[0], "by hand, another day": by_hand}
    return [
        Row("machine of QEMU, wish to sign-in", "s", Better.LOWER, rounded(found["create"]), {}, by_hand * 1.15, detail)
    ]
