"""The store's housekeeping: garbage, quota, protection, containers, and stores that share."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.front import Front
from tests.support.oci import MERGED, Failure, names_in

FETCH = "result = [str(path) for path in store.layer_paths(fetch(name))]"
COLLECT = """
from hansa.node.containers.collect import collect, usage
found = collect(store)
result = [found.images, found.layers, found.blobs, usage(store).total]
"""


def test_garbage(person: Any, registry: Any) -> None:
    name = f"{registry.host}/two"
    person.do(FETCH, name=name)
    person.do("store.create_container(store.find_image(name), 'keeper')", name=name)
    with pytest.raises(Failure, match=r"InUse: 1 containers .*keeper"):
        person.do("store.remove_image(name)", name=name)
    person.do("store.remove_image(name, is_forced=True)", name=name)
    assert person.do(COLLECT)[:3] == [0, 0, 4], "the container keeps the layers, not the blobs"
    person.do("record = store.find_container('keeper'); store.layer_paths(record); store.remove_container(record)")
    assert person.do(COLLECT) == [0, 2, 0, 0]


def test_names(person: Any, registry: Any) -> None:
    name = f"{registry.host}/two:latest"
    person.do(FETCH, name=name)
    person.do("store.tag(store.find_image(name), 'mine')", name=name)
    assert person.do("result = store.remove_image(name)", name=name) == [name]
    assert person.do("result = store.find_image('mine').names") == ["docker.io/library/mine:latest"]
    short = person.do("result = store.find_image('mine').short_id")
    assert person.do("result = store.find_image(short).names", short=short) == ["docker.io/library/mine:latest"]
    person.do("store.protect(store.find_image('mine'))")
    with pytest.raises(Failure, match=r"Protected"):
        person.do("store.remove_image('mine')")
    person.do("store.protect(store.find_image('mine'), False); store.remove_image('mine')")
    with pytest.raises(Failure, match=r"ImageNotFound"):
        person.do("store.find_image('mine')")


def test_quota(person: Any, registry: Any) -> None:
    person.do("store.layout.configure(quota_bytes=100_000)")
    with pytest.raises(Failure, match=r"QuotaExceeded"):
        person.do(FETCH, name=f"{registry.host}/two")
    person.do("store.layout.configure(quota_bytes=10_000_000)")
    person.do(FETCH, name=f"{registry.host}/two")


def test_room_is_made_by_what_jobs_used_longest_ago(person: Any, registry: Any) -> None:
    """Neither what a person has pulled, nor what is in use."""
    old, new = f"{registry.host}/two", f"{registry.host}/two:many"
    person.do(FETCH, name=old)
    code = """
import os
from hansa.node.containers.collect import make_room, pin, usage
image = store.find_image(name)
result = [make_room(store, 1)]
fd = pin(store, image.id)
result.append(make_room(store, 1))
os.close(fd)
result.append(make_room(store, usage(store).total))
result.append(make_room(store, 1) == [image.id])
result.append(usage(store).total)
"""
    assert person.do(code, name=old) == [[], [], [], True, 0]
    person.do(FETCH, name=new)


def test_containers(person: Any, registry: Any) -> None:
    name = f"{registry.host}/two"
    person.do(FETCH, name=name)
    code = """
image = store.find_image(name)
one = store.create_container(image, "one", {"a": 1})
(store.container_dirs(one)[0] / "file").write_text("x")
two = store.clone_container(one, "two")
two = store.rename(two, "two", "drei")
store.protect(two)
result = [[record.names, record.options, record.is_protected] for record in store.containers()]
assert (store.container_dirs(two)[0] / "file").read_text() == "x"
with store.running(one):
    assert store.is_running(one)
assert not store.is_running(one)
"""
    assert person.do(code, name=name) == [[["one"], {"a": 1}, False], [["drei"], {"a": 1}, True]]
    for kind, text in (
        ("NameTaken", "store.create_container(store.find_image(name), 'one')"),
        ("BadName", "store.create_container(store.find_image(name), '../up')"),
        ("Protected", "store.remove_container(store.find_container('drei'))"),
        ("ContainerNotFound", "store.find_container('two')"),
        ("InUse", "one = store.find_container('one')\nwith store.running(one): store.remove_container(one)"),
    ):
        with pytest.raises(Failure, match=rf"^{kind}"):
            person.do(text, name=name)
    person.do("store.remove_container(store.find_container('one'))")
    assert person.do("result = [record.names for record in store.containers()]") == [["drei"]]


def test_two_users_one_store(person: Any, other: Any, front: Front) -> None:
    """One keeps it, the other one stacks it below a store of their own."""
    person.do("store.layout.configure(sharing='all')")
    name = f"{front.host}/two"
    person.do(FETCH, name=name)
    front.seen.clear()
    person.folder.chmod(0o755)
    other.below = [person.root]
    assert other.do(
        "from hansa.node.containers.pull import ensure; result = ensure(store, name).is_read_only", name=name
    )
    assert front.seen == []
    paths = other.do(FETCH, name=name)
    assert len(front.blobs()) == 0, "what the store below has is not fetched"
    assert all(path.startswith(str(person.root)) for path in paths)
    other.do("store.flatten(store.find_image(name), target)", name=name, target=str(other.folder / "flat"))
    assert names_in(other.folder / "flat") == MERGED
    other.do(
        "store.tag(store.find_image(name), 'mine'); store.create_container(store.find_image('mine'), 'c')", name=name
    )
    if other.id != person.id:
        with pytest.raises(Failure, match=r"StoreUnusable: .*cannot be used"):
            other.do("Store(theirs).remove_image(name)", theirs=str(person.root), name=name)
        assert subprocess.run(["find", str(person.root), "-perm", "/6000"], capture_output=True).stdout == b""


def test_a_private_store_is_closed(person: Any, other: Any, registry: Any) -> None:
    if other.id is None or person.id == other.id:
        pytest.skip("needs two users")
    person.do(FETCH, name=f"{registry.host}/two")
    assert Path(person.root).stat().st_mode & 0o077 == 0


def test_newer_and_foreign_directories_are_refused(person: Any, registry: Any) -> None:
    person.do("store.layout.prepare()")
    person.do("import json; (store.root / 'store.json').write_text(json.dumps({'version': 99}))")
    with pytest.raises(Failure, match=r"StoreUnusable: .*version 99"):
        person.do("store.images()")
    person.root = person.folder / "foreign"
    person.do("store.root.mkdir(); (store.root / 'thesis.tex').write_text('')")
    with pytest.raises(Failure, match=r"StoreUnusable: .*other things"):
        person.do(FETCH, name=f"{registry.host}/two")


def test_without_whiteouts_layers_are_merged(person: Any, registry: Any) -> None:
    """On file systems that hold no character devices or attributes."""
    code = """
import hansa.node.containers.layers as layers
layers.can_whiteout = lambda directory: False
paths = store.layer_paths(fetch(name))
result = [str(path) for path in paths]
"""
    (path,) = person.do(code, name=f"{registry.host}/two")
    assert "/merged/" in path
    assert names_in(Path(path)) == MERGED
    assert person.do(COLLECT)[:3] == [0, 0, 0]
    assert person.do("result = str(store.layer_paths(store.images()[0])[0])") == path
