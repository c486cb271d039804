"""Volumes and snapshots over a fake provider: they outlive machines, and a server that is killed forgets none."""

from __future__ import annotations

import email
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.images.wire import NewEndorsement
from hansa.kernel.database import Database
from hansa.kernel.errors import Fault
from hansa.machines.drivers.base import Progress, Refused, Snapshot, Why
from hansa.machines.volume_wire import AttachVolume, MachineVolume, NewSnapshot, NewVolume
from hansa.sites.capacity import reservations
from hansa.sites.capacity_service import CapacityService
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, GrantTerms
from tests.contract.machines.test_kills import LOCAL, drive
from tests.support.machineworld import IMAGE, MachineWorld


async def volume(world: MachineWorld, name: str = "data") -> Any:
    return await world.volumes.get(world.ada, name)


async def test_a_volume_outlives_the_machine_that_it_came_with(world: MachineWorld) -> None:
    cloud = world.drivers.cloud(LOCAL)
    made = await world.create(volumes=[MachineVolume(10, "data", "/data")])
    waiting = await volume(world)
    assert (waiting.status.phase, waiting.site, waiting.machine) == ("waiting", None, "web")
    await world.settle(5)
    found = await volume(world)
    assert (found.status.phase, found.site, found.machine, found.size_gib) == ("attached", "local", "web", 10)
    (there,) = cloud.volumes.values()
    assert there.attached_to == (await world.get()).provider_id
    (machine,) = cloud.machines.values()
    whole: Any = email.message_from_bytes(machine.spec.user_data)
    (script,) = whole.get_payload()
    assert f"{found.id} /data ext4" in script.get_payload(decode=True).decode(), "the guest mounts it"
    assert "volume data (10 GiB) is attached" in "\n".join((await world.service.explain(world.ada, "web")).lines)

    await world.service.delete(world.ada, "web")
    await world.settle(5)
    assert (await world.service.get(world.ada, made.id)).status.phase == "deleted"
    kept = await volume(world)
    assert (kept.status.phase, kept.machine) == ("available", None)
    assert [one.attached_to for one in cloud.volumes.values()] == [None]

    await world.create("next", volumes=[MachineVolume(name="data", path="/data")])
    await world.settle(5)
    assert (await volume(world)).machine == "next"
    with pytest.raises(Fault, match="has the volume data"):
        await world.volumes.delete(world.ada, "data")
    await world.volumes.detach(world.ada, "data")
    await world.settle(5)
    await world.volumes.delete(world.ada, "data")
    await world.settle(5)
    assert not cloud.volumes
    assert (await world.volumes.list_volumes(world.ada, None, 10)).items == []


async def test_a_machine_that_is_lost_and_made_anew_gets_its_volume_back(world: MachineWorld) -> None:
    cloud = world.drivers.cloud(LOCAL)
    machine = await world.create(restart=True, volumes=[MachineVolume(1, "data")])
    await world.settle(5)
    cloud.lose(machine.id)
    cloud.volumes = {key: replace(one, attached_to=None) for key, one in cloud.volumes.items()}
    await world.settle(600)
    assert (await world.get()).status.phase == "running"
    assert (await volume(world)).status.phase == "attached"
    assert [one.attached_to for one in cloud.volumes.values()] == [(await world.get()).provider_id]


async def test_volumes_on_their_own(world: MachineWorld) -> None:
    await world.volumes.create(world.ada, NewVolume("data", 5), "once")
    again = await world.volumes.create(world.ada, NewVolume("data", 5), "once")
    await world.settle(5)
    found = await volume(world)
    assert (found.id, found.status.phase, found.site) == (again.id, "available", "local")
    for name, size in (("data", 5), ("No", 5)):
        with pytest.raises(Fault):
            await world.volumes.create(world.ada, NewVolume(name, size))
    with pytest.raises(Fault, match="no volume data of yours"):
        await world.volumes.get(world.bob, "data")
    await world.create()
    await world.settle(5)
    with pytest.raises(Fault, match="can mount it in a machine that runs"):
        await world.volumes.attach(world.ada, "data", AttachVolume("web", "/data"))
    await world.volumes.attach(world.ada, "data", AttachVolume("web"))
    await world.settle(5)
    assert (await volume(world)).status.phase == "attached"
    await world.create("other")
    await world.settle(5)
    with pytest.raises(Fault, match="Another machine has"):
        await world.volumes.attach(world.ada, "data", AttachVolume("other"))
    lines = (await world.volumes.explain(world.ada, "data")).lines
    assert any("belongs to web" in line for line in lines)


