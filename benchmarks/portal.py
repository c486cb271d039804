"""The portal: pages on the server and on the wire, large tables, a million tasks, 500 live pages, first paint.

What is read lies in the database before the server starts: 100,000 jobs, one of them an array of 1,000,000 tasks.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks.embedded import Embedded, embedded
from benchmarks.harness import Better, Row, rounded
from hansa.server.launch import server_status, start_server, stop_server

JOBS = 100_000
TASKS = 1_000_000
LIVE = 500
PAGE_MS, TABLE_MS, WIRE_KB, PAINT_MS = 100.0, 150.0, 200.0, 500.0
PHASES = ("done", "done", "done", "done", "failed", "killed", "done", "done")
PAGES = ("/", "/jobs", "/jobs/{array}", "/jobs/{array}/tasks", "/jobs/{one}", "/jobs/{one}/log", "/jobs/new", "/sites",
         "/sites/local", "/vos", "/usage", "/admin", "/search?q=sweep")  # fmt: skip
TABLES = ("/jobs", "/jobs?phase=failed", "/jobs?q=name~sweep-777", "/jobs?q=label:campaign%3Dk7", "/jobs?q=exit:3",
          "/jobs?q=created<2d+tasks>0", "/jobs?phase=waiting", "/jobs?q=name~no-such-name")  # fmt: skip


@dataclass
class Seen:
    """Milliseconds by page, bytes by page."""

    ms: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    @property
    def worst(self) -> str:
        return max(self.ms, key=lambda path: self.ms[path])


def fill(server: Embedded, jobs: int, tasks: int) -> tuple[int, int]:
    """Copies of a job that has run, and results of a large array; their numbers. The server is stopped meanwhile."""
    one = server.finish(server.submit(["/bin/sh", "-c", "echo hello"]))
    array = server.submit(["/bin/sleep", "60"], tasks)
    server.kill(array)
    stop_server(server.home)
    files = [path for path in (server.home / "db").iterdir() if path.suffix == ".db"]
    with sqlite3.connect(files[0]) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(jobs)")]
        new = {
            "number": "1000 + n", "id": "'job_copy_' || n", "name": "'sweep-' || n",
            "phase": f"CASE n % {len(PHASES)} {' '.join(f'WHEN {i} THEN {one!r}' for i, one in enumerate(PHASES))} END",
            "exit_code": "CASE WHEN n % 8 = 4 THEN n % 5 END",
        }  # fmt: skip
        columns = ", ".join(f'"{name}"' for name in names)
        values = ", ".join(new.get(name, f'j."{name}"') for name in names)
        series = f"WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {jobs - 1})"
        db.execute(f"{series} INSERT INTO jobs ({columns}) SELECT {values} FROM s, jobs j WHERE j.number = ?",
                   (one.number,))  # fmt: skip
        owner = db.execute("SELECT owner_id FROM jobs WHERE number = ?", (one.number,)).fetchone()[0]
        db.execute(f"{series} INSERT INTO job_marks (owner_id, kind, name, value, job) "
                   "SELECT ?, 'label', 'campaign', 'k' || (n % 100), 1000 + n FROM s", (owner,))  # fmt: skip
        db.execute("DELETE FROM results WHERE job = ?", (array.number,))
        db.execute("DELETE FROM array_tallies WHERE job = ?", (array.number,))
        series = f"WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {tasks - 1})"
        phase = "CASE WHEN n % 97 = 5 THEN 'failed' ELSE 'done' END"
        db.execute(
            f'{series} INSERT INTO results (job, "index", attempt, phase, outcome, exit_code, message, ended, wall_s,'
            f" cpu_s, memory_mib, fields) SELECT ?, n, 1, {phase}, 'exit', 0, '',"
            " (SELECT ended FROM jobs WHERE number = ?), 1.5, 1.2, 20.0, '{\"loss\": 0.5}' FROM s",
            (array.number, one.number),
        )
        db.execute(
            'INSERT INTO array_tallies SELECT job, "index" / 128, SUM(phase = \'done\'), SUM(phase = \'failed\'), 0 '
            'FROM results WHERE job = ? GROUP BY job, "index" / 128', (array.number,))  # fmt: skip
        db.execute(
            "UPDATE jobs SET phase = 'failed', killed_from = NULL, next_index = count, killed = 0, "
            "done = (SELECT SUM(done) FROM array_tallies), failed = (SELECT SUM(failed) FROM array_tallies) "
            "WHERE number = ?", (array.number,))  # fmt: skip
        db.execute("ANALYZE")
    start_server(server.home)
    return one.number, array.number


def browser_of(base: str, token: str) -> httpx.Client:
    """A signed-in browser, but for its screen."""
    bearer = {"Authorization": f"Bearer {token}"}
    link = httpx.post(f"{base}/api/v1/portal/sign-ins", headers=bearer).json()["link"]
    page = httpx.Client(base_url=base, follow_redirects=True, timeout=60)
    form = page.get("/sign-in").text
    csrf = form.partition('name="csrf" value="')[2].partition('"')[0]
    answer = page.post("/sign-in", data={"csrf": csrf, "code": urlsplit(link).fragment, "next": "/"})
    answer.raise_for_status()
    return page


def look(page: httpx.Client, paths: tuple[str, ...], runs: int, **numbers: int) -> Seen:
    """The median of so many visits of each page, over a connection that stays open."""
    seen = Seen()
    for path in paths:
        path = path.format(**numbers)
        took = []
        for _ in range(runs + 1):
            began = time.perf_counter()
            answer = page.get(path)
            took.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, (path, answer.status_code, answer.text[:300])
        seen.ms[path] = rounded(statistics.median(took[1:]))
        seen.bytes[path] = len(answer.content)
    return seen


def asset_bytes(page: httpx.Client) -> int:
    """What a browser fetches once besides pages."""
    folder = page.get("/").text.partition('rel="stylesheet" href="')[2].partition('/portal.css"')[0]
    return sum(
        len(page.get(f"{folder}/{name}").content) for name in ("portal.css", "portal.js", "icons.svg", "icon.svg")
    )


@dataclass
class Live:
    """How it is with many live pages open."""

    heard_ms: list[float]
    page_ms: float
    idle_cpu: float
    busy_cpu: float
    mib: float


async def keep_live(base: str, token: str, browsers: int, server: Embedded) -> Live:
    """Open live pages of as many users and one of ours, start jobs of ours, and see when it hears."""
    info = server_status(server.home)
    assert info is not None
    process = psutil.Process(info.pid)
    async with AsyncExitStack() as stack:
        bearer = {"Authorization": f"Bearer {token}"}
        limits = httpx.Limits(max_connections=None)
        api = await stack.enter_async_context(
            httpx.AsyncClient(base_url=base, headers=bearer, timeout=60, limits=limits)
        )
        heard = asyncio.Queue[str]()
        ready = asyncio.Semaphore(0)

        async def listen(cookies: httpx.Cookies, ours: bool) -> None:
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
            async with api.stream("GET", "/live", headers=headers, timeout=None) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    if line.startswith("retry"):
                        ready.release()
                    elif ours and line.startswith("data:"):
                        heard.put_nowait(line)

        mine = browser_of(base, token)
        tasks = [asyncio.create_task(listen(mine.cookies, ours=True))]
        for number in range(browsers - 1):
            made = (await api.post("/api/v1/users", json={"name": f"reader-{number}"})).json()
            reader = await asyncio.to_thread(browser_of, base, made["token"])
            tasks.append(asyncio.create_task(listen(reader.cookies, ours=False)))
        for _ in tasks:
            await asyncio.wait_for(ready.acquire(), 120)
        began, used = time.perf_counter(), sum(process.cpu_times()[:2])
        await asyncio.sleep(5)
        idle = (sum(process.cpu_times()[:2]) - used) / (time.perf_counter() - began)
        took: list[float] = []
        pages: list[float] = []
        began, used = time.perf_counter(), sum(process.cpu_times()[:2])
        for _ in range(20):
            while not heard.empty():
                heard.get_nowait()
            at = time.perf_counter()
            job = (await api.post("/api/v1/jobs", json={"command": ["/bin/true"]})).json()["number"]
            while f'"job/{job}"' not in await asyncio.wait_for(heard.get(), 60):
                pass
            took.append((time.perf_counter() - at) * 1000)
            at = time.perf_counter()
            (await asyncio.to_thread(mine.get, "/jobs")).raise_for_status()
            pages.append((time.perf_counter() - at) * 1000)
        busy = (sum(process.cpu_times()[:2]) - used) / (time.perf_counter() - began)
        mib = process.memory_info().rss / 1024**2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Live(took, statistics.median(pages), idle, busy, mib)


def first_paint_ms(page: httpx.Client, base: str, runs: int) -> float | None:
    """Until something is seen in Chromium, with nothing kept from before; None where there is no browser."""
    try:
        from tests.support.browser import chromium
    except ImportError:
        return None
    cookies = [{"name": name, "value": value, "url": base} for name, value in page.cookies.items()]
    took = []
    with chromium() as browser:
        for _ in range(runs + 1):
            context = browser.new_context()
            context.add_cookies(cookies)  # type: ignore[arg-type]
            shown = context.new_page()
            shown.goto(base + "/")
            entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            while (painted := shown.evaluate(entry)) is None:  # waiting in the page takes eval: forbidden
                shown.wait_for_timeout(5)
            took.append(float(painted))
            context.close()
    return statistics.median(took[1:])


def run(quick: bool) -> list[Row]:
    """All on one server."""
    jobs, tasks, live, runs = (2_000, 100_000, 20, 3) if quick else (JOBS, TASKS, LIVE, 9)
    with embedded() as server:
        one, array = fill(server, jobs, tasks)
        info = server_status(server.home)
        assert info is not None
        page = browser_of(info.url, info.token)
        pages = look(page, PAGES, runs, one=one, array=array)
        following = page.get("/jobs").text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
        tables = look(page, (*TABLES, following), runs)
        assets = asset_bytes(page)
        paint = first_paint_ms(page, info.url, runs)
        kept = asyncio.run(keep_live(info.url, info.token, live, server))
    heaviest = rounded((max(pages.bytes.values()) + assets) / 1000)
    table = tables.ms[tables.worst]
    lower = Better.LOWER
    heard = statistics.median(kept.heard_ms)
    cpu = {"idle_cpu": round(kept.idle_cpu, 3), "busy_cpu": round(kept.busy_cpu, 3), "mib": round(kept.mib, 1)}
    rows = [
        Row("portal: the slowest page", "ms", lower, pages.ms[pages.worst], {}, PAGE_MS, pages.ms),
        Row(f"portal: an array of {tasks:,} tasks", "ms", lower, pages.ms[f"/jobs/{array}"], {}, PAGE_MS),
        Row("portal: the heaviest page with all it loads", "kB", lower, heaviest, {}, WIRE_KB,
            pages.bytes | {"assets": assets}),
        Row(f"portal: the slowest view of {jobs:,} jobs", "ms", lower, table, {}, TABLE_MS, tables.ms),
        Row(f"portal: a page with {live} live pages open", "ms", lower, rounded(kept.page_ms), {}, PAGE_MS, cpu),
        Row(f"portal: a change is heard with {live} live pages open", "ms", lower, rounded(heard), {}, None),
    ]  # fmt: skip
    if paint is not None:
        rows.append(Row("portal: first paint", "ms", lower, rounded(paint), {}, PAINT_MS))
    return rows
