"""Pilots that die at once: what kills them is found out, and they are not started anew without a pause."""

from __future__ import annotations

import pytest

from hansa.jobs.model import start_delay_s
from hansa.jobs.wire import Phase
from tests.support.jobworld import World


async def test_a_task_that_kills_its_pilot_before_a_word_is_stopped(world: World) -> None:
    job = await world.submit()
    for _ in range(2):  # the world's crash_limit
        assert (await world.get(job.number)).status.phase != Phase.FAILED
        pilot = await world.pilot()
        await pilot.take(1)
        await world.lose(pilot)
    view = await world.get(job.number)
    assert view.status.phase == Phase.FAILED
    assert "2 pilots died" in view.status.message


async def test_only_as_many_are_suspected_as_the_pilot_has_cores(world: World) -> None:
    await world.submit(100)
    pilot = await world.pilot(cores=2)
    await pilot.take(50)
    await world.lose(pilot)
    assert [row.index for row in await world.attempt_rows(1)] == [0, 1]


async def test_pilots_that_die_without_a_word_are_started_with_pauses(world: World) -> None:
    await world.submit()
    for _ in range(2):
        assert await world.demand.look() == 1
        await world.engine.run_until_idle()
        for pilot_id in list(world.batch.lives):
            await world.batch.cancel(pilot_id)
        world.manual.advance(10)
        await world.engine.run_until_idle()
    assert await world.demand.look() == 0, "two in a row died without a word"
    world.manual.advance(2)
    assert await world.demand.look() == 1


@pytest.mark.parametrize(("failures", "delay_s"), [(0, 0), (1, 0), (2, 2), (3, 4), (6, 32), (7, 60), (10, 60)])
def test_the_pause_doubles_up_to_a_minute(failures: int, delay_s: float) -> None:
    assert start_delay_s(failures) == delay_s
