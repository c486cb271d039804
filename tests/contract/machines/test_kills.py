"""The server is killed between any two calls to a provider: one machine is adopted, and nothing is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.kernel.database import Database
from hansa.machines.drivers.fake import Fault as Wrong
from hansa.machines.wire import Resize
from tests.support.machineworld import MachineWorld

LOCAL = "local/fake"


class Killed(BaseException):
    """kill -9: nothing of the server runs any more."""


async def drive(world: MachineWorld, kill_at: int, seconds: float = 0.0) -> bool:
    """Run the controller, killed before the ``kill_at``-th call from now; whether it came to that."""
    calls = 0

    def before(_place: str, _call: str) -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed

    world.drivers.before = before
    try:
        await world.settle(seconds)
    except (Killed, BaseExceptionGroup):
        await world.crash()
        return True
    finally:
        world.drivers.before = lambda _place, _call: None
    return False


@pytest.mark.parametrize("wrong", [None, Wrong.LOST_ANSWER, Wrong.DUPLICATE, Wrong.FAILS])
async def test_killed_at_every_call_of_its_whole_life(database: Database, tmp_path: Path, wrong: Wrong | None) -> None:
    """Each round kills one call later than the one before, until a whole life passes without a kill."""
    world = await MachineWorld(database, tmp_path / "images").start()
    cloud = world.drivers.cloud(LOCAL)
    for kill_at in range(1, 60):
        cloud.faults = [wrong] if wrong else []
        name = f"m-{kill_at}"
        await world.create(name, public=True, ports=["443"])
        was_killed = await drive(world, kill_at, 30)
        await world.settle(150)  # the next server takes over; a duplicate is gone within a minute of it
        found = await world.get(name)
        if wrong is Wrong.FAILS and found.status.phase == "failed":
            assert not cloud.machines
        else:
            assert found.status.phase == "running"
            assert len(cloud.machines) == 1
            assert len(cloud.addresses) == 1
            await world.service.resize(world.ada, name, Resize(cores=2))
        await world.service.delete(world.ada, name)
        was_killed |= await drive(world, kill_at)
        await world.settle(150)
        assert (await world.service.get(world.ada, found.id)).status.phase == "deleted"
        assert not cloud.machines
        assert not cloud.addresses
        if not was_killed:
            assert kill_at > 4  # there are several calls in a life
            return
    raise AssertionError("a life has no end")
