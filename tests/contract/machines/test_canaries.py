"""Canaries at clouds, by every driver that has images of its own: one machine, seen active, and gone again."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from hansa.engines.egress import EgressPolicy
from hansa.images.wire import NewEndorsement
from hansa.kernel.errors import Temporary
from hansa.kernel.reconcile import Engine
from hansa.kernel.settings import SiteSettings
from hansa.machines.canaries import PREFIX, CanaryStarters, MachineCanaries, started_since
from hansa.machines.drivers.base import MachineSpec
from hansa.machines.drivers.fake import FakeCloud, FakeMachines, Fault
from hansa.machines.libcloud_site import build as build_libcloud
from hansa.sites import store as site_store
from hansa.sites.controller import EndpointRoom
from hansa.sites.kinds.base import Target, kind_of
from hansa.sites.registry import SiteRegistry
from hansa.sites.reports import ReportService
from hansa.sites.steering import SteeringService
from hansa.sites.wire import CanaryView, Facts, Flavour, NewEndpoint, NewSite, SitePolicy, VmImage
from tests.support.ec2 import ec2_server
from tests.support.fakekind import FakeKind, public
from tests.support.machineworld import IMAGE, MachineWorld
from tests.support.mortal import Crash
from tests.support.siteworld import KEYSTONE

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HOUR_S = 3600.0
SITE = "NEBULA"
FACTS = Facts(
    flavours=[Flavour("l", "large", 4, 8192, 40), Flavour("t", "tiny", 1, 512, 5), Flavour("g", "gpu", 1, 256, 5, 1)],
    vm_images=[VmImage("i1", "debian-12", is_public=True, size_bytes=900), VmImage("i2", "mine", size_bytes=1)],
)


class Cloud:
    """A site that agreed to canaries; its cloud is the fake one, its clock is everybody's."""

    def __init__(self, world: MachineWorld) -> None:
        self.world = world
        self.cloud = FakeCloud()
        self.calls: list[str] = []
        self.dies_at: int | None = None
        self.kind = FakeKind(facts=FACTS)
        self.at_once = 0
        """The most canaries that there ever were at a time."""
        self.policy = SitePolicy(canaries=True)
        self.steering = SteeringService(world.database, world.events, world.clock)
        self.engine = self._engine()

    async def start(self, **more: Any) -> Cloud:
        end = NewEndpoint("openstack", "cloud", KEYSTONE, vos={"vo.a": None}, **more)
        await self.world.base.registry.add(self.world.olga, NewSite(SITE, [end], policy=self.policy))
        return self

    def _before(self, call: str) -> None:
        self.calls.append(call)
        self.at_once = max(self.at_once, len(self.cloud.machines))
        if self.dies_at is not None and len(self.calls) == self.dies_at:
            raise Crash

    def _engine(self) -> Engine[str, Any, Any, Any]:
        async def build(_target: Target, _holder: Any) -> FakeMachines:
            return FakeMachines(self.cloud, self._before)

        async def sleep(_seconds: float) -> None:
            return None

        world = self.world
        canaries = MachineCanaries(world.database, world.clock, self.kind, build, 1800, 1, sleep)
        room = EndpointRoom(
            lambda _: self.kind, world.events, world.clock, world.base.vault, SiteSettings(canary_s=HOUR_S),
            EgressPolicy(resolve=public), timer=lambda: 0.0, started_since=started_since,
            canaries_of=CanaryStarters({"openstack": canaries}),
        )  # fmt: skip
        return Engine(world.database, world.clock, room, chance=lambda: 0.0)

    async def go_on(self, seconds: float, step_s: float = 30) -> None:
        for _ in range(round(seconds / step_s)):
            self.world.clock.advance(step_s)
            await self.engine.run_once()
            self.at_once = max(self.at_once, len(self.cloud.machines))

    async def crash(self) -> None:
        self.dies_at = None
        self.engine = self._engine()
        async with self.world.database.begin() as tx:
            await self.engine.queue.take_over(tx, self.world.clock.now())

    async def canaries(self) -> list[CanaryView]:
        reports = ReportService(self.world.database, self.world.clock, 400)
        return (await reports.health(self.world.olga, SITE, 30)).endpoints[0].canaries

    async def health(self) -> Any:
        async with self.world.database.read() as tx:
            (row,) = await site_store.endpoints_of(tx, [SITE])
        return row


@pytest.fixture
async def cloud(world: MachineWorld) -> Cloud:
    return await Cloud(world).start()


