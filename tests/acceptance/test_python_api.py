"""The Python API against a real embedded server."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hansa import AsyncHansa, Hansa
from hansa.client.errors import HansaError, JobFailed
from tests.support.cli import Desk


@pytest.fixture
def home(desk: Desk) -> Path:
    desk.hansa("up")
    return desk.home


def test_a_sweep_from_python(home: Path, tmp_path: Path) -> None:
    with Hansa(home=home) as hansa:
        program = "import json,sys; json.dump({'square': int(sys.argv[1])**2}, open('result.json','w'))"
        job = hansa.submit([sys.executable, "-c", program, "{x}"], params=[{"x": n} for n in (1, 2, 3)]).wait(
            timeout=60
        )
        rows = list(job.results())
        assert [row["square"] for row in rows] == [1, 4, 9]
        assert [row["x"] for row in rows] == ["1", "2", "3"]
        folder = job.fetch(tmp_path / "out")
        assert folder is not None
        assert (folder / "0" / "result.json").exists()


def test_a_mapping_of_lists_is_refused_with_a_word_on_what_is_meant(home: Path) -> None:
    wrong: Any = {"x": [1, 2]}
    with Hansa(home=home) as hansa, pytest.raises(HansaError, match="one mapping for each task"):
        hansa.submit(["echo", "{x}"], params=wrong)


def test_a_function_is_mapped_over_values(home: Path) -> None:
    offset = 10
    with Hansa(home=home) as hansa:
        assert hansa.map(lambda x: x * x + offset, range(5)) == [10, 11, 14, 19, 26]


def test_an_exception_of_a_mapped_function_comes_back(home: Path) -> None:
    def divide(x: int) -> float:
        return 1 / x

    with Hansa(home=home) as hansa, pytest.raises(ZeroDivisionError) as caught:
        hansa.map(divide, [1, 0])
    assert "divide" in "".join(
        [str(caught.value), *getattr(caught.value, "__notes__", []), str(caught.value.__cause__)]
    )


def test_a_failed_job_raises_when_asked(home: Path) -> None:
    with Hansa(home=home) as hansa:
        with pytest.raises(JobFailed, match="exit code 5"):
            hansa.run(["sh", "-c", "exit 5"])
        job = hansa.run(["sh", "-c", "echo out; exit 5"], check=False)
        assert job.status.phase == "failed"
        assert job.logs() == "out\n"
        assert any("exit code 5" in line for line in job.explain().lines)

        # parts of a log are asked of the server
        job = hansa.run(["sh", "-c", "for i in 1 2 3 4 5 6; do echo line $i; done; echo last >&2"])
        assert job.logs(tail=2) == "line 5\nline 6\n"
        assert job.logs(grep="[24]$") == "line 2\nline 4\n"
        assert job.logs(grep="line", tail=1) == "line 6\n"
        assert job.logs(since=timedelta(hours=1)).startswith("line 1\n")
        assert job.logs(since=datetime.now(UTC) + timedelta(hours=1)) == ""
        assert job.logs(stream="stderr", grep="l.st", attempt=1) == "last\n"
        assert job.logs(grep="nothing") == ""
        with pytest.raises(HansaError, match="regular expression"):
            job.logs(grep="(")


async def test_the_same_in_async(home: Path) -> None:
    async with AsyncHansa(home=home) as hansa:
        job = await hansa.run(["echo", "hello"])
        assert await job.logs() == "hello\n"
        assert await job.logs(tail=1, grep="^h", since=timedelta(hours=1)) == "hello\n"
        assert await hansa.map(str.upper, ["a", "b"]) == ["A", "B"]
        assert [site.name for site in await hansa.sites()] == ["local"]
