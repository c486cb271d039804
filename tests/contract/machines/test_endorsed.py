"""What a VO has not endorsed cannot be started in its name, whatever the route; and a site's word on images rules."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from hansa.images.wire import ImagePolicy, NewEndorsement, NewImage, NewVersion
from hansa.kernel.errors import Fault
from hansa.machines.volume_wire import NewSnapshot
from hansa.machines.wire import NewMachine, Resize
from hansa.sites import store as site_store
from tests.support.machineworld import DIGEST, IMAGE, MachineWorld, _content

VO = "vo.a"
GLANCE_ID = "0c2f0d1c-6f6b-4b8f-9a65-5f9e9a2a9e11"


async def other_content(salt: bytes) -> Any:
    async for piece in _content():
        yield piece + salt.ljust(65536, b"\0")


async def add(world: MachineWorld, who: Any, name: str, salt: bytes = b"other", **more: Any) -> None:
    await world.images.add(who, NewImage(name, NewVersion("1", upload=True), **more))
    await world.images.upload(who, name, "1", other_content(salt))


@pytest.fixture
async def vo(world: MachineWorld) -> MachineWorld:
    """Ada and Bob are in the VO, which a cloud serves and which has endorsed one version of one image."""
    await world.base.vo(VO, world.ada, world.bob)
    await world.site("cern", VO)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement(VO, version="1"))
    return world


async def refused(world: MachineWorld, image: str, who: Any = None, **more: Any) -> str:
    """The code by which both the plan and the creation refuse it; nothing is made."""
    codes = set()
    for call in (world.service.plan, world.service.create):
        with pytest.raises(Fault) as fault:
            await call(who or world.ada, NewMachine(image, vo=VO, **more))
        codes.add(fault.value.code.code)
    (code,) = codes
    return str(code)


async def test_no_name_leads_to_what_is_not_endorsed(vo: MachineWorld) -> None:
    world, ada = vo, vo.ada
    await add(world, ada, "mine")
    await add(world, world.bob, "his")
    await add(world, world.olga, "public", visibility="all")
    await world.images.add_version(world.olga, IMAGE, NewVersion("2", upload=True))
    await world.images.upload(world.olga, IMAGE, "2", other_content(b"two"))
    (version_id,) = [row.id for row in await versions(world, "mine")]
    assert (await world.create("good", vo=VO)).vo == VO
    attempts = {
        "mine": "images.not_endorsed", "mine@1": "images.not_endorsed", "user/ada/mine": "images.not_endorsed",
        f"user/{ada.user_id}/mine@1": "images.not_endorsed", "public": "images.not_endorsed",
        f"{IMAGE}@2": "images.not_endorsed", "his": "images.not_found", "user/bob/his": "images.not_found",
        f"user/{world.bob.user_id}/his@1": "images.not_found", version_id: "images.not_found",
        f"sha256:{DIGEST}": "images.not_found", f"mine@sha256:{DIGEST}": "images.not_endorsed",
        f"{IMAGE}@sha256:{DIGEST}": "images.not_found", "https://example.org/x.qcow2": "images.not_found",
        "oci://registry.example.org/x:1": "images.not_found", "/etc/shadow": "images.not_found",
        f"site:{GLANCE_ID}": "machines.bad_spec", "site:debian": "machines.bad_spec", "": "images.not_found",
    }  # fmt: skip
    found = {image: await refused(world, image) for image in attempts}
    assert found == attempts
    # A name of one's own that is like the endorsed one's is not taken for it.
    await add(world, ada, IMAGE, b"mine")
    assert await refused(world, IMAGE) == "images.not_endorsed"
    assert len((await world.service.list_machines(ada, None, 100)).items) == 1


async def versions(world: MachineWorld, name: str) -> Any:
    from hansa.images import store

    async with world.database.read() as tx:
        image = await world.images.find(tx, world.ada, name)
        return await store.versions_of(tx, [image.id])


async def test_a_snapshot_is_endorsed_as_any_other_image_and_others_cannot_name_it(vo: MachineWorld) -> None:
    world = vo
    await world.create("web", vo=VO)
    await world.settle(5)
    await world.snapshots.create(world.ada, "web", NewSnapshot("gold"))
    await world.settle(5)
    assert await refused(world, "gold") == "images.not_endorsed"
    for name in ("gold", "user/ada/gold", f"user/{world.ada.user_id}/gold@1"):
        assert await refused(world, name, world.bob) == "images.not_found"
    # Resized, restarted and rebooted it stays what it was started of.
    await world.service.resize(world.ada, "web", Resize(flavour="medium"))
    await world.settle(30)
    assert (await world.row()).image["checksum"] == f"sha256:{DIGEST}"


async def test_what_is_taken_back_before_the_machine_is_there_is_not_started(vo: MachineWorld) -> None:
    world = vo
    await world.create("late", vo=VO, sites=["cern"])
    await world.endorsing.revoke(world.olga, IMAGE, VO)
    await world.settle(30)
    late = await world.get("late")
    assert (late.status.phase, "does not endorse" in late.status.message) == ("failed", True), late.status
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement(VO, version="1", lasts_days=1))
    await world.create("over", vo=VO, sites=["cern"])
    world.clock.advance(timedelta(days=1).total_seconds() + 1)
    await world.settle(30)
    assert (await world.get("over")).status.phase == "failed"
    await world.endorsing.set_policy(world.olga, VO, ImagePolicy(site_images=True))
    await world.create("own", image="site:cirros", vo=VO, sites=["cern"])
    await world.endorsing.set_policy(world.olga, VO, ImagePolicy(site_images=False))
    await world.settle(30)
    assert (await world.get("own")).status.phase == "failed"
    assert not world.drivers.cloud("cern/cloud").machines


async def test_of_a_sites_own_images_only_public_ones_are_started(vo: MachineWorld) -> None:
    world = vo
    await world.endorsing.set_policy(world.olga, VO, ImagePolicy(site_images=True))
    await world.create("theirs", image="site:cirros", vo=VO, sites=["cern"])
    await world.settle()
    (made,) = world.drivers.cloud("cern/cloud").machines.values()
    assert made.spec.image.is_public


async def test_at_a_site_of_ones_own_all_images_are_ones_own(world: MachineWorld) -> None:
    await world.create("home", image="site:cirros")
    await world.settle()
    (made,) = world.drivers.cloud("local/fake").machines.values()
    assert not made.spec.image.is_public


async def test_only_a_version_is_endorsed_of_what_somebody_owns_alone(vo: MachineWorld) -> None:
    world = vo
    await add(world, world.olga, "hers")
    with pytest.raises(Fault, match="any version to it later") as fault:
        await world.endorsing.endorse(world.olga, "hers", NewEndorsement(VO, follow=True))
    assert fault.value.code.code == "images.forbidden"
    await world.endorsing.endorse(world.olga, "hers", NewEndorsement(VO, version="1"))


async def test_a_sites_list_of_images_is_not_met_by_naming_ones_own_like_them(vo: MachineWorld) -> None:
    world = vo
    await world.site("strict", VO, vm_images=["good*", "vo/vo.a/known"])
    for name in ("goodness", "known"):
        await add(world, world.olga, name, name.encode(), vo=VO, visibility="vo")
        await world.endorsing.endorse(world.olga, name, NewEndorsement(VO))
    with pytest.raises(Fault, match="does not let this VM image run"):
        await world.create("bad", image="goodness", vo=VO, sites=["strict"])
    assert (await world.create("fine", image="known", vo=VO, sites=["strict"])).site == "strict"


async def test_a_denied_image_of_the_site_is_denied_by_its_id_too(vo: MachineWorld) -> None:
    world = vo
    await world.site("strict", VO, vm_images_denied=["cirros*"])
    await world.endorsing.set_policy(world.olga, VO, ImagePolicy(site_images=True))
    async with world.database.begin() as tx:
        (endpoint,) = await site_store.endpoints_of(tx, ["strict"])
        facts = {"vm_images": [{"id": GLANCE_ID, "name": "cirros-0.6"}]}
        await site_store.update_endpoint(tx, endpoint.id, facts={VO: facts})
    with pytest.raises(Fault, match="does not let this VM image run"):
        await world.create("bad", image=f"site:{GLANCE_ID}", vo=VO, sites=["strict"])
