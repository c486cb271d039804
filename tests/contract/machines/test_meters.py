"""What machines use over their time: looked at by the server, seen by their owner."""

from __future__ import annotations

import pytest

from hansa.images.wire import ImagePolicy
from hansa.kernel.errors import Fault, Temporary
from hansa.machines import meter_store
from hansa.machines.drivers.base import Key, Meter
from hansa.machines.drivers.fake import FakeMachines
from hansa.machines.meter_service import NO_FIGURES, SOON, MeterService
from hansa.machines.watch import MachineWatch
from tests.support.machineworld import MachineWorld


async def test_machines_of_this_computer_are_looked_at(world: MachineWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = MachineWatch(world.database, world.clock, world.drivers)
    meters = MeterService(world.database, world.drivers)
    await world.create("web", cores=2, memory_mib=512)
    assert (await meters.usage(world.ada, "web")).message == SOON
    await world.settle()
    machine = await world.service.get(world.ada, "web")
    assert (machine.status.phase, machine.site) == ("running", "local")

    async def meter(_self: FakeMachines, _key: Key) -> Meter:
        busy_s = world.clock.now().timestamp() % 1e6
        return Meter(busy_s, 100.0, 1.0, None)

    monkeypatch.setattr(FakeMachines, "meter", meter)
    for _ in range(3):
        world.clock.advance(30)
        await watch.look()
    seen = await meters.usage(world.ada, "web")
    assert (seen.ends_s, seen.cores, seen.memory_mib) == ([30.0, 60.0], [1.0, 1.0], [100.0, 100.0])
    assert (seen.read_mib_s, seen.written_mib_s, seen.message) == ([0.0, 0.0], None, "")
    assert (seen.cores_asked, seen.memory_asked_mib) == (machine.size.cores, machine.size.memory_mib)
    with pytest.raises(Fault) as caught:
        await meters.usage(world.bob, "web")
    assert caught.value.code.code == "machines.not_found"
    async with world.database.begin() as tx:
        await meter_store.forget(tx, world.clock.now())
        assert len(await meter_store.of_machine(tx, machine.id)) == 3
    world.clock.advance(1)
    async with world.database.begin() as tx:
        await meter_store.forget(tx, world.clock.now())
        assert await meter_store.of_machine(tx, machine.id) == []


async def test_one_that_cannot_be_looked_at_does_not_keep_the_others(
    world: MachineWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = MachineWatch(world.database, world.clock, world.drivers)
    names = ("one", "two")
    for name in names:
        await world.create(name)
    await world.settle()
    ids = [(await world.service.get(world.ada, name)).id for name in names]

    async def meter(_self: FakeMachines, key: Key) -> Meter | None:
        if key == min(ids):
            raise Temporary("It is away.")
        return Meter(1.0, 2.0)

    monkeypatch.setattr(FakeMachines, "meter", meter)
    await watch.look()
    async with world.database.read() as tx:
        kept = [len(await meter_store.of_machine(tx, one)) for one in sorted(ids)]
    assert kept == [0, 1]


async def test_other_providers_give_no_figures(world: MachineWorld) -> None:
    await world.base.vo("vo.a", world.bob)
    await world.endorsing.set_policy(world.olga, "vo.a", ImagePolicy(site_images=True))
    await world.site("alpha", "vo.a")
    await world.create("away", world.bob, image="site:cirros")
    await world.settle()
    machine = await world.get("away", world.bob)
    assert (machine.status.phase, machine.site) == ("running", "alpha")
    await MachineWatch(world.database, world.clock, world.drivers).look()
    meters = MeterService(world.database, world.drivers)
    assert (await meters.usage(world.bob, "away")).message == NO_FIGURES
