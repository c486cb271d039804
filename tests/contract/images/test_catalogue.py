"""The catalogue of VM images on both dialects, with contents that come over real HTTP."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hansa.engines import qemu_img
from hansa.identity import store as identity_store
from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.images import hepix, store
from hansa.images.controller import VersionRoom
from hansa.images.depot import Depot
from hansa.images.endorsing import EndorsementService
from hansa.images.formats import Format
from hansa.images.publishing import PublishedLists, rewrap_list_signer
from hansa.images.service import ImageService
from hansa.images.sources import Sources, allow_all
from hansa.images.subscriptions import SubscriptionRoom, read_list
from hansa.images.wire import ImagePolicy, NewEndorsement, NewImage, NewSubscription, NewVersion, VmImage
from hansa.kernel.clock import ManualClock
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault, Permanent
from hansa.kernel.events import EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.reconcile import Engine
from hansa.kernel.secrets import Vault
from hansa.kernel.settings import ImageSettings
from hansa.node.containers.web import WebSettings
from tests.support.files_over_http import Files, serve_files
from tests.unit.images.test_formats import qcow2

MIB = 1024**2
URL = "https://hansa.example.org"
DISK = qcow2() + b"contents" * 40_000
RAW = b"\xeb\x63".ljust(64 * 1024, b"\1")
MANAGER, MEMBER, STRANGER = Caller("user_m", "mia"), Caller("user_a", "ada"), Caller("user_s", "sam")
OPERATOR = Caller("user_o", "ole", is_operator=True)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


class World:
    """The services and engines over one database, one clock and one folder."""

    def __init__(self, database: Database, folder: Path, files: Files) -> None:
        self.database, self.files = database, files
        self.clock = ManualClock()
        events = EventLog(database, self.clock)
        self.depot = Depot(folder, 0)
        self.settings = ImageSettings(limit_bytes=10_000_000)
        sources = Sources(self.settings.limit_bytes, allow_all, WebSettings(is_insecure=True))
        self.images = ImageService(database, events, self.clock, self.depot, self.settings)
        self.endorsing = EndorsementService(database, events, self.clock, self.images, URL)
        self.versions = Engine(
            database, self.clock, VersionRoom(database, events, self.clock, self.depot, sources), chance=lambda: 1.0
        )
        self.lists = Engine(database, self.clock, SubscriptionRoom(events, self.clock, sources), chance=lambda: 1.0)

    async def settle(self) -> None:
        while await self.lists.run_until_idle() + await self.versions.run_until_idle():
            pass

    async def add(self, who: Caller, name: str, url: str, checksum: str | None, **more: Any) -> VmImage:
        source = NewVersion("1", url, checksum=checksum, sums=more.pop("sums", None), format=more.pop("format", None))
        await self.images.add(who, NewImage(name, source, **more))
        await self.settle()
        return await self.images.get(who, name)

    async def chosen(self, who: Caller, name: str, vo: str | None) -> Any:
        async with self.database.read() as tx:
            return await self.images.choose(tx, who, name, vo)

    async def join(self, caller: Caller, *vos: str, roles: tuple[str, ...] = ("member",)) -> None:
        now = self.clock.now()
        async with self.database.begin() as tx:
            row = {"issuer": URL, "sub": caller.name, "name": caller.name, "operator": False, "suspended": False}
            await identity_store.insert_user(tx, id=caller.user_id, created=now, **row)
            for vo in vos:
                await vo_store.insert_member(tx, vo=vo, user_id=caller.user_id, roles=list(roles), groups=[], since=now)


@pytest.fixture
def files() -> Iterator[Files]:
    with serve_files() as served:
        yield served


@pytest.fixture
async def world(database: Database, tmp_path: Path, files: Files) -> World:
    made = World(database, tmp_path / "images", files)
    async with database.begin() as tx:
        now = made.clock.now()
        await vo_store.insert_vo(tx, name="vo.a", description="", created_by="test", created=now, suspended=None)
    await made.join(MANAGER, "vo.a", roles=("member", "manager"))
    await made.join(MEMBER, "vo.a")
    await made.join(STRANGER)
    return made


def code_of(fault: pytest.ExceptionInfo[Fault]) -> str:
    return fault.value.code.code


async def test_an_image_is_fetched_checked_and_then_ready(world: World) -> None:
    image = await world.add(MEMBER, "tools", world.files.put("/d.qcow2", DISK), sha256(DISK))
    version = image.versions[0]
    assert (version.status.phase, version.format, version.size_bytes) == ("ready", "qcow2", len(DISK))
    assert version.sha256 is not None
    assert world.depot.path(version.sha256).read_bytes() == DISK
    path, name = await world.images.content(MEMBER, "tools", None, None)
    assert (path.read_bytes(), name) == (DISK, "tools-1.qcow2")
    assert (await world.chosen(MEMBER, "tools", None)).sha256 == version.sha256


async def test_a_download_that_breaks_off_goes_on_where_it_was(world: World) -> None:
    world.files.breaks = 2
    image = await world.add(MEMBER, "tools", world.files.put("/d.qcow2", DISK), sha256(DISK))
    while image.versions[0].status.phase != "ready":
        world.clock.advance(400)
        await world.settle()
        image = await world.images.get(MEMBER, "tools")
    offsets = [int(asked.removeprefix("bytes=").removesuffix("-") or 0) for _, asked in world.files.asked]
    assert offsets == sorted(set(offsets))
    assert len(offsets) == 3


async def test_a_server_without_ranges_and_one_that_redirects(world: World) -> None:
    world.files.knows_ranges, world.files.breaks = False, 1
    world.files.redirects["/moved"] = world.files.put("/d.raw", RAW)
    await world.add(MEMBER, "tools", f"{world.files.url}/moved", sha256(RAW))
    world.clock.advance(400)
    await world.settle()
    assert (await world.images.get(MEMBER, "tools")).versions[0].format == "raw"


@pytest.mark.parametrize(
    ("content", "checksum", "why"),
    [
        (DISK, "sha256:" + "00" * 32, "is wanted"),
        (qcow2(backing=512), None, "backing file"),
        (qcow2(virtual=8 * 1024**6), None, "is the most"),
        (b"<html>not found</html>".ljust(1024), None, "web page"),
    ],
)
async def test_what_is_not_what_it_should_be_is_refused_and_gone(
    world: World, content: bytes, checksum: str | None, why: str
) -> None:
    image = await world.add(MEMBER, "bad", world.files.put("/bad", content), checksum or sha256(content))
    status = image.versions[0].status
    assert (status.phase, status.reason) == ("refused", "images.refused")
    assert why in status.message
    assert not list(world.depot.partial("x").parent.iterdir())
    with pytest.raises(Fault) as fault:
        await world.chosen(MEMBER, "bad", None)
    assert code_of(fault) == "images.not_ready"


async def test_a_file_of_checksums_pins_an_image(world: World) -> None:
    sums = world.files.put("/SHA512SUMS", f"{hashlib.sha512(DISK).hexdigest()}  d.qcow2\n".encode())
    url = world.files.put("/d.qcow2", DISK).replace("http://", "https://")
    await world.images.ensure_presets()
    image = await world.images.get(MEMBER, "debian-12")
    assert image.versions[0].status.message == "It is fetched when it is first used."
    with pytest.raises(Fault):  # nothing was asked of the distribution's servers
        await world.images.content(STRANGER, "nothing", None, None)
    with pytest.raises(Fault, match="has to be given"):
        await world.add(MEMBER, "tools", url.replace("https", "http"), None, sums=sums)
    async with world.database.begin() as tx:
        row = await store.find_image(tx, "preset", "debian-12")
        assert row is not None
        version = (await store.versions_of(tx, [row.id]))[0]
        await store.update_version(tx, version.id, source=url.replace("https", "http"), sums=sums)
        await world.images.ask_for(tx, version.id)
    await world.settle()
    found = (await world.images.get(MEMBER, "debian-12")).versions[0]
    assert (found.status.phase, found.checksum) == ("ready", f"sha512:{hashlib.sha512(DISK).hexdigest()}")
    assert (await world.chosen(MEMBER, "debian-12", None)).is_ready, "nobody has to endorse it for his own machine"
    with pytest.raises(Fault, match=r"vo\.a has not endorsed"):
        await world.chosen(MEMBER, "debian-12", "vo.a")


async def test_what_was_replaced_at_its_source_is_pinned_anew_until_it_was_here(world: World) -> None:
    """As a distribution's ``latest`` is, between the reading of its checksums and the end of the download."""
    url, stale = world.files.put("/d.qcow2", DISK), "sha256:" + "0" * 64
    sums = world.files.put("/SHA256SUMS", f"{sha256(DISK).removeprefix('sha256:')}  d.qcow2\n".encode())
    await world.images.ensure_presets()
    async with world.database.begin() as tx:
        rows = {name: await store.find_image(tx, "preset", name) for name in ("debian-12", "debian-13")}
        for name, row in rows.items():
            assert row is not None
            version = (await store.versions_of(tx, [row.id]))[0]
            was_here = {"sha256": "0" * 64} if name == "debian-13" else {}
            await store.update_version(tx, version.id, source=url, sums=sums, checksum=stale, **was_here)
            await world.images.ask_for(tx, version.id)
    await world.settle()
    one, other = [(await world.images.get(MEMBER, name)).versions[0] for name in rows]
    assert (one.status.phase, one.checksum) == ("ready", sha256(DISK))
    assert (other.status.phase, "is wanted" in other.status.message) == ("refused", True)


