"""VM images in a real Glance: sent whole or not at all, by a sender that may die, and taken away when unused."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hansa.engines.egress import EgressPolicy
from hansa.engines.openstack import Clouds, Password, Place
from hansa.kernel.errors import Temporary
from hansa.machines.drivers import openstack_images
from hansa.machines.drivers.base import Image, MachineSpec, Progress, Refused, Size, Why
from hansa.machines.drivers.openstack import OpenstackMachines
from tests.integration.openstack.test_machines import eventually
from tests.support.openstack import contents
from tests.support.openstack.cloud import Cloud
from tests.support.openstack.fixtures import VO, Federation
from tests.support.openstack.layout import PASSWORD
from tests.unit.images.test_formats import qcow2

pytestmark = [pytest.mark.openstack, pytest.mark.timeout(900)]
MIB = 1024**2
T = TypeVar("T")
SENDER = """
import json, resource, sys, time
from pathlib import Path
from hansa.machines.drivers import openstack_images as images
from hansa.machines.drivers.base import Image
from tests.support.openstack import contents
auth_url, path, checksum, dies = sys.argv[1:]

def hang(word):
    print(word, flush=True)
    time.sleep(3600)

read = images.Reading.read
def until_half(self, size=-1):
    return hang("half") if dies == "half" and self.done_bytes > 4_000_000 else read(self, size)
images.Reading.read = until_half
if dies == "sent":
    images._show = lambda *given: hang("sent")

from types import SimpleNamespace
with contents.connect(SimpleNamespace(url=lambda name: auth_url)) as api:
    if dies == "never":
        list(api.image.images())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images.ensure(api, Image(checksum, Path(path), format="raw"), "sent-by-child")
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), flush=True)
"""


class Glance:
    """The project of the administrator."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud, self.folder = cloud, folder
        with contents.connect(cloud.place) as api:
            project = api.current_project_id
        self.clouds = Clouds()
        place, password = Place(cloud.auth_url, project), Password("admin", PASSWORD)
        self.driver = OpenstackMachines(self.clouds.at(place, password, EgressPolicy(allow_private=True)))

    def content(self, name: str, size: int) -> Image:
        """A content of its own; sparse but for its beginning."""
        path = self.folder / name
        with path.open("wb") as file:
            file.write(name.encode().ljust(512, b"\1"))
            file.truncate(size)
        with path.open("rb") as file:
            checksum = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return Image(checksum, path, format="raw", about={"os_distro": "debian", "hansa_image": f"{name}@1"})

    async def find(self, image: Image) -> list[Any]:
        return await patient(lambda: self.driver.cloud.call(lambda api: openstack_images.find(api, image.checksum)))

    async def send(self, image: Image) -> str | None:
        return await patient(lambda: self.driver.ensure_image(image, "image"))

    async def gone(self, image: Image) -> None:
        await patient(lambda: self.driver.delete_image(image.checksum), lambda one: one is Progress.DONE)

    async def at(self, now: datetime, image: Image) -> str | None:
        """Sent at this time."""
        cloud = self.driver.cloud
        return await patient(lambda: cloud.call(lambda api: openstack_images.ensure(api, image, "image", now), 300))

    def sender(self, image: Image, dies: str) -> subprocess.Popen[str]:
        auth_url = self.cloud.place.url("keystone")
        argv = [sys.executable, "-c", SENDER, auth_url, str(image.path), image.checksum, dies]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


async def patient(work: Callable[[], Awaitable[T]], fits: Callable[[T], bool] = lambda _: True) -> T:
    """What a call gives when it fits; asked again as a controller asks, also after what passes."""
    deadline = time.monotonic() + 600
    while True:
        try:
            if fits(found := await work()):
                return found
            said = str(found)
        except Temporary as error:
            said = str(error)
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.2)


def killed(sender: subprocess.Popen[str], word: str) -> None:
    """Kill it where it says that it is."""
    assert sender.stdout is not None
    try:
        assert sender.stdout.readline().strip() == word
    finally:
        sender.kill()
        sender.wait()
        sender.stdout.close()


@pytest.fixture
def glance(openstack_cloud: Cloud, tmp_path: Path) -> Iterator[Glance]:
    made = Glance(openstack_cloud, tmp_path)
    yield made
    made.clouds.close()


