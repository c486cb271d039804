"""A server's life: an orderly stop, streams that go on, upgrades with jobs running."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.support.serverprocess import SOURCES, ServerProcess, eventually

NEXT = '''"""A later schema."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = {head!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("colour", sa.Text))
'''


def test_an_orderly_stop_ends_held_requests_and_streams(server: ServerProcess) -> None:
    number = server.submit("sleep", "600")
    eventually(lambda: server.job(number)["counts"]["running"], "the task runs")
    answers: list[int] = []

    def follow() -> None:
        with server.client() as client:
            cursor = client.get(f"/jobs/{number}/follow").json()["cursor"]
            with contextlib.suppress(httpx.HTTPError):
                answers.append(client.get(f"/jobs/{number}/follow?cursor={cursor}&wait_s=60").status_code)

    def listen() -> None:
        with (
            server.client() as client,
            contextlib.suppress(httpx.HTTPError),
            client.stream("GET", "/events", timeout=120) as stream,
        ):
            for _ in stream.iter_lines():
                pass

    threads = [threading.Thread(target=work, daemon=True) for work in (follow, listen)]
    for thread in threads:
        thread.start()
    with server.client() as client:
        client.get("/whoami").raise_for_status()
    assert server.stop() == 0
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not (server.home / "run" / "server.json").exists()
    assert server.pilots(), "pilots outlive the server"
    server.start()
    with server.client() as client:
        client.post(f"/jobs/{number}/kill", json={}).raise_for_status()
    assert server.await_end(number)["status"]["phase"] == "killed"


def test_only_one_server_of_a_home(make_server: Callable[..., ServerProcess], server: ServerProcess) -> None:
    second = make_server().launch()
    assert second.process is not None
    assert second.process.wait(60) == 5
    assert "runs already" in second.words()
    second.process = None
    assert server.is_ready()


def events(server: ServerProcess, last: int | None, most: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Some events from the stream, behind a position."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with server.client() as client, client.stream("GET", "/events?after=0", headers=headers) as stream:
        position = 0
        for line in stream.iter_lines():
            if line.startswith("id: "):
                position = int(line[4:])
            elif line.startswith("data: "):
                yield position, json.loads(line[6:])
                most -= 1
                if not most:
                    return


def test_a_stream_goes_on_where_it_broke_off(any_server: ServerProcess) -> None:
    server = any_server
    for _ in range(6):
        server.await_end(server.submit("true"))
    whole = list(events(server, None, 20))
    positions = [position for position, _ in whole]
    assert positions == sorted(set(positions))
    parts: list[tuple[int, dict[str, Any]]] = []
    while len(parts) < len(whole):
        parts += events(server, parts[-1][0] if parts else None, min(3, len(whole) - len(parts)))
    assert parts == whole
    told = [(event["subject"], event["phase"]) for _, event in whole]
    assert told.index(("job/1", "waiting")) < told.index(("job/1", "running")) < told.index(("job/1", "done"))


def version_in(server: ServerProcess) -> str:
    with contextlib.closing(sqlite3.connect(server.home / "db" / "hansa.db")) as file:
        return str(file.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_a_newer_schema_is_refused(server: ServerProcess) -> None:
    server.stop()
    with contextlib.closing(sqlite3.connect(server.home / "db" / "hansa.db")) as file:
        file.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
        file.commit()
    server.launch()
    assert server.process is not None
    assert server.process.wait(60) == 5
    assert "from_the_future" in server.words()
    assert "newer" in server.words()
    assert version_in(server) == "from_the_future"


async def test_an_upgrade_with_jobs_running_loses_none(server: ServerProcess, tmp_path: Path) -> None:
    number = server.array(200, "sleep", "0.05")
    eventually(lambda: server.job(number)["counts"]["done"] > 10, "some tasks are done")
    before = version_in(server)
    server.kill()
    assert server.pilots(), "the pilot works on"
    newer = tmp_path / "newer"
    shutil.copytree(SOURCES, newer, ignore=shutil.ignore_patterns("__pycache__"))
    (newer / "hansa" / "server" / "migrations" / "versions" / "9999_later.py").write_text(NEXT.format(head=before))
    server.sources = str(newer)
    server.start()
    assert version_in(server) == "9999"
    (copy,) = (path for path in (server.home / "db").glob("hansa-*.db"))
    with contextlib.closing(sqlite3.connect(copy)) as file:
        assert file.execute("SELECT version_num FROM alembic_version").fetchone()[0] == before
        assert file.execute("SELECT count FROM jobs").fetchone()[0] == 200
    job = server.await_end(number)
    assert job["counts"]["done"] == 200
    assert len((await server.check_books())[number].ended) == 200
    server.stop()
    server.sources = SOURCES  # and back: the older one refuses it
    server.launch()
    assert server.process is not None
    assert server.process.wait(60) == 5


def test_no_token_gets_into_a_log(server: ServerProcess) -> None:
    server.await_end(server.submit("true"))
    said = server.words()
    assert server.token not in said
    assert "hansa_pilot_" not in said
    assert subprocess.run(["grep", "-rl", server.token, server.home / "logs"], capture_output=True).stdout == b""
