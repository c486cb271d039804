"""Machines in containers for real: first boot, sign-in, limits, networks, snapshot; and nothing stays behind."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hansa.machines.drivers.base import Guest, Image, Life, MachineSpec, Observed, Progress, Size
from hansa.machines.drivers.nspawn.driver import Nspawn
from tests.support.nspawn import NspawnPlace, image, nspawn_place
from tests.support.ssh_in import ansible_ping, inside, new_key

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
_DEADLINE_S = 180


@pytest.fixture
async def place() -> AsyncIterator[NspawnPlace]:
    one = await nspawn_place()
    yield one
    assert await one.clear() == []


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return new_key(tmp_path)


async def ready(driver: Nspawn, key: str) -> Observed:
    """The machine once its first boot is over."""
    deadline = asyncio.get_running_loop().time() + _DEADLINE_S
    while True:
        seen = await driver.observe(key)
        assert seen is not None
        if seen.guest in (Guest.READY, Guest.FAILED):
            return seen
        assert seen.life is Life.RUNNING, await driver.console_log(key)
        assert asyncio.get_running_loop().time() < deadline, await driver.console_log(key)
        await asyncio.sleep(0.2)


async def test_a_life(place: NspawnPlace, key_file: Path) -> None:
    driver = place.driver()
    user_data = b"#cloud-config\nwrite_files:\n  - {path: /etc/greeting, content: hello from cloud-init}\n"
    spec = MachineSpec("one", image(), Size(1, 256), user_data, (key_file.with_suffix(".pub").read_text().strip(),))
    await driver.ensure_network("lab")
    await driver.ensure(replace(spec, network="lab"), "one")
    await driver.ensure(replace(spec, network="lab", name="two"), "two")
    await driver.ensure(replace(spec, name="other"), "other")
    one, two, other = [await ready(driver, key) for key in ("one", "two", "other")]
    assert [seen.guest for seen in (one, two, other)] == [Guest.READY] * 3

    assert await inside(one, key_file, "cat /etc/greeting; hostname") == (0, "hello from cloud-init" + "one\n")
    assert (await inside(one, key_file, f"sudo ping -c1 -W5 {two.private[0]}"))[0] == 0
    assert (await inside(one, key_file, f"sudo ping -c1 -W1 {other.private[0]}"))[0] == 1
    said = await ansible_ping([one], key_file)
    assert '"ping": "pong"' in said, said
    if place.is_isolated:  # its root is nobody outside
        assert (await inside(one, key_file, "cat /proc/self/uid_map"))[1].split()[1] != "0"
    eat = "python3 -c 'x = b\"x\" * (600 << 20)'"
    assert (await inside(one, key_file, eat))[0] in (137, 255), "the limit of memory holds"
    assert (await inside(one, key_file, "true"))[0] == 0, "and the machine lives on"
    assert await cores_used(one, key_file) < 1.2, "the limit of processors holds"

    assert (await inside(two, key_file, "sudo touch /kept && sync"))[0] == 0
    snapshot = await driver.snapshot("two", "snap", "before")
    assert snapshot.path is not None
    copy = Image("sha256:" + "c" * 64, path=snapshot.path, login="debian")
    await driver.ensure(replace(spec, image=copy, name="again"), "again")
    again = await ready(driver, "again")
    assert (await inside(again, key_file, "test -e /kept && hostname"))[1] == "again\n"
    assert again.ssh is not None
    assert two.ssh is not None
    assert again.ssh.host_keys != two.ssh.host_keys
    await driver.stop("two")
    assert (seen := await driver.observe("two")) is not None
    assert seen.life is Life.STOPPED
    assert await driver.delete_image("sha256:" + "c" * 64) is Progress.PENDING
    for key in ("one", "two", "other", "again"):
        assert await driver.delete(key) is Progress.DONE
    assert await driver.delete_image("sha256:" + "c" * 64) is Progress.DONE
    assert "c" * 64 not in await driver.bases()
    assert await driver.delete_network("lab") is Progress.DONE
    assert await driver.leftovers() == []
    assert not list((place.folder / "store" / "machines").iterdir())
    assert not list((place.folder / "store" / "networks").iterdir())


async def cores_used(seen: Observed, key_file: Path) -> float:
    """How many processors two loops without an end get for two seconds."""
    script = """import os, time
began = time.monotonic()
for _ in range(2):
    if os.fork() == 0:
        while time.monotonic() < began + 2:
            pass
        os._exit(0)
for _ in range(2):
    os.wait()
