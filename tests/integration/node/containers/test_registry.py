"""Credentials, redirects, lists, and images that travel back: beside skopeo, which reads what we write."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.front import Front
from tests.support.oci import MERGED, Failure, Layout, member, names_in, push, skopeo, tar_of, two_layers

FETCH = "image = fetch(name); result = {'id': image.id, 'manifest': image.manifest_digest, 'layers': len(image.layers)}"
LOGIN = "Credentials(root + '.auth').login(registry, Credential(user, secret))"
PUSH = """
from hansa.node.containers.images import push
result = push(store, store.find_image(name), to, web, Credentials(root + ".auth"))
"""


def test_tokens(person: Any, front: Front) -> None:
    front.behaviour.wants_token = True
    person.do(FETCH, name=f"{front.host}/two")
    scopes = {one.path.partition("scope=")[2] for one in front.seen if one.path.startswith("/token")}
    assert scopes == {"repository%3Atwo%3Apull"}


def test_tokens_for_a_password(person: Any, front: Front) -> None:
    front.behaviour.wants_token = True
    front.behaviour.user, front.behaviour.password = "ann", "hush-hush"
    name = f"{front.host}/two"
    with pytest.raises(Failure, match=r"SignInNeeded: .*wants to know who asks"):
        person.do(FETCH, name=name)
    person.do(LOGIN, registry=front.host, user="ann", secret="wrong-secret")
    with pytest.raises(Failure, match=r"SignInNeeded: .*'ann'") as caught:
        person.do(FETCH, name=name)
    assert "wrong-secret" not in str(caught.value)
    person.do(LOGIN, registry=front.host, user="ann", secret="hush-hush")
    assert Path(f"{person.root}.auth").stat().st_mode & 0o777 == 0o600
    person.do(FETCH, name=name)


def test_docker_credentials_are_read(person: Any, front: Front) -> None:
    front.behaviour.wants_token = True
    front.behaviour.user, front.behaviour.password = "ann", "hush-hush"
    docker = person.folder / ".docker"
    docker.mkdir()
    (docker / "config.json").write_text(json.dumps({"auths": {front.host: {"auth": "YW5uOmh1c2gtaHVzaA=="}}}))
    for path in (docker, docker / "config.json"):
        path.chmod(0o755)
    person.do("image = pull(store, name, web)", name=f"{front.host}/two")


def test_basic_authentication(person: Any, closed_registry: Any, registry: Any) -> None:
    person.do(FETCH, name=f"{registry.host}/two")
    target = f"{closed_registry.host}/kept/two:1"
    with pytest.raises(Failure, match=r"SignInNeeded"):
        person.do(PUSH, name=f"{registry.host}/two", to=target)
    person.do(LOGIN, registry=closed_registry.host, user="ann", secret="hush-hush")
    person.do(PUSH, name=f"{registry.host}/two", to=target)
    person.do(FETCH, name=target)
    check = """
from hansa.node.containers.registry import Registry
from hansa.node.containers.web import Web
Registry(registry, Web(web), Credentials("/nowhere")).check_login(Credential("ann", secret))
"""
    person.do(check, registry=closed_registry.host, secret="hush-hush")
    with pytest.raises(Failure, match=r"SignInNeeded"):
        person.do(check, registry=closed_registry.host, secret="guess")


def test_storage_elsewhere_gets_no_credentials(person: Any, front: Front, storage: Front) -> None:
    front.behaviour.wants_token = True
    front.behaviour.redirect_blobs_to = f"http://{storage.host}"
    person.do(FETCH, name=f"{front.host}/two")
    assert len(storage.blobs()) == 3
    assert not any("authorization" in one.headers for one in storage.seen)
    assert all("authorization" in one.headers for one in front.blobs())


def test_token_server_elsewhere_gets_no_password(person: Any, front: Front, storage: Front) -> None:
    storage.behaviour.user, storage.behaviour.password = "ann", "hush-hush"
    port = storage.host.rpartition(":")[2]
    front.behaviour.wants_token, front.behaviour.realm = True, f"http://localhost:{port}/token"
    person.do(LOGIN, registry=front.host, user="ann", secret="hush-hush")
    with pytest.raises(Failure, match=r"SignInNeeded: .*another domain") as caught:
        person.do(FETCH, name=f"{front.host}/two")
    assert "token_hosts" in caught.value.hint
    assert not any("authorization" in one.headers for one in storage.seen)


def test_mirrors_come_first_and_may_fail(person: Any, front: Front, storage: Front) -> None:
    code = """