def put_artefact(files: Files, disk: bytes, tag: str, *names: str) -> str:
    """A VM image as an OCI artefact, as `oras push` makes it: a manifest whose layers are files with titles."""
    kind, empty = "application/vnd.oci.image.manifest.v1+json", b"{}"
    layers = [
        {"mediaType": "application/octet-stream", "digest": sha256(disk), "size": len(disk),
         "annotations": {"org.opencontainers.image.title": name}}
        for name in names
    ]  # fmt: skip
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(empty), "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": kind, "artifactType": "application/vnd.vm", "config": config}
    files.put(f"/v2/vm/tools/manifests/{tag}", json.dumps(manifest | {"layers": layers}).encode())
    files.put(f"/v2/vm/tools/blobs/{sha256(disk)}", disk)
    return f"oci://{files.url.removeprefix('http://')}/vm/tools:{tag}"


async def test_an_oci_artefact_is_pinned_by_its_digest_and_fetched(world: World) -> None:
    source = put_artefact(world.files, DISK, "1", "tools.qcow2", "readme.md")
    image = await world.add(MEMBER, "tools", source, None)
    found = image.versions[0]
    assert (found.status.phase, found.checksum, found.format) == ("ready", sha256(DISK), "qcow2"), found.status
    other = put_artefact(world.files, RAW, "2", "tools.raw")
    world.files.put(f"/v2/vm/tools/blobs/{sha256(RAW)}", DISK)  # a registry that gives something else
    lied = (await world.add(MEMBER, "lied", other, None)).versions[0].status
    assert (lied.phase, "is wanted" in lied.message) == ("refused", True), lied
    two = put_artefact(world.files, DISK, "3", "a.qcow2", "b.qcow2")
    status = (await world.add(MEMBER, "two", two, None)).versions[0].status
    assert (status.phase, "2 layers" in status.message) == ("refused", True), status