async def test_one_is_started_seen_active_and_deleted_and_enters_the_history(cloud: Cloud) -> None:
    await cloud.go_on(1.3 * HOUR_S, 60)
    found = await cloud.canaries()
    assert [(one.number, one.state) for one in found] == [(2, "ran"), (1, "ran")]
    assert "A machine (tiny) was active" in found[0].message
    assert cloud.at_once == 1
    assert cloud.cloud.machines == {}
    assert cloud.cloud.addresses == {}


async def test_none_is_started_where_the_site_has_not_agreed(world: MachineWorld) -> None:
    cloud = Cloud(world)
    cloud.policy = SitePolicy()
    await cloud.start()
    await cloud.go_on(3 * HOUR_S, 300)
    assert cloud.calls == []


async def test_what_is_made_is_small_tagged_and_has_no_key_and_an_end(cloud: Cloud) -> None:
    cloud.cloud.build_s = HOUR_S
    while not cloud.cloud.machines:
        await cloud.go_on(30)
    (made,) = cloud.cloud.machines.values()
    assert made.key.startswith(PREFIX)
    assert (made.spec.size.flavour, made.spec.image.provider_id) == ("tiny", "i1")
    assert made.spec.tags == {"hansa": "canary", "vo": "vo.a"}
    assert (made.spec.ssh_keys, made.spec.user_data) == ((), b"")
    assert made.spec.expires is not None


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.LATE, Fault.AWAY])
async def test_an_answer_that_is_lost_makes_no_second_machine(cloud: Cloud, fault: Fault) -> None:
    cloud.cloud.faults = [fault]
    await cloud.go_on(HOUR_S)
    assert [(one.number, one.state) for one in await cloud.canaries()] == [(1, "ran")]
    assert cloud.cloud.machines == {}


async def test_one_that_was_made_twice_is_deleted_twice(cloud: Cloud) -> None:
    cloud.cloud.faults = [Fault.DUPLICATE]
    await cloud.go_on(HOUR_S)
    assert [one.state for one in await cloud.canaries()] == ["ran"]
    assert cloud.cloud.machines == {}


async def test_a_build_that_fails_is_deleted_and_two_take_the_endpoint_out(cloud: Cloud) -> None:
    cloud.cloud.faults = [Fault.FAILS] * 20
    while (row := await cloud.health()).phase != "down":
        await cloud.go_on(30)
    assert row.reason == "sites.canary_failed"
    assert len(await cloud.canaries()) >= 2
    assert "A machine became failed in place of active" in row.message
    cloud.cloud.faults.clear()
    while (await cloud.health()).phase != "up":
        await cloud.go_on(30)
    assert [one.state for one in await cloud.canaries()][:2] == ["ran", "failed"]
    assert cloud.cloud.machines == {}


@pytest.mark.parametrize("fault", [Fault.QUOTA, Fault.NO_HOST])
async def test_a_cloud_that_is_full_is_not_blamed(cloud: Cloud, fault: Fault) -> None:
    cloud.cloud.faults = [fault]
    await cloud.go_on(HOUR_S)
    assert [one.state for one in await cloud.canaries()] == ["withdrawn"]
    assert (await cloud.health()).phase == "up"


async def test_one_that_is_built_for_ever_is_taken_back(cloud: Cloud) -> None:
    cloud.cloud.build_s = 1e9
    await cloud.go_on(2 * HOUR_S)
    assert [one.state for one in await cloud.canaries()] == ["withdrawn"]
    assert cloud.at_once == 1
    assert cloud.cloud.machines == {}


async def test_at_an_ec2(world: MachineWorld) -> None:
    """By the whole way: the endpoint's own kind and driver, against moto."""
    own = {"key": "AKIAHANSA", "secret": "hush-hush-hush"}
    loopback = EgressPolicy(allow_private=True)
    registry = SiteRegistry(
        world.database, world.events, world.clock, world.base.vault, is_embedded=True, egress=loopback
    )
    settings = {"provider": "ec2", "region": "us-east-1", "image_owner": "amazon", "canary_flavour": "t3.micro"}
    with ec2_server() as url:
        end = NewEndpoint("libcloud", "cloud", url, vos={"vo.a": None}, settings=settings, credential=own)
        await registry.add(world.olga, NewSite(SITE, [end], policy=SitePolicy(canaries=True)))
        canaries = MachineCanaries(world.database, world.clock, kind_of("libcloud"), build_libcloud, 1e9)
        room = EndpointRoom(
            kind_of, world.events, world.clock, world.base.vault, SiteSettings(canary_s=HOUR_S), loopback,
            canaries_of=CanaryStarters({"libcloud": canaries}),
        )  # fmt: skip
        engine = Engine(world.database, world.clock, room, chance=lambda: 0.0)
        reports = ReportService(world.database, world.clock, 400)
        for _ in range(100):
            if told := (await reports.health(world.olga, SITE, 30)).endpoints[0].canaries:
                break
            world.clock.advance(30)
            await engine.run_once()
        assert [one.state for one in told] == ["ran"], told
        ec2: Any = boto3.client(
            "ec2", "us-east-1", endpoint_url=url, aws_access_key_id=own["key"], aws_secret_access_key=own["secret"]
        )
        made = [one for each in ec2.describe_instances()["Reservations"] for one in each["Instances"]]
        ours = [one for one in made if any(PREFIX in tag["Value"] for tag in one.get("Tags", ()))]
        assert {one["State"]["Name"] for one in ours} <= {"terminated", "shutting-down"}
        assert {one["InstanceType"] for one in ours} <= {"t3.micro"}


