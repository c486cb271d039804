"""Images made for real: the same each time, starting by themselves, and customised in a throw-away machine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hansa.engines.qemu_img import convert
from hansa.kernel.errors import Permanent
from hansa.machines.build import builder, golden
from hansa.machines.build.boot import ROOT_AT, is_made_here
from hansa.machines.build.recipe import Recipe
from hansa.machines.build.workspace import PREFIX, workspace
from hansa.machines.drivers.base import MachineSpec, Size
from tests.support import apt
from tests.support.nspawn import NspawnPlace, image, nspawn_place
from tests.support.vmimage import debian_image, need_builder

pytestmark = [pytest.mark.root, pytest.mark.slow]
SMALL = Recipe(base=("base-files", "busybox-static", "libc6"), variant="extract", disk_gib=2)


async def quiet(_said: str, _share: float) -> None:
    return None


async def made(folder: Path) -> str:
    try:
        path = await builder.build(SMALL, folder, quiet)
    except Permanent as error:
        pytest.skip(f"no image of Debian can be made here: {error}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_the_same_recipe_gives_the_same_image_bit_by_bit(tmp_path: Path) -> None:
    need_builder()
    first, second = await asyncio.gather(made(tmp_path / "one"), made(tmp_path / "two"))
    assert first == second


KILLED = """
import asyncio, sys
from pathlib import Path
from hansa.machines.build import builder
from tests.integration.machines.test_build import SMALL, quiet
asyncio.run(builder.build(SMALL, Path(sys.argv[1]), quiet))
"""


def mounted(word: str) -> set[str]:
    """Processes that have something mounted whose place has this word in it, ours among them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            if word in path.read_text():
                found.add(path.parent.name)
    return found


def folder_of(pid: int) -> Path | None:
    """The folder that a process has locked."""
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if (opened := link.readlink()).parent.name.startswith(PREFIX):
                    return opened.parent
    return None


def test_a_build_that_is_killed_leaves_no_mount_and_no_process_and_the_next_one_sweeps(tmp_path: Path) -> None:
    need_builder()
    with (tmp_path / "said").open("w") as said:
        build = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "one"], stderr=said)
    deadline = time.monotonic() + 300
    while (folder := folder_of(build.pid)) is None or not mounted(folder.name):
        if build.poll() is not None:
            pytest.skip(f"no image of Debian can be made here: {(tmp_path / 'said').read_text()[-300:]}")
        assert time.monotonic() < deadline
    assert folder.name not in Path("/proc/self/mountinfo").read_text(), "its mounts are its own"
    build.kill()
    build.wait()
    deadline = time.monotonic() + 60
    while busy := mounted(folder.name):
        assert time.monotonic() < deadline, busy
        time.sleep(0.05)
    assert folder.is_dir()
    with workspace():
        assert not folder.exists()


def test_it_starts_by_itself(tmp_path: Path) -> None:
    """Firmware, GRUB, kernel and root file system; no kernel is handed to it."""
    disk, console = tmp_path / "disk.qcow2", tmp_path / "console"
    image_path = debian_image()
    apt.need(["qemu-system-x86_64"], ["qemu-system-x86"])
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image_path, "-F", "qcow2", disk], check=True)
    argv = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,tb-size=128", "-cpu", "Nehalem", "-m", "512"]
    argv += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{console}"]
    argv += ["-drive", f"if=virtio,file={disk},cache=unsafe"]
    guest = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 400
        while not console.is_file() or "systemd[1]: " not in console.read_text(errors="replace"):
            assert guest.poll() is None, "QEMU has ended"
            said = console.read_text(errors="replace")[-2000:] if console.is_file() else ""
            assert time.monotonic() < deadline, said
            time.sleep(0.5)
    finally:
        guest.kill()
        guest.wait()


@pytest.fixture
async def place() -> AsyncIterator[NspawnPlace]:
    one = await nspawn_place()
    yield one
    assert await one.clear() == []


