"""Endorsed images come to the sites that support the VO, and go again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from hansa.images.wire import NewEndorsement, NewVersion
from hansa.kernel.errors import Permanent, Temporary
from hansa.kernel.reconcile import Engine
from hansa.machines.drivers.base import Can, Capabilities, Image, Machines, Progress
from hansa.machines.drivers.fake import FakeMachines
from hansa.machines.places import Holder
from hansa.machines.sync import SyncRoom
from hansa.machines.sync_service import SyncService
from hansa.machines.sync_wire import ImagePlace
from hansa.sites.wire import NewEndpoint, NewSite
from tests.support.machineworld import IMAGE, MachineWorld, _content
from tests.support.siteworld import KEYSTONE


class Site(FakeMachines):
    """A cloud's image store: what is there, and what goes wrong next."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[str, Image] = {}
        self.sent = 0
        self.in_use = False
        self.faults: list[Exception] = []
        self.lost: list[Exception] = []
        """Answers that are lost: what was asked has been done."""

    def capabilities(self) -> Capabilities:
        found = super().capabilities()
        return replace(found, can=found.can | {Can.IMAGES})

    async def ensure_image(self, image: Image, name: str) -> str | None:
        if self.faults:
            raise self.faults.pop(0)
        if image.checksum not in self.there:
            self.sent += 1
        self.there[image.checksum] = image
        if self.lost:
            raise self.lost.pop(0)
        return f"glance-{name}"

    async def delete_image(self, checksum: str) -> Progress:
        if self.in_use:
            return Progress.PENDING
        self.there.pop(checksum, None)
        return Progress.DONE


class Sites:
    """The drivers of all sites."""

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        self.holders: list[Holder] = []

    @property
    def local(self) -> Mapping[str, Machines]:
        return {"nspawn": self.site("local/nspawn")}

    def site(self, place: str) -> Site:
        return self.sites.setdefault(place, Site())

    async def at(self, place: str, holder: Holder) -> Machines:
        self.holders.append(holder)
        return self.site(place)


class SyncWorld:
    def __init__(self, world: MachineWorld) -> None:
        self.world, self.sites = world, Sites()
        self.room = SyncRoom(world.database, world.events, world.clock, world.depot, world.images, self.sites)
        self.engine: Engine[Any, Any, Any, Any] = Engine(world.database, world.clock, self.room, chance=lambda: 1.0)

    async def settle(self, seconds: float = 0) -> None:
        await self.room.plan()
        await self.engine.run_until_idle()
        if seconds:
            self.world.clock.advance(seconds)
            await self.settle()

    async def places(self) -> dict[str, ImagePlace]:
        found = (await SyncService(self.world.database).list_places(self.world.olga)).items
        return {f"{one.image}@{one.version} {one.place} {one.vo}": one for one in found}


@pytest.fixture
async def sync(world: MachineWorld) -> SyncWorld:
    one = SyncWorld(world)
    for name in ("vo.a", "vo.b"):
        await world.base.vo(name, world.ada)
    end = NewEndpoint("openstack", name="cloud", url=KEYSTONE, vos={"vo.a": None}, settings={"image_sync": True})
    await world.base.registry.add(world.olga, NewSite("cern", [end]))
    other = NewEndpoint("openstack", name="cloud", url=KEYSTONE, vos={"vo.a": None})
    await world.base.registry.add(world.olga, NewSite("shy", [other]))
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    return one


async def test_an_endorsed_image_comes_to_the_sites_of_the_vo_that_take_images(sync: SyncWorld) -> None:
    await sync.settle()
    found = await sync.places()
    assert {name: one.status.phase for name, one in found.items()} == {
        "debian@1 cern/cloud vo.a": "there",
        "debian@1 local/nspawn vo.a": "there",
    }
    assert found["debian@1 cern/cloud vo.a"].provider_id == "glance-debian-1"
    image = next(iter(sync.sites.site("cern/cloud").there.values()))
    assert image.path is not None
    assert image.path.is_file()
    assert {one.vo for one in sync.sites.holders} == {"vo.a"}
    assert {one.owner_id for one in sync.sites.holders} == {"hansa"}, "no user's own token is used"
    await sync.settle(7 * 3600)
    assert sync.sites.site("cern/cloud").sent == 1


