"""Probes, discovery and reports on both dialects."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from hansa.engines.egress import EgressPolicy
from hansa.identity.model import Caller
from hansa.kernel.errors import Permanent, Temporary
from hansa.kernel.reconcile import Engine
from hansa.kernel.settings import SiteSettings
from hansa.sites import store
from hansa.sites.controller import EndpointRoom
from hansa.sites.kinds.base import Answer
from hansa.sites.model import SiteView, endpoint_refusals
from hansa.sites.reports import ReportService
from hansa.sites.wire import Facts, Quota
from tests.support.fakekind import FakeKind, public
from tests.support.siteworld import SiteWorld, cloud

EGRESS = EgressPolicy(resolve=public)
SETTINGS = SiteSettings(probe_timeout_s=0.2, discover_timeout_s=0.2)


class Probing:
    """A world with one cloud, and the controller over a fake kind."""

    def __init__(self, world: SiteWorld) -> None:
        self.world = world
        self.kind = FakeKind()
        room = EndpointRoom(
            lambda _: self.kind, world.events, world.clock, world.vault, SETTINGS, EGRESS, timer=lambda: 0.0
        )
        self.engine = Engine(world.database, world.clock, room)
        self.reports = ReportService(world.database, world.clock, 400)

    async def go_on(self, seconds: float, step_s: float = 30) -> None:
        """Time passes."""
        for _ in range(round(seconds / step_s)):
            self.world.clock.advance(step_s)
            await self.engine.run_once()

    async def view(self) -> SiteView:
        (found,) = await self.world.serving(self.world.ada, "vo.a", "vo.b")
        return found

    async def refusals(self) -> list[str]:
        view = await self.view()
        now = self.world.clock.now()
        return [one.reason for one in endpoint_refusals(view, view.endpoints[0], "vo.a", now)]


@pytest.fixture
async def probing(world: SiteWorld) -> Probing:
    await world.vo("vo.a", world.ada)
    await world.vo("vo.b", world.ada)
    await world.registry.add(world.olga, cloud())
    made = Probing(world)
    await made.engine.run_once()
    return made


async def test_a_new_endpoint_is_probed_and_asked_for_each_vo(probing: Probing) -> None:
    view = await probing.view()
    assert (view.endpoints[0].health.phase, view.status.phase) == ("up", "ready")
    assert sorted(str(one) for one in probing.kind.asked) == ["vo.a", "vo.b"]
    facts = view.endpoints[0].facts_of("vo.a")
    assert facts is not None
    assert facts.quotas["cores"].free == 8
    await probing.go_on(1800)
    assert len(probing.kind.asked) == 2
    await probing.go_on(2400)
    assert len(probing.kind.asked) == 4


async def test_a_failing_endpoint_gets_no_new_work_and_says_so(probing: Probing) -> None:
    probing.kind.answer = Answer.DOWN
    await probing.go_on(300)
    assert await probing.refusals() == []
    await probing.go_on(30)
    assert await probing.refusals() == ["sites.probed"]
    view = await probing.view()
    assert view.status.phase == "failing"
    assert "gets no new work" in view.status.message
    async with probing.world.database.read() as tx:
        told = await probing.world.events.timeline(tx, "endpoint/NEBULA/openstack")
    assert [one.phase for one in told] == ["up", "down"]
    probing.kind.answer = Answer.UP
    await probing.go_on(360)
    assert await probing.refusals() == []
    assert (await probing.view()).status.phase == "ready"


@pytest.mark.parametrize("error", [Temporary("refused"), Permanent("no"), None, ValueError("garbage")])
async def test_whatever_it_does_harms_only_itself(probing: Probing, error: Exception | None) -> None:
    await probing.world.registry.add(probing.world.olga, cloud("OTHER"))
    probing.kind.error, probing.kind.takes_s = error, 0.0 if error else 60.0
    probing.kind.only_at = "NEBULA"
    await probing.engine.run_once()
    await probing.go_on(330)
    views = await probing.world.serving(probing.world.ada, "vo.a")
    assert {one.name: one.endpoints[0].health.phase for one in views} == {"NEBULA": "down", "OTHER": "up"}
    (other,) = [one.endpoints[0].facts_of("vo.a") for one in views if one.name == "OTHER"]
    assert other is not None
    assert other.quotas == {"cores": Quota(10, 2)}
    assert probing.kind.probes.count("OTHER") >= 2, "it is looked at as ever"


@pytest.mark.parametrize("facts", [Temporary("away"), ValueError("garbage"), Permanent("no")])
async def test_what_was_known_stays_where_discovery_fails(probing: Probing, facts: Exception) -> None:
    probing.kind.facts = facts
    await probing.go_on(4200)
    found = (await probing.view()).endpoints[0].facts_of("vo.a")
    assert found is not None
    assert found.quotas == {"cores": Quota(10, 2)}
    assert "failed" in found.notes[0]
    assert (await probing.view()).endpoints[0].health.phase == "up"
    probing.kind.facts = Facts(quotas={"cores": Quota(20, 2)})
    await probing.go_on(600)
    found = (await probing.view()).endpoints[0].facts_of("vo.a")
    assert found is not None
    assert (found.quotas, found.notes) == ({"cores": Quota(20, 2)}, [])


async def test_history_is_a_row_per_change_and_gives_the_figures(probing: Probing) -> None:
    began = probing.world.clock.now()
    await probing.go_on(6 * 3600, 300)
    probing.kind.answer = Answer.DOWN
    await probing.go_on(6 * 3600, 300)
    probing.world.clock.advance(6 * 3600)  # nobody looked
    probing.kind.answer = Answer.UP
    await probing.engine.run_once()
    await probing.go_on(6 * 3600 - 300, 300)
    endpoint = (await probing.view()).endpoints[0].id
    async with probing.world.database.read() as tx:
        rows = await store.spans_of(tx, [endpoint], began, probing.world.clock.now())
    assert [row.answer for row in rows] == ["up", "down", "up"]
    report = await probing.reports.health(probing.world.ada, "NEBULA", 30)
    total = report.endpoints[0].total
    assert total.availability is not None
    assert abs(total.availability - 12 / 18) < 0.01
    assert abs(total.unknown_s - 29 * 86400 - 6 * 3600) < 600
    assert [one.label for one in report.months] == ["2025-12", "2026-01"]
    assert await probing.reports.overview(probing.world.ada, ["NEBULA", "ELSEWHERE"], 30) == {"NEBULA": report.days}
    assert await probing.reports.overview(Caller("user_eve", "eve"), ["NEBULA"], 30) == {}
    probing.world.clock.advance(500 * 86400)
    assert await probing.reports.forget() == 3


async def test_a_changed_endpoint_is_looked_at_again_at_once(probing: Probing) -> None:
    before = len(probing.kind.probes)
    await probing.world.registry.change(probing.world.ada, "NEBULA", cloud())
    assert await probing.engine.run_once() == 0  # nothing of it has changed
    site = cloud()
    moved = replace(site, endpoints=[replace(site.endpoints[0], settings={"region": "south"})])
    await probing.world.registry.change(probing.world.ada, "NEBULA", moved)
    await probing.engine.run_once()
    assert len(probing.kind.probes) == before + 1
    assert len(probing.kind.asked) == 4
    view = await probing.view()
    assert view.endpoints[0].facts_at == probing.world.clock.now()
    assert view.endpoints[0].health.since <= probing.world.clock.now() - timedelta(0)
