"""Capacity grants on both dialects: who asks, agrees and refuses, and books that nothing can make wrong."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.identity import vo_store
from hansa.kernel.database import open_database
from hansa.kernel.errors import Fault
from hansa.kernel.events import EventLog, events
from hansa.kernel.status import Party
from hansa.sites import capacity
from hansa.sites.capacity import Who
from hansa.sites.capacity_model import MS_PER_HOUR, Held, Left, NoGrant
from hansa.sites.capacity_service import CapacityService
from hansa.sites.capacity_wire import AgreeGrant, AskGrant, Grant, GrantCaps, GrantTerms
from tests.support.siteworld import SiteWorld, cloud

HOUR = MS_PER_HOUR
SITE = "NEBULA"


class Grants:
    """A site of ada's, a VO of bob's, and what they do with grants."""

    def __init__(self, world: SiteWorld) -> None:
        self.world = world
        self.service = CapacityService(world.database, world.events, world.clock)

    async def open(self, **terms: Any) -> Grants:
        world = self.world
        await world.vo("vo.a", world.ada, world.bob)
        async with world.database.begin() as tx:
            await vo_store.update_member(tx, "vo.a", world.bob.user_id, roles=["manager"])
        await world.registry.add(world.olga, cloud())
        if terms:
            await self.ask(**terms)
            await self.service.agree(world.ada, "vo.a", SITE, AgreeGrant())
        return self

    async def ask(self, **terms: Any) -> Grant:
        return await self.service.ask(self.world.bob, AskGrant("vo.a", SITE, GrantTerms(**terms), "for galaxies"))

    async def get(self) -> Grant:
        return await self.service.get(self.world.bob, "vo.a", SITE)

    async def reserve(self, thing: str, hours: float, user: str = "user_bob", group: str = "", **more: Any) -> None:
        now = self.world.clock.now()
        wish = Held(core_ms=round(hours * HOUR), **more)
        async with self.world.database.begin() as tx:
            await capacity.reserve(tx, who(thing, user, group), wish, now + timedelta(hours=1), now)

    async def settle(self, thing: str, hours: float = 0, idle: float = 0) -> bool:
        async with self.world.database.begin() as tx:
            return await capacity.settle(tx, self.world.events, thing, round(hours * HOUR), round(idle * HOUR))


def who(thing: str, user: str = "user_bob", group: str = "") -> Who:
    return Who("vo.a", SITE, user, user.removeprefix("user_"), thing, group)


@pytest.fixture
def grants(world: SiteWorld) -> Grants:
    return Grants(world)


async def refused(call: Any) -> Fault:
    with pytest.raises(Fault) as fault:
        await call
    return fault.value


async def test_a_manager_asks_and_the_site_agrees(grants: Grants) -> None:
    await grants.open()
    asked = await grants.ask(core_hours=1000, cores=64)
    assert (asked.status.phase, asked.status.waiting_on) == ("asked", Party.SITE)
    assert asked.left_h is None
    agreed = await grants.service.agree(grants.world.ada, "vo.a", SITE, AgreeGrant(note="Welcome"))
    assert (agreed.status.phase, agreed.terms.core_hours, agreed.asked) == ("in_force", 1000, None)
    assert agreed.status.message == "ada agreed to 1,000 core hours, 64 cores: Welcome."
    more = await grants.ask(core_hours=5000)
    assert (more.status.phase, more.terms.core_hours) == ("in_force", 1000)
    assert more.asked == GrantTerms(core_hours=5000)
    kept = await grants.service.refuse(grants.world.ada, "vo.a", SITE, "We are full")
    assert (kept.status.phase, kept.terms.core_hours, kept.asked) == ("in_force", 1000, None)
    less = await grants.service.agree(grants.world.ada, "vo.a", SITE, AgreeGrant(GrantTerms(core_hours=10)))
    assert less.left_h == 10


async def test_others_neither_ask_nor_agree_nor_look(grants: Grants) -> None:
    await grants.open()
    world, terms = grants.world, GrantTerms(core_hours=1)
    assert (
        await refused(grants.service.ask(world.ada, AskGrant("vo.a", SITE, terms)))
    ).code.code == "capacity.forbidden"
    assert (
        await refused(grants.service.ask(world.bob, AskGrant("vo.a", "none", terms)))
    ).code.code == "sites.not_found"
    await grants.ask(core_hours=1)
    assert (await refused(grants.service.agree(world.bob, "vo.a", SITE, AgreeGrant()))).code.code == "sites.forbidden"
    assert (await refused(grants.service.cap(world.ada, "vo.a", SITE, GrantCaps()))).code.code == "capacity.forbidden"
    await world.vo("vo.z")
    stranger = replace(world.bob, user_id="user_zed", name="zed")
    assert (await refused(grants.service.get(stranger, "vo.a", SITE))).code.code == "capacity.not_found"
    assert (await grants.service.list_grants(stranger, None, 10)).items == []
    for one in (world.ada, world.bob, world.olga):
        assert [grant.site for grant in (await grants.service.list_grants(one, None, 10)).items] == [SITE]


async def test_terms_that_cannot_be(grants: Grants) -> None:
    await grants.open()
    now = grants.world.clock.now()
    assert (await refused(grants.ask(ends=now))).code.code == "capacity.bad_terms"
    assert (await refused(grants.ask(ends=now.replace(tzinfo=None)))).code.code == "capacity.bad_terms"


async def test_without_a_grant_in_force_nothing_starts_and_it_says_why(grants: Grants) -> None:
    await grants.open()
    world = grants.world

    async def why() -> str:
        return str((await refused(grants.reserve("machine/1", 1))).ids["reason"])

    assert await why() == "capacity.none"
    await grants.ask(
        core_hours=10, ends=world.clock.now() + timedelta(days=2), starts=world.clock.now() + timedelta(days=1)
    )
    assert await why() == "capacity.asked"
    await grants.service.refuse(world.ada, "vo.a", SITE, "Full.")
    assert await why() == "capacity.refused"
    await grants.ask(
        core_hours=10, ends=world.clock.now() + timedelta(days=2), starts=world.clock.now() + timedelta(days=1)
    )
    await grants.service.agree(world.ada, "vo.a", SITE, AgreeGrant())
    assert await why() == "capacity.early"
    world.clock.advance(86_401)
    await grants.reserve("machine/1", 1)
    world.clock.advance(86_400)
    assert await why() == "capacity.ended"
    assert (await grants.get()).status.waiting_on is Party.VO_MANAGER


async def test_hours_are_reserved_at_the_start_and_settled_at_the_end(grants: Grants) -> None:
    await grants.open(core_hours=100)
    await grants.reserve("machine/1", 60)
    await grants.reserve("machine/1", 60)  # said twice
    seen = await grants.get()
    assert (seen.reserved_h, seen.used_h, seen.left_h) == (60, 0, 40)
    fault = await refused(grants.reserve("machine/2", 41))
    assert fault.code.code == "capacity.used_up"
    assert fault.ids["waiting_on"] == "vo_manager"
    assert fault.detail == "The grant of vo.a at NEBULA does not suffice: 41.0 core hours asked, 40.0 left."
    assert await grants.settle("machine/1", 12, idle=3)
    assert not await grants.settle("machine/1", 12, idle=3)  # said twice
    seen = await grants.get()
    assert (seen.reserved_h, seen.used_h, seen.idle_h, seen.left_h) == (0, 15, 3, 85)
    await grants.reserve("machine/2", 85)
    assert (await grants.get()).status.phase == "used_up"
    assert (await grants.get()).status.waiting_on is Party.VO_MANAGER


async def test_what_is_held_at_the_same_time_is_bounded(grants: Grants) -> None:
    await grants.open(cores=4, gpus=1, memory_mib=100, storage_gib=10)
    await grants.reserve("machine/1", 1000, cores=3, gpus=1, memory_mib=100, storage_gib=10)
    fault = await refused(grants.reserve("machine/2", 1, cores=2, gpus=1))
    assert "2 cores asked, 1 left, 1 GPUs asked, 0 left" in fault.detail
    await grants.settle("machine/1")
    await grants.reserve("machine/2", 1, cores=2, gpus=1)


async def test_caps_of_users_and_groups(grants: Grants) -> None:
    await grants.open(core_hours=100)
    caps = GrantCaps(each_user=10, users={"ada": 20.0}, groups={"astro": 15.0})
    await grants.service.cap(grants.world.bob, "vo.a", SITE, caps)
    await grants.reserve("machine/1", 6)
    await grants.settle("machine/1", 6)
    await grants.reserve("machine/2", 4)
    assert (await refused(grants.reserve("machine/3", 1))).detail.startswith(
        "Your cap does not suffice: 1.0 core hours"
    )
    await grants.reserve("machine/3", 12, "user_ada", "astro")
    fault = await refused(grants.reserve("machine/4", 4, "user_ada", "astro"))
    assert fault.detail.startswith("The cap of the group astro does not suffice")
    await grants.reserve("machine/4", 8, "user_ada")


async def test_it_warns_once_at_80_percent(grants: Grants) -> None:
    await grants.open(core_hours=100)
    for number in range(20):
        await grants.reserve(f"machine/{number}", 5)
        await grants.settle(f"machine/{number}", 5)
    async with grants.world.database.read() as tx:
        said = (await tx.execute(sa.select(events).where(events.c.reason == "capacity.mostly_used"))).all()
    assert [(one.vo, one.message) for one in said] == [
        ("vo.a", "80 % of the 100 core hours that NEBULA grants vo.a are used.")
    ]


async def test_a_reservation_of_what_is_forgotten_expires(grants: Grants) -> None:
    await grants.open(core_hours=10)
    await grants.reserve("pilot/1", 10)
    grants.world.clock.advance(3601)
    assert await grants.service.forget_expired() == 1
    assert not await grants.settle("pilot/1", 1)
    await grants.reserve("pilot/2", 10)


async def test_a_unit_of_work_that_fails_leaves_the_books_as_they_were(grants: Grants) -> None:
    await grants.open(core_hours=10)
    await grants.reserve("machine/1", 5)
    now = grants.world.clock.now()

    async def dies() -> None:
        async with grants.world.database.begin() as tx:
            await capacity.settle(tx, grants.world.events, "machine/1", 5 * HOUR)
            await capacity.reserve(tx, who("machine/2"), Held(core_ms=HOUR), now + timedelta(hours=1), now)
            raise ArithmeticError("the process dies here")

    with pytest.raises(ArithmeticError):
        await dies()
    seen = await grants.get()
    assert (seen.reserved_h, seen.used_h) == (5, 0)


async def test_two_servers_cannot_overdraw(grants: Grants, database_url: str) -> None:
    await grants.open(core_hours=10)
    world = grants.world
    now = world.clock.now()
    is_shared = world.database.dialect == "postgresql"  # an embedded database has one server
    other = await open_database(database_url) if is_shared else world.database
    try:
        databases = (world.database, other)

        async def start(number: int) -> str:
            try:
                async with databases[number % 2].begin() as tx:
                    await capacity.reserve(tx, who(f"m/{number}"), Held(core_ms=HOUR), now + timedelta(hours=1), now)
            except Fault as fault:
                return fault.code.code
            return "started"

        outcomes = await asyncio.gather(*(start(number) for number in range(24)))
        assert Counter(outcomes) == {"started": 10, "capacity.used_up": 14}
        seen = await grants.get()
        assert (seen.reserved_h, seen.left_h) == (10, 0)
        log = EventLog(other, world.clock)

        async def end(number: int) -> bool:
            async with databases[number % 2].begin() as tx:
                return await capacity.settle(tx, log, f"m/{number % 24}", HOUR // 2)

        ended = await asyncio.gather(*(end(number) for number in range(48)))
        assert sum(ended) >= 10
        assert (await grants.get()).used_h == 5
    finally:
        if is_shared:
            await other.close()


async def test_no_order_of_starts_and_ends_overdraws_or_loses(grants: Grants) -> None:
    await grants.open(core_hours=50)
    chance = random.Random(7)
    running: dict[str, int] = {}
    used = 0
    for number in range(120):
        if running and chance.random() < 0.5:
            thing = chance.choice(sorted(running))
            spent = chance.randrange(running.pop(thing) + 1)
            used += spent
            await grants.settle(thing, spent)
        else:
            wish = chance.randrange(1, 15)
            try:
                await grants.reserve(f"m/{number}", wish)
                running[f"m/{number}"] = wish
            except Fault:
                assert wish > 50 - used - sum(running.values())
        seen = await grants.get()
        assert (seen.used_h, seen.reserved_h) == (used, sum(running.values()))
        assert seen.left_h is not None
        assert seen.left_h >= 0


async def test_what_is_left_can_be_asked_without_taking_it(grants: Grants) -> None:
    await grants.open(core_hours=10, cores=8)
    now = grants.world.clock.now()
    async with grants.world.database.read() as tx:
        assert await capacity.left(tx, who("x"), now) == Left(10 * HOUR, 8)
        assert isinstance(await capacity.left(tx, replace(who("x"), vo="vo.b"), now), NoGrant)
