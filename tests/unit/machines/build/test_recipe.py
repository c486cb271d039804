"""What images are made of."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hansa.kernel.errors import Fault
from hansa.machines.build.builder import _why
from hansa.machines.build.initrd import cpio, make_initrd, needed, read_dependencies
from hansa.machines.build.recipe import Recipe, check, command, pack_command, step_of

DEPENDENCIES = """kernel/a/virtio_blk.ko: kernel/a/virtio_ring.ko kernel/a/virtio.ko
kernel/a/virtio_ring.ko: kernel/a/virtio.ko
kernel/a/virtio.ko:
kernel/fs/ext4.ko.xz: kernel/fs/jbd2.ko.xz
"""


def test_the_same_recipe_is_the_same() -> None:
    assert Recipe().digest == Recipe().digest
    assert Recipe(packages=("htop",)).disk_id != Recipe().disk_id
    assert "htop" in " ".join(command(Recipe(packages=("htop",)), ["finish"], "unshare"))


@pytest.mark.parametrize(
    "bad",
    [
        Recipe(release="sid; rm"),
        Recipe(packages=("--option",)),
        Recipe(packages=("a,b",)),
        Recipe(packages=("Nginx",)),
        Recipe(mirror="file:///etc"),
        Recipe(mirror='http://x" "y'),
        Recipe(disk_gib=1),
    ],
)
def test_bad_recipes_are_refused(bad: Recipe) -> None:
    with pytest.raises(Fault):
        check(bad)


def test_the_disk_has_no_time_of_its_own() -> None:
    argv, environment = pack_command(Recipe(), Path("t"), Path("d"), 512)
    assert f"hash_seed={Recipe().disk_id}" in " ".join(argv)
    assert environment["E2FSPROGS_FAKE_TIME"] == str(Recipe().date)


def test_progress_is_told_in_words() -> None:
    assert step_of("I: downloading packages with apt...") == ("fetches packages", 0.06)
    assert step_of("done") is None


def test_the_reason_of_a_failure_is_the_telling_line() -> None:
    last = ["E: Unable to locate package nonsense", "I: removing", "E: mmdebstrap failed to run"]
    assert _why(last) == "E: Unable to locate package nonsense"


def test_modules_come_after_those_they_need() -> None:
    found = needed(["virtio_blk", "unknown", "ext4"], read_dependencies(DEPENDENCIES))
    assert [Path(path).name for path in found] == [
        "virtio.ko", "virtio_ring.ko", "virtio_blk.ko", "jbd2.ko.xz", "ext4.ko.xz",
    ]  # fmt: skip


def test_an_archive_of_the_kernel() -> None:
    archive = cpio([("init", 0o100755, b"#!/bin/sh")])
    assert archive.startswith(b"070701")
    assert len(archive) % 4 == 0
    assert b"TRAILER!!!" in archive


def test_an_initial_ram_disk_is_the_same_each_time(tmp_path: Path) -> None:
    assert make_initrd(tmp_path) is None
    home = tmp_path / "lib/modules/6.1"
    (home / "kernel").mkdir(parents=True)
    (home / "modules.dep").write_text("kernel/virtio.ko:\nkernel/virtio_blk.ko: kernel/virtio.ko\n")
    for name in ("virtio", "virtio_blk"):
        (home / f"kernel/{name}.ko").write_bytes(name.encode())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").write_bytes(b"busybox")
    first = make_initrd(tmp_path)
    assert first is not None
    assert first == make_initrd(tmp_path)
    assert b"virtio.ko\nvirtio_blk.ko\n" in gzip.decompress(first)
