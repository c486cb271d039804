"""A large array: how long until it is durable, what the server keeps of it in memory, and how it is to live with."""

from __future__ import annotations

import time

from benchmarks.embedded import Embedded, embedded
from benchmarks.harness import Better, Row, median, rounded, seconds, used_by_others

BUDGET_S = 1.0
BUDGET_MIB = 16.0
"""What counts as flat: a million rows, or objects, of any kind would be many times more."""
TASKS = 1_000_000
COMMAND = ["/bin/sleep", "60"]  # a pilot that takes some of them does not disturb the next submission


def run(quick: bool) -> list[Row]:
    """The median of several submissions; each is killed before the next."""
    runs = 3 if quick else 9
    noise = used_by_others()
    with embedded() as server:
        server.warm_up()
        _submit(server, 1)
        one = [_submit(server, 1) for _ in range(runs)]
        before = server.usage()
        took = [_submit(server, TASKS) for _ in range(runs)]
        after = server.usage()
        living = _while_it_runs(server, 5.0 if quick else 30.0)
    grown = round(after.server_mib - before.server_mib, 1)
    detail = {"runs": [rounded(value) for value in took], "used_by_others": noise}
    memory = {"rss_mib_before": before.server_mib, "rss_mib_after": after.server_mib, "submissions": runs}
    return [
        Row(
            f"submit an array of {TASKS:,} tasks",
            "s",
            Better.LOWER,
            rounded(median(took)),
            {"Hansa, an array of 1": rounded(median(one))},
            BUDGET_S,
            detail,
        ),
        Row(f"server's memory, growth by {runs} such submissions", "MiB", Better.LOWER, grown, {}, BUDGET_MIB, memory),
        *living,
    ]


def _while_it_runs(server: Embedded, run_s: float) -> list[Row]:
    """An array of a million no-op tasks that runs: asked for its summary ten times a second, and cancelled."""
    job = server.submit(["/bin/true"], TASKS)
    time.sleep(2.0)
    before, asked = server.usage(), []
    until = time.monotonic() + run_s
    while time.monotonic() < until:
        asked.append(seconds(lambda: server.look(job)))
        time.sleep(0.1)
    after, seen = server.usage(), server.look(job)
    took = seconds(lambda: server.kill(job))
    ended = took + seconds(lambda: server.await_end(job))
    grown = round(after.server_mib - before.server_mib, 1)
    detail = {"done meanwhile": seen.counts.done, "seconds": run_s, "slowest": rounded(max(asked)), "asked": len(asked)}
    name = f"array of {TASKS:,} tasks that runs"
    return [
        Row(f"summary of an {name}, median", "s", Better.LOWER, rounded(median(asked)), {}, 0.05, detail),
        Row("server's memory, growth while it runs", "MiB", Better.LOWER, grown, {}, BUDGET_MIB, detail),
        Row(f"cancel of an {name}: answered", "s", Better.LOWER, rounded(took), {}, BUDGET_S),
        Row(f"cancel of an {name}: ended", "s", Better.LOWER, rounded(ended), {}, BUDGET_S),
    ]


def _submit(server: Embedded, tasks: int) -> float:
    jobs = []
    took = seconds(lambda: jobs.append(server.submit(COMMAND, tasks)))
    server.kill(jobs[0])
    return took
