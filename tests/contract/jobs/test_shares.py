"""What is used is kept for the shares, and decides whose queue comes first; on both databases."""

from __future__ import annotations

import pytest

from hansa.jobs import store, store_shares
from tests.support.jobworld import World

DAY = 86400.0


async def test_what_was_used_loses_half_its_worth_in_each_half_life(world: World) -> None:
    key = ("sky", "", "ada")
    for seconds in (0.0, 0.3 * DAY, 1.9 * DAY, 0.0):
        world.manual.advance(seconds)
        async with world.database.begin() as tx:
            await store_shares.use(tx, {key: 100.0}, world.clock.now(), DAY)
    async with world.database.read() as tx:
        found = await store_shares.usage(tx, world.clock.now(), DAY)
    assert found[key] == pytest.approx(200 + 100 * 2**-1.9 + 100 * 2**-2.2)
    world.manual.advance(100 * DAY)
    async with world.database.begin() as tx:
        await store_shares.use(tx, {key: 1.0}, world.clock.now(), DAY)
        assert (await store_shares.usage(tx, world.clock.now(), DAY))[key] == pytest.approx(1.0)


async def test_who_has_used_less_comes_first(world: World) -> None:
    eve = await world.user("eve")
    await world.site(eve, "hers")
    await world.submit(10)
    pilot = await world.pilot()
    await pilot.take(4)
    await pilot.finish()
    await world.submit(caller=eve, site="hers")
    now = world.clock.now()
    async with world.database.begin() as tx:
        used = await store_shares.usage(tx, now, 7 * DAY)
        assert used == {("", "", world.owner.user_id): pytest.approx(4.0)}
        waiting = await store.owners_with_work(tx)
        turns = await store_shares.in_fair_order(tx, waiting, now, 7 * DAY)
        assert [row.owner_id for row in turns] == [eve.user_id, world.owner.user_id]
        await store_shares.use(tx, {("", "", eve.user_id): 9.0}, now, 7 * DAY)
        turns = await store_shares.in_fair_order(tx, waiting, now, 7 * DAY)
        assert [row.owner_id for row in turns] == [world.owner.user_id, eve.user_id]
        await store_shares.set_weight(tx, "/", eve.user_id, 10.0)
        turns = await store_shares.in_fair_order(tx, waiting, now, 7 * DAY)
        assert [row.owner_id for row in turns] == [eve.user_id, world.owner.user_id]