used = os.times()
print((used.children_user + used.children_system) / (time.monotonic() - began))"""
    code, said = await inside(seen, key_file, f"python3 -c '{script}'")
    assert code == 0, said
    return float(said)


async def test_volumes_have_a_size_and_outlive_machines(place: NspawnPlace, key_file: Path) -> None:
    """Given to a machine that runs and to one that starts; what was written stays; a full one is full."""
    driver, key = place.driver(), (key_file.with_suffix(".pub").read_text().strip(),)
    spec = MachineSpec("one", image(), Size(1, 256, disk_gib=1), ssh_keys=key)
    try:
        await driver.ensure_volume("data", 1, "data")
        await driver.ensure_volume("later", 1, "later")
        await driver.ensure(spec, "one")
        await driver.attach("later", "one", "/srv/later")  # its first boot is under way
        one = await ready(driver, "one")
        volume = await driver.attach("data", "one")
        assert (await driver.attach("data", "one")).device == volume.device == "/mnt/data"
        assert await inside(one, key_file, "echo kept | sudo tee /mnt/data/file && sync") == (0, "kept\n")
        assert (await inside(one, key_file, "sudo fallocate -l 1100M /mnt/data/zero"))[0] == 1
        assert (await inside(one, key_file, "sudo fallocate -l 1100M /zero"))[0] == 1, "disk_gib holds"
        assert (await inside(one, key_file, "sudo rm -f /zero /mnt/data/zero; findmnt /srv/later"))[0] == 0

        await driver.stop("one")
        await driver.start("one")
        one = await ready(driver, "one")
        assert await inside(one, key_file, "cat /mnt/data/file") == (0, "kept\n")
        assert (
            await inside(one, key_file, "sudo systemd-run -q --unit=holder -p WorkingDirectory=/mnt/data sleep 3600")
        )[0] == 0
        assert await driver.detach("data") is Progress.PENDING, "somebody there uses it"
        assert (await inside(one, key_file, "sudo systemctl stop holder"))[0] == 0
        await gone(lambda: driver.detach("data"))
        assert (await inside(one, key_file, "test -e /mnt/data/file"))[0] == 1

        await driver.attach("data", "one", "/data")
        assert await driver.delete("one") is Progress.DONE
        kept = await driver.observe_volume("data")
        assert kept is not None
        assert kept.attached_to is None
        await driver.ensure(replace(spec, name="two"), "two")
        await driver.attach("data", "two", "/data")
        assert await inside(await ready(driver, "two"), key_file, "cat /data/file") == (0, "kept\n")
    finally:
        for machine in await driver.list_keys():
            await driver.delete(machine)
        for name in ("data", "later"):
            await gone(lambda name=name: driver.delete_volume(name))  # type: ignore[misc]
    assert await driver.leftovers() == []


async def gone(ask: Callable[[], Awaitable[Progress]]) -> None:
    deadline = asyncio.get_running_loop().time() + _DEADLINE_S
    while await ask() is not Progress.DONE:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.2)


async def test_what_dead_runs_left_of_networks_is_cleared_before_one_is_made(place: NspawnPlace) -> None:
    """Rules without their bridge, and bridges of stores that are gone; nobody else's."""
    theirs = place.folder / "theirs"
    theirs.mkdir(exist_ok=True)
    bridges = {"hz0000000001": "/nowhere", "hz0000000002": str(theirs), "hz0000000003": ""}
    try:
        for name, store in bridges.items():
            sh("ip", "link", "add", name, "type", "bridge")
            sh("ip", "link", "set", name, "alias", f"hansa:00000000:{store}" if store else "somebody's")
        for name in (*bridges, "hz0000000004", "hz-of-others"):
            sh("nft", "add", "table", "inet", name)
        await place.driver().ensure_network("lab")
        assert not Path("/sys/class/net/hz0000000001").exists()
        tables = sh("nft", "list", "tables")
        for name, is_kept in {"1": False, "2": True, "3": True, "4": False}.items():
            assert (f"inet hz000000000{name}\n" in tables) is is_kept, tables
        assert "inet hz-of-others\n" in tables
    finally:
        for name in bridges:
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)
        for name in (*bridges, "hz0000000004", "hz-of-others"):
            subprocess.run(["nft", "delete", "table", "inet", name], check=False, capture_output=True)
        theirs.rmdir()


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


async def test_a_failed_first_boot_is_told_in_the_guests_words(place: NspawnPlace) -> None:
    driver = place.driver()
    bad = b"#cloud-config\nruncmd:\n  - [sh, -c, 'exit 3']\n"
    await driver.ensure(MachineSpec("bad", image(), Size(1, 256), bad), "bad")
    seen = await ready(driver, "bad")
    assert seen.guest is Guest.FAILED
    assert "runcmd" in seen.guest_message


async def test_what_was_killed_in_the_middle_is_found_and_finished(place: NspawnPlace) -> None:
    """A machine of which only the folder was made is not there, is listed for the sweep, and can be made or deleted."""
    (place.folder / "store" / "machines" / "half").mkdir(parents=True)
    driver = place.driver()
    assert await driver.observe("half") is None
    assert "half" in await driver.list_keys()
    made = await driver.ensure(MachineSpec("half", image(), Size(1, 256)), "half")
    assert made.life is Life.RUNNING
    assert await driver.delete("half") is Progress.DONE
    assert "half" not in await driver.list_keys()