async def test_in_the_name_of_a_vo_only_what_it_endorses_is_started(world: World) -> None:
    await world.add(MANAGER, "tools", world.files.put("/d", DISK), sha256(DISK), vo="vo.a", visibility="vo")
    with pytest.raises(Fault) as fault:
        await world.chosen(MEMBER, "tools", "vo.a")
    assert code_of(fault) == "images.not_endorsed"
    with pytest.raises(Fault) as fault:
        await world.endorsing.endorse(MEMBER, "tools", NewEndorsement("vo.a"))
    assert code_of(fault) == "images.forbidden"
    await world.endorsing.endorse(MANAGER, "tools", NewEndorsement("vo.a", lasts_days=2))
    assert (await world.chosen(MEMBER, "tools", "vo.a")).version == "1"

    source = NewVersion("2", world.files.put("/raw", RAW), checksum=sha256(RAW))
    await world.images.add_version(MANAGER, "tools", source)
    await world.settle()
    assert (await world.chosen(MEMBER, "tools", "vo.a")).version == "1"  # pinned
    with pytest.raises(Fault) as fault:
        await world.chosen(MEMBER, "tools@2", "vo.a")
    assert code_of(fault) == "images.not_ready" or code_of(fault) == "images.not_endorsed"
    await world.endorsing.endorse(MANAGER, "tools", NewEndorsement("vo.a", follow=True))
    assert (await world.chosen(MEMBER, "tools", "vo.a")).version == "2"

    await world.images.withdraw(MANAGER, "tools", "2", "CVE-2026-1")
    assert (await world.chosen(MEMBER, "tools", "vo.a")).version == "1"
    await world.settle()
    assert not world.depot.has(sha256(RAW).removeprefix("sha256:"))
    await world.endorsing.revoke(MANAGER, "tools", "vo.a")
    with pytest.raises(Fault):
        await world.chosen(MEMBER, "tools", "vo.a")