settings = WebSettings(is_insecure=True, mirrors={registry: (mirror,)})
result = pull(store, registry + "/two", settings, Credentials("/nowhere")).id
"""
    person.do(code, registry=front.host, mirror=storage.host)
    assert front.seen == []
    person.do("import shutil; shutil.rmtree(root)")
    person.do(code, registry=front.host, mirror=f"{storage.host}/not/there")
    assert len(front.blobs()) == 3


def test_tags_search_and_manifest(person: Any, registry: Any) -> None:
    code = """
from hansa.node.containers.images import inspect_remote
from hansa.node.containers.registry import Registry
from hansa.node.containers.web import Web
registry = Registry(host, Web(web), Credentials("/nowhere"))
fetched, document = inspect_remote(host + "/two:many", web)
result = [registry.tags("two"), [one.name for one in registry.search("tw")], len(document["manifests"])]
"""
    tags, found, manifests = person.do(code, host=registry.host)
    assert {"latest", "many", "arm"} <= set(tags)
    assert found == ["two"]
    assert manifests == 2


def test_push_is_read_by_skopeo(person: Any, registry: Any) -> None:
    image = person.do(FETCH, name=f"{registry.host}/two")
    pushed = person.do(PUSH, name=f"{registry.host}/two", to=f"{registry.host}/copied:1")
    assert pushed == image["manifest"]
    about = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/copied:1"))
    assert about["Digest"] == image["manifest"]
    assert len(about["Layers"]) == 2


def test_save_is_read_by_skopeo_both_ways(person: Any, registry: Any, tmp_path: Path) -> None:
    image = person.do(FETCH, name=f"{registry.host}/two")
    code = """
from hansa.node.containers.transfer import save
image = store.find_image(name)
with open(to, "wb") as stream:
    save(store, [(image, image.names)], stream)
"""
    path = person.folder / "saved.tar"
    person.do(code, name=f"{registry.host}/two", to=str(path))
    for kind in ("oci-archive", "docker-archive"):
        about = json.loads(skopeo("inspect", "--config", f"{kind}:{path}"))
        assert about["config"]["Cmd"] == ["/bin/tool"]
        skopeo("copy", f"{kind}:{path}", f"dir:{tmp_path / kind}")
    load = """
from hansa.node.containers.transfer import load
other = Store(root + ".other")
with open(path, "rb") as stream:
    found = load(other, stream)
result = [[image.id, image.names] for image in found]
other.flatten(found[0], target)
"""
    loaded = person.do(load, path=str(path), target=str(person.folder / "flat"))
    assert loaded == [[image["id"], [f"{registry.host}/two:latest"]]]
    assert names_in(person.folder / "flat") == MERGED


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archives_of_skopeo_are_loaded(person: Any, registry: Any, kind: str) -> None:
    path = person.folder / "given.tar"
    skopeo("copy", "--src-tls-verify=false", f"docker://{registry.host}/two", f"{kind}:{path}:some/name:7")
    path.chmod(0o644)
    load = """
from hansa.node.containers.transfer import load
with open(path, "rb") as stream:
    images = load(store, stream)
store.flatten(images[0], target)
result = [images[0].names, images[0].config.cmd]
"""
    names, cmd = person.do(load, path=str(path), target=str(person.folder / "flat"))
    assert names == ["docker.io/some/name:7"]
    assert cmd == ["/bin/tool"]
    assert names_in(person.folder / "flat") == MERGED


COMMIT = """
import os, stat
from hansa.node.containers.images import commit, history
record = store.create_container(store.find_image(name), "work")
upper = store.container_dirs(record)[0]
(upper / "etc").mkdir()
(upper / "etc/added").write_text("new")
(upper / "etc/shadow").write_text("root:changed")
(upper / "etc/shadow").chmod(0o400)
os.mknod(upper / "bin", stat.S_IFCHR, 0)
(upper / "home").mkdir()
os.setxattr(upper / "home", "user.overlay.opaque", b"y")
(upper / "home/bob").mkdir()
image = commit(store, record, to, comment="changed")
result = [len(image.layers), [step.created_by for step in history(store, image)]]
"""
COMMITTED = (MERGED - {one for one in MERGED if one.startswith(("bin", "home/"))}) | {"etc/added", "home/bob"}


def test_commit_push_and_pull_again(person: Any, registry: Any, other: Any) -> None:
    person.do(FETCH, name=f"{registry.host}/two")
    target = f"{registry.host}/mine/committed:1"
    layers, steps = person.do(COMMIT, name=f"{registry.host}/two", to=target)
    assert layers == 3
    assert steps == ["step 0", "step 1", "hansa container commit"]
    person.do(PUSH, name=target, to=target)
    other.do(FETCH, name=target)
    other.do("store.flatten(store.find_image(name), target)", name=target, target=str(other.folder / "flat"))
    assert names_in(other.folder / "flat") == COMMITTED
    layer = skopeo("inspect", "--tls-verify=false", f"docker://{target}")
    blob = registry.blob_file(json.loads(layer)["Layers"][-1])
    listing = subprocess.run(["tar", "tvzf", str(blob)], capture_output=True, text=True, check=True).stdout
    shadow = next(line for line in listing.splitlines() if line.endswith("etc/shadow"))
    assert shadow.startswith("---------- 0/42"), "owner and mode are those of the image, not of the disk"
    assert ".wh.bin" in listing
    assert "home/.wh..wh..opq" in listing


def test_export_and_import(person: Any, registry: Any) -> None:
    person.do(FETCH, name=f"{registry.host}/two")
    code = """
