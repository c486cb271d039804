"""A machine at a real OpenStack, from the wish to ACTIVE: what of it is Hansa's own time.

The OpenStack is the tests' own (its hypervisor is nova's fake one), in processes beside. Hansa's own time is the whole,
from the wish to the row that says ``running``, without the time in which a call to the provider is on its way, and
without the time from the order until the provider itself says ACTIVE: a second connection asks it all the time.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.machineworld import IMAGE, MachineWorld
from tests.support.openstack import packages, template
from tests.support.openstack.cloud import Cloud as Site
from tests.support.openstack.layout import PASSWORD

from benchmarks.harness import Better, Row, median, rounded, used_by_others
from benchmarks.machines import open_world
from hansa.engines.openstack import Cloud, Clouds, Password, Place
from hansa.images.wire import NewEndorsement
from hansa.kernel.clock import SystemClock
from hansa.machines.drivers.base import Machines
from hansa.machines.drivers.openstack import OpenstackMachines, tag_of
from hansa.machines.places import Holder
from hansa.machines.wire import NewMachine

OWN_BUDGET_S = 0.3
DEADLINE_S = 120.0
Span = tuple[float, float]


@dataclass
class Watched:
    """A driver of one project whose calls are timed."""

    cloud: Cloud
    spans: list[Span] = field(default_factory=list)
    local: Mapping[str, Machines] = field(default_factory=dict)

    def __post_init__(self) -> None:
        call = self.cloud.call

        async def timed(*given: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return await call(*given, **more)
            finally:
                self.spans.append((began, time.perf_counter()))

        self.cloud.call = timed  # type: ignore[method-assign]
        self.driver = OpenstackMachines(self.cloud)

    async def at(self, _place: str, _holder: Holder) -> Machines:
        return self.driver


async def one_machine(world: MachineWorld, watched: Watched, beside: Cloud, name: str) -> tuple[float, float]:
    """Seconds from the wish to running, and how many of them are Hansa's own."""
    watched.spans.clear()
    began = time.perf_counter()
    made = await world.service.create(world.bob, NewMachine(IMAGE, name))
    building = asyncio.create_task(until_active(beside, made.id))
    async with asyncio.timeout(DEADLINE_S):
        while (row := await world.get(name, world.bob)).status.phase != "running":
            assert row.status.phase != "failed", row.status.message
            await asyncio.sleep(0.005)
    ended = time.perf_counter()
    theirs = [*watched.spans, await building]
    await world.service.delete(world.bob, name)
    async with asyncio.timeout(DEADLINE_S):
        while (await world.service.get(world.bob, made.id)).status.phase != "deleted":
            await asyncio.sleep(0.05)
    return ended - began, ended - began - covered([(max(a, began), min(b, ended)) for a, b in theirs])


async def until_active(cloud: Cloud, key: str) -> Span:
    """From when the provider has the machine until it says itself that it is ACTIVE."""
    there = 0.0
    while True:
        asked = time.perf_counter()
        found = await cloud.call(lambda api: [one.status for one in api.compute.servers(tags=tag_of(key))])
        there = there or (asked if found else 0.0)
        if "ACTIVE" in found:
            return there, asked
        await asyncio.sleep(0.05)


def covered(spans: list[Span]) -> float:
    """How long at least one of them is on. Pure."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


async def measure(site: Site, rounds: int) -> list[tuple[float, float]]:
    clouds = Clouds()
    place, password = Place(site.auth_url), Password("admin", PASSWORD)
    (project,) = [one for one in await clouds.at(place, password).projects() if one.name == "admin"]
    place = replace(place, project_id=project.id)
    watched, other = Watched(clouds.at(place, password)), Clouds(threads=2)
    with tempfile.TemporaryDirectory(prefix="hansa-bench-openstack-") as folder:
        world = await open_world(Path(folder), SystemClock(), watched)
        await world.base.vo("vo.a", world.bob)
        await world.endorsing.endorse(world.olga, IMAGE, NewEndorsement("vo.a", follow=True))
        await world.site("alpha", "vo.a")
        running = asyncio.create_task(world.engine.run())
        try:  # the first one brings the image and makes the network
            beside = other.at(place, password)
            taken = [await one_machine(world, watched, beside, f"m{number}") for number in range(rounds + 1)]
        finally:
            world.engine.stop()
            await running
            await world.database.close()
            clouds.close()
            other.close()
    return taken[1:]


def run(quick: bool) -> list[Row]:
    """No row where the programs cannot be had."""
    try:
        needs = packages.ensure()
    except packages.UnavailableError as error:
        print(f"no OpenStack here: {error}")
        return []
    root = Path(tempfile.mkdtemp(prefix="hansa-os-bench-", dir="/tmp"))
    site = template.copy(needs, root)
    try:
        site.start()
        noise = used_by_others()
        taken = asyncio.run(measure(site, 3 if quick else 9))
    finally:
        site.stop()
        shutil.rmtree(root, ignore_errors=True)
    detail = {"whole": [rounded(one) for one, _ in taken], "own": [rounded(own) for _, own in taken], "noise": noise}
    work = "a machine at OpenStack, wish to running: Hansa's own time outside the provider's"
    return [
        Row(work, "s", Better.LOWER, rounded(median([own for _, own in taken])), {}, OWN_BUDGET_S, detail),
        Row("the same, all of it", "s", Better.LOWER, rounded(median([whole for whole, _ in taken])), {}, None),
    ]