async def test_who_sees_what_and_whose_name_wins(world: World) -> None:
    url = world.files.put("/d", DISK)
    await world.add(MEMBER, "tools", url, sha256(DISK))
    await world.add(MANAGER, "tools", url, sha256(DISK), vo="vo.a", visibility="vo")
    assert (await world.images.get(MEMBER, "tools")).scope == "user/ada"
    assert (await world.images.get(MEMBER, "vo/vo.a/tools")).scope == "vo/vo.a"
    assert (await world.images.list_images(STRANGER, None, 10)).items == []
    for call in (world.images.get(STRANGER, "tools"), world.images.get(STRANGER, "vo/vo.a/tools")):
        with pytest.raises(Fault) as fault:
            await call
        assert code_of(fault) == "images.not_found"
    with pytest.raises(Fault) as fault:
        await world.images.withdraw(MEMBER, "vo/vo.a/tools", "1", "")
    assert code_of(fault) == "images.forbidden"
    first = await world.images.list_images(OPERATOR, None, 1)
    rest = await world.images.list_images(OPERATOR, first.next, 10)
    assert [one.scope for one in first.items + rest.items] == ["user/ada", "vo/vo.a"]


async def test_an_upload_is_checked_before_it_counts(world: World) -> None:
    await world.images.add(MEMBER, NewImage("mine", NewVersion("1", upload=True)))
    for bad, why in ((qcow2(backing=99), "backing"), (b"x" * 20_000_000, "larger")):
        with pytest.raises(Fault, match=why):
            await world.images.upload(MEMBER, "mine", "1", pieces(bad))
    read: list[bytes] = []

    async def sparse() -> AsyncIterator[bytes]:
        read.append(DISK)
        yield DISK

    with pytest.raises(Fault, match="9,223,372,036,854,775,808 bytes") as fault:
        await world.images.upload(MEMBER, "mine", "1", sparse(), 8 * 1024**6)
    assert "qemu-img convert" in str(fault.value.hint)
    assert read == [], "nothing of it is waited for"
    image = await world.images.upload(MEMBER, "mine", "1", pieces(DISK))
    assert (image.versions[0].status.phase, image.versions[0].checksum) == ("ready", sha256(DISK))
    with pytest.raises(Fault):
        await world.images.upload(MEMBER, "mine", "1", pieces(DISK))


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
async def test_a_content_is_converted_once(world: World, tmp_path: Path) -> None:
    disk = tmp_path / "real.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)
    await world.images.add(MEMBER, NewImage("mine", NewVersion("1", upload=True)))
    await world.images.upload(MEMBER, "mine", "1", pieces(disk.read_bytes()))
    path, name = await world.images.content(MEMBER, "mine", None, Format.RAW)
    assert (path.stat().st_size, name) == (1024**2, "mine-1.raw")
    assert (await world.images.content(MEMBER, "mine", None, Format.RAW))[0] == path


