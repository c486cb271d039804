"""Machines in QEMU for real, as an ordinary server would run them: first boot, sign-in, network, volume, snapshot."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hansa.machines.drivers.base import Guest, Image, MachineSpec, Observed, Progress, Size
from hansa.machines.drivers.qemu.driver import Qemu
from tests.support.nspawn import image, qemu_folder
from tests.support.ssh_in import ansible_ping, inside, new_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
_DEADLINE_S = 600  # emulated, on a computer that does other things as well


@pytest.fixture
async def driver() -> AsyncIterator[Qemu]:
    """In a folder of its own, of which nothing is left."""
    folder = qemu_folder().with_name(f"{qemu_folder().name}-life")
    one = Qemu(folder)
    yield one
    for key in await one.list_keys():
        await one.delete(key)
    assert await one.delete_volume("data") is Progress.DONE
    await one.delete_snapshot("snap")
    assert await one.delete_network("lab") is Progress.DONE
    assert await one.leftovers() == []
    for part in ("machines", "volumes", "networks", "snapshots"):
        assert not list((folder / part).iterdir())
    shutil.rmtree(folder)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return new_key(tmp_path)


def spec_of(key_file: Path) -> MachineSpec:
    user_data = b"#cloud-config\nwrite_files:\n  - {path: /etc/greeting, content: hello from cloud-init}\n"
    return MachineSpec("one", image(), Size(2, 512), user_data, (key_file.with_suffix(".pub").read_text().strip(),))


async def ready(driver: Qemu, key: str) -> Observed:
    """The machine once its first boot is over."""
    end = asyncio.get_running_loop().time() + _DEADLINE_S
    while (seen := await driver.observe(key)) is not None and seen.guest is Guest.BOOTING:
        assert asyncio.get_running_loop().time() < end, await driver.console_log(key)
        await asyncio.sleep(0.5)
    assert seen is not None
    assert seen.guest is Guest.READY, seen.guest_message
    return seen


async def test_a_life(driver: Qemu, key_file: Path) -> None:
    await driver.ensure_volume("data", 1, "data")
    await driver.ensure(spec_of(key_file), "one")
    seen = await ready(driver, "one")
    assert "Cloud-init" in await driver.console_log("one")
    folder = qemu_folder().with_name(f"{qemu_folder().name}-life")
    is_fast = (folder / "kvm.json").exists() and json.loads((folder / "kvm.json").read_text())["works"]
    run = json.loads((folder / "machines" / "one" / "run.json").read_text())
    assert run["accelerator"] == ("kvm" if is_fast else "tcg")
    assert await inside(seen, key_file, "cat /etc/greeting; hostname") == (0, "hello from cloud-init" + "one\n")
    volume = await driver.attach("data", "one")
    assert (await inside(seen, key_file, f"udevadm wait -t 60 {volume.device} && sudo mkfs.ext4 -q {volume.device}"))[
        0
    ] == 0
    deadline = asyncio.get_running_loop().time() + 120
    while await driver.detach("data") is Progress.PENDING:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.5)
    assert (await inside(seen, key_file, f"test -e {volume.device}"))[0] == 1
    snapshot = await driver.snapshot("one", "snap", "before")
    assert snapshot.path is not None
    said = await asyncio.to_thread(subprocess.run, ["qemu-img", "check", "-q", str(snapshot.path)], check=False)
    assert said.returncode == 0
    assert (await inside(seen, key_file, "true"))[0] == 0, "it goes on after the snapshot"
    assert await driver.delete_image(image().checksum) is Progress.PENDING, "a machine needs it"
    await driver.delete("one")
    assert await driver.delete_image(image().checksum) is Progress.DONE
    assert await driver.bases() == {}


@pytest.mark.long
async def test_two_in_a_network_and_a_third_of_a_snapshot(driver: Qemu, key_file: Path) -> None:
    """They see each other, and no machine beside; Ansible reaches them; the disk of one starts another."""
    spec = replace(spec_of(key_file), network="lab", size=Size(1, 384))
    await driver.ensure_network("lab")
    await driver.ensure(spec, "one")
    await driver.ensure(replace(spec, name="two"), "two")
    one, two = await ready(driver, "one"), await ready(driver, "two")
    assert (await inside(one, key_file, f"sudo ping -c1 -W20 {two.private[0]}"))[0] == 0
    assert (await inside(two, key_file, f"sudo ping -c1 -W20 {one.private[0]}"))[0] == 0
    greet = f"timeout 20 bash -c 'exec 3<>/dev/tcp/{one.private[0]}/22; head -c 4 <&3'"  # a way out may take any call
    assert await inside(two, key_file, greet) == (0, "SSH-")
    said = await ansible_ping([one, two], key_file)
    assert said.count('"ping": "pong"') == 2, said
    assert (await inside(two, key_file, "sudo touch /kept && sync"))[0] == 0
    snapshot = await driver.snapshot("two", "snap", "before")
    assert snapshot.path is not None
    assert await driver.delete("two") is Progress.DONE
    copy = Image("sha256:" + "c" * 64, path=snapshot.path, login="debian")
    await driver.ensure(replace(spec, image=copy, name="again", network=None), "again")
    again = await ready(driver, "again")
    assert await inside(again, key_file, "test -e /kept && hostname") == (0, "again\n")
    assert "SSH-" not in (await inside(again, key_file, greet))[1], "it is in no network"
    assert again.ssh is not None
    assert two.ssh is not None
    assert again.ssh.host_keys != two.ssh.host_keys
