"""A machine in QEMU for real, as an ordinary server would run it: first boot, sign-in, volume, snapshot, leftovers."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from hansa.machines.drivers.base import Guest, MachineSpec, Progress, Size
from hansa.machines.drivers.qemu.driver import Qemu
from tests.support.nspawn import image, qemu_folder
from tests.support.ssh_in import inside, new_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_DEADLINE_S = 600  # emulated, on a computer that does other things as well


async def test_a_life(tmp_path: Path) -> None:
    folder = qemu_folder().with_name(f"{qemu_folder().name}-life")
    driver, key_file = Qemu(folder), new_key(tmp_path)
    user_data = b"#cloud-config\nwrite_files:\n  - {path: /etc/greeting, content: hello from cloud-init}\n"
    spec = MachineSpec("one", image(), Size(2, 512), user_data, (key_file.with_suffix(".pub").read_text().strip(),))
    try:
        await driver.ensure_volume("data", 1, "data")
        await driver.ensure(spec, "one")
        seen = await driver.observe("one")
        end = asyncio.get_running_loop().time() + _DEADLINE_S
        while seen is not None and seen.guest is Guest.BOOTING:
            assert asyncio.get_running_loop().time() < end, await driver.console_log("one")
            await asyncio.sleep(0.5)
            seen = await driver.observe("one")
        assert seen is not None
        assert seen.guest is Guest.READY, seen.guest_message
        assert await inside(seen, key_file, "cat /etc/greeting; hostname") == (0, "hello from cloud-init" + "one\n")
        volume = await driver.attach("data", "one")
        assert (
            await inside(seen, key_file, f"udevadm wait -t 60 {volume.device} && sudo mkfs.ext4 -q {volume.device}")
        )[0] == 0
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
        assert await driver.delete_image(spec.image.checksum) is Progress.PENDING, "a machine needs it"
    finally:
        for key in await driver.list_keys():
            await driver.delete(key)
    assert await driver.delete_image(spec.image.checksum) is Progress.DONE
    assert await driver.bases() == {}
    await driver.delete_volume("data")
    await driver.delete_snapshot("snap")
    assert await driver.leftovers() == []
    shutil.rmtree(folder)
