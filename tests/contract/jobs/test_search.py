"""Jobs by a query, on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from hansa.kernel.errors import Fault
from tests.support.jobworld import World, done


async def found(world: World, query: str, limit: int = 100) -> list[int]:
    """The numbers, over all pages."""
    numbers: list[int] = []
    cursor = None
    while True:
        page = await world.jobs.list_jobs(world.owner, query=query, cursor=cursor, limit=limit)
        numbers += [job.number for job in page.items]
        cursor = page.next
        if cursor is None:
            return numbers


@pytest.fixture
async def jobs(world: World) -> World:
    """1: done at local. 2: waits. 3: failed. 4: an array with labels. 5: somebody else's."""
    await world.submit(name="Night run", priority=9)
    await world.submit(name="sim_1", group="test", comment="50% done")
    await world.submit(command=["false", "x"], priority=8)
    pilot = await world.pilot()
    first, third = await pilot.take(2)
    await pilot.report(done(first, 0), done(third, 0, 3))
    world.manual.advance(86400)
    more: dict[str, Any] = {"cores": 2, "memory_mib": 3000, "gpus": 1, "wall_time_s": 60, "image": "ghcr.io/any/tool"}
    soon = world.clock.now() + timedelta(days=1)
    await world.submit(10, labels={"campaign": "k2", "try": "1"}, name="simA1", deadline=soon, **more)
    eve = await world.user("eve")
    await world.site(eve, "hers")
    await world.submit(caller=eve, name="sim")
    return world


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [4, 3, 2, 1]),
        ("state:done,failed", [3, 1]),
        ("-state:done,failed", [4, 2]),
        ("state:ended", [3, 1]),
        ("state:active", [4, 2]),
        ("state:held", []),
        ("site:local", [3, 1]),
        ("-site:local", [4, 2]),
        ("label:campaign", [4]),
        ("label:campaign=k2 label:try=1", [4]),
        ("label:campaign=k3", []),
        ("-label:campaign", [3, 2, 1]),
        ("name~SIM", [4, 2]),
        ("name~sim_", [2]),
        ("-name~sim", [3, 1]),
        ('name:"Night run"', [1]),
        ("group:test", [2]),
        ("-group:test", [4, 3, 1]),
        ("comment~50%", [2]),
        ("false", [3]),
        ("exit:3", [3]),
        ("tasks>1", [4]),
        ("failed>0", [3]),
        ("created<1h", [4]),
        ("created>1h state:waiting", [2]),
        ("priority>=8", [3, 1]),
        ("job<3", [2, 1]),
        ("job:2,4", [4, 2]),
        ("vo:sky", []),
        ("-vo:sky", [4, 3, 2, 1]),
        ("reason:jobs.queued", [4, 2]),
        ("started<2d", [3, 1]),
        ("ended>1h", [3, 1]),
        ("done>0", [1]),
        ("killed>0", []),
        ("cores>1", [4]),
        ("cores:1,2 memory<3000", [3, 2, 1]),
        ("-memory:3000", [3, 2, 1]),
        ("gpus:1", [4]),
        ("time:60", [4]),
        ("image~ghcr", [4]),
        ("-image:ghcr.io/any/tool", [3, 2, 1]),
        ("vo-group:x", []),
        ("waiting_on:hansa", [4, 2]),
        ('message~"exit code 3"', [3]),
        ("deadline>2026-01-01", [4]),
    ],
)
async def test_jobs_by_a_query(jobs: World, query: str, numbers: list[int]) -> None:
    assert await found(jobs, query) == numbers
    assert await found(jobs, query, limit=1) == numbers


async def test_a_query_that_is_refused_points_at_the_place(world: World) -> None:
    with pytest.raises(Fault) as caught:
        await found(world, "state:done sitee:x")
    assert caught.value.code.code == "jobs.bad_query"
    assert caught.value.ids == {"position": 11}
    assert (caught.value.hint or "").splitlines()[1].startswith(" " * 11 + "^")