async def test_a_kill_before_any_call_leaves_one_machine_at_most_and_at_last_none(world: MachineWorld) -> None:
    """At each call to the cloud in turn, until a canary comes through without meeting the kill."""
    cloud = await Cloud(world).start()
    for at in range(1, 100):
        cloud.calls, cloud.dies_at = [], at
        before = len(await cloud.canaries())
        try:
            while len(await cloud.canaries()) == before:
                await cloud.go_on(30)
        except BaseExceptionGroup:
            await cloud.crash()
            while len(told := await cloud.canaries()) == before:
                await cloud.go_on(30)
            assert len(told) == before + 1
            assert told[0].state == "ran"
            assert cloud.cloud.machines == {}
            assert cloud.at_once == 1
            cloud.world.clock.advance(HOUR_S - 300)
        else:
            break
    assert at > 4, "there are calls to die at: looking for others, for it, making it, deleting it"


async def test_after_a_kill_one_is_taken_back_though_the_site_wants_none_any_more(cloud: Cloud) -> None:
    cloud.dies_at = 1000
    real = FakeMachines.ensure

    async def dies(self: FakeMachines, spec: MachineSpec, key: str) -> Any:
        await real(self, spec, key)
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeMachines, "ensure", dies)
        with pytest.raises(BaseExceptionGroup):
            await cloud.go_on(600)
    assert len(cloud.cloud.machines) == 1
    await cloud.steering.set_policy(cloud.world.olga, SITE, SitePolicy())
    await cloud.crash()
    await cloud.go_on(600)
    assert cloud.cloud.machines == {}
    assert [one.state for one in await cloud.canaries()] == ["withdrawn"]
    await cloud.go_on(3 * HOUR_S, 300)
    assert cloud.calls.count("ensure") == 1


async def test_where_a_machine_of_somebodys_became_active_none_is_sent(cloud: Cloud) -> None:
    world = cloud.world
    await world.base.vo("vo.a", world.ada)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    await cloud.engine.run_once()
    await world.create(vo="vo.a", sites=[SITE])
    await world.settle(60)
    await cloud.go_on(HOUR_S - 600, 300)
    assert cloud.calls == []
    await cloud.go_on(HOUR_S, 300)
    assert [one.state for one in await cloud.canaries()] == ["ran"]


async def test_a_site_is_not_forgotten_with_a_canary_in_it(cloud: Cloud) -> None:
    cloud.cloud.build_s = 1e9
    while not cloud.cloud.machines:
        await cloud.go_on(30)
    with pytest.raises(Exception, match="A canary is out") as refused:
        await cloud.world.base.registry.remove(cloud.world.olga, SITE)
    assert "hansa site drain" in str(refused.value.hint)  # type: ignore[attr-defined]
    await cloud.steering.drain(cloud.world.olga, SITE, "")
    await cloud.go_on(120)
    assert cloud.cloud.machines == {}
    await cloud.world.base.registry.remove(cloud.world.olga, SITE)


async def test_a_cloud_that_does_not_delete_is_asked_until_it_does(cloud: Cloud) -> None:
    real = FakeMachines.delete

    async def refuses(self: FakeMachines, key: str) -> Any:
        raise Temporary("Not now.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeMachines, "delete", refuses)
        await cloud.go_on(1.5 * HOUR_S, 60)
        assert len(cloud.cloud.machines) == 1
        assert await cloud.canaries() == []
    assert FakeMachines.delete is real
    await cloud.go_on(120)
    assert cloud.cloud.machines == {}
    (told,) = await cloud.canaries()
    assert told.state == "ran"
