"""Machines at a real OpenStack, as a member of a VO has them: by Hansa's API, with nothing but a token of hers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.identity import Server
from tests.support.openstack import contents
from tests.support.openstack.fixtures import VO, Federation, fill_snapshots
from tests.unit.images.test_formats import qcow2

pytestmark = [pytest.mark.openstack, pytest.mark.timeout(900)]
DEADLINE_S = 300.0
SITE = "NEBULA-VM"
GPU_FLAVOUR = "g2.small"
"""A GPU by the federation's own words: with a passed-through device, Nova's fake hypervisor would have none to give."""
_DIES = """
import os, re, signal
from pathlib import Path
from requests.adapters import HTTPAdapter

send = HTTPAdapter.send

def send_and_die(self, request, *args, **options):
    answer = send(self, request, *args, **options)
    points, path = Path(os.environ["DIES_AFTER"]), request.path_url.partition("?")[0]
    left = points.read_text().splitlines()
    for point in left:
        method, pattern = point.split()
        if request.method == method and re.search(pattern, path) and answer.status_code < 300:
            points.write_text("\\n".join(one for one in left if one != point))
            os.kill(os.getpid(), signal.SIGKILL)
    return answer

HTTPAdapter.send = send_and_die
"""
DEATHS = (
    "POST /servers$", "POST /volumes$", "POST /os-volume_attachments$", "POST /floatingips$", "DELETE /servers/[^/]+$",
)  # fmt: skip


def eventually(look: Callable[[], Any], fits: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not fits(found := look()):
        assert time.monotonic() < deadline, f"after {DEADLINE_S:.0f} s still {found}"
        time.sleep(0.2)
    return found


class Desk:
    """Somebody with a token, at the API."""

    def __init__(self, api: httpx.Client) -> None:
        self.api = api
        api.timeout = httpx.Timeout(DEADLINE_S)

    def post(self, path: str, body: Any, status: int = 202) -> Any:
        answer = self.api.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def machine(self, name: str) -> Any:
        return self.api.get(f"/machines/{name}").raise_for_status().json()

    def until(self, name: str, *phases: str) -> Any:
        return eventually(lambda: self.machine(name), lambda one: one["status"]["phase"] in phases)

    def delete(self, name: str) -> None:
        machine_id = self.machine(name)["id"]
        self.api.delete(f"/machines/{name}").raise_for_status()
        self.until(machine_id, "deleted")


@pytest.fixture(scope="module")
def ada(federation: Federation) -> Iterator[Desk]:
    """A member of the VO that has a project there; her VO has endorsed an image that she has brought."""
    operator = federation.server.operator()
    operator.timeout = httpx.Timeout(DEADLINE_S)
    with contents.connect(federation.cloud.place) as admin:
        gpu = admin.compute.create_flavor(name=GPU_FLAVOUR, vcpus=2, ram=4096, disk=20)
        words = {"Accelerator:Type": "GPU", "Accelerator:Number": "1", "Accelerator:Model": "L40S"}
        admin.compute.create_flavor_extra_specs(gpu, words)
    settings = {"issuer": federation.server.issuer, "ssh_jump": "gate.example.org"}
    end = {"kind": "openstack", "name": "cloud", "url": federation.auth_url, "vos": {VO: None}, "settings": settings}
    operator.post("/sites", json={"name": SITE, "endpoints": [end]}).raise_for_status()
    eventually(
        lambda: operator.get(f"/sites/{SITE}").raise_for_status().json()["endpoints"][0],
        lambda one: one.get("discovered") is not None and one["health"]["phase"] == "up",
    )
    desk = Desk(federation.server.api(federation.ada.tokens()["access_token"]))
    new = {"name": "tools", "vo": VO, "visibility": "vo", "login": "debian", "source": {"version": "1", "upload": True}}
    desk.post("/vm-images", new, 201)
    desk.api.put("/vm-images/upload/1/tools", content=qcow2()).raise_for_status()
    refused = desk.api.post("/machines", json={"image": "tools", "vo": VO})
    assert refused.json()["code"] == "images.not_endorsed"
    desk.post("/vm-images/endorse/tools", {"vo": VO, "follow": True}, 200)
    yield desk
    federation.server.operator().delete(f"/sites/{SITE}")
    with contents.connect(federation.cloud.place) as admin:
        admin.compute.delete_flavor(gpu)


def test_from_a_wish_to_a_machine_with_an_address_and_back(ada: Desk, federation: Federation) -> None:
    wish = {"image": "tools", "name": "web", "cores": 2, "memory_mib": 4096, "public": True, "ports": ["443"]}
    wish["ssh_keys"] = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1OJRCZQcMvJ4Kt1VWb6zF0Qf3FT1cB6JbSrTBtsGyC ada"]
    made = ada.post("/machines", wish)
    assert (made["vo"], made["site"]) == (VO, SITE)
    running = ada.until("web", "running", "failed")
    assert running["status"]["phase"] == "running", running["status"]
    assert running["public"][0].startswith("203.0.113.")
    assert (running["ssh"]["user"], running["ssh"]["jump"]) == ("debian", None)
    with federation.connect(federation.ada.tokens()["access_token"], project_id=_project(federation)) as cloud:
        (image,) = [one for one in cloud.image.images() if one.name == "tools-1"]
        assert (image.disk_format, image.status, image.visibility) == ("qcow2", "active", "private")
        (server,) = cloud.compute.servers()
        assert server.metadata["hansa_key"] == made["id"]
    ada.post("/machines/web/stop", {})
    ada.until("web", "stopped")
    ada.post("/machines/web/start", {})
    ada.until("web", "running")
    ada.post("/machines/web/resize", {"cores": 4, "memory_mib": 8192})
    eventually(lambda: ada.machine("web"), lambda one: one["size"]["flavour"] == "m1.large")
    ada.until("web", "running")
    assert ada.api.get("/machines/web/console").raise_for_status().json()["text"]
    _snapshot(ada, federation)
    ada.delete("web")
    with federation.connect(federation.ada.tokens()["access_token"], project_id=_project(federation)) as cloud:
        assert list(cloud.compute.servers()) == []
        assert list(cloud.network.ips()) == []
        assert [one.name for one in cloud.network.security_groups()] == ["default"]
        assert list(cloud.compute.keypairs()) == []


def _snapshot(ada: Desk, federation: Federation) -> None:
    """Of a machine of hers: kept at the cloud, started in the VO's name once that has endorsed it, and gone again."""
    taken = ada.post("/machines/web/snapshots", {"name": "gold"})

    def look() -> Any:
        with federation.connect(federation.ada.tokens()["access_token"], project_id=_project(federation)) as cloud:
            fill_snapshots(cloud)
        return ada.api.get(f"/snapshots/{taken['id']}").raise_for_status().json()

    ready = eventually(look, lambda one: one["status"]["phase"] in ("ready", "failed"))
    assert ready["status"]["phase"] == "ready", ready["status"]
    refused = ada.api.post("/machines", json={"image": "gold", "name": "again", "vo": VO})
    assert refused.json()["code"] == "images.not_endorsed"
    ada.post("/vm-images/endorse/gold", {"vo": VO, "version": "1"}, 200)
    assert "gold" in [one["name"] for one in ada.api.get("/vm-images").raise_for_status().json()["items"]]
    ada.post("/machines", {"image": "gold", "name": "again", "vo": VO})
    running = ada.until("again", "running", "failed")
    assert running["status"]["phase"] == "running", running["status"]
    with federation.connect(federation.ada.tokens()["access_token"], project_id=_project(federation)) as cloud:
        (image,) = [one for one in cloud.image.images() if one.name.startswith("gold")]
        (server,) = [one for one in cloud.compute.servers() if one.metadata["hansa_key"] == running["id"]]
        assert server.image["id"] == image.id
        ada.delete("again")
        ada.post("/vm-images/withdraw/1/gold", {}, 200)
        eventually(lambda: [one.name for one in cloud.image.images()], lambda names: image.name not in names)