PLAYBOOK = """
- hosts: all
  become: true
  tasks:
    - ansible.builtin.setup: {gather_subset: [min]}
    - ansible.builtin.slurp: {src: /etc/lab}
      register: lab
    - ansible.builtin.copy: {dest: /etc/played, content: "{{ ansible_distribution }} {{ lab.content | b64decode }}"}
    - ansible.builtin.user: {name: researcher, shell: /bin/bash}
"""


CLOUD_INIT = b"#cloud-config\nwrite_files:\n  - {path: /etc/lab, content: golden}\n"


@pytest.mark.long
async def test_a_golden_image_is_what_a_playbook_made_of_another(place: NspawnPlace, tmp_path: Path) -> None:
    apt.need(["ansible-playbook"], ["ansible-core"])
    driver = place.driver()
    (playbook := tmp_path / "lab.yaml").write_text(PLAYBOOK)
    wish = golden.Wish(CLOUD_INIT, playbook, Size(1, 512))
    disk = await golden.customise(driver, image(), wish, tmp_path, quiet)
    assert await driver.list_keys() == []
    raw = await convert(disk, "qcow2", "raw", tmp_path)
    assert inside(raw, "cat /etc/played") == "Debian golden", "the playbook ran in there, after cloud-init"
    assert "\nresearcher:x:" in inside(raw, "cat /etc/passwd")
    assert inside(raw, "stat /home/debian/.ansible") == "", "nothing of Ansible's stays"


async def test_a_golden_image_is_what_cloud_init_made_of_another(place: NspawnPlace, tmp_path: Path) -> None:
    driver = place.driver()
    left = MachineSpec("left", image(), Size(1, 256))
    await driver.ensure(left, f"{golden.PREFIX}999999999-dead")
    wish = golden.Wish(CLOUD_INIT, size=Size(1, 512))
    disk = await golden.customise(driver, image(), wish, tmp_path, quiet)
    assert await driver.list_keys() == [], "neither its own machine nor that of a build that was killed"
    raw = await convert(disk, "qcow2", "raw", tmp_path)
    with raw.open("rb") as file:
        assert is_made_here(file.read(65536)), "its first sector starts it"
    assert inside(raw, "cat /etc/lab") == "golden"
    for own in ("/home/debian/.ssh/authorized_keys", "/etc/ssh/ssh_host_ed25519_key", "/var/lib/cloud/instance"):
        assert inside(raw, f"stat {own}") == "", "what was this machine's own is gone"
    assert "vmlinuz" in inside(raw, "ls /boot")


def inside(raw: Path, request: str) -> str:
    """What debugfs says of the root file system of a disk; nothing where a file is not there."""
    argv = ["debugfs", "-R", request, f"{raw}?offset={ROOT_AT}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.mark.long
async def test_a_playbook_that_fails_makes_no_image_and_says_why(place: NspawnPlace, tmp_path: Path) -> None:
    apt.need(["ansible-playbook"], ["ansible-core"])
    driver = place.driver()
    (playbook := tmp_path / "bad.yaml").write_text("- hosts: all\n  tasks: [{command: 'false', name: too bad}]\n")
    with pytest.raises(Permanent, match="ansible-playbook failed"):
        await golden.customise(driver, image(), golden.Wish(b"", playbook, Size(1, 512)), tmp_path, quiet)
    assert await driver.list_keys() == []


async def test_a_first_boot_that_fails_makes_no_image_and_leaves_nothing(place: NspawnPlace, tmp_path: Path) -> None:
    driver = place.driver()
    wish = golden.Wish(b"#cloud-config\nruncmd: [[sh, -c, exit 7]]\n", size=Size(1, 256))
    with pytest.raises(Permanent, match="first boot failed"):
        await golden.customise(driver, image(), wish, tmp_path, quiet)
    assert await driver.list_keys() == []
