"""Drivers of machines for the contract suite. A driver is one function in ``PLACES``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from hansa.engines.libcloud import Account, call
from hansa.engines.openstack import Clouds, Password
from hansa.engines.openstack import Place as OpenstackPlace
from hansa.kernel.database import Database
from hansa.machines.drivers.base import Image, Machines, MachineSpec, Size
from hansa.machines.drivers.ec2 import Ec2Machines
from hansa.machines.drivers.fake import FakeCloud, FakeMachines
from hansa.machines.drivers.libcloud import LibcloudMachines
from hansa.machines.drivers.openstack import OpenstackMachines
from hansa.machines.drivers.qemu.driver import Qemu
from tests.support.ec2 import ec2_server
from tests.support.machineworld import MachineWorld
from tests.support.nspawn import image, nspawn_place, qemu_folder
from tests.support.occi import serve_occi
from tests.support.openstack.cloud import Cloud
from tests.support.openstack.contents import IMAGE as OS_IMAGE
from tests.support.openstack.fixtures import fill_snapshots
from tests.support.openstack.layout import PASSWORD

SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1OJRCZQcMvJ4Kt1VWb6zF0Qf3FT1cB6JbSrTBtsGyC test"
_WORDS = """Cloud-init v. 23.4 running 'init'
cloud-init[612]: ERROR: No module named 'numpy'
Cloud-init v. 23.4 finished at Thu, 26 Nov 2026 20:00:00 +0000. Up 9 seconds"""
IMAGE = Image(f"sha256:{'0' * 64}", provider_id="fake-image")


@dataclass
class Place:
    """A driver; how a new process would make it; what it starts; and how to see that nothing is left."""

    driver: Machines
    reborn: Machines
    """A second driver of the same place, as a server makes it after a crash."""
    spec: MachineSpec
    other_size: Size
    """A size that machines there can be given."""
    deadline_s: float = 120.0
    leftovers: Callable[[], Awaitable[list[str]]] = field(default=lambda: _nothing())
    """What is left at the place of machines, in words; empty when all is deleted."""
    hypervisor: Callable[[], Awaitable[None]] = field(default=lambda: _done())
    """Does what a hypervisor would do now, where the place has none that is real."""
    says: str | None = None
    """What a guest writes on its console whose first boot fails; None: no guest of the place does what it is told."""
    lose: Callable[[str], Awaitable[None]] | None = None
    """From now on the next answer to the creation of a ``machine``, ``volume`` or ``address`` gets lost, once made."""
    opened: Callable[[str], Awaitable[set[tuple[int, int]]]] | None = None
    """What the provider itself says of a machine's key: the ports that are open from outside."""
    speaks: bool = True
    """Whether a console says something within seconds; where not, a test that boots a guest anyway reads it."""


async def _nothing() -> list[str]:
    return []


async def _done() -> None:
    return None


