"""Containers on the computer at hand: from the wish to a sign-in over SSH, and gone again. Needs root."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.support.ssh_in import new_key
from tests.support.vmimage import debian_image

from benchmarks.by_hand import Containers
from benchmarks.harness import Better, Row, median, rounded, used_by_others
from hansa.machines.drivers.base import Image, Machines, MachineSpec, Observed, Size, base_of
from hansa.machines.drivers.nspawn.driver import Nspawn
from hansa.machines.drivers.nspawn.helper.disks import base_name
from hansa.machines.drivers.nspawn.root import find_helper, probe

LIMIT_S = 600.0
D = TypeVar("D", bound=Machines)
Times = dict[str, list[float]]


def image() -> Image:
    """A Debian image made by Hansa itself, kept from one run to the next."""
    path = debian_image()
    return Image(f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}", path=path, login="debian")


async def signed_in(seen: Observed, key_file: Path) -> None:
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


Create = Callable[[int], Awaitable[Observed]]
Delete = Callable[[int], Awaitable[object]]


async def measure(create: Create, delete: Delete, key_file: Path, rounds: int, at_once: int) -> Times:
    """Seconds from the wish to a sign-in, of one and of several at once, and of a deletion; each of them."""
    found: Times = {"create": [], "delete": [], "at once": []}

    async def one(number: int) -> float:
        began = time.perf_counter()
        await signed_in(await create(number), key_file)
        return time.perf_counter() - began

    async def gone(number: int) -> None:
        began = time.perf_counter()
        await delete(number)
        found["delete"].append(time.perf_counter() - began)

    for _ in range(rounds):
        found["create"].append(await one(0))
        await gone(0)
    for _ in range(rounds if at_once else 0):
        began = time.perf_counter()
        await asyncio.gather(*map(one, range(at_once)))
        found["at once"].append(time.perf_counter() - began)
        for number in range(at_once):
            await gone(number)
    return found


def wish(folder: Path) -> tuple[Path, MachineSpec]:
    """A new key to sign in with, and a machine that lets it in."""
    key_file = new_key(folder)
    key = key_file.with_suffix(".pub").read_text().strip()
    return key_file, MachineSpec("bench", image(), Size(2, 512), ssh_keys=(key,))


def run(quick: bool) -> list[Row]:
    """Hansa's, and beside them those that are made by hand."""
    with tempfile.TemporaryDirectory(prefix="hansa-bench-machines-") as name:
        folder = Path(name)
        key_file, spec = wish(folder)
        rows: list[Row] = []
        probed, helper = probe(folder / "nspawn"), find_helper(folder / "nspawn" / "store")
        if os.geteuid() == 0 and helper is not None and probed.works:
            with cleared(Nspawn(folder / "nspawn", helper, is_isolated=probed.is_isolated)) as containers:
                rows += _nspawn(
                    containers,
                    Nspawn(folder / "nspawn", helper, is_isolated=False),
                    folder,
                    spec,
                    key_file,
                    1 if quick else 3,
                )
    return rows


@contextmanager
def cleared(driver: D) -> Iterator[D]:
    """A driver of whose machines none is left, however it ends."""
    try:
        yield driver
    finally:
        for key in asyncio.run(driver.list_keys()):
            asyncio.run(driver.delete(key))


def measure_driver(driver: Machines, spec: MachineSpec, key_file: Path, rounds: int, at_once: int) -> Times:
    return asyncio.run(
        measure(
            lambda number: driver.ensure(spec, f"m{number}"),
            lambda number: driver.delete(f"m{number}"),
            key_file,
            rounds,
            at_once,
        )
    )


def _nspawn(driver: Nspawn, by_hand: Nspawn, folder: Path, spec: MachineSpec, key_file: Path, rounds: int) -> list[Row]:
    """``by_hand`` only unpacks the image of the peer, whose root is root of this computer."""
    noise = used_by_others()
    for one in (driver, by_hand):
        asyncio.run(one.prepare(spec.image))
    measure_driver(driver, spec, key_file, 1, 0)  # warm-up
    found = measure_driver(driver, spec, key_file, rounds, 4)
    base = folder / "nspawn" / "store" / "bases" / base_name(base_of(spec.image), is_trusted=True)
    with Containers(folder / "by-hand", base, spec.ssh_keys[0]) as peer:
        theirs = asyncio.run(
            measure(
                lambda number: peer.create(f"bench{number}", number),
                lambda number: asyncio.to_thread(peer.delete, f"bench{number}"),
                key_file,
                rounds,
                4,
            )
        )
    detail = {"used_by_others": noise, "is_isolated": driver.capabilities().is_isolated, "load": os.getloadavg()[0]}
    works = {
        "create": ("container of nspawn, wish to sign-in", 2.0),
        "at once": ("four containers of nspawn at once, wish to the last sign-in", 4.0),
        "delete": ("container of nspawn, deleted with all that belongs to it", 0.3),
    }
    return [row(said, found[name], theirs[name], budget, detail) for name, (said, budget) in works.items()]


def row(said: str, ours: list[float], theirs: list[float], budget: float, detail: dict[str, Any]) -> Row:
    each = {"each": [rounded(one) for one in ours], "by hand, each": [rounded(one) for one in theirs]}
    peers = {"by hand": rounded(median(theirs))}
    return Row(said, "s", Better.LOWER, rounded(median(ours)), peers, rounded(budget), {**detail, **each})
