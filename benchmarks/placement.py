"""Placement: a request against 1,000 sites, filtered and ranked; then with every sentence, which is on demand."""

from __future__ import annotations

import random

from benchmarks.harness import Better, Row, median, rounded, seconds_of
from hansa.placement.choose import choose, explain_all
from hansa.placement.model import Candidate, DataNeed, Flavour, Gpu, GrantLeft, Measured, Quota, Request, Work

SITES = 1_000
BUDGET_MS = 10.0


def run(quick: bool) -> list[Row]:
    chance = random.Random(1)
    crowd = [site(number, chance) for number in range(SITES)]
    runs = 3 if quick else 200
    rows = []
    for name, request in REQUESTS.items():
        took = seconds_of(lambda request=request: choose(request, crowd), runs, 3)  # type: ignore[misc]
        choice = choose(request, crowd)
        explained = seconds_of(lambda choice=choice: explain_all(choice), max(3, runs // 20), 1)  # type: ignore[misc]
        rows.append(
            Row(
                f"rank {SITES:,} sites for {name}",
                "ms",
                Better.LOWER,
                rounded(1000 * median(took)),
                budget=BUDGET_MS,
                detail={
                    "possible": len(choice.order),
                    "worst_ms": rounded(1000 * max(took)),
                    "explain_all_ms": rounded(1000 * median(explained)),
                },
            )
        )
    return rows


REQUESTS = {
    "a job": Request(
        cores=4,
        memory_mib=8_000,
        wall_time_s=3600,
        tags=frozenset({"bigmem"}),
        data=(DataNeed("a", 5), DataNeed("b", 7)),
        vo="vo",
    ),
    "a machine with a GPU": Request(
        Work.MACHINE,
        cores=4,
        memory_mib=8_000,
        wall_time_s=86_400,
        gpus=1,
        gpu_model="a100",
        vm_image="debian",
        vo="vo",
    ),
}


def site(number: int, chance: random.Random) -> Candidate:
    gpu = (Gpu("NVIDIA A100", 1, 40_960),)
    plain = [Flavour(f"m{2**n}", 2**n, 4_000 * 2**n) for n in range(6)]
    flavours = (*plain, Flavour("gpu", 8, 32_000, gpus=gpu))
    return Candidate(
        f"site{number:04}",
        "nova",
        memory_mib=chance.choice([4_000, 64_000]),
        cores=chance.choice([2, 32, 64]),
        flavours=flavours if chance.random() < 0.9 else flavours[:6],
        vm_images=frozenset({"debian", "rocky"}),
        tags=frozenset({"bigmem", "ssd"} if chance.random() < 0.8 else {"ssd"}),
        quota=Quota(chance.randrange(20), chance.randrange(200), 1_000_000),
        demands_grant=chance.random() < 0.5,
        grant=GrantLeft(core_s=chance.random() * 1e7, share=chance.random()),
        load=chance.random(),
        measured=Measured(chance.randrange(100), chance.randrange(10), chance.random() * 1000),
        data=frozenset(chance.choice("abc")),
    )