async def fake_place(_request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    cloud = FakeCloud()

    async def leftovers() -> list[str]:
        return [*cloud.machines, *cloud.addresses, *cloud.volumes, *cloud.snapshots, *cloud.networks]

    spec = MachineSpec("contract", IMAGE, Size(1, 512), ssh_keys=("ssh-ed25519 AAAA test",))
    yield Place(FakeMachines(cloud), FakeMachines(cloud), spec, Size(2, 1024), 10.0, leftovers)


async def openstack_place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """The administrator's own project."""
    cloud: Cloud = request.getfixturevalue("openstack_cloud")
    clouds = Clouds()
    password = Password("admin", PASSWORD)
    place = OpenstackPlace(cloud.auth_url)
    (project,) = [one for one in await clouds.at(place, password).projects() if one.name == "admin"]
    here = clouds.at(replace(place, project_id=project.id), password)

    def look(api: Any) -> list[str]:
        made = [*api.compute.servers(), *api.network.security_groups(project_id=project.id), *api.compute.keypairs()]
        images = [one for one in api.image.images() if (one.properties or {}).get("hansa_key")]
        nets = [one for one in api.network.networks() if one.name.startswith("hansa-")]
        return [one.name for one in [*made, *images, *nets, *api.block_storage.volumes()] if one.name != "default"] + [
            one.floating_ip_address for one in api.network.ips()
        ]

    def upload(api: Any) -> None:
        fill_snapshots(api)

    def opened(api: Any, key: str) -> set[tuple[int, int]]:
        (server,) = [one for one in api.compute.servers(details=True) if (one.metadata or {}).get("hansa_key") == key]
        groups = {group for port in api.network.ports(device_id=server.id) for group in port.security_group_ids}
        rules = [one for group in groups for one in api.network.security_group_rules(security_group_id=group)]
        return {
            (one.port_range_min, one.port_range_max)
            for one in rules
            if one.direction == "ingress" and one.remote_ip_prefix and one.port_range_min
        }

    spec = MachineSpec("contract", Image("sha256:", provider_id=OS_IMAGE), Size(1, 512, flavour="m1.tiny"))
    spec = replace(spec, ssh_keys=(SSH_KEY, SSH_KEY))
    first, second = OpenstackMachines(here), OpenstackMachines(here)
    yield Place(
        first,
        second,
        spec,
        Size(1, 2048, flavour="m1.small"),
        180.0,
        lambda: here.call(look),
        lambda: here.call(upload),
        _WORDS,
        lambda what: here.call(lambda api: _lose(api, what)),
        lambda key: here.call(lambda api: opened(api, key)),
    )
    clouds.close()


def _lose(api: Any, what: str) -> None:
    """The next answer of this connection to a creation is read, and then the line is said to have broken."""
    path = {"machine": "/servers", "volume": "/volumes", "address": "/floatingips"}[what]

    class Lossy(HTTPAdapter):
        is_over = False

        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            answer = super().send(request, *args, **options)
            if request.method == "POST" and request.path_url.endswith(path) and not self.is_over:
                self.is_over = True
                answer.close()
                raise requests.ConnectionError("the answer is lost")
            return answer

    api.session.session.get_adapter("http://").close()
    api.session.session.mount("http://", Lossy())


async def ec2_place(_request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """An account at moto's server, which speaks EC2."""

    def look(api: Any) -> list[str]:
        nodes = [one.id for one in api.list_nodes() if one.extra["status"] != "terminated"]
        pairs = [one.name for one in api.list_key_pairs()]
        volumes = [one.id for one in api.list_volumes(ex_filters={"tag-key": "hansa_volume"})]
        groups = [one.name for one in api.ex_get_security_groups() if one.name != "default"]
        return [*nodes, *pairs, *volumes, *groups, *(one.ip for one in api.ex_describe_all_addresses())]

    def opened(api: Any, key: str) -> set[tuple[int, int]]:
        (node,) = api.list_nodes(ex_filters={"tag:hansa_key": key})
        groups = api.ex_get_security_groups(group_ids=[one["group_id"] for one in node.extra["groups"]])
        rules = [rule for group in groups for rule in group.ingress_rules if rule["cidr_ips"]]
        return {(int(one["from_port"]), int(one["to_port"])) for one in rules}

    actions = {"machine": "RunInstances", "volume": "CreateVolume", "address": "AllocateAddress"}
    lost: set[str] = set()

    async def lose(what: str) -> None:
        lost.add(actions[what])

    spec = MachineSpec("contract", Image("", provider_id="ami-12c6146b"), Size(1, 1024, flavour="t3.micro"))
    spec = replace(spec, ssh_keys=(SSH_KEY, SSH_KEY))
    with ec2_server(lost) as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr("moto.ec2.responses.general.SAMPLE_CONSOLE_OUTPUT", _WORDS)
        account = Account("ec2", "testing", "testing", region="us-east-1", url=url)
        first, second = Ec2Machines(account), Ec2Machines(account)
        yield Place(
            first, second, spec, Size(2, 2048), 60.0, lambda: call(account, look), says=_WORDS, lose=lose,
            opened=lambda key: call(account, lambda api: opened(api, key)),
        )  # fmt: skip


async def opennebula_place(_request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """The driver that all other clouds of Libcloud share, at OpenNebula's OCCI as Libcloud speaks it."""
    with serve_occi() as occi:
        options = {"api_version": "3.8"}
        account = Account("opennebula", "ada", "secret", url=occi.url, options=options)

        async def left() -> list[str]:
            return list(occi.machines)

        spec = MachineSpec("contract", Image("", provider_id="debian-12"), Size(1, 1024), ssh_keys=(SSH_KEY,))
        yield Place(LibcloudMachines(account), LibcloudMachines(account), spec, Size(4, 8192), 60.0, left)


async def nspawn(_request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    place = await nspawn_place()
    spec = MachineSpec("contract", image(), Size(1, 512))
    yield Place(place.driver(), place.driver(), spec, Size(2, 768), 120.0, place.driver().leftovers)
    assert await place.clear() == []


async def qemu(_request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    folder = qemu_folder()
    spec = MachineSpec("contract", image(), Size(1, 256))
    drivers = [Qemu(folder, patience_s=1) for _ in range(2)]
    yield Place(drivers[0], drivers[1], spec, Size(2, 320), 300.0, drivers[0].leftovers, speaks=False)
    for key in await drivers[0].list_keys():
        await drivers[0].delete(key)
    assert await drivers[0].leftovers() == []


PLACES: dict[str, tuple[Callable[[pytest.FixtureRequest], AsyncIterator[Place]], list[pytest.MarkDecorator]]] = {
    "fake": (fake_place, []),
    "ec2": (ec2_place, []),
    "opennebula": (opennebula_place, []),
    "openstack": (openstack_place, [pytest.mark.openstack, pytest.mark.timeout(900)]),
    "nspawn": (nspawn, [pytest.mark.root]),
    "qemu": (qemu, []),
}
"""By name of driver: how its place is made, and the marks of its tests (``pytest.mark.root``)."""


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in PLACES.items()])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    make, _ = PLACES[request.param]
    async for one in make(request):
        yield one
        await one.driver.close()
        await one.reborn.close()


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> MachineWorld:
    return await MachineWorld(database, tmp_path / "images").start()
