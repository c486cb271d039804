"""Functions as tasks, by futures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import as_completed

import pytest

from hansa import AsyncHansaExecutor, HansaError, HansaExecutor
from hansa.client.functions import RemoteTraceback
from tests.support.cli import Desk


@pytest.fixture
def executor(desk: Desk) -> Iterator[HansaExecutor]:
    desk.hansa("up")
    with HansaExecutor(home=desk.home, memory="256M") as made:
        yield made


def test_calls_come_back_with_values_and_errors_and_can_be_cancelled(executor: HansaExecutor, desk: Desk) -> None:
    offset = 100
    futures = [executor.submit(lambda x, plus=0: x * x + offset + plus, n, plus=1) for n in range(30)]
    assert sorted(future.result() for future in as_completed(futures, 120)) == [n * n + 101 for n in range(30)]
    assert len({place[0] for place in (future.task() for future in futures) if place}) <= 3, "calls travel together"

    def broken(x: int) -> float:
        return 1 / x

    failed = executor.submit(broken, 0)
    with pytest.raises(ZeroDivisionError) as caught:
        failed.result(120)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "1 / x" in str(caught.value.__cause__) or "broken" in str(caught.value.__cause__)
    assert list(executor.map(pow, [2, 3], [5, 2])) == [32, 9]
    with desk.folder.joinpath("open").open("w") as stream:
        stuck, fine = executor.submit(print, stream), executor.submit(len, "four")
        assert fine.result(120) == 4
        with pytest.raises(HansaError):
            stuck.result(120)

    def nap() -> None:
        import time

        time.sleep(600)

    naps = [executor.submit(nap) for _ in range(20)]
    assert naps[-1].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    assert naps[-1].cancelled()
    assert "calls ended" in repr(executor)
    assert "<progress" in executor._repr_html_()
    for future in naps:
        place = future.task()
        if place is not None:
            desk.hansa("job", "kill", str(place[0]), code=None)
            break


def test_the_same_with_asyncio(desk: Desk) -> None:
    desk.hansa("up")

    async def main() -> list[int]:
        async with AsyncHansaExecutor(home=desk.home, memory="256M") as executor:
            assert await executor.submit(len, "three") == 5
            return [value async for value in executor.map(abs, [-1, -2, 3])]

    assert asyncio.run(main()) == [1, 2, 3]
