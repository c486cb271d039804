"""Arrays of tasks that do nothing, from the submission to the last result, beside those who do the same."""

from __future__ import annotations

from typing import Any

from benchmarks.embedded import Embedded, embedded
from benchmarks.harness import CORES, Better, Row, median, rounded, seconds, used_by_others
from benchmarks.peers import PEERS, Runner

BUDGET_PER_S = 1000.0
COMMAND = ["/bin/true"]


def run(quick: bool) -> list[Row]:
    """Rounds in which every contender runs once: what disturbs one disturbs the others too."""
    sizes = (200, 1000) if quick else (1000, 10_000)
    rounds = 1 if quick else 3
    rates: dict[int, dict[str, list[float]]] = {size: {} for size in sizes}
    costs: dict[int, list[dict[str, int]]] = {size: [] for size in sizes}
    noise, notes, absent = [], {}, {}
    for _ in range(rounds):
        noise.append(used_by_others())
        with embedded() as server:
            server.warm_up()
            for size in sizes:
                rate, cost = measure(server, size)
                rates[size].setdefault("Hansa", []).append(rate)
                costs[size].append(cost)
        for peer in PEERS:
            try:
                with peer.start(CORES) as runner:
                    notes[peer.name] = peer.how
                    for size in sizes:
                        rates[size].setdefault(peer.name, []).append(_peer_rate(runner, size))
            except ImportError as error:
                absent[peer.name] = str(error)
    common = {"used_by_others": noise, "peers": notes, "absent": absent}
    return [_row(size, rates[size], {"cpu_us_per_task": costs[size], **common}, max(sizes)) for size in sizes]


def measure(server: Embedded, size: int) -> tuple[float, dict[str, int]]:
    """Tasks per second, and CPU microseconds per task by process."""
    before = server.usage()
    took = seconds(lambda: server.finish(server.submit(COMMAND, size)))
    return size / took, server.usage().us_per_task(before, size)


def _peer_rate(runner: Runner, size: int) -> float:
    runner(50)
    return size / seconds(lambda: runner(size))


def _row(size: int, rates: dict[str, list[float]], detail: dict[str, Any], largest: int) -> Row:
    medians = {name: rounded(median(values)) for name, values in rates.items()}
    every = {name: [rounded(value) for value in values] for name, values in rates.items()}
    return Row(
        work=f"{size:,} no-op tasks, {CORES} cores, submission to last result",
        unit="tasks/s",
        better=Better.HIGHER,
        hansa=medians.pop("Hansa"),
        peers=medians,
        budget=BUDGET_PER_S if size == largest else None,
        detail={"runs": every, **detail},
    )
