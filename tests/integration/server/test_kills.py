"""kill -9 of whatever there is, at any time: every task ends, every result counts once, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from tests.support.serverprocess import ServerProcess, eventually

COUNT = 200
NAP = [sys.executable, "-S", "-c", "import time; time.sleep(0.05); print({i})"]


def shoot(processes: list[psutil.Process]) -> int:
    hit = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            hit += 1
    return hit


def await_progress(server: ServerProcess, number: int, done: int) -> None:
    def look() -> bool:
        return bool(server.job(number)["counts"]["done"] >= done)

    eventually(look, f"{done} tasks are done", pause_s=0.01)


def is_over(server: ServerProcess) -> bool:
    """Whether the only job has ended, asked of the file: the server may be dead."""
    with contextlib.closing(sqlite3.connect(f"file:{server.home}/db/hansa.db?mode=ro", uri=True)) as file:
        return bool(file.execute("SELECT ended FROM jobs").fetchone()[0])


async def all_is_well(server: ServerProcess, number: int, count: int) -> None:
    job = server.await_end(number)
    assert job["status"]["phase"] == "done", job["status"]
    assert job["counts"] == {"waiting": 0, "running": 0, "done": count, "failed": 0, "killed": 0}
    books = (await server.check_books())[number]
    assert set(books.ended) == set(range(count))
    ((results, ran, wall_s),) = await server.query(
        "SELECT COUNT(*), COUNT(DISTINCT index), SUM(wall_s) FROM results".replace("index", '"index"')
    )
    assert (results, ran) == (count, count)
    ((earlier, earlier_s),) = await server.query("SELECT COUNT(*), SUM(wall_s) FROM attempts WHERE wall_s > 0")
    ((charged, charged_s),) = await server.query("SELECT SUM(tasks), SUM(wall_s) FROM usage")
    assert charged >= count
    assert charged_s == pytest.approx(wall_s + (earlier_s or 0.0))
    assert earlier <= charged - count


async def test_the_server_is_killed(server: ServerProcess) -> None:
    number = server.array(COUNT, *NAP)
    await_progress(server, number, 20)
    server.kill()
    assert server.pilots(), "the pilot works on"
    time.sleep(0.3)
    server.start()
    await all_is_well(server, number, COUNT)


async def test_the_pilot_is_killed(server: ServerProcess) -> None:
    number = server.array(COUNT, *NAP)
    await_progress(server, number, 20)
    assert shoot(server.pilots())
    await all_is_well(server, number, COUNT)


async def test_the_spawner_is_killed(server: ServerProcess) -> None:
    number = server.array(COUNT, *NAP)
    await_progress(server, number, 20)
    pilots = server.pilots()
    assert shoot(server.spawners())
    await all_is_well(server, number, COUNT)
    assert set(pilots) <= set(server.pilots()), "it starts another spawner, and lives on"


async def test_all_are_killed_at_once(server: ServerProcess) -> None:
    number = server.array(COUNT, *NAP)
    await_progress(server, number, 20)
    shoot([*server.spawners(), *server.pilots()])
    server.kill()
    server.start()
    await all_is_well(server, number, COUNT)


async def test_the_server_is_killed_while_it_starts_a_pilot(server: ServerProcess) -> None:
    number = server.array(4, *NAP)
    eventually(lambda: any((server.home / "run" / "pilots").glob("*")), "a pilot is being started", pause_s=0.002)
    server.kill()
    server.start()
    await all_is_well(server, number, 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [60, pytest.param(200, marks=pytest.mark.long)])
async def test_random_kills(make_server: Callable[..., ServerProcess], kills: int) -> None:
    seed = int(os.environ.get("HANSA_TEST_SEED") or random.SystemRandom().randrange(10**9))
    print(f"HANSA_TEST_SEED={seed}")
    chance = random.Random(seed)
    count = 20 * kills
    server = make_server(job__crash_limit="1000", job__node_retries="1000").start()
    began = time.monotonic()
    number = server.array(count, sys.executable, "-S", "-c", "import time; time.sleep(0.02)")
    hit = {"server": 0, "pilot": 0, "spawner": 0}
    victims: dict[str, Callable[[], list[psutil.Process]]] = {"pilot": server.pilots, "spawner": server.spawners}
    while sum(hit.values()) < kills:
        victim = chance.choice(list(hit))
        if victim in victims:  # one that is there to be shot
            look = victims[victim]
            eventually(lambda: look() or is_over(server), f"there is a {victim}")  # noqa: B023 - called at once
        time.sleep(chance.uniform(0.0, 0.5))
        if victim == "server":
            server.kill()
            hit["server"] += 1
            server.launch()
        elif shoot(victims[victim]()):
            hit[victim] += 1
        if is_over(server):
            break
    eventually(server.is_ready, "the server is ready")
    shot_s = time.monotonic() - began
    job = server.job(number)
    print(f"{hit} in {shot_s:.0f} s; then {job['counts']}")
    assert sum(hit.values()) == kills, "the tasks ended before the shooting: make them longer"
    await all_is_well(server, number, count)
    print(f"all ended after {time.monotonic() - began:.0f} s")