def test_ten_at_once_and_the_eleventh_meets_the_quota(ada: Desk) -> None:
    names = [f"node-{number}" for number in range(10)]
    for name in names:
        ada.post("/machines", {"image": "tools", "name": name})
    for name in names:
        status = ada.until(name, "running", "failed")["status"]
        assert status["phase"] == "running", status
    answer = ada.api.post("/machines", json={"image": "tools", "name": "one-more"})
    if answer.status_code == 202:  # what the site told last said that there was room
        failed = ada.until("one-more", "failed")
        assert "Quota exceeded" in failed["status"]["message"]
        said = "\n".join(ada.api.get("/machines/one-more/explain").json()["lines"])
        assert "already used 10 of 10 instances" in said
        names.append("one-more")
    else:
        assert "quota does not suffice" in answer.json()["detail"]
    for name in names:
        ada.delete(name)


def test_a_wish_for_gpus_finds_the_flavour_that_has_them(ada: Desk, federation: Federation) -> None:
    ada.post("/machines", {"image": "tools", "name": "trainer", "gpus": 1, "gpu_model": "L40S", "public": False})
    running = ada.until("trainer", "running", "failed")
    assert running["status"]["phase"] == "running", running["status"]
    assert (running["size"]["flavour"], running["size"]["gpus"], running["size"]["cores"]) == (GPU_FLAVOUR, 1, 2)
    assert running["ssh"]["jump"] == "gate.example.org", "it has no public address"
    with federation.connect(federation.ada.tokens()["access_token"], project_id=_project(federation)) as cloud:
        (server,) = cloud.compute.servers()
        assert server.flavor["original_name"] == GPU_FLAVOUR
    ada.delete("trainer")
    for wish, why in (({"gpus": 2}, "2 GPUs"), ({"gpus": 1, "gpu_model": "H100"}, "H100")):
        answer = ada.api.post("/machines", json={"image": "tools", **wish})
        assert answer.json()["code"] == "machines.no_site", answer.text
        assert why in answer.json()["detail"]
    assert ada.api.get("/machines").json()["items"] == []