async def test_time_ends_a_version(world: World) -> None:
    await world.add(MEMBER, "tools", world.files.put("/d", DISK), sha256(DISK))
    async with world.database.begin() as tx:
        row = await store.find_image(tx, "user/user_a", "tools")
        assert row is not None
        version = (await store.versions_of(tx, [row.id]))[0]
        await store.update_version(tx, version.id, expires=world.clock.now() + timedelta(days=1))
        await VersionRoom.queue.poke(tx, world.clock.now(), version.id)
    await world.settle()
    assert (await world.images.get(MEMBER, "tools")).versions[0].status.phase == "ready"
    world.clock.advance(86_401)
    await world.settle()
    assert (await world.images.get(MEMBER, "tools")).versions[0].status.phase == "expired"


def listed(world: World, *names: str, days: float = 7) -> hepix.ImageList:
    now = world.clock.now()
    images = tuple(
        hepix.ListedImage(name, name, "1", world.files.put(f"/{name}", DISK), sha256(DISK), "qcow2") for name in names
    )
    return hepix.ImageList("list", "Test", "1", now, now + timedelta(days=days), images, endorser="CN=Ada")


def publish(world: World, found: hepix.ImageList) -> str:
    return world.files.put("/image.list", json.dumps(hepix.render(found)).encode())


async def follow(world: World, **subscription: Any) -> None:
    """As if the list came over https: the services take plain http only where the list is signed."""
    now = world.clock.now()
    values = {"vo": "vo.a", "url": f"{world.files.url}/image.list", "every_s": 3600, "by": "mia", "owner_id": "user_m"}
    status = {"phase": "new", "reason": "", "message": "", "waiting_on": "hansa", "since": now, "due_at": now}
    async with world.database.begin() as tx:
        await store.insert_subscription(tx, id=new_id("imglist"), images=0, **values, **status, **subscription)
    await world.settle()


async def test_what_a_list_names_is_endorsed_and_what_it_drops_is_withdrawn(world: World) -> None:
    publish(world, listed(world, "one", "two"))
    await follow(world)
    assert [image.name for image in (await world.images.list_images(MEMBER, None, 10)).items] == ["one", "two"]
    assert (await world.chosen(MEMBER, "one", "vo.a")).is_ready
    publish(world, replace(listed(world, "two"), version="2"))
    world.clock.advance(3601)
    await world.settle()
    with pytest.raises(Fault, match="does not name it any more"):
        await world.chosen(MEMBER, "one", "vo.a")
    assert (await world.chosen(MEMBER, "two", "vo.a")).is_ready
    publish(world, listed(world, "two", days=-1))
    world.clock.advance(3601)
    await world.settle()
    with pytest.raises(Fault, match="has expired"):
        await world.chosen(MEMBER, "two", "vo.a")


async def test_a_list_that_is_away_changes_nothing(world: World) -> None:
    publish(world, listed(world, "one"))
    await follow(world)
    world.files.statuses["/image.list"] = 503
    world.clock.advance(3601)
    await world.settle()
    found = (await world.endorsing.subscriptions(MEMBER, "vo.a")).items[0]
    assert (found.status.phase, found.status.reason) == ("failing", "images.list_away")
    assert (await world.chosen(MEMBER, "one", "vo.a")).is_ready