async def test_a_new_version_takes_the_place_of_the_old_one(sync: SyncWorld) -> None:
    await sync.settle()
    world = sync.world
    await world.images.add_version(world.olga, IMAGE, NewVersion("2", upload=True))
    await sync.settle()
    assert "debian@1 cern/cloud vo.a" in await sync.places(), "as long as the new one is not ready"

    async def other() -> Any:
        async for piece in _content():
            yield piece + bytes(65536)

    await world.images.upload(world.olga, IMAGE, "2", other())
    await sync.settle()
    assert set(await sync.places()) == {"debian@2 cern/cloud vo.a", "debian@2 local/nspawn vo.a"}
    assert len(sync.sites.site("cern/cloud").there) == 1


async def test_what_is_withdrawn_goes_when_nothing_uses_it(sync: SyncWorld) -> None:
    await sync.settle()
    site = sync.sites.site("cern/cloud")
    site.in_use = True
    await sync.world.images.withdraw(sync.world.olga, IMAGE, "1", "CVE")
    await sync.room.plan()
    status = (await sync.places())["debian@1 cern/cloud vo.a"].status
    assert (status.phase, status.reason) == ("leaving", "images.leaving"), "told at once, not when it is gone"
    await sync.settle()
    found = await sync.places()
    assert found["debian@1 cern/cloud vo.a"].status.phase == "leaving"
    assert found["debian@1 cern/cloud vo.a"].status.reason == "images.in_use"
    site.in_use = False
    await sync.settle(120)
    assert await sync.places() == {}
    assert site.there == {}


async def test_a_content_that_another_vo_needs_stays(sync: SyncWorld) -> None:
    world = sync.world
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.b", follow=True))
    await sync.settle()
    await world.endorsing.revoke(world.olga, IMAGE, "vo.b")
    await sync.settle(120)
    assert set(await sync.places()) == {"debian@1 cern/cloud vo.a", "debian@1 local/nspawn vo.a"}
    assert sync.sites.site("local/nspawn").there


async def test_a_site_that_is_away_is_asked_again_and_one_that_refuses_says_why(sync: SyncWorld) -> None:
    sync.sites.site("cern/cloud").faults = [Temporary("It is away.", 5), Permanent("No qcow2 here.")]
    await sync.settle()
    one = (await sync.places())["debian@1 cern/cloud vo.a"]
    assert (one.status.phase, one.status.message) == ("waiting", "It is away.")
    await sync.settle(10)
    one = (await sync.places())["debian@1 cern/cloud vo.a"]
    assert (one.status.phase, one.status.message) == ("failed", "No qcow2 here.")
    await sync.settle(2 * 3600)
    assert (await sync.places())["debian@1 cern/cloud vo.a"].status.phase == "there"


async def test_what_arrived_unnoticed_goes_too(sync: SyncWorld) -> None:
    site = sync.sites.site("cern/cloud")
    site.lost = [Temporary("The connection broke.", 3600)]
    await sync.settle()
    assert site.there
    assert (await sync.places())["debian@1 cern/cloud vo.a"].provider_id is None
    await sync.world.endorsing.revoke(sync.world.olga, IMAGE, "vo.a")
    await sync.settle(120)
    assert site.there == {}
    assert await sync.places() == {}


async def test_with_a_site_go_its_rows(sync: SyncWorld) -> None:
    await sync.settle()
    sync.sites.site("cern/cloud").faults = [Permanent("It is gone.")] * 9
    await sync.world.base.registry.remove(sync.world.olga, "cern")
    await sync.settle(120)
    assert set(await sync.places()) == {"debian@1 local/nspawn vo.a"}
