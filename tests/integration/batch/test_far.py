"""A laptop and a cluster behind SSH whose nodes have no way to it: everything goes through the connection.

The nodes are in a network of their own, without a route to what the server listens on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from tests.integration.batch.conftest import Cluster
from tests.support import apart
from tests.support.serverprocess import eventually
from tests.support.slurm import Slurm

pytestmark = pytest.mark.timeout(900)  # real daemons, on a machine that may have other things to do


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Its nodes reach their controller, and nothing else of this computer."""
    with apart.network() as network:
        folder = tmp_path_factory.mktemp("slurm")
        cluster = Slurm(folder, slurmd_prefix=network.prefix, address=network.here, node_address=network.there)
        try:
            yield cluster.start()
        finally:
            cluster.stop()


_CALL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
except OSError as error:
    print("no way:", type(error).__name__)
"""


def test_nodes_have_no_way_to_the_server(far: Cluster) -> None:
    host, _, port = far.server.url.rpartition("://")[2].partition(":")
    said = far.hansa("run", "--site", "mycluster", "--", sys.executable, "-c", _CALL, host, port)
    assert said.out == "no way: ConnectionRefusedError\n"


def test_a_command_its_files_and_its_output_by_ssh(far: Cluster) -> None:
    far.desk.write("in.txt", "brought\n")
    said = far.hansa(
        "run", "--site", "mycluster", "--input", "in.txt", "--", "/bin/sh", "-c", "cat in.txt; cp in.txt out.txt"
    )
    assert said.out == "brought\n"
    (folder,) = far.desk.folder.glob("hansa-*")
    assert (folder / "out.txt").read_text() == "brought\n"


def test_the_lid_is_closed_and_nothing_is_lost(far: Cluster) -> None:
    """The server is killed in the midst; pilots work on and keep what they have; it is told once the lid is open."""
    marks = far.desk.folder / "marks"
    marks.mkdir()
    script = f"echo x >> {marks}/{{i}}; sleep 3; echo y >> {marks}/{{i}}"
    job = far.job("--site", "mycluster", "--array", "0-11", "--cores", "8", "--", "/bin/sh", "-c", script)
    eventually(lambda: list(marks.iterdir()), "some tasks have begun")
    far.server.kill()
    whole = len("x\ny\n")
    eventually(lambda: all(mark.stat().st_size == whole for mark in marks.iterdir()), "they end without the server")
    far.server.start()
    ended = far.end(job)
    assert ended["counts"]["done"] == 12
    assert all((marks / str(index)).read_text() == "x\ny\n" for index in range(12)), "each ran once"
    books = asyncio.run(far.server.check_books())
    assert job in books


def test_pilots_that_end_while_the_lid_is_closed_leave_what_they_know(far: Cluster) -> None:
    """Their time is over before the server is back: results, logs, outputs lie in the spool, and nothing runs again."""
    far.free()
    marks = far.desk.folder / "seen"
    marks.mkdir()
    script = (
        f"echo x >> {marks}/{{i}}; sleep 3; head -c 300000 /dev/zero > out.{{i}}; echo {{i}}; echo y >> {marks}/{{i}}"
    )
    words = ["--array", "0-3", "--cores", "1", "--output", "out.*"]
    job = far.job("--site", "mycluster", *words, "--", "/bin/sh", "-c", script)
    eventually(lambda: len(list(marks.iterdir())) == 4, "all tasks have begun")
    far.server.kill()
    whole = len("x\ny\n")
    eventually(lambda: all(mark.stat().st_size == whole for mark in marks.iterdir()), "they end without the server")
    for number in far.slurm.jobs("running"):
        far.slurm.run("scancel", "--batch", "--signal=TERM", str(number), check=False)
    eventually(lambda: not far.slurm.jobs("pending,running,completing"), "no pilot is left")
    far.server.start()
    ended = far.end(job)
    assert ended["counts"]["done"] == 4
    assert all((marks / str(index)).read_text() == "x\ny\n" for index in range(4)), "each ran once"
    with far.server.client() as client:
        files = client.get(f"/jobs/{job}/files").raise_for_status().json()["items"]
    assert sorted((one["path"], one["size"]) for one in files) == sorted((f"out.{n}", 300_000) for n in range(4))
    assert far.hansa("job", "logs", f"{job}.3").out == "3\n"
    books = asyncio.run(far.server.check_books())
    assert job in books


def test_a_login_that_has_lapsed_waits_for_its_user_and_loses_nothing(far: Cluster) -> None:
    far.free()
    config = far.desk.folder.parent / "config"
    text = config.read_text()
    job = far.job("--site", "mycluster", "--", "/bin/sh", "-c", "sleep 8; echo safe")
    eventually(lambda: far.server.job(job)["counts"]["running"], "it runs")
    config.write_text(text.replace("user_key", "host_key"))
    far.sign_out()
    try:
        another = far.job("--site", "mycluster", "--batch", "nice=3", "--", "echo", "later")

        def is_told() -> bool:
            far.hansa("site", "probe", "mycluster")
            status = far.server.job(another)["status"]
            return status["waiting_on"] == "user" and "hansa site login mycluster" in status["message"]

        eventually(is_told, "who must act is told", pause_s=1)
        assert "hansa site login mycluster" in far.hansa("job", "explain", str(another)).out
        refused = far.hansa("run", "--mount", "mycluster:/tmp", "--", "true", code=None)
        assert "hansa site login mycluster" in refused.err
    finally:
        config.write_text(text)
        far.hansa("site", "probe", "mycluster")
    assert far.end(job)["exit_code"] == 0
    assert far.hansa("job", "logs", str(job)).out == "safe\n"
    assert far.end(another)["exit_code"] == 0
