"""Submitting a large array: how long until it is durable, and what the server keeps of it in memory."""

from __future__ import annotations

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
    ]


def _submit(server: Embedded, tasks: int) -> float:
    jobs = []
    took = seconds(lambda: jobs.append(server.submit(COMMAND, tasks)))
    server.kill(jobs[0])
    return took
