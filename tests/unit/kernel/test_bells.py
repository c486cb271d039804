from __future__ import annotations

import asyncio

from hansa.kernel.bells import Bells


async def test_a_ring_between_looking_and_waiting_is_remembered() -> None:
    bells = Bells()
    with bells.listen("job/1") as bell:
        bells.ring("job/1")
        bells.ring("job/1")
        assert await bell.wait(0)
        assert not await bell.wait(0), "many rings wake once"


async def test_only_listeners_of_the_topic_hear_it() -> None:
    bells = Bells()
    with bells.listen("a", "b") as both, bells.listen("c") as other:
        bells.ring("b")
        assert await both.wait(0)
        assert not await other.wait(0)


async def test_a_waiter_is_woken() -> None:
    bells = Bells()
    with bells.listen("a") as bell:
        waiter = asyncio.create_task(bell.wait(10))
        await asyncio.sleep(0)
        bells.ring("a")
        assert await waiter


async def test_nothing_is_kept_for_topics_that_nobody_listens_to() -> None:
    bells = Bells()
    with bells.listen("a", "b"):
        pass
    bells.ring("a")
    assert not bells._bells
