"""Functions as tasks, by futures."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import as_completed
from pathlib import Path

import pytest

from hansa import AsyncHansaExecutor, HansaError, HansaExecutor
from hansa.client import functions
from hansa.client.functions import RemoteTraceback
from hansa.server.launch import server_status
from tests.support.cli import PATIENCE_S, Desk

DEADLINE_S = 280.0
"""A busy machine takes a minute for what takes a second on an idle one."""


@pytest.fixture
def executor(desk: Desk) -> Iterator[HansaExecutor]:
    desk.hansa("up")
    with HansaExecutor(home=desk.home, memory="256M") as made:
        yield made


_NO_SHUTDOWN = """
import sys
from pathlib import Path
from hansa import HansaExecutor

def nap(seconds):
    import time
    time.sleep(seconds)
    return "came back"

executor = HansaExecutor(home=Path(sys.argv[1]), memory="256M")
executor.submit(nap, 1).add_done_callback(lambda future: print(future.result()))
"""


def test_calls_come_back_with_values_and_errors_and_can_be_cancelled(executor: HansaExecutor, desk: Desk) -> None:
    offset = 100
    futures = [executor.submit(lambda x, plus=0: x * x + offset + plus, n, plus=1) for n in range(30)]
    assert sorted(future.result() for future in as_completed(futures, DEADLINE_S)) == [n * n + 101 for n in range(30)]
    assert len({place[0] for place in (future.task() for future in futures) if place}) <= 3, "calls travel together"

    def broken(x: int) -> float:
        return 1 / x

    failed = executor.submit(broken, 0)
    with pytest.raises(ZeroDivisionError) as caught:
        failed.result(DEADLINE_S)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "1 / x" in str(caught.value.__cause__) or "broken" in str(caught.value.__cause__)
    assert list(executor.map(pow, [2, 3], [5, 2])) == [32, 9]
    with desk.folder.joinpath("open").open("w") as stream:
        stuck, fine = executor.submit(print, stream), executor.submit(len, "four")
        assert fine.result(DEADLINE_S) == 4
        with pytest.raises(HansaError):
            stuck.result(DEADLINE_S)

    # as with every executor, a program ends when its calls have, though nobody waits for them or shuts it down
    words = [sys.executable, "-c", _NO_SHUTDOWN, str(desk.home)]
    done = subprocess.run(
        words, env=desk.environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout) == (0, "came back\n"), done.stderr

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


PAGE = Path(__file__).parents[2] / "docs/how-to/call-python-functions.md"


def test_the_page_does_what_it_says(desk: Desk) -> None:
    """The examples of the documentation, in order, as a program."""
    program = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    desk.write("page.py", program)
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=desk.folder,
        env=desk.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 3,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "0.5"
    assert lines[1:21] == ["True"] * 20
    assert lines[21:23] == [str(sum(n * n for n in range(1000))), "the line that failed is in RemoteTraceback"]
    assert lines[23:] == ["True"] * 11
    tasks = [job["count"] for job in desk.hansa("job", "list", "--all", "-o", "json").json()]
    assert max(tasks) <= 20, "a thousand small calls were four tasks"


def test_a_server_that_is_away_for_a_while_loses_no_call(executor: HansaExecutor, desk: Desk) -> None:
    def slow(x: int) -> int:
        import time

        time.sleep(1)
        return x + 1

    futures = [executor.submit(slow, n) for n in range(3)]
    while not all(future.task() for future in futures):
        time.sleep(0.05)
    found = server_status(desk.home)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    assert [future.result(DEADLINE_S) for future in futures] == [1, 2, 3]


def test_another_python_is_said(executor: HansaExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = functions.RUNNER.replace("(@VERSION@)", "(3, 99)")
    monkeypatch.setattr(functions, "RUNNER", runner)
    with pytest.raises(HansaError, match=r"sent by Python 3\.99, and runs on Python 3"):
        executor.submit(len, "four").result(DEADLINE_S)


def test_large_values_travel(executor: HansaExecutor) -> None:
    data = os.urandom(12 << 20)  # more than one part
    assert executor.submit(lambda some: some[::-1], data).result(DEADLINE_S) == data[::-1]
    with pytest.raises(HansaError, match="cannot be sent back"):
        executor.submit(threading.Lock).result(DEADLINE_S)