from hansa.node.containers.transfer import export, import_tarball
record = store.create_container(store.find_image(name))
with open(path, "wb") as stream:
    export(store, record, stream)
with open(path, "rb") as stream:
    image = import_tarball(store, stream, "flat:1")
result = [image.names, len(image.layers)]
store.flatten(image, target)
"""
    path, target = person.folder / "all.tar", person.folder / "flat"
    assert person.do(code, name=f"{registry.host}/two", path=str(path), target=str(target)) == [
        ["docker.io/library/flat:1"],
        1,
    ]
    assert names_in(target) == MERGED
    listing = subprocess.run(["tar", "tvf", str(path)], capture_output=True, text=True, check=True).stdout
    assert "-rwsr-xr-x 0/0" in listing, "a set-user-ID bit that is only recorded is written again"


def test_an_image_that_lies_about_its_content(person: Any, registry: Any, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "lying")
    layout.finish(layout.image([tar_of([(member("a"), b"1")])], diff_ids=["sha256:" + "0" * 64]))
    push(layout.path, registry.host, "lying")
    with pytest.raises(Failure, match=r"DigestMismatch: .*configuration says"):
        person.do(FETCH, name=f"{registry.host}/lying")
    assert person.do("result = [image.id for image in store.images()]") == []


def test_hostile_layer_is_refused_and_leaves_nothing(person: Any, registry: Any, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "hostile")
    layout.finish(layout.image([tar_of([(member("../../../escaped"), b"1")])]))
    push(layout.path, registry.host, "hostile")
    with pytest.raises(Failure, match=r"UnsafeArchive: .*escaped"):
        person.do(FETCH, name=f"{registry.host}/hostile")
    assert list(person.folder.rglob("escaped")) == []
    assert list((person.root / "tmp").iterdir()) == []


def test_images_of_umoci(person: Any, registry: Any, tmp_path: Path) -> None:
    """Another program's layers and whiteouts."""
    if shutil.which("umoci") is None:
        pytest.skip("umoci is not installed")
    layout = Layout(tmp_path / "umoci")
    layout.finish(layout.image(two_layers()))
    (tmp_path / "replacement").mkdir()
    (tmp_path / "replacement" / "three").write_text("3")
    for arguments in (
        ["--opaque", str(tmp_path / "replacement"), "/etc/old"],
        ["--whiteout", "/etc/shadow"],
    ):
        subprocess.run(
            ["umoci", "insert", "--image", f"{layout.path}:latest", *arguments], check=True, capture_output=True
        )
    push(layout.path, registry.host, "umoci")
    name = f"{registry.host}/umoci"
    person.do(FETCH, name=name)
    person.do("store.flatten(store.find_image(name), target)", name=name, target=str(person.folder / "flat"))
    assert names_in(person.folder / "flat") == (MERGED - {"etc/old/two", "etc/shadow"}) | {"etc/old/three"}


def test_proxies(person: Any, front: Front) -> None:
    """The proxy gets its own credentials and whole addresses; no_proxy is kept to."""
    code = """
settings = WebSettings(insecure_hosts=("lab.example.org:5000",), proxies={"http": proxy, "no": no})
result = pull(store, "lab.example.org:5000/two", settings, Credentials("/nowhere")).names
"""
    proxy = f"http://ann:pass%20word@{front.host}"
    assert person.do(code, proxy=proxy, no="") == ["lab.example.org:5000/two:latest"]
    assert all(one.path.startswith("http://lab.example.org:5000/v2/") for one in front.seen)
    assert {one.headers["proxy-authorization"] for one in front.seen} == {"Basic YW5uOnBhc3Mgd29yZA=="}