def signed(folder: Path, content: bytes, name: str) -> tuple[str, str]:
    """An authority of its own, and the content signed under it: (PEM, S/MIME)."""
    folder.mkdir()
    (folder / "list").write_bytes(content)
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", f"/CN={name}"]
    for command in (
        [*make, "-keyout", "key.pem", "-out", "cert.pem"],
        ["openssl", "cms", "-sign", "-in", "list", "-signer", "cert.pem", "-inkey", "key.pem", "-out", "signed"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / "cert.pem").read_text(), (folder / "signed").read_text()


async def test_a_signed_list_counts_only_with_the_right_signature(world: World, tmp_path: Path) -> None:
    content = json.dumps(hepix.render(listed(world, "one")))
    authority, message = signed(tmp_path / "a", content.encode(), "Ada")
    foreign, _ = signed(tmp_path / "b", content.encode(), "Eve")
    cases = [
        (message.replace('"one"', '"two"', 1), authority, None, "signature"),
        (message, foreign, None, "signature"),
        (message, authority, "CN=Bob", "not by CN=Bob"),
        (message, None, None, "is signed"),
    ]
    for text, ca, endorser, why in cases:
        world.files.put("/image.list", text.encode())
        await follow(world, authorities=ca, endorser=endorser)
        found = (await world.endorsing.subscriptions(MEMBER, "vo.a")).items[0]
        assert found.status.reason == "images.list_refused"
        assert why in found.status.message
        await world.endorsing.unsubscribe(MANAGER, "vo.a", found.id)
    world.files.put("/image.list", message.encode())
    await follow(world, authorities=authority, endorser="CN=Ada")
    assert (await world.chosen(MEMBER, "one", "vo.a")).is_ready


async def test_a_vo_publishes_what_it_endorses(world: World) -> None:
    await world.add(MANAGER, "tools", world.files.put("/d", DISK), sha256(DISK), vo="vo.a", visibility="vo")
    await world.endorsing.endorse(MANAGER, "tools", NewEndorsement("vo.a", follow=True))
    found = hepix.parse(await world.endorsing.publish(MEMBER, "vo.a"))
    assert [(one.title, one.checksum, one.format) for one in found.images] == [("tools", sha256(DISK), "qcow2")]
    path, _ = await world.images.content_of(MEMBER, found.images[0].uri.rpartition("/")[2])
    assert path.read_bytes() == DISK
    with pytest.raises(Fault):
        await world.endorsing.publish(STRANGER, "vo.a")


async def test_the_policy_of_a_vo(world: World) -> None:
    assert await world.endorsing.policy(MEMBER, "vo.a") == ImagePolicy()
    wanted = ImagePolicy(site_images=True, registries=["quay.io"])
    assert await world.endorsing.set_policy(MANAGER, "vo.a", wanted) == wanted
    assert await world.endorsing.policy(MEMBER, "vo.a") == wanted
    with pytest.raises(Fault):
        await world.endorsing.set_policy(MEMBER, "vo.a", ImagePolicy())
    with pytest.raises(Fault, match="who wrote this list"):
        await world.endorsing.subscribe(MANAGER, "vo.a", NewSubscription("https://example.org/l"))


async def test_of_a_vo_that_is_not_there_operators_hear_so(world: World) -> None:
    await world.images.ensure_presets()
    calls = (
        world.endorsing.endorse(OPERATOR, "debian-12", NewEndorsement("vo.none", follow=True)),
        world.endorsing.revoke(OPERATOR, "debian-12", "vo.none"),
        world.endorsing.subscribe(OPERATOR, "vo.none", NewSubscription("https://example.org/l", unsigned=True)),
        world.endorsing.policy(OPERATOR, "vo.none"),
        world.endorsing.set_policy(OPERATOR, "vo.none", ImagePolicy(site_images=True)),
        world.endorsing.publish(OPERATOR, "vo.none"),
        world.images.add(OPERATOR, NewImage("x", NewVersion("1", upload=True), "vo.none")),
    )
    for call in calls:
        with pytest.raises(Fault, match=r"There is no VO vo\.none") as fault:
            await call
        assert code_of(fault) == "identity.no_such_vo"


async def test_an_upload_has_the_checksum_that_was_said_and_a_withdrawn_version_stays_withdrawn(world: World) -> None:
    for algorithm in ("sha256", "sha512"):
        said = f"{algorithm}:{hashlib.new(algorithm, DISK).hexdigest()}"
        await world.images.add(MEMBER, NewImage(algorithm, NewVersion("1", upload=True, checksum=said)))
        with pytest.raises(Fault, match="is wanted"):
            await world.images.upload(MEMBER, algorithm, "1", pieces(RAW))
        image = await world.images.upload(MEMBER, algorithm, "1", pieces(DISK))
        assert (image.versions[0].status.phase, image.versions[0].checksum) == ("ready", said)
    await world.images.add(MEMBER, NewImage("mine", NewVersion("1", upload=True)))

    async def withdrawn_meanwhile() -> AsyncIterator[bytes]:
        await world.images.withdraw(MEMBER, "mine", "1", "wrong file")
        yield RAW

    with pytest.raises(Fault, match="is withdrawn already"):
        await world.images.upload(MEMBER, "mine", "1", withdrawn_meanwhile())
    assert (await world.images.get(MEMBER, "mine")).versions[0].status.phase == "withdrawn"
    assert not world.depot.has(sha256(RAW).removeprefix("sha256:"))


async def test_authorities_of_the_computer_do_not_count_for_lists(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """openssl trusts those of web sites beside the given ones, unless it is told not to."""
    content = json.dumps(hepix.render(listed(world, "one")))
    authority, _ = signed(tmp_path / "a", content.encode(), "Ada")
    eve, message = signed(tmp_path / "b", content.encode(), "Eve")
    trusted = tmp_path / "certs"
    trusted.mkdir()
    (trusted / "eve.pem").write_text(eve)
    subprocess.run(["openssl", "rehash", trusted], check=True)
    monkeypatch.setenv("SSL_CERT_DIR", str(trusted))
    world.files.put("/image.list", message.encode())
    await follow(world, authorities=authority, endorser=None)
    found = (await world.endorsing.subscriptions(MEMBER, "vo.a")).items[0]
    assert (found.status.reason, "signature" in found.status.message) == ("images.list_refused", True)


def bomb(tables: int) -> bytes:
    """A qcow2 image of a few clusters whose tables name one of them again and again: a disk of ``tables`` × 512 MiB."""
    cluster = 64 * 1024
    head = b"QFI\xfb" + struct.pack(">IQIIQ", 3, 0, 0, 16, tables * 512 * MIB)
    head += struct.pack(">IIQQIIQ", 0, tables, cluster, 2 * cluster, 1, 0, 0)
    head += struct.pack(">QQQII", 0, 0, 0, 4, 104) + struct.pack(">II", 0, 0)
    first = struct.pack(">Q", 3 * cluster | 1 << 63) * tables
    counts = struct.pack(">Q", 4 * cluster)
    second = struct.pack(">Q", 5 * cluster) * (cluster // 8)
    parts = [head, first, counts, second, struct.pack(">H", 9) * (cluster // 2), b"\xa5" * cluster]
    return b"".join(part.ljust(cluster, b"\0") for part in parts)


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
async def test_a_small_image_that_unpacks_to_a_disk_full_is_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_img, "_ALWAYS", 64 * MIB)
    monkeypatch.setattr(qemu_img, "_LOOK_S", 0.02)
    await world.images.add(MEMBER, NewImage("bomb", NewVersion("1", upload=True)))
    image = await world.images.upload(MEMBER, "bomb", "1", pieces(bomb(64)))
    assert image.versions[0].virtual_bytes == 32 * 1024 * MIB
    with pytest.raises(Fault, match="no room") as fault:
        await world.images.content(MEMBER, "bomb", None, Format.RAW)
    assert code_of(fault) == "images.bad_content"
    (kept,) = (world.depot.path("0" * 64).parent).iterdir()
    assert kept.name == image.versions[0].sha256, "nothing is left of what was written"


async def test_a_list_that_is_renewed_brings_its_images_back_but_not_what_was_withdrawn_here(world: World) -> None:
    publish(world, listed(world, "one", "two"))
    await follow(world)
    await world.images.withdraw(MANAGER, "two", "1", "we do not want it")
    publish(world, listed(world, days=7))
    world.clock.advance(3601)
    await world.settle()
    with pytest.raises(Fault, match="does not name it any more"):
        await world.chosen(MEMBER, "one", "vo.a")
    publish(world, listed(world, "one", "two"))
    world.clock.advance(3601)
    await world.settle()
    assert (await world.chosen(MEMBER, "one", "vo.a")).is_ready
    with pytest.raises(Fault, match="we do not want it"):
        await world.chosen(MEMBER, "two", "vo.a")


async def test_another_content_under_a_version_that_is_known_takes_its_place(world: World) -> None:
    first = listed(world, "one")
    publish(world, first)
    await follow(world)
    url = world.files.put("/one-again", RAW)
    other = replace(first.images[0], uri=url, checksum=sha256(RAW), format="raw")
    twin = replace(other, identifier="a twin with the same title", uri=world.files.put("/twin", RAW * 2))
    twin = replace(twin, checksum=sha256(RAW * 2))
    publish(world, replace(first, images=(other, twin)))
    for _ in range(2):  # and stays it
        world.clock.advance(3601)
        await world.settle()
    versions = {one.version: one.status.phase for one in (await world.images.get(MEMBER, "one")).versions}
    names = [f"1-{sha256(data).removeprefix('sha256:')[:12]}" for data in (RAW, RAW * 2)]
    assert versions == {"1": "withdrawn", names[0]: "ready", names[1]: "ready"}
    with pytest.raises(Fault, match="withdrawn"):
        await world.chosen(MEMBER, "one@1", "vo.a")


async def test_a_list_for_everybody_is_signed_and_others_follow_it(world: World) -> None:
    """Another server fetches list and contents as anybody would; it has the authority from elsewhere."""
    vault = Vault([b"k" * 32])
    lists = PublishedLists(world.database, world.clock, vault, world.images, world.endorsing, world.files.url)
    await world.add(MANAGER, "tools", world.files.put("/d", DISK), sha256(DISK), vo="vo.a", visibility="vo")
    await world.endorsing.endorse(MANAGER, "tools", NewEndorsement("vo.a", follow=True))
    (version,) = hepix.parse(await world.endorsing.publish(MEMBER, "vo.a")).images
    for call in (lists.signed("vo.a"), lists.content(version.identifier), lists.signed("vo.none")):
        with pytest.raises(Fault) as fault:
            await call
        assert code_of(fault) == "images.not_found"
    await world.endorsing.set_policy(MANAGER, "vo.a", ImagePolicy(public_list=True))
    text, authority = (await lists.signed("vo.a")).decode(), (await lists.authority()).decode()
    again = PublishedLists(world.database, world.clock, vault, world.images, world.endorsing, world.files.url)
    assert await again.authority() == authority.encode(), "the key is kept"
    found = await read_list(text, authority, None)
    assert found.endorser.startswith("CN=127.0.0.1")
    assert await read_list(text, authority, found.endorser) == found
    (one,) = found.images
    assert one.uri == f"{world.files.url}/api/v1/image-lists/content/{version.identifier}"
    assert (await lists.content(version.identifier))[0].read_bytes() == DISK
    with pytest.raises(Permanent, match="signature"):
        await read_list(text.replace("tools", "other"), authority, None)
    async with world.database.begin() as tx:
        assert await rewrap_list_signer(tx, vault) == 1
    assert (await lists.authority()).decode() == authority
    await world.endorsing.revoke(MANAGER, "tools", "vo.a")
    with pytest.raises(Fault):
        await lists.content(version.identifier)
    assert (await read_list((await lists.signed("vo.a")).decode(), authority, None)).images == ()


async def test_for_a_vo_its_own_image_is_meant(world: World) -> None:
    async with world.database.begin() as tx:
        now = world.clock.now()
        await vo_store.insert_vo(tx, name="vo.b", description="", created_by="test", created=now, suspended=None)
        row = {"user_id": MANAGER.user_id, "roles": ["manager"], "groups": [], "since": now}
        await vo_store.insert_member(tx, vo="vo.b", **row)
    for vo, data in (("vo.a", DISK), ("vo.b", RAW)):
        source = NewVersion("1", world.files.put(f"/{vo}", data), checksum=sha256(data))
        await world.images.add(MANAGER, NewImage("tools", source, vo, visibility="vo"))
        await world.settle()
        await world.endorsing.endorse(MANAGER, f"vo/{vo}/tools", NewEndorsement(vo))
    assert (await world.chosen(MANAGER, "tools", "vo.b")).scope == "vo/vo.b"
    assert (await world.chosen(MANAGER, "tools", "vo.a")).scope == "vo/vo.a"
    with pytest.raises(Fault, match="tools could be"):
        await world.images.get(MANAGER, "tools")