class Mortal:
    """A server that kills itself (``kill -9``) right after the cloud has done what it was asked, before it knows."""

    def __init__(self, server: Server, folder: Path, points: tuple[str, ...]) -> None:
        self.server, self.points, self.deaths = server, folder / "points", 0
        self.points.write_text("\n".join(points))
        (folder / "sitecustomize.py").write_text(_DIES)
        self._more = {"PYTHONPATH": str(folder), "DIES_AFTER": str(self.points)}
        server.stop()
        server.environ |= self._more
        server.start()

    def until(self, look: Callable[[], Any], fits: Callable[[Any], bool]) -> Any:
        """As :func:`eventually`, the server started again each time that it has died."""

        def ask() -> Any:
            process = self.server.process
            assert process is not None
            try:
                return look()
            except httpx.TransportError:
                if process.wait(60) == -signal.SIGKILL:
                    self.deaths += 1
                    self.server.start()
                return None

        return eventually(ask, lambda found: found is not None and fits(found))

    def close(self) -> None:
        self.server.stop()
        for name in self._more:
            del self.server.environ[name]
        self.server.start()


@pytest.fixture
def mortal(ada: Desk, federation: Federation, tmp_path: Path) -> Iterator[Mortal]:
    found = Mortal(federation.server, tmp_path, DEATHS)
    yield found
    found.close()


def test_killed_after_every_order_to_the_cloud_one_machine_is_adopted(
    ada: Desk, federation: Federation, mortal: Mortal
) -> None:
    """The orders that are not idempotent: a server, a volume and its attachment, an address; and a deletion."""
    keys = {"image": "tools", "name": "web", "public": True, "volumes": [{"name": "data", "size_gib": 1}]}
    headers = {"Idempotency-Key": "one-machine"}
    made = mortal.until(lambda: ada.api.post("/machines", json=keys, headers=headers).json(), lambda one: "id" in one)
    running = mortal.until(lambda: ada.machine("web"), lambda one: one["status"]["phase"] in ("running", "failed"))
    assert running["status"]["phase"] == "running", running["status"]
    mortal.until(
        lambda: ada.api.get("/volumes/data").raise_for_status().json(), lambda one: one["status"]["phase"] == "attached"
    )
    with federation.connect(federation.ada.tokens()["access_token"], project_id=_project(federation)) as cloud:
        (server,) = cloud.compute.servers()
        assert server.metadata["hansa_key"] == made["id"]
        (address,) = cloud.network.ips()
        assert running["public"] == [address.floating_ip_address]
        (volume,) = cloud.block_storage.volumes()
        assert [one["server_id"] for one in volume.attachments] == [server.id]
    mortal.until(lambda: ada.api.delete("/machines/web").status_code, bool)
    mortal.until(lambda: ada.machine(made["id"]), lambda one: one["status"]["phase"] == "deleted")
    ada.api.delete("/volumes/data").raise_for_status()
    mortal.until(lambda: ada.api.get("/volumes").raise_for_status().json()["items"], lambda found: not found)
    assert (mortal.points.read_text(), mortal.deaths) == ("", len(DEATHS))
    with federation.connect(federation.ada.tokens()["access_token"], project_id=_project(federation)) as cloud:
        found = [cloud.compute.servers(), cloud.network.ips(), cloud.block_storage.volumes(), cloud.compute.keypairs()]
        assert [list(one) for one in found] == [[], [], [], []]
        assert [one.name for one in cloud.network.security_groups()] == ["default"]


def test_who_is_in_no_vo_is_refused(ada: Desk, federation: Federation) -> None:
    bob = federation.server.api(federation.bob.tokens()["access_token"])
    answer = bob.post("/machines", json={"image": "tools", "vo": VO})
    assert answer.json()["code"] == "identity.no_vo"
    answer = bob.post("/machines", json={"image": "tools"})
    assert answer.json()["code"] == "images.not_found"
    assert ada.api.get("/machines").json()["items"] == []


def _project(federation: Federation) -> str:
    with federation.connect(federation.ada.tokens()["access_token"]) as cloud:
        found = cloud.session.get(f"{federation.auth_url}/auth/projects").json()["projects"]
    return str(next(one["id"] for one in found if one.get("egi.VO") == VO))
