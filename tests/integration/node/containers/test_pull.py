"""Pulls from a real registry, in good times and in bad."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.front import Front
from tests.support.oci import MERGED, Failure, names_in

FETCH = """
image = fetch(name)
result = {
    "id": image.id, "names": image.names, "layers": [layer.digest for layer in image.layers],
    "diff_ids": [layer.diff_id for layer in image.layers],
    "paths": [str(path) for path in store.layer_paths(image)], "cmd": image.config.cmd,
}
"""
FLATTEN = "store.flatten(store.find_image(name), target)"


def no_leftovers(root: Path) -> None:
    assert list((root / "tmp").iterdir()) == []
    assert list((root / "partial").iterdir()) == []


@pytest.mark.parametrize("tag", ["latest", "zstd", "many"])
def test_pull_gives_all_files(person: Any, registry: Any, tag: str) -> None:
    name = f"{registry.host}/two:{tag}"
    image = person.do(FETCH, name=name)
    assert image["names"] == [name]
    assert image["cmd"] == ["/bin/tool"]
    assert len(image["paths"]) == 2
    person.do(FLATTEN, name=name, target=str(person.folder / "flat"))
    assert names_in(person.folder / "flat") == MERGED
    assert (person.folder / "flat/etc/old/two").read_bytes() == b"2"
    no_leftovers(person.root)


def test_overlay_sees_the_same(person: Any, registry: Any) -> None:
    name = f"{registry.host}/two"
    image = person.do(FETCH, name=name)
    for place in ("upper", "work", "merged"):
        person.program("mkdir", place)
    lower = ":".join(reversed(image["paths"]))
    options = f"userxattr,lowerdir={lower},upperdir=upper,workdir=work"
    script = f"mount -t overlay overlay -o {options} merged && cd merged && find . && cat etc/old/two"
    seen = person.program("unshare", "-Urm", "sh", "-c", script)
    if seen.returncode != 0 and "overlay" in seen.stderr:
        pytest.skip(f"no overlays in user namespaces here: {seen.stderr.strip()}")
    lines = seen.stdout.splitlines()
    assert {line[2:] for line in lines if line.startswith("./")} == MERGED
    assert lines[-1].endswith("2")


def test_the_second_pull_fetches_no_blob(person: Any, front: Front) -> None:
    name = f"{front.host}/two"
    first = person.do(FETCH, name=name)
    assert len(front.blobs()) == 3  # two layers and the configuration
    front.seen.clear()
    assert person.do(FETCH, name=name) == first
    assert front.blobs() == []


def test_eight_processes_are_one_download(person: Any, front: Front) -> None:
    processes = [person.start(FETCH, name=f"{front.host}/two") for _ in range(8)]
    results = [person.result(process) for process in processes]
    assert all(one == results[0] for one in results)
    paths = [one.path for one in front.blobs()]
    assert len(paths) == len(set(paths)) == 3
    no_leftovers(person.root)


def test_other_platforms_are_named(person: Any, registry: Any) -> None:
    with pytest.raises(Failure, match=r"NoPlatform: .*only for linux/arm64/v8"):
        person.do(FETCH, name=f"{registry.host}/two:arm")


def test_missing_image(person: Any, registry: Any) -> None:
    with pytest.raises(Failure, match=r"ImageNotFound: .*nothing:1"):
        person.do(FETCH, name=f"{registry.host}/nothing:1")


def test_pull_by_digest(person: Any, registry: Any) -> None:
    image = person.do(FETCH, name=f"{registry.host}/two")
    code = "result = store.find_image(name).manifest_digest"
    digest = person.do(code, name=f"{registry.host}/two")
    name = f"{registry.host}/two@{digest}"
    assert person.do("result = store.find_image(name).id", name=name) == image["id"]
    assert person.do(FETCH, name=name)["id"] == image["id"]


def test_broken_connections_are_continued(person: Any, front: Front) -> None:
    front.behaviour.cut_after, front.behaviour.cuts = 100_000, 4
    person.do(FETCH, name=f"{front.host}/two")
    ranges = [one.headers["range"] for one in front.blobs() if "range" in one.headers]
    assert len(ranges) == 4
    assert not any(one == "bytes=0-" for one in ranges)
    no_leftovers(person.root)


def test_servers_without_ranges_and_with_hiccups(person: Any, front: Front) -> None:
    front.behaviour.cut_after, front.behaviour.cuts = 100_000, 1
    front.behaviour.ignores_ranges = True
    front.behaviour.status = [503, 429]
    person.do(FETCH, name=f"{front.host}/two")


def test_plain_http_needs_permission(person: Any, front: Front) -> None:
    with pytest.raises(Failure, match="RegistryAway") as caught:
        person.do("pull(store, name, WebSettings())", name=f"{front.host}/two")
    assert "--insecure" in caught.value.hint
    assert front.seen == []


# Damage.


def test_a_flipped_byte_in_the_registry(person: Any, front: Front) -> None:
    digest = person.do(FETCH, name=f"{front.host}/two")["layers"][1]
    person.do("import shutil; shutil.rmtree(root)")
    front.behaviour.flip = digest
    with pytest.raises(Failure, match=rf"DigestMismatch: .*{digest}"):
        person.do(FETCH, name=f"{front.host}/two")
    assert person.do("result = [image.id for image in store.images()]") == []
    front.behaviour.flip = ""
    person.do(FETCH, name=f"{front.host}/two")
    assert person.do(
        "from hansa.node.containers.collect import verify; result = verify(store, store.images()[0]).is_good"
    )
    no_leftovers(person.root)


def test_a_flipped_byte_in_the_registrys_disk(person: Any, registry: Any) -> None:
    image = person.do(FETCH, name=f"{registry.host}/two")
    person.do("import shutil; shutil.rmtree(root)")
    path = registry.blob_file(image["layers"][0])
    good = path.read_bytes()
    path.write_bytes(good[:1000] + bytes([good[1000] ^ 4]) + good[1001:])
    try:
        with pytest.raises(Failure, match=rf"DigestMismatch: .*{image['layers'][0]}"):
            person.do(FETCH, name=f"{registry.host}/two")
    finally:
        path.write_bytes(good)
    person.do(FETCH, name=f"{registry.host}/two")


VERIFY = """
from hansa.node.containers.collect import verify
report = verify(store, store.find_image(name))
result = [report.is_good, report.damaged]
"""


def flip(path: Path, at: int) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    path.chmod(mode)


def test_a_flipped_byte_in_a_blob_of_the_store(person: Any, front: Front) -> None:
    name = f"{front.host}/two"
    image = person.do(FETCH, name=name)
    assert person.do(VERIFY, name=name) == [True, []]
    digest = image["layers"][0]
    flip(person.root / "blobs" / digest[7:], 5000)
    is_good, damaged = person.do(VERIFY, name=name)
    assert not is_good
    assert digest in damaged[0]
    front.seen.clear()
    person.do(FETCH, name=name)
    assert [digest in one.path for one in front.blobs()] == [True]
    assert person.do(VERIFY, name=name) == [True, []]


def test_a_pull_heals_without_verify(person: Any, front: Front) -> None:
    name = f"{front.host}/two"
    image = person.do(FETCH, name=name)
    for digest in (image["layers"][1], image["id"]):
        flip(person.root / "blobs" / digest[7:], 50)
    person.do(FETCH, name=name)
    assert person.do(VERIFY, name=name) == [True, []]


def test_a_flipped_byte_in_an_unpacked_file(person: Any, registry: Any) -> None:
    name = f"{registry.host}/two"
    image = person.do(FETCH, name=name)
    flip(Path(image["paths"][0]) / "usr/lib/big", 1234)
    is_good, damaged = person.do(VERIFY, name=name)
    assert is_good, "it is unpacked again from its blob"
    assert "usr/lib/big" in damaged[0]
    assert person.do(VERIFY, name=name) == [True, []]


# Death.


def test_kill_in_the_middle_of_a_download(person: Any, front: Front) -> None:
    name = f"{front.host}/two"
    front.behaviour.hold_after = 150_000
    process = person.start(FETCH, name=name)
    assert front.holding.wait(30)
    deadline = time.monotonic() + 30
    while not any(part.stat().st_size for part in (person.root / "partial").iterdir()):
        assert time.monotonic() < deadline, "nothing of the download arrives on disk"
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert person.do("result = [image.id for image in store.images()]") == []
    front.behaviour.hold_after = 0
    front.go_on.set()
    front.seen.clear()
    person.do(FETCH, name=name)
    assert any("range" in one.headers for one in front.blobs()), "what was there is not fetched again"
    assert person.do(VERIFY, name=name) == [True, []]
    no_leftovers(person.root)


def test_kill_anywhere(person: Any, registry: Any) -> None:
    """Also in the middle of unpacking: whatever the store lists is whole."""
    name = f"{registry.host}/two"
    kills = 0
    for delay_ms in range(60, 400, 20):
        process = person.start(FETCH, name=name)
        try:
            process.wait(delay_ms / 1000)
        except subprocess.TimeoutExpired:
            kills += 1
            process.kill()
        process.communicate()
        for one in person.do("result = [image.names[0] for image in store.images()]"):
            assert person.do(VERIFY, name=one) == [True, []]
        person.do(
            "from hansa.node.containers.collect import collect\nif delay % 40: store.layout.prepare(); collect(store)",
            delay=delay_ms,
        )
        if process.returncode == 0:
            person.do("import shutil; shutil.rmtree(root)")
    assert kills > 2
    person.do(FETCH, name=name)
    assert person.do(VERIFY, name=name) == [True, []]
    person.do("store.layout.sweep()")
    no_leftovers(person.root)


@pytest.mark.root
def test_disk_full(person: Any, registry: Any, tmp_path: Path) -> None:
    if person.program("id", "-u").stdout != "0\n" and person.id is None:
        pytest.skip("needs root to mount a small file system")
    name = f"{registry.host}/two"
    small = person.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k,mode=0777", "tmpfs", str(small)], check=True)
    try:
        person.root = small / "store"
        with pytest.raises(Failure, match=r"DiskFull"):
            person.do(FETCH, name=name)
        assert person.do("result = [image.id for image in store.images()]") == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        person.do(FETCH, name=name)
        assert person.do(VERIFY, name=name) == [True, []]
    finally:
        subprocess.run(["umount", str(small)], check=True)
