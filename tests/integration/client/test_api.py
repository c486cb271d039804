"""The Python API against the fake server: broken lines, repeats, uploads, functions, asyncio."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hansa import AsyncHansa, Hansa, HansaError, JobFailed, ServerAway, Timeout
from hansa.client import operations
from hansa.client.api import Trying, call
from hansa.client.connect import Endpoint
from hansa.client.draft import Options, prepare
from hansa.client.effects import Request
from hansa.client.transport import Transport
from tests.integration.client.fake_server import TOKEN, Fake


@pytest.mark.parametrize("trouble", ["drop_next", "drop_after", "busy_next"])
def test_a_submission_is_repeated_safely(client: Hansa, fake: Fake, trouble: str) -> None:
    getattr(fake.state, trouble).extend(["POST /jobs", "POST /jobs"])
    assert client.run("true").status.phase == "done"
    assert len(fake.state.jobs) == 1
    assert fake.state.requests.count(("POST", "/jobs")) == 3


@pytest.mark.parametrize("trouble", ["drop_next", "drop_after", "busy_next"])
def test_following_survives_broken_lines(client: Hansa, fake: Fake, trouble: str) -> None:
    getattr(fake.state, trouble).extend(["GET /jobs/1/follow"] * 3)
    assert client.run("echo x").logs() == "x\n"


@pytest.mark.parametrize("trouble", ["drop_next", "drop_after", "busy_next"])
def test_uploads_and_downloads_survive_too(client: Hansa, fake: Fake, here: Path, trouble: str) -> None:
    (here / "a.txt").write_text("a" * 100_000)
    getattr(fake.state, trouble).extend(["PUT /files/", "POST /files/missing", "GET /jobs/1/tasks/0/files/b.txt"])
    job = client.run("cp a.txt b.txt")
    folder = job.fetch("out")
    assert folder is not None
    assert (folder / "b.txt").read_text() == "a" * 100_000


def test_only_missing_files_are_sent(client: Hansa, fake: Fake, here: Path) -> None:
    for name in ("a", "b", "same-as-a"):
        (here / name).write_text(name[-1])
    client.run("cat a b same-as-a")
    assert len(fake.state.uploads) == 2
    (here / "b").write_text("new")
    client.run("cat a b same-as-a")
    assert len(fake.state.uploads) == 3


def test_a_file_that_changes_meanwhile_is_an_error(fake: Fake, here: Path) -> None:
    (here / "a").write_text("x" * 1000)
    transport = Transport(Endpoint(fake.url, TOKEN))

    def meddle(what: str, done: int, total: int) -> None:
        if what == "sending":
            (here / "a").write_text("y" * 1000)

    with pytest.raises(HansaError, match="has changed while it was sent") as caught:
        transport.run(operations.submit(prepare(["cat", "a"], Options()), meddle))
    assert caught.value.code.code == "client.input_changed"
    assert fake.state.jobs == {}
    transport.close()


def test_a_file_that_shrinks_meanwhile_is_an_error(fake: Fake, here: Path) -> None:
    (here / "a").write_text("x" * 600_000)
    transport = Transport(Endpoint(fake.url, TOKEN))

    def meddle(what: str, done: int, total: int) -> None:
        if what == "sending":
            (here / "a").write_text("")

    with pytest.raises(HansaError, match="has changed while it was sent"):
        transport.run(operations.submit(prepare(["cat", "a"], Options()), meddle))
    assert fake.state.jobs == {}
    transport.close()


def test_nobody_there() -> None:
    transport = Transport(Endpoint("http://127.0.0.1:1", "x"))
    with pytest.raises(ServerAway, match="refused") as caught:
        transport.run(call(Request("GET", "/health"), Trying(patience_s=0.3)))
    assert caught.value.hint


def test_a_wait_with_a_limit(client: Hansa, fake: Fake) -> None:
    fake.state.hold_jobs = True
    job = client.submit("true")
    with pytest.raises(Timeout):
        job.wait(0.2)
    fake.state.hold_jobs = False
    assert job.wait(120).status.phase == "done"


def test_failures_raise_unless_told_otherwise(client: Hansa) -> None:
    with pytest.raises(JobFailed) as caught:
        client.run("false")
    assert caught.value.job.exit_code == 1
    assert client.run("false", check=False).job.exit_code == 1


def test_results_and_handles(client: Hansa) -> None:
    script = "echo '{\"score\": {x}}' > result.json; echo {x}"
    job = client.run(["sh", "-c", script], params=[{"x": 1}, {"x": 2}], name="fit")
    table = job.results()
    assert [(row["x"], row["score"]) for row in table] == [("1", 1), ("2", 2)]
    assert job.logs(1) == "2\n"
    assert [found.number for found in client.jobs()] == [job.number]
    assert client.job(job.number).refresh().job.name == "fit"
    assert job.explain().subject == "job 1"
    assert client.sites()[0].name == "local"
    job.kill([0]).retry()


def test_functions_are_mapped(client: Hansa, fake: Fake) -> None:
    factor = 3
    assert client.map(lambda x: x * factor, range(5)) == [0, 3, 6, 9, 12]
    assert len(fake.state.uploads) == 3
    with pytest.raises(ZeroDivisionError) as caught:
        client.map(lambda x: 1 // x, [1, 0])
    assert "1 // x" in str(caught.value.__cause__)
    with pytest.raises(HansaError, match="cannot be sent"):
        client.map(lambda _: fake.server, [1])


def test_large_values_go_in_several_packs(client: Hansa, fake: Fake) -> None:
    values = [bytes([n]) * 100_000 for n in range(5)]
    assert client.map(len, values) == [100_000] * 5
    assert len(fake.state.uploads) == 5


def test_commands_are_mapped(client: Hansa) -> None:
    rows = client.map(["sh", "-c", "exit 0", "{}"], ["a", "b"])
    assert [row["value"] for row in rows] == ["a", "b"]
    with pytest.raises(JobFailed):
        client.map("false {}", [1])


async def test_the_same_for_asyncio(fake: Fake, here: Path) -> None:
    (here / "a.txt").write_text("hello")
    fake.state.drop_next.extend(["POST /jobs", "PUT /files/"])
    async with AsyncHansa(fake.url, TOKEN) as client:
        jobs = await asyncio.gather(*(client.run(f"cat a.txt {n}", check=False) for n in range(3)))
        assert {await job.logs() for job in jobs} == {"hello"}
        assert await client.map(lambda x: x + 1, [1, 2]) == [2, 3]
        job = await client.run("cp a.txt b.txt")
        folder = await job.fetch("out")
        assert folder is not None
        assert (folder / "b.txt").read_text() == "hello"
        with pytest.raises(JobFailed):
            await client.run("false")