async def test_killed_in_the_middle_no_half_image_is_left(glance: Glance) -> None:
    image = glance.content("half", 16 * MIB)
    killed(glance.sender(image, "half"), "half")
    (left,) = await glance.find(image)
    assert left.is_hidden, "nobody finds it before it is whole"
    assert left.status != "active"
    begun = datetime.fromisoformat(left.updated_at.replace("Z", "+00:00"))
    assert await glance.at(begun, image) is None, "its sender may be alive"
    sent = await glance.at(begun + timedelta(minutes=5), image)
    (one,) = await glance.find(image)
    assert (one.id, one.status, one.size, one.is_hidden) == (sent, "active", 16 * MIB, False)
    assert one.id != left.id
    assert await glance.send(image) == sent
    await glance.gone(image)


async def test_killed_before_it_could_be_shown_it_is_not_sent_again(glance: Glance) -> None:
    image = glance.content("sent", 6 * MIB)
    killed(glance.sender(image, "sent"), "sent")
    (left,) = await glance.find(image)
    assert (left.status, left.is_hidden) == ("active", True)
    assert await glance.send(image) == left.id
    (one,) = await glance.find(image)
    assert (one.is_hidden, one.os_distro) == (False, "debian")
    await glance.gone(image)


async def test_what_glance_took_for_whole_and_a_second_one_go(glance: Glance) -> None:
    image = glance.content("cut", 4 * MIB)
    about = {"disk_format": "raw", "container_format": "bare", "allow_duplicates": True}
    about[openstack_images.CHECKSUM] = image.checksum

    def work(api: Any) -> None:
        api.image.create_image("cut", data=io.BytesIO(b"\0" * MIB), **about)

    await glance.driver.cloud.call(work, 300)
    sent = await glance.send(image)
    (one,) = await glance.find(image)
    assert (one.id, one.size) == (sent, 4 * MIB)
    assert image.path is not None
    whole = image.path.read_bytes()
    await asyncio.sleep(1.1)  # Glance counts ages in whole seconds
    await glance.driver.cloud.call(lambda api: api.image.create_image("cut", data=io.BytesIO(whole), **about), 300)
    assert await glance.send(image) == sent, "the older one stays"
    assert [one.id for one in await glance.find(image)] == [sent]
    await glance.gone(image)


async def test_hidden_while_a_machine_needs_it_and_then_gone(glance: Glance) -> None:
    image = glance.content("used", MIB)
    image_id = await glance.send(image)
    spec = MachineSpec("used", Image(image.checksum, provider_id=image_id), Size(1, 512, flavour="m1.tiny"))
    await patient(lambda: glance.driver.ensure(spec, "image-in-use"))
    assert await patient(lambda: glance.driver.delete_image(image.checksum)) is Progress.PENDING
    (one,) = await glance.find(image)
    assert one.is_hidden
    assert await glance.send(image) == image_id, "wanted again, it is shown again"
    (one,) = await glance.find(image)
    assert not one.is_hidden
    await patient(lambda: glance.driver.delete("image-in-use"), lambda one: one is Progress.DONE)
    await glance.gone(image)
    assert await glance.find(image) == []


async def test_an_image_is_sent_as_it_is_read(glance: Glance) -> None:
    size = 256 * MIB
    image = glance.content("large", size)
    sender = glance.sender(image, "never")
    out, _ = sender.communicate(timeout=600)
    assert json.loads(out) * 1024 < size / 4, "kilobytes that its memory has grown by"
    (one,) = await glance.find(image)
    assert (one.status, one.size) == ("active", size)
    await glance.gone(image)


