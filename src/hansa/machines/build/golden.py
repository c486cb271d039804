"""Golden images: another image, started once as a throw-away machine, customised in there, and taken as it is then.

The machine is called after the process that makes it: what a process that died has left goes when the next one starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hansa.engines.qemu_img import convert, first_bytes
from hansa.kernel.errors import Permanent, Temporary
from hansa.machines.build.boot import is_made_here, missing, needs_boot, wrap
from hansa.machines.build.builder import Tell
from hansa.machines.build.recipe import EPOCH
from hansa.machines.drivers.base import (
    Guest,
    Image,
    Key,
    Life,
    Machines,
    MachineSpec,
    Observed,
    Power,
    Progress,
    Size,
    Snapshots,
    able,
)

PREFIX = "golden-"
START_S, WORK_S, END_S = 900.0, 3600.0, 300.0
"""Seconds for the first boot with its cloud-init, for a playbook, and for anything that ends something."""
_POLL_S = 0.5
_ANSIBLE = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_RETRY_FILES_ENABLED": "0", "LC_ALL": "C.UTF-8"}
"""It refuses to start where the locale is not UTF-8, as in a service."""
# What belongs to this one machine: the next ones make their own at their first boot.
_CLEAN = """set -e
apt-get clean 2>/dev/null || true
cloud-init clean --logs
rm -rf /var/lib/cloud/seed/* 2>/dev/null || true
rm -f /etc/ssh/ssh_host_* /root/.ssh/authorized_keys "$1/.ssh/authorized_keys" /root/.bash_history "$1/.bash_history"
rm -rf /root/.ansible "$1/.ansible"
rm -f /etc/netplan/50-cloud-init.yaml /etc/systemd/network/10-cloud-init-* /etc/network/interfaces.d/50-cloud-init
find /var/log -type f -exec truncate -s 0 {} +
truncate -s 0 /etc/machine-id
sync
"""


@dataclass(frozen=True)
class Wish:
    """What is done to the machine: cloud-init at its first boot, then a playbook of Ansible."""

    cloud_init: bytes = b""
    playbook: Path | None = None
    size: Size = field(default_factory=lambda: Size(2, 2048))


async def customise(driver: Machines, image: Image, wish: Wish, folder: Path, tell: Tell) -> Path:
    """The customised image, as qcow2 that starts by itself, in a folder that is this build's own.

    Raises Permanent where the first boot or the playbook fails, with their own words, and Temporary where it takes too
    long. Nothing is left of the machine.
    """
    if wish.playbook is not None and shutil.which("ansible-playbook") is None:
        raise Permanent("ansible-playbook is not installed: uv tool install ansible-core.")
    if absent := missing():
        raise Permanent(f"Images cannot be made here: {', '.join(sorted(absent))} must be installed (apt install …).")
    await sweep(driver)
    key = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    private, public = await _new_key(folder)
    try:
        await tell("starts a machine of it", 0.05)
        spec = MachineSpec("golden", image, wish.size, wish.cloud_init, (public,), tags={"hansa": "image build"})
        await driver.ensure(spec, key)
        seen = await _ready(driver, key)
        if wish.playbook is not None:
            await tell("runs the playbook", 0.4)
            await _play(seen, private, wish.playbook)
        await tell("cleans it", 0.7)
        await _inside(seen, private, _CLEAN)
        await _until(lambda: able(driver, Power).stop(key), END_S, "stopping it")
        await tell("takes its disk", 0.8)
        return await _taken(driver, key, folder)
    finally:
        await asyncio.shield(remove(driver, key))


async def choose(ways: Mapping[str, Machines], content: Path, folder: Path) -> str:
    """Of the ways to run machines here the first that keeps what starts the image. Raises Permanent.

    A container is given back as one file system: the boot loader, its configuration and other partitions of an image
    that was not made here would be lost with it.
    """
    head = await first_bytes(content, "qcow2", folder)
    is_whole = is_made_here(head) or needs_boot(head)
    for name in ways:
        if name != "nspawn" or is_whole:
            return name
    raise Permanent("No way to run machines here suits this image: qemu is needed (hansa doctor).")


async def sweep(driver: Machines) -> None:
    """Remove machines of builds whose process is gone."""
    for key in await driver.list_keys(PREFIX):
        owner = key.removeprefix(PREFIX).partition("-")[0]
        if not owner.isdecimal() or not Path(f"/proc/{owner}").exists():
            await remove(driver, key)


async def remove(driver: Machines, key: Key) -> None:
    """The machine and its snapshot, wholly."""
    await _until(lambda: driver.delete(key), END_S, "deleting it")
    await _until(lambda: able(driver, Snapshots).delete_snapshot(key), END_S, "deleting its snapshot")


async def _taken(driver: Machines, key: Key, folder: Path) -> Path:
    """Its disk as a file of ours; with what starts it, where the driver keeps none."""
    snapshots, deadline = able(driver, Snapshots), asyncio.get_running_loop().time() + WORK_S
    while (taken := await snapshots.snapshot(key, key, "golden")).progress is not Progress.DONE:
        if asyncio.get_running_loop().time() > deadline:
            raise Temporary(f"Its disk was not there after {WORK_S:.0f} s.")
        await asyncio.sleep(_POLL_S)
    if taken.path is None:
        raise Permanent("The snapshot is not on this computer.")
    raw = await convert(taken.path, taken.format, "raw", folder)
    with raw.open("rb") as file:
        head = file.read(65536)
    if needs_boot(head):
        disk = folder / "disk.raw"
        await asyncio.to_thread(wrap, raw, disk, uuid.uuid4(), EPOCH)
        raw.unlink()
        raw = disk
    try:
        return (await convert(raw, "raw", "qcow2", folder)).rename(folder / "image.qcow2")
    finally:
        raw.unlink()


async def _ready(driver: Machines, key: Key) -> Observed:
    """The machine, when its first boot is over. Raises Permanent with the guest's words where that failed."""
    deadline = asyncio.get_running_loop().time() + START_S
    while True:
        seen = await driver.observe(key)
        if seen is None or seen.life in (Life.FAILED, Life.STOPPED, Life.DELETING):
            raise Permanent(f"The machine did not stay up: {seen.message if seen else 'it is gone'}")
        if seen.guest is Guest.FAILED:
            raise Permanent(f"Its first boot failed: {seen.guest_message}")
        if seen.guest is Guest.READY and seen.ssh is not None:
            return seen
        if asyncio.get_running_loop().time() > deadline:
            raise Temporary(f"Its first boot was not over after {START_S:.0f} s.")
        await asyncio.sleep(_POLL_S)


async def _until(work: Callable[[], Awaitable[Progress]], patience_s: float, what: str) -> None:
    deadline = asyncio.get_running_loop().time() + patience_s
    while await work() is not Progress.DONE:
        if asyncio.get_running_loop().time() > deadline:
            raise Temporary(f"It took longer than {patience_s:.0f} s: {what}.")
        await asyncio.sleep(_POLL_S)


async def _new_key(folder: Path) -> tuple[Path, str]:
    private = folder / "key"
    await _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hansa image build", "-f", str(private)], END_S)
    return private, private.with_suffix(".pub").read_text(encoding="ascii").strip()


async def _inside(seen: Observed, private: Path, script: str) -> None:
    """A script as root in the guest; ``$1``: the home of whoever signs in."""
    ssh = seen.ssh
    if ssh is None:
        raise Permanent("There is no way into the machine.")
    argv = ["ssh", *_options(seen, private), "-p", str(ssh.port), f"{ssh.user}@{ssh.host}"]
    await _run([*argv, 'sudo sh -s "$HOME"'], WORK_S, script.encode())


async def _play(seen: Observed, private: Path, playbook: Path) -> None:
    ssh = seen.ssh
    if ssh is None:
        raise Permanent("There is no way into the machine.")
    options = " ".join(_options(seen, private))
    argv = ["ansible-playbook", "-i", f"{ssh.host},", "-u", ssh.user, "-e", f"ansible_port={ssh.port}"]
    argv += ["--private-key", str(private), "--ssh-common-args", options, str(playbook)]
    await _run(argv, WORK_S, environment=_ANSIBLE)


def _options(seen: Observed, private: Path) -> list[str]:
    """OpenSSH's: nobody but this machine, and no settings of whoever builds."""
    ssh, hosts = seen.ssh, private.with_name("known_hosts")
    if ssh is not None:
        name = ssh.host if ssh.port == 22 else f"[{ssh.host}]:{ssh.port}"
        hosts.write_text("".join(f"{name} {one}\n" for one in ssh.host_keys), encoding="utf-8")
    known = [f"-oUserKnownHostsFile={hosts}", "-oGlobalKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=yes"]
    return [
        "-F",
        "/dev/null",
        "-i",
        str(private),
        "-oIdentitiesOnly=yes",
        *known,
        "-oBatchMode=yes",
        "-oConnectTimeout=60",
    ]


async def _run(
    argv: Sequence[str], patience_s: float, given: bytes = b"", environment: dict[str, str] | None = None
) -> None:
    """A command to its end. Raises Permanent with its last words where it fails."""
    process = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, **(environment or {})}, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(given), patience_s)
    except TimeoutError as error:
        raise Temporary(f"{argv[0]} took longer than {patience_s:.0f} s.") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        last = [line.strip() for line in out.decode("utf-8", "replace").splitlines() if line.strip()][-6:]
        raise Permanent(f"{argv[0]} failed: {' / '.join(last)[-600:] or 'it left no word'}")
