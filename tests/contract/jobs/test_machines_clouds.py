"""Jobs on machines of clouds that are there: EC2 as moto serves it, and a real OpenStack.

No guest runs at either, so the test speaks for the guest: with the ticket that its user data has at the provider.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hansa.images.wire import ImagePolicy
from hansa.kernel.database import Database
from hansa.machines.drivers.base import Life, Machines
from hansa.sites.wire import Flavour, VmImage
from tests.contract.machines.conftest import Place, ec2_place, openstack_place
from tests.support.vmworld import VmWorld

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
DEADLINE_S = 240.0
CLOUD = "NEBULA/cloud"


@dataclass(frozen=True)
class Kind:
    """How a cloud of a kind is tested: its place, its flavours, the image of the endpoint, and how to look at it."""

    place: Callable[[pytest.FixtureRequest], AsyncIterator[Place]]
    flavours: tuple[Flavour, ...]
    image: str | None
    look: Callable[[Any, Machines], Any]


async def _at_ec2(machine: Any, driver: Any) -> tuple[dict[str, str], bytes]:
    """Its tags, and its user data, as the cloud has them."""

    def work(api: Any) -> tuple[dict[str, str], bytes]:
        (node,) = api.list_nodes(ex_filters={"tag:hansa_key": machine.id})
        params = {"Action": "DescribeInstanceAttribute", "InstanceId": node.id, "Attribute": "userData"}
        found = api.connection.request(api.path, params=params).object
        value = next(one.text for one in found.iter() if one.tag.endswith("}value"))
        return node.extra["tags"], base64.b64decode(value)

    return await driver._ask(work)  # type: ignore[no-any-return]


async def _at_openstack(machine: Any, driver: Any) -> tuple[dict[str, str], bytes]:
    def work(api: Any) -> tuple[dict[str, str], bytes]:
        (server,) = api.compute.servers(tags=f"hansa-{machine.id}")
        return server.metadata, base64.b64decode(server.user_data)

    return await driver.cloud.call(work)  # type: ignore[no-any-return]


KINDS = {
    "ec2": Kind(ec2_place, (Flavour("t3.micro", "t3.micro", 2, 1024, 0),), "site:ami-12c6146b", _at_ec2),
    "openstack": Kind(openstack_place, (Flavour("s", "m1.small", 1, 2048, 10),), None, _at_openstack),
}


@pytest.fixture(params=["ec2", pytest.param("openstack", marks=[pytest.mark.openstack, pytest.mark.timeout(900)])])
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Kind, Place]]:
    kind = KINDS[request.param]
    async for place in kind.place(request):
        yield kind, place
        await place.driver.close()


async def until(world: VmWorld, fits: Callable[[], Any]) -> Any:
    """The world goes on, its clock with it, until this is so."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not (found := await fits()):
        said = [one.message for one in (*await world.pilots(), *await world.machines())]
        assert asyncio.get_running_loop().time() < deadline, said
        await world.step(1)
        await asyncio.sleep(0.1)
    return found


async def test_a_job_gets_a_machine_at_the_cloud_which_goes_when_it_is_idle(
    database: Database, tmp_path: Path, cloud: tuple[Kind, Place]
) -> None:
    kind, place = cloud
    world = await VmWorld(database, tmp_path).start()
    ada = world.vms.ada
    await world.vms.base.vo("vo.a", ada, world.vms.olga)
    await world.endorse("vo.a")
    world.vms.drivers.real[CLOUD] = place.driver
    settings: dict[str, Any] = {} if kind.image is None else {"image": kind.image}
    if kind.image is not None:
        await world.vms.endorsing.set_policy(world.vms.olga, "vo.a", ImagePolicy(site_images=True))
    images = [VmImage(kind.image.removeprefix("site:"), "debian")] if kind.image else []
    await world.site("NEBULA", "vo.a", flavours=kind.flavours, vm_images=images, **settings)
    number = (await world.jobs.submit(caller=ada, vo="vo.a", cores=1, memory_mib=400)).number

    async def runs() -> Any:
        return next((one for one in await world.machines() if one.phase == "running"), None)

    machine = await until(world, runs)
    (pilot,) = [one for one in await world.pilots() if one.id == machine.pilot_id]
    tags, user_data = await kind.look(machine, place.driver)
    assert (tags["hansa_key"], tags["user"], tags["vo"], tags["name"]) == (machine.id, "ada", "vo.a", machine.name)
    assert world.tickets.of(pilot.id).encode() in user_data
    answer = await world.enrol(pilot.id)
    assert answer.token.encode() not in user_data
    guest = await world.guest(pilot.id)
    assert len(await guest.take(1)) == 1
    await guest.finish()
    assert (await world.jobs.jobs.get(ada, number)).status.phase == "done"
    seen = await place.driver.observe(machine.id)
    assert seen is not None
    assert seen.life is Life.RUNNING, "it waits for more"
    await guest.exchange(ending="idle")

    async def is_gone() -> bool:
        return all(one.phase == "deleted" and one.let_go for one in await world.machines())

    await until(world, is_gone)
    assert machine.id not in await place.driver.list_keys()
    assert await left(place) == []


async def left(place: Place) -> list[str]:
    """What is there of machines. The image that was brought, and the project's own network, stay for the next one."""
    found = await place.leftovers()
    return [one for one in found if one != "hansa" and not one.startswith("debian-")]