def test_what_a_vo_endorses_comes_by_itself_is_replaced_and_goes(federation: Federation) -> None:
    """The contents are no other test's: one that is there already keeps the name that it was sent under."""
    operator, name = federation.server.operator(), "NEBULA-SYNC"
    operator.timeout = 300
    settings = {"auth": "v3password"}
    end: dict[str, Any] = {"kind": "openstack", "name": "cloud", "url": federation.auth_url, "settings": settings}
    end |= {"vos": {VO: "admin"}, "credential": {"username": "admin", "password": PASSWORD}}
    operator.post("/sites", json={"name": name, "endpoints": [end]}).raise_for_status()
    new: dict[str, Any] = {"name": "synced", "vo": VO, "os_name": "Debian GNU", "os_version": "12", "login": "debian"}
    new |= {"visibility": "vo", "source": {"version": "1", "upload": True}}
    try:
        operator.post("/vm-images", json=new).raise_for_status()
        operator.put("/vm-images/upload/1/synced", content=qcow2() + b"\1" * 512).raise_for_status()
        operator.post("/vm-images/endorse/synced", json={"vo": VO, "follow": True}).raise_for_status()
        assert _there(operator, name, lambda one: one == {"1": "there"})
        with contents.connect(federation.cloud.place) as cloud:
            (one,) = _ours(cloud)
            about = one.properties
            assert (one.status, one.min_disk, one.is_hidden, one.visibility) == ("active", 1, False, "private")
            assert (one.os_distro, one.os_version, one.os_type) == ("debian", "12", "linux")
            assert one.os_admin_user == "debian"
            assert about["hansa_image"] == "synced@1"
            operator.post("/vm-images/versions/synced", json={"version": "2", "upload": True}).raise_for_status()
            operator.put("/vm-images/upload/2/synced", content=qcow2() + b"\2" * 512).raise_for_status()
            assert _there(operator, name, lambda one: one == {"2": "there"})
            assert [one.properties["hansa_image"] for one in _ours(cloud)] == ["synced@2"]
            operator.post("/vm-images/withdraw/2/synced", json={"why": "a test"}).raise_for_status()
            assert _there(operator, name, lambda one: "2" not in one)
    finally:
        operator.delete(f"/sites/{name}")


def test_a_project_that_takes_no_images_says_so(federation: Federation) -> None:
    """The credential is a reader's: Glance itself answers 403."""
    operator, name = federation.server.operator(), "NEBULA-READ"
    with contents.connect(federation.cloud.place) as cloud:
        keystone = cloud.identity
        user = keystone.create_user(name="reader", password=PASSWORD, domain_id="default")
        keystone.assign_project_role_to_user(cloud.current_project_id, user, keystone.find_role("reader"))
        end: dict[str, Any] = {"kind": "openstack", "name": "cloud", "url": federation.auth_url, "vos": {VO: "admin"}}
        end |= {"settings": {"auth": "v3password"}, "credential": {"username": "reader", "password": PASSWORD}}
        new = {"name": "unread", "vo": VO, "visibility": "vo", "source": {"version": "1", "upload": True}}
        try:
            operator.post("/vm-images", json=new).raise_for_status()
            operator.put("/vm-images/upload/1/unread", content=qcow2() + bytes(4096)).raise_for_status()
            operator.post("/vm-images/endorse/unread", json={"vo": VO}).raise_for_status()
            operator.post("/sites", json={"name": name, "endpoints": [end]}).raise_for_status()
            eventually(lambda: _status(operator, name), lambda one: one.get("reason") == "images.refused_there")
            said = _status(operator, name)
            assert (said["phase"], said["waiting_on"], "image" in said["message"]) == ("failed", "site", True), said
        finally:
            operator.delete(f"/sites/{name}")
            operator.delete(f"/vm-images/endorse/{VO}/unread")
            keystone.delete_user(user)


def _status(operator: Any, site: str) -> dict[str, Any]:
    rows = operator.get("/vm-image-places").raise_for_status().json()["items"]
    found = [one["status"] for one in rows if one["image"] == "unread" and one["place"].startswith(site)]
    return dict(found[0]) if found else {}


async def test_of_the_projects_images_only_those_for_everybody_are_a_sites_own(glance: Glance) -> None:
    """What a user may name: nothing that is private to the project, as another user's snapshot is."""
    image = glance.content("somebodys", MIB)
    provider_id = await glance.send(image)
    spec = MachineSpec("thief", Image("", provider_id=provider_id, is_public=True), Size(1, 512, flavour="m1.tiny"))
    with pytest.raises(Refused, match="no VM image") as refused:
        await glance.driver.ensure(spec, "thief")
    assert refused.value.why is Why.IMAGE
    assert await glance.driver.observe("thief") is None
    await glance.gone(image)


def _there(operator: Any, site: str, fits: Callable[[dict[str, str]], bool]) -> dict[str, str] | bool:
    def look() -> dict[str, str]:
        rows = operator.get("/vm-image-places").raise_for_status().json()["items"]
        return {
            one["version"]: one["status"]["phase"]
            for one in rows
            if one["image"] == "synced" and one["place"].startswith(site)
        }

    eventually(look, fits)
    return True


def _ours(cloud: Any) -> list[Any]:
    return [one for one in cloud.image.images() if (one.properties or {}).get("hansa_image", "").startswith("synced@")]
