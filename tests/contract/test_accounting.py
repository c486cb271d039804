"""Usage by VO, user, group, site, kind and time, for whoever may see it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from hansa.accounting.service import AccountingService
from hansa.accounting.store import Charge, Kind, charge
from hansa.identity import vo_store
from hansa.identity.model import Caller
from hansa.kernel.database import Database
from hansa.sites.steering import SteeringService
from hansa.sites.wire import SitePolicy
from tests.support.siteworld import SiteWorld, cloud

JUNE, JULY = date(2026, 6, 30), date(2026, 7, 1)


@pytest.fixture
async def world(database: Database) -> SiteWorld:
    """Ada and bob of vo.a, bob of vo.b too; ada administers NEBULA."""
    world = await SiteWorld(database).start()
    await world.vo("vo.a", world.ada, world.bob)
    await world.vo("vo.b", world.bob)
    await world.registry.add(world.olga, cloud())
    async with database.begin() as tx:
        mine = Charge(world.ada.user_id, "vo.a", "NEBULA", 3, 30.0, 60.0, 50.0)
        await charge(tx, JUNE, [mine])
        await charge(tx, JULY, [mine])
        await charge(tx, JULY, [Charge(world.bob.user_id, "vo.b", "OTHER", 1, 10.0, 10.0, 9.0)])
        await charge(tx, JULY, [Charge(world.bob.user_id, "vo.b", "NEBULA", 0, 5.0, 5.0, 0.0, kind=Kind.PILOT_IDLE)])
    return world


async def sums(world: SiteWorld, who: Caller, *by: str, **more: Any) -> dict[Any, float]:
    found = (await AccountingService(world.database).usage(who, by=by, **more)).items
    names = [{"user": "owner"}.get(word, word) for word in by]
    return {tuple(getattr(one, name) for name in names): one.core_s for one in found}


async def test_by_every_word_and_by_several(world: SiteWorld) -> None:
    olga = world.olga
    assert await sums(world, olga, "vo", everybody=True) == {("vo.a",): 120.0, ("vo.b",): 10.0}
    assert await sums(world, olga, "site", everybody=True) == {("NEBULA",): 120.0, ("OTHER",): 10.0}
    assert await sums(world, olga, "user", everybody=True) == {("ada",): 120.0, ("bob",): 10.0}
    assert await sums(world, olga, "month", everybody=True) == {("2026-06",): 60.0, ("2026-07",): 70.0}
    assert await sums(world, olga, "day", "vo", everybody=True) == {
        ("2026-06-30", "vo.a"): 60.0, ("2026-07-01", "vo.a"): 60.0, ("2026-07-01", "vo.b"): 10.0,
    }  # fmt: skip


async def test_of_a_time_a_site_a_vo_or_a_user(world: SiteWorld) -> None:
    olga = world.olga
    assert await sums(world, olga, "vo", everybody=True, since=JULY) == {("vo.a",): 60.0, ("vo.b",): 10.0}
    assert await sums(world, olga, "vo", everybody=True, until=JUNE) == {("vo.a",): 60.0}
    assert await sums(world, olga, "user", everybody=True, site="OTHER") == {("bob",): 10.0}
    assert await sums(world, olga, "site", everybody=True, vo="vo.a") == {("NEBULA",): 120.0}
    assert await sums(world, olga, "site", everybody=True, user="bob") == {("NEBULA",): 0.0, ("OTHER",): 10.0}


async def test_people_see_their_own_managers_their_vo_and_administrators_their_site(world: SiteWorld) -> None:
    assert await sums(world, world.bob, "site") == {("NEBULA",): 0.0, ("OTHER",): 10.0}
    assert await sums(world, world.ada, "user", everybody=True) == {("ada",): 120.0, ("bob",): 0.0}
    async with world.database.begin() as tx:
        await vo_store.update_member(tx, "vo.b", world.bob.user_id, roles=["manager"])
    assert await sums(world, world.bob, "vo", everybody=True) == {("vo.b",): 10.0}


async def test_what_pilots_had_idle_is_shown_apart_and_a_price_only_where_the_site_has_one(world: SiteWorld) -> None:
    service = AccountingService(world.database)
    (nebula, other) = (await service.usage(world.olga, by=["site"], everybody=True)).items
    assert (nebula.idle_core_s, other.idle_core_s) == (5.0, 0.0)
    assert (nebula.price, other.price) == (None, None)
    steering = SteeringService(world.database, world.events, world.clock)
    await steering.set_policy(world.ada, "NEBULA", SitePolicy(price_per_core_hour=30.0))
    (nebula, other) = (await service.usage(world.olga, by=["site"], everybody=True)).items
    assert nebula.price == pytest.approx(1.0)
    assert other.price is None
