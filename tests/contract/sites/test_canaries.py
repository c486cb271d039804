"""Canaries on both dialects: where and when one is sent, and what it says of the site."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from hansa.engines.egress import EgressPolicy
from hansa.jobs.measured import measured
from hansa.kernel.database import Tx
from hansa.kernel.errors import Permanent, Temporary
from hansa.kernel.reconcile import Engine
from hansa.kernel.settings import SiteSettings
from hansa.sites.controller import EndpointRoom
from hansa.sites.kinds.base import Answer, Sighting, State
from hansa.sites.reports import ReportService
from hansa.sites.steering import SteeringService
from hansa.sites.wire import CanaryView, NewDowntime, SitePolicy
from tests.support.fakekind import FakeBatch, public
from tests.support.mortal import Crash
from tests.support.siteworld import SiteWorld, cloud

HOUR_S = 3600.0
WAITS = Sighting(State.WAITS, "It waits.")
FAILED = Sighting(State.FAILED, "It was refused.")


class Mine:
    """A site with canaries, over a kind that does what a test says."""

    def __init__(self, world: SiteWorld) -> None:
        self.world = world
        self.kind = FakeBatch()
        self.last_start: datetime | None = None
        room = EndpointRoom(
            lambda _: self.kind,
            world.events,
            world.clock,
            world.vault,
            SiteSettings(),
            EgressPolicy(resolve=public),
            timer=lambda: 0.0,
            started_since=self._started_since,
        )
        self.engine = Engine(world.database, world.clock, room)
        self.steering = SteeringService(world.database, world.events, world.clock)

    async def _started_since(self, tx: Tx, site: str, endpoint_id: str, since: datetime) -> bool:
        return self.last_start is not None and self.last_start > since

    async def go_on(self, seconds: float, step_s: float = 30) -> None:
        for _ in range(round(seconds / step_s)):
            self.world.clock.advance(step_s)
            await self.engine.run_once()

    async def health(self) -> Any:
        (site,) = await self.world.serving(self.world.ada, "vo.a", "vo.b")
        return site.endpoints[0].health

    async def canaries(self) -> list[CanaryView]:
        reports = ReportService(self.world.database, self.world.clock, 400)
        return (await reports.health(self.world.ada, "NEBULA", 30)).endpoints[0].canaries

    async def measured(self) -> Any:
        async with self.world.database.read() as tx:
            return (await measured(tx, ["NEBULA"], self.world.clock.now())).get("NEBULA")

    @property
    def numbers(self) -> list[int]:
        return [int(key.rpartition("-")[2]) for key in self.kind.sent]


@pytest.fixture
async def mine(world: SiteWorld) -> Mine:
    await world.vo("vo.a", world.ada)
    await world.vo("vo.b", world.ada)
    await world.registry.add(world.olga, cloud(policy=SitePolicy(canaries=True)))
    return Mine(world)


async def test_nothing_is_started_where_the_site_has_not_agreed(mine: Mine) -> None:
    await mine.steering.set_policy(mine.world.ada, "NEBULA", SitePolicy())
    await mine.go_on(8 * HOUR_S, 300)
    assert mine.kind.sent == []
    assert await mine.measured() is None


async def test_one_every_six_hours_feeds_the_rates_of_placement(mine: Mine) -> None:
    await mine.go_on(13 * HOUR_S, 300)
    assert mine.numbers == [1, 2, 3]
    found = await mine.measured()
    assert (found.succeeded, found.failed, found.start_s) == (3, 0, 2.0)
    assert [(one.number, one.state) for one in await mine.canaries()] == [(3, "ran"), (2, "ran"), (1, "ran")]


async def test_where_others_start_things_none_is_sent(mine: Mine) -> None:
    mine.last_start = mine.world.clock.now()
    await mine.go_on(5 * HOUR_S, 300)
    assert mine.kind.sent == []
    await mine.go_on(2 * HOUR_S, 300)
    assert mine.numbers == [1]


async def test_one_that_waits_is_looked_at_and_at_last_taken_back_without_blame(mine: Mine) -> None:
    mine.kind.sighting = WAITS
    await mine.go_on(1800)
    assert len(mine.kind.sent) > 10
    assert set(mine.numbers) == {1}
    await mine.go_on(2400)
    assert [key.rpartition("-")[2] for key in mine.kind.withdrawn] == ["1"]
    assert (await mine.health()).phase == "up"
    assert [one.state for one in await mine.canaries()] == ["withdrawn"]
    assert await mine.measured() is None
    await mine.go_on(5 * HOUR_S, 300)
    assert set(mine.numbers) == {1}, "the next one waits its time"


@pytest.mark.parametrize("sighting", [FAILED, Permanent("It was refused.")])
async def test_two_that_fail_take_the_endpoint_out_and_one_that_runs_brings_it_back(
    mine: Mine, sighting: Sighting | Exception
) -> None:
    await mine.go_on(600)
    mine.kind.sighting = sighting
    await mine.go_on(6 * HOUR_S - 600, 300)
    assert (await mine.health()).phase == "up"
    await mine.go_on(1500)
    health = await mine.health()
    assert (health.phase, health.reason) == ("down", "sites.canary_failed")
    assert "canaries in a row failed. It was refused." in health.message
    found = await mine.measured()
    assert found.failed >= 2
    mine.kind.sighting = Sighting(State.RAN, "It ran.", 1.0)
    await mine.go_on(6 * HOUR_S, 300)
    assert (await mine.health()).phase == "up"
    async with mine.world.database.read() as tx:
        told = await mine.world.events.timeline(tx, "endpoint/NEBULA/openstack")
    assert [one.phase for one in told] == ["up", "down", "up"]


async def test_one_failure_brings_another_canary_and_says_so(mine: Mine) -> None:
    mine.kind.sighting = FAILED
    while not mine.kind.sent:
        await mine.go_on(30)
    await mine.go_on(30)
    health = await mine.health()
    assert health.phase == "up"
    assert "another one will tell" in health.message
    mine.kind.sighting = Sighting(State.RAN, "It ran.", 1.0)
    await mine.go_on(300)
    assert mine.numbers == [1, 2]
    assert "another one" not in (await mine.health()).message


async def test_none_is_sent_while_the_site_takes_no_work_and_one_that_is_out_is_taken_back(mine: Mine) -> None:
    mine.kind.sighting = WAITS
    await mine.go_on(600)
    await mine.steering.drain(mine.world.ada, "NEBULA", "New disks")
    await mine.go_on(600)
    assert len(mine.kind.withdrawn) == 1
    sent = len(mine.kind.sent)
    await mine.go_on(8 * HOUR_S, 300)
    assert len(mine.kind.sent) == sent
    await mine.steering.resume(mine.world.ada, "NEBULA")
    until = mine.world.clock.now() + timedelta(hours=12)
    await mine.steering.announce(mine.world.ada, "NEBULA", NewDowntime(ends=until))
    await mine.go_on(11 * HOUR_S, 300)
    assert len(mine.kind.sent) == sent
    await mine.go_on(2 * HOUR_S, 300)
    assert len(mine.kind.sent) > sent


async def test_a_site_that_does_not_answer_now_is_asked_again_for_the_same_one(mine: Mine) -> None:
    mine.kind.sighting = Temporary("Slurm does not answer.")
    await mine.go_on(300)
    mine.kind.answer = Answer.DOWN
    await mine.go_on(600)
    sent = len(mine.kind.sent)
    await mine.go_on(600)
    assert len(mine.kind.sent) == sent, "where the probe fails, nothing is sent"
    mine.kind.answer, mine.kind.sighting = Answer.UP, Sighting(State.RAN, "It ran.", 1.0)
    await mine.go_on(900)
    assert set(mine.numbers) == {1}
    assert [one.state for one in await mine.canaries()] == ["ran"]


async def test_a_server_that_dies_after_sending_looks_at_the_same_one(mine: Mine) -> None:
    real = mine.kind.canary

    async def dies(target: Any, vo: str | None, key: str) -> Sighting:
        await real(target, vo, key)
        raise Crash

    mine.kind.canary = dies  # type: ignore[method-assign]
    with pytest.raises(BaseExceptionGroup):
        await mine.go_on(600)
    mine.kind.canary = real  # type: ignore[method-assign]
    await mine.go_on(900)
    assert set(mine.numbers) == {1}
    assert [one.number for one in await mine.canaries()] == [1]