@pytest.mark.parametrize("path", ["data", "/", "/etc", "/dev/disk", "/a/../b", "/a b", "/a;rm"])
async def test_a_path_that_is_none_changes_nothing(world: MachineWorld, path: str) -> None:
    with pytest.raises(Fault, match="No volume can be at"):
        await world.create(volumes=[MachineVolume(1, path=path)])
    assert (await world.volumes.list_volumes(world.ada, None, 10)).items == []


async def test_what_a_provider_refuses_is_told(world: MachineWorld) -> None:
    await world.volumes.create(world.ada, NewVolume("data", 5))

    def no(_place: str, call: str) -> None:
        if call == "ensure_volume":
            raise Refused(Why.QUOTA, "Volumes over the quota of 10.")

    world.drivers.before = no
    await world.settle(5)
    found = await volume(world)
    assert (found.status.phase, found.status.reason) == ("failed", "machines.quota")
    assert "over the quota" in found.status.message
    world.drivers.before = lambda _place, _call: None
    await world.volumes.delete(world.ada, "data")
    await world.settle(5)
    assert (await world.volumes.get(world.ada, found.id)).status.phase == "deleted"


async def test_a_volume_that_its_provider_gives_up_is_told_in_its_words(world: MachineWorld) -> None:
    await world.volumes.create(world.ada, NewVolume("data", 5))
    await world.settle(5)
    cloud = world.drivers.cloud(LOCAL)
    cloud.volumes = {key: replace(one, failed="No weighed backends available.") for key, one in cloud.volumes.items()}
    await world.settle(600)
    found = await volume(world)
    assert (found.status.phase, found.status.reason) == ("failed", "machines.volume_failed")
    assert found.status.message == "At local: No weighed backends available."
    await world.volumes.delete(world.ada, "data")
    await world.settle(5)
    assert not cloud.volumes


async def test_a_grant_of_storage_is_reserved_and_given_back(world: MachineWorld) -> None:
    """At a site that demands one: alone, with a machine, beyond what is left, and when a volume is gone."""
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
    await world.site("alpha", "vo.a", demands_grant=True)
    grants = CapacityService(world.database, world.events, world.clock)
    with pytest.raises(Fault):
        await world.volumes.create(world.bob, NewVolume("early", 1, vo="vo.a", sites=["alpha"]))
    await grants.ask(world.olga, AskGrant("vo.a", "alpha", GrantTerms(core_hours=4000, storage_gib=100)))
    await grants.agree(world.olga, "vo.a", "alpha", AgreeGrant())

    async def free(size_gib: int) -> bool:
        """Whether so much is left: what is asked for is deleted again."""
        try:
            await world.volumes.create(world.bob, NewVolume("probe", size_gib, vo="vo.a", sites=["alpha"]))
        except Fault as fault:
            if "GiB of storage" not in fault.detail:
                raise
            return False
        await world.settle(5)
        await world.volumes.delete(world.bob, "probe")
        await world.settle(5)
        return True

    await world.volumes.create(world.bob, NewVolume("data", 60, vo="vo.a", sites=["alpha"]))
    await world.settle(5)
    assert (await free(40), await free(41)) == (True, False)
    await world.create(
        who=world.bob, sites=["alpha"], volumes=[MachineVolume(30, "scratch"), MachineVolume(20, "more")]
    )
    await world.settle(30)
    found = {one: await world.volumes.get(world.bob, one) for one in ("scratch", "more")}
    assert sorted(one.status.phase for one in found.values()) == ["attached", "waiting"]
    (waits,) = [one for one in found.values() if one.status.phase == "waiting"]
    assert (waits.status.reason, waits.status.waiting_on) == ("capacity.used_up", "vo_manager")
    await world.volumes.delete(world.bob, "data")
    await world.settle(120)
    assert (await world.volumes.get(world.bob, waits.name)).status.phase == "attached", "there is room for it now"
    await world.service.delete(world.bob, "web")
    await world.settle(30)
    for one in ("scratch", "more"):
        await world.volumes.delete(world.bob, one)
    await world.settle(30)
    async with world.database.read() as tx:
        assert (await tx.execute(sa.select(reservations))).all() == []


async def test_killed_at_every_call_of_a_volumes_life(database: Database, tmp_path: Path) -> None:
    """Each round kills one call later than the one before, until a whole life passes without a kill."""
    world = await MachineWorld(database, tmp_path / "images").start()
    cloud = world.drivers.cloud(LOCAL)
    for kill_at in range(1, 60):
        name = f"m-{kill_at}"
        await world.create(name, volumes=[MachineVolume(1, "data")])
        was_killed = await drive(world, kill_at)
        await world.settle(5)
        assert (await volume(world)).status.phase == "attached"
        assert len(cloud.volumes) == len(cloud.machines) == 1
        await world.service.delete(world.ada, name)
        was_killed |= await drive(world, kill_at)
        await world.settle(5)
        assert (await volume(world)).status.phase == "available"
        assert [one.attached_to for one in cloud.volumes.values()] == [None]
        await world.volumes.delete(world.ada, "data")
        was_killed |= await drive(world, kill_at)
        await world.settle(5)
        assert not cloud.volumes
        assert not cloud.machines
        if not was_killed:
            assert kill_at > 5  # there are several calls in a life
            return
    raise AssertionError("a life has no end")


