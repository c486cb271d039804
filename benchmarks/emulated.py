"""Machines of QEMU without KVM: from the wish to a sign-in over SSH, beside one that is made by hand. Takes minutes."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from benchmarks.at_hand import cleared, measure, measure_driver, row, wish
from benchmarks.by_hand import Emulator
from benchmarks.harness import Row, median, used_by_others
from hansa.machines.drivers.base import MachineSpec, base_of
from hansa.machines.drivers.qemu.bases import Bases
from hansa.machines.drivers.qemu.driver import Qemu


def run(quick: bool) -> list[Row]:
    """One boot each where it is to be quick, else three."""
    with tempfile.TemporaryDirectory(prefix="hansa-bench-machines-") as name:
        folder = Path(name)
        key_file, spec = wish(folder)
        with cleared(Qemu(folder)) as driver:
            return _measure(driver, folder, spec, key_file, 1 if quick else 3)


def _measure(driver: Qemu, folder: Path, spec: MachineSpec, key_file: Path, rounds: int) -> list[Row]:
    """One after the other, each with the computer for itself: an emulated processor takes a real one."""
    noise = used_by_others()
    asyncio.run(driver.prepare(spec.image))
    base = Bases(folder / "bases").find(base_of(spec.image))
    if base is None or base.kernel is None or base.initrd is None:
        return []
    peer = Emulator(folder / "by-hand", base.disk, base.kernel, base.initrd, spec.ssh_keys[0])
    ours: list[float] = []
    theirs: list[float] = []
    try:
        for _ in range(rounds):
            hand = measure(lambda _: peer.create(), lambda _: asyncio.to_thread(peer.delete), key_file, 1, 0)
            theirs += asyncio.run(hand)["create"]
            ours += measure_driver(driver, spec, key_file, 1, 0)["create"]
    finally:
        peer.delete()
    detail = {"used_by_others": noise, "load": os.getloadavg()[0]}
    return [row("machine of QEMU, emulated, wish to sign-in", ours, theirs, 1.15 * median(theirs), detail)]
