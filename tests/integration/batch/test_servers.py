"""Two servers on one PostgreSQL, one of which is killed while pilots of a cluster work."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.batch.conftest import LEFT_IN_PEACE_S, _scancel, desk_of, site_file
from tests.integration.server.test_kills import await_progress
from tests.support.postgres import PostgresServer
from tests.support.serverprocess import ServerProcess, eventually
from tests.support.slurm import Slurm
from tests.support.sshd import Sshd

pytestmark = pytest.mark.timeout(900)  # real daemons, on a machine that may have other things to do
COUNT = 60


@pytest.fixture
def two(slurm: Slurm, tmp_path: Path, postgres_server: PostgresServer) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Servers with the same keys, database, object store and issuer, and a site that both reach."""
    name = postgres_server.create_database()
    settings = LEFT_IN_PEACE_S | {"database__url": postgres_server.url(name), "objects__url": str(tmp_path / "blobs")}
    settings["sites__networks"] = "127.0.0.0/8"  # a shared server goes to no loopback by itself
    first = ServerProcess(tmp_path / "first", **settings)
    second = ServerProcess(tmp_path / "second", **settings)
    sshd = Sshd(tmp_path / "sshd", {"SLURM_CONF": str(slurm.conf), "HOME": str(tmp_path)}).start()
    try:
        first.start()
        second.home.mkdir(mode=0o700)
        shutil.copytree(first.home / "keys", second.home / "keys")
        second.settings["HANSA_IDENTITY__ISSUER"] = str(first.info["url"])
        second.start()
        desk = desk_of(first, tmp_path / "desk")
        place = {"host": "127.0.0.1", "port": sshd.port, "user": sshd.user, "known_hosts": sshd.known_hosts}
        place |= {"folder": str(tmp_path / "there"), "python": sys.executable, "poll_s": 1}
        site_file(desk, "cluster", place, credential={"private_key": sshd.key})
        yield first, second
    finally:
        for server in (first, second):
            server.end()
        _scancel(slurm)
        sshd.stop()
        postgres_server.drop_database(name)


async def test_either_of_two_servers_is_killed_and_the_other_goes_on(
    two: tuple[ServerProcess, ServerProcess],
) -> None:
    first, second = two
    script = "echo {i}; echo {i} > out; sleep 0.5"
    command = ["/bin/sh", "-c", script]
    job = first.array(COUNT, *command, outputs=["out"], requirements={"cores": 8})
    await_progress(first, job, 5)
    first.kill()
    later = second.array(COUNT, *command, outputs=["out"], requirements={"cores": 8})
    await_progress(second, job, COUNT // 2)
    first.start()
    second.kill()
    for number in (job, later):
        ended = first.await_end(number, 300)
        assert ended["counts"] == {"waiting": 0, "running": 0, "done": COUNT, "failed": 0, "killed": 0}
    second.start()
    for server in (first, second):  # what pilots brought to one server is there at both
        with server.client() as client:
            files = client.get(f"/jobs/{later}/files").raise_for_status().json()["items"]
            assert sorted(one["index"] for one in files) == list(range(COUNT))
            log = client.get(f"/jobs/{job}/logs", params={"task": COUNT - 1}).raise_for_status()
            assert log.text == f"{COUNT - 1}\n"
    books = await first.check_books()
    assert {len(set(books[number].ended)) for number in (job, later)} == {COUNT}
    ((results, tasks),) = await first.query("SELECT COUNT(*), COUNT(DISTINCT (job, index)) FROM results")
    assert (results, tasks) == (2 * COUNT, 2 * COUNT), "each was accepted once"
    eventually(lambda: first.is_ready() and second.is_ready(), "both serve")