async def test_a_snapshot_is_an_image_that_machines_start_of(world: MachineWorld) -> None:
    """A cloud's stays at the cloud: machines of it start there, and nowhere else."""
    cloud = world.drivers.cloud(LOCAL)
    await world.create()
    with pytest.raises(Fault, match="no disk to keep now"):
        await world.snapshots.create(world.ada, "web", NewSnapshot())
    await world.settle(5)
    taken = await world.snapshots.create(world.ada, "web", NewSnapshot(), "once")
    assert (await world.snapshots.create(world.ada, "web", NewSnapshot(), "once")).id == taken.id
    assert (taken.image, taken.version) == ("web", "1")
    await world.settle(5)
    assert (await world.snapshots.get(world.ada, taken.id)).status.phase == "ready"
    (version,) = (await world.images.get(world.ada, "web")).versions
    assert (version.source, version.status.phase, version.site) == ("snapshot", "ready", "local")
    await world.create("again", image="web@1")
    await world.settle(5)
    assert (await world.get("again")).status.phase == "running"
    started = next(one for one in cloud.machines.values() if one.spec.name == "again")
    assert started.spec.image.provider_id == "fake-image-web-1"
    assert (await world.row("again")).image["disk_gib"] == 3, "as large as its place says that it must be"
    second = await world.snapshots.create(world.ada, "web", NewSnapshot())
    assert second.version == "2"
    with pytest.raises(Fault, match="already"):
        await world.snapshots.create(world.ada, "web", NewSnapshot(version="2"))

    for number in ("1", "2"):
        await world.images.withdraw(world.ada, "web", number, "old")
    await world.settle(61)
    assert not cloud.snapshots
    assert (await world.snapshots.list_snapshots(world.ada, None, 10)).items == []


async def test_a_snapshot_on_this_computer_comes_into_the_catalogue(world: MachineWorld, tmp_path: Path) -> None:
    from tests.unit.images.test_formats import qcow2

    disk = tmp_path / "snap.qcow2"
    disk.write_bytes(qcow2())
    cloud = world.drivers.cloud(LOCAL)
    await world.create()
    await world.settle(5)
    taken = await world.snapshots.create(world.ada, "web", NewSnapshot("gold", "a"))
    cloud.snapshots[taken.id] = Snapshot(Progress.DONE, path=disk, size_bytes=1)
    await world.settle(5)
    (version,) = (await world.images.get(world.ada, "gold")).versions
    assert (version.status.phase, version.format, version.site) == ("ready", "qcow2", None)
    assert version.sha256 is not None
    assert world.depot.has(version.sha256)
    assert not cloud.snapshots, "the driver keeps nothing of it"


async def test_a_disk_that_may_not_be_started_becomes_no_image(world: MachineWorld, tmp_path: Path) -> None:
    disk = tmp_path / "snap.qcow2"
    disk.write_bytes(b"QFI\xfb no disk at all")
    await world.create()
    await world.settle(5)
    taken = await world.snapshots.create(world.ada, "web", NewSnapshot())
    world.drivers.cloud(LOCAL).snapshots[taken.id] = Snapshot(Progress.DONE, path=disk, size_bytes=1)
    await world.settle(5)
    assert (await world.snapshots.get(world.ada, taken.id)).status.phase == "failed"
    (version,) = (await world.images.get(world.ada, "web")).versions
    assert version.status.phase == "refused"
    assert not world.drivers.cloud(LOCAL).snapshots


async def test_killed_at_every_call_of_a_snapshots_life(database: Database, tmp_path: Path) -> None:
    world = await MachineWorld(database, tmp_path / "images").start()
    cloud = world.drivers.cloud(LOCAL)
    await world.create()
    await world.settle(5)
    for kill_at in range(1, 20):
        taken = await world.snapshots.create(world.ada, "web", NewSnapshot())
        was_killed = await drive(world, kill_at)
        await world.settle(5)
        assert (await world.snapshots.get(world.ada, taken.id)).status.phase == "ready"
        assert len(cloud.snapshots) == 1
        await world.images.withdraw(world.ada, "web", taken.version, "")
        was_killed |= await drive(world, kill_at, 61)
        await world.settle(61)
        assert not cloud.snapshots
        if not was_killed:
            assert kill_at > 1
            return
    raise AssertionError("a life has no end")
