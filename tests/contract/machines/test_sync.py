"""Endorsed images come to the sites that support the VO, and go again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.images.wire import ImagePolicy, NewEndorsement, NewVersion
from hansa.kernel.errors import Fault, Permanent, Temporary
from hansa.kernel.reconcile import Engine
from hansa.machines.drivers.base import Can, Capabilities, Image, Machines, Progress, Refused, Why
from hansa.machines.drivers.fake import FakeMachines
from hansa.machines.places import Holder
from hansa.machines.sync import SyncRoom
from hansa.machines.sync_service import SyncService
from hansa.machines.sync_wire import ImagePlace
from hansa.machines.wire import NewMachine, Resize
from hansa.sites import store as site_store
from hansa.sites.steering import SteeringService
from hansa.sites.wire import NewAccess, NewBan, NewEndpoint, NewSite, SitePolicy
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

    async def bases(self) -> dict[str, int]:
        return {name.removeprefix("sha256:"): int(self.in_use) for name in self.there}

    async def remove_base(self, sha256: str) -> bool:
        if not self.in_use:
            self.there.pop(f"sha256:{sha256}", None)
        return not self.in_use

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
        self.asked: list[tuple[str, Holder]] = []

    @property
    def local(self) -> Mapping[str, Machines]:
        return {"nspawn": self.site("local/nspawn")}

    def site(self, place: str) -> Site:
        return self.sites.setdefault(place, Site())

    async def at(self, place: str, holder: Holder) -> Machines:
        self.holders.append(holder)
        self.asked.append((place, holder))
        return self.site(place)


class SyncWorld:
    def __init__(self, world: MachineWorld) -> None:
        self.world, self.sites = world, Sites()
        self.room = SyncRoom(world.database, world.events, world.clock, world.depot, world.images, self.sites)
        self.steering = SteeringService(world.database, world.events, world.clock)
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
    end = NewEndpoint("openstack", name="cloud", url=KEYSTONE, vos={"vo.a": None})
    await world.base.registry.add(world.olga, NewSite("cern", [end]))
    other = replace(end, settings={"image_sync": False})
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


async def test_who_does_not_want_images_gets_none(sync: SyncWorld) -> None:
    """An endpoint says no, a VO at an endpoint says no, and what somebody keeps for himself has to say yes."""
    world, registry = sync.world, sync.world.base.registry
    one = NewEndpoint("openstack", name="cloud", url=KEYSTONE, vos={"vo.a": None, "vo.b": None})
    mixed = replace(one, vos={"vo.a": NewAccess(settings={"image_sync": False}), "vo.b": None})
    await registry.add(world.olga, NewSite("asked", [one]))
    await registry.add(world.olga, NewSite("mixed", [mixed]))
    await registry.add(world.ada, NewSite("private", [one], visibility="owner"))
    await registry.add(world.ada, NewSite("lent", [replace(one, settings={"image_sync": True})], visibility="owner"))
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.b", follow=True))
    await sync.settle()
    found = {name.removeprefix("debian@1 ") for name in await sync.places()}
    assert {name for name in found if not name.startswith("local")} == {
        "cern/cloud vo.a", "asked/cloud vo.a", "asked/cloud vo.b", "mixed/cloud vo.b", "lent/cloud vo.a",
        "lent/cloud vo.b",
    }  # fmt: skip


async def test_a_sites_policy_keeps_images_out_and_takes_them_away(sync: SyncWorld) -> None:
    world, site = sync.world, sync.sites.site("strict/cloud")
    end = NewEndpoint("openstack", name="cloud", url=KEYSTONE, vos={"vo.a": None})
    await world.base.registry.add(world.olga, NewSite("strict", [end], policy=SitePolicy(vm_images_denied=["deb*"])))
    name = "debian@1 strict/cloud vo.a"

    async def settled() -> tuple[str, str, int]:
        await sync.settle()
        status = (await sync.places())[name].status
        return status.phase, status.reason, len(site.there)

    assert await settled() == ("refused", "sites.image_denied", 0)
    assert ("strict/cloud", "vo.a") not in {(place, one.vo) for place, one in sync.sites.asked}, "it is not even asked"
    await sync.steering.set_policy(world.olga, "strict", SitePolicy())
    assert await settled() == ("there", "images.there", 1)
    site.in_use = True
    await sync.steering.set_policy(world.olga, "strict", SitePolicy(vm_images=["other"]))
    assert await settled() == ("leaving", "images.in_use", 1)
    site.in_use = False
    await sync.settle(120)
    assert await settled() == ("refused", "sites.image_denied", 0)
    sent = site.sent
    await sync.settle(3 * 86_400)
    assert site.sent == sent
    await sync.steering.set_policy(world.olga, "strict", SitePolicy())
    await sync.steering.ban(world.olga, "strict", NewBan("vo", "vo.a", "abuse"))
    assert await settled() == ("refused", "sites.vo_banned", 0)


async def test_a_site_that_forbids_uploads_says_so_once_and_is_asked_seldom(sync: SyncWorld) -> None:
    site = sync.sites.site("cern/cloud")
    site.faults = [Permanent("403: policy does not allow image:upload_image")] * 1000
    await sync.settle()
    status = (await sync.places())["debian@1 cern/cloud vo.a"].status
    assert (status.phase, status.reason, status.waiting_on) == ("failed", "images.refused_there", "site")
    for _ in range(14 * 24):
        await sync.settle()
        sync.world.clock.advance(3600)
    asked = 1000 - len(site.faults)
    assert asked < 24, f"{asked} times in a fortnight"
    site.faults = [Refused(Why.SIGN_IN, "There is nothing to sign in with at cern for vo.a.")] * 99
    await sync.settle(86_400)
    status = (await sync.places())["debian@1 cern/cloud vo.a"].status
    assert (status.reason, status.waiting_on) == ("images.no_credential", "vo_manager")
    assert "hansa vo credential set vo.a cern" in status.message
    site.faults.clear()
    await sync.settle(1200)
    assert (await sync.places())["debian@1 cern/cloud vo.a"].status.phase == "there"


async def test_this_computer_keeps_nothing_that_nobody_may_start(sync: SyncWorld) -> None:
    """What a machine without an organisation brought here was never in the table."""
    await sync.settle()
    here = sync.sites.site("local/nspawn")
    good = set(here.there)
    here.there["sha256:" + "0" * 64] = Image("sha256:" + "0" * 64)
    await sync.room.tidy()
    assert len(here.there) == 2, "it was looked at a moment ago"
    here.in_use = True
    for in_use, left in ((True, 2), (False, 1)):
        here.in_use = in_use
        sync.world.clock.advance(3601)
        await sync.room.tidy()
        assert len(here.there) == left
    assert set(here.there) == good


async def test_a_cloud_to_which_no_image_can_be_sent_is_no_place_for_one_of_the_catalogue(sync: SyncWorld) -> None:
    world, settings = sync.world, {"provider": "ec2", "region": "eu-north-1"}
    end = NewEndpoint("libcloud", "cloud", None, vos={"vo.a": None}, settings=settings)
    await world.base.registry.add(world.olga, NewSite("amazon", [end]))
    with pytest.raises(Fault, match="amazon is sent no VM images") as fault:
        await world.service.create(world.ada, NewMachine(IMAGE, "web", vo="vo.a", sites=["amazon"]))
    assert "site:NAME" in str(fault.value.hint)


async def test_who_takes_no_images_is_sent_none_on_demand_either(sync: SyncWorld) -> None:
    """Not for a machine that is asked for there, nor for one that was asked for before the site said no."""
    world, shy, cern = sync.world, Site(), Site()
    world.drivers.real |= {"shy/cloud": shy, "cern/cloud": cern}
    wish = NewMachine(IMAGE, "web", vo="vo.a", sites=["shy"])
    with pytest.raises(Fault, match=r"shy takes no VM images from here for vo\.a") as fault:
        await world.service.create(world.ada, wish)
    assert "site:NAME" in str(fault.value.hint)
    (judged,) = [one for one in (await world.service.plan(world.ada, wish)).refused if one.site == "shy"]
    assert "(image_sync: false of its endpoint cloud)" in judged.reasons[0]
    await world.create("here", vo="vo.a", sites=["cern"])
    await world.settle()
    assert (await world.get("here")).status.phase == "running"
    assert cern.sent == 1
    await world.create("late", vo="vo.a", sites=["cern"])
    async with world.database.begin() as tx:
        (end,) = await site_store.endpoints_of(tx, ["cern"])
        await site_store.set_vos(tx, end.id, [access_row("vo.a", {"image_sync": False})])
    cern.there.clear()
    await world.settle(60)
    late = await world.get("late")
    assert (late.status.phase, "takes no VM images" in late.status.message) == ("failed", True), late.status
    assert (shy.sent, cern.sent) == (0, 1)
    await world.service.resize(world.ada, "here", Resize(flavour="medium"))
    await world.settle(30)
    assert (await world.get("here")).size.memory_mib == 4096, "what runs goes on, and needs no image"
    await world.endorsing.set_policy(world.olga, "vo.a", ImagePolicy(site_images=True))
    await world.create("own", image="site:cirros", vo="vo.a", sites=["shy"])
    await world.settle()
    assert (await world.get("own")).status.phase == "running"
    assert shy.sent == 0


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
async def test_a_site_gets_the_format_that_it_takes_ahead_and_on_demand(sync: SyncWorld, tmp_path: Path) -> None:
    world = sync.world
    disk = tmp_path / "real.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)

    async def content() -> Any:
        yield disk.read_bytes()

    await world.images.add_version(world.olga, IMAGE, NewVersion("2", upload=True))
    await world.images.upload(world.olga, IMAGE, "2", content())
    end = NewEndpoint("openstack", name="cloud", url=KEYSTONE, vos={"vo.a": None}, settings={"image_formats": ["raw"]})
    await world.base.registry.add(world.olga, NewSite("ceph", [end]))
    await sync.settle()
    (ahead,) = sync.sites.site("ceph/cloud").there.values()
    (as_it_is,) = sync.sites.site("cern/cloud").there.values()
    world.drivers.real["ceph/cloud"] = ceph = Site()
    await world.create("web", vo="vo.a", sites=["ceph"])
    await world.settle(5)
    assert (await world.get("web")).status.phase == "running"
    (on_demand,) = ceph.there.values()
    assert as_it_is.format == "qcow2"
    for image in (ahead, on_demand):
        assert image.format == "raw"
        assert image.path is not None
        assert image.path.stat().st_size == 1024**2
        assert image.checksum == as_it_is.checksum, "found again by what the catalogue pins"


def access_row(vo: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"vo": vo, "project": None, "settings": settings}
