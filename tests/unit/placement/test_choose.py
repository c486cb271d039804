"""Filter and rank: examples for every reason, and what must hold for all."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.kernel.status import Party
from hansa.placement.choose import choose, explain, explain_all
from hansa.placement.filter import RULES
from hansa.placement.model import (
    Candidate,
    DataNeed,
    Flavour,
    Gpu,
    GrantLeft,
    Measured,
    Quota,
    Refusal,
    Request,
    Weights,
    Work,
)
from hansa.placement.rank import SCALES

HERE = Candidate("bari", cores=32, memory_mib=64_000, gpus=())
SMALL = Flavour("small", 2, 4_000)
GPU = Flavour("gpu", 8, 32_000, gpus=(Gpu("NVIDIA A100", 1, 40_960),))
CLOUD = Candidate("recas", "nova", flavours=(SMALL, GPU), vm_images=frozenset({"debian"}), networks=frozenset({"net"}))
MACHINE = Request(Work.MACHINE, cores=2, memory_mib=2_000)


@pytest.mark.parametrize(
    ("reason", "request_", "candidate"),
    [
        ("placement.not_asked", Request(sites=("lyon",)), HERE),
        ("placement.not_wanted", Request(banned_sites=("bari",)), HERE),
        ("sites.drained", Request(), replace(HERE, refusals=(Refusal("sites.drained", "It takes no new work."),))),
        ("placement.cores", Request(cores=64), HERE),
        ("placement.memory", Request(memory_mib=65_000), HERE),
        ("placement.disk", Request(disk_mib=10), replace(HERE, disk_mib=9)),
        ("placement.wall_time", Request(wall_time_s=61), replace(HERE, wall_time_s=60)),
        ("placement.gpus", Request(gpus=1), HERE),
        ("placement.gpus", Request(gpus=2), replace(HERE, gpus=(Gpu("A100"),))),
        ("placement.gpus", Request(gpus=1, gpu_model="a100"), replace(HERE, gpus=(Gpu("NVIDIA V100"),))),
        ("placement.gpus", Request(gpus=1, gpu_memory_mib=80_000), replace(HERE, gpus=(Gpu("A100", 4, 40_960),))),
        ("placement.tags", Request(tags=frozenset({"bigmem"})), HERE),
        ("placement.required_tags", Request(), replace(HERE, required_tags=frozenset({"gpu"}))),
        ("placement.platform", Request(os="el9"), replace(HERE, os=frozenset({"debian", "debian12"}))),
        ("placement.platform", Request(arch="aarch64"), replace(HERE, arch="x86_64")),
        ("placement.platform", Request(glibc="2.28"), replace(HERE, glibc="2.17")),
        ("placement.platform", Request(cpu_features=frozenset({"avx512f"})), replace(HERE, cpu_features=frozenset())),
        ("placement.containers", Request(needs_containers=True), replace(HERE, has_containers=False)),
        ("placement.vm_image", replace(MACHINE, vm_image="rocky"), CLOUD),
        ("placement.flavour", replace(MACHINE, cores=64), CLOUD),
        ("placement.flavour", replace(MACHINE, flavour="huge"), CLOUD),
        ("placement.flavour", replace(MACHINE, gpus=1, gpu_model="H100"), CLOUD),
        ("placement.flavour", MACHINE, replace(CLOUD, flavours=())),
        ("placement.network", replace(MACHINE, network="dmz"), CLOUD),
        (
            "placement.public_address",
            replace(MACHINE, needs_public_address=True),
            replace(CLOUD, has_public_addresses=False),
        ),
        ("placement.quota", replace(MACHINE, count=3), replace(CLOUD, quota=Quota(machines=2))),
        ("placement.quota", replace(MACHINE, count=3), replace(CLOUD, quota=Quota(cores=5))),
        ("placement.data", Request(data=(DataNeed("cms:1"),), is_data_required=True), HERE),
        ("placement.no_grant", Request(vo="vo"), replace(HERE, demands_grant=True)),
        ("placement.no_grant", Request(), replace(HERE, demands_grant=True)),
        (
            "placement.grant_used_up",
            Request(vo="vo", cores=4, wall_time_s=3600),
            replace(HERE, demands_grant=True, grant=GrantLeft(core_s=4 * 3600 - 1)),
        ),
        (
            "placement.grant_used_up",
            replace(MACHINE, vo="vo"),
            replace(CLOUD, demands_grant=True, grant=GrantLeft(cores=1)),
        ),
        *(
            (
                "placement.grant_used_up",
                replace(asks, vo="vo"),
                replace(HERE, demands_grant=True, gpus=None, grant=left),
            )
            for asks, left in (
                (Request(memory_mib=200), GrantLeft(memory_mib=199)),
                (Request(gpus=2), GrantLeft(gpus=1)),
                (Request(storage_gib=2), GrantLeft(storage_gib=1)),
                (Request(cores=4, nodes=2), GrantLeft(cores=7)),
                (Request(cores=4, nodes=2, wall_time_s=3600), GrantLeft(core_s=8 * 3600 - 1)),
            )
        ),
        (
            "placement.grant_used_up",
            replace(MACHINE, vo="vo", gpus=1),
            replace(
                CLOUD, flavours=(replace(GPU, gpus=(Gpu("A100", 2),)),), demands_grant=True, grant=GrantLeft(gpus=1)
            ),
        ),
    ],
)
def test_each_reason_has_a_sentence_and_what_would_change_it(
    reason: str, request_: Request, candidate: Candidate
) -> None:
    choice = choose(request_, [candidate])
    assert choice.best is None
    verdict = explain(choice, candidate)
    assert [one.reason for one in verdict.findings] == [reason]
    for one in verdict.findings:
        assert one.message.endswith(".")
        assert one.remedy.endswith(".")
        assert one.waiting_on is not Party.NOBODY


def test_what_is_not_known_rejects_nothing() -> None:
    asks = Request(
        cores=4,
        memory_mib=1,
        disk_mib=1,
        wall_time_s=1,
        gpus=1,
        os="el9",
        arch="x86_64",
        glibc="2.17",
        cpu_features=frozenset({"avx2"}),
        vm_image="debian",
        network="net",
        needs_containers=True,
        needs_public_address=True,
    )
    assert choose(asks, [Candidate("nobody-knows")]).best is not None
    assert choose(replace(asks, work=Work.MACHINE), [Candidate("nobody-knows")]).best is not None


def test_all_reasons_are_told_not_only_the_first() -> None:
    verdict = explain(choose(Request(cores=64, gpus=1, tags=frozenset({"x"})), [HERE]), HERE)
    assert [one.reason for one in verdict.findings] == ["placement.cores", "placement.gpus", "placement.tags"]


def test_the_smallest_flavour_that_fits_is_named() -> None:
    assert explain_all(choose(MACHINE, [CLOUD]))[0].flavour == "small"
    assert explain_all(choose(replace(MACHINE, gpus=1), [CLOUD]))[0].flavour == "gpu"
    tight = replace(CLOUD, flavours=(GPU, Flavour("wide", 32, 64_000)), quota=Quota(cores=8))
    assert explain_all(choose(MACHINE, [tight]))[0].flavour == "gpu"


def test_a_flavour_has_room_for_the_vm_image() -> None:
    """Also where nobody asks for disk; only flavours are judged by it: elsewhere a disk grows with what is in it."""
    disks = replace(CLOUD, flavours=(replace(SMALL, disk_mib=10_240), Flavour("wide", 4, 8_000, 40_960)))
    assert explain_all(choose(MACHINE, [disks]))[0].flavour == "small"
    assert explain_all(choose(replace(MACHINE, image_disk_mib=40_960), [disks]))[0].flavour == "wide"
    (finding,) = explain(choose(replace(MACHINE, image_disk_mib=51_200), [disks]), disks).findings
    assert "50 GiB of disk" in finding.message
    assert choose(replace(MACHINE, image_disk_mib=51_200), [replace(CLOUD, flavours=None)]).order


def test_the_words_for_a_cap_name_whose_it_is() -> None:
    left = GrantLeft(core_s=0, limited_by="your cap")
    verdict = explain(choose(Request(vo="vo"), []), replace(HERE, demands_grant=True, grant=left))
    assert verdict.findings[0].message == "Your cap does not suffice: 0.0 core hours asked, 0.0 left."
    assert verdict.findings[0].waiting_on is Party.VO_MANAGER


@pytest.mark.parametrize(
    ("request_", "better", "worse"),
    [
        (Request(), {"grant": GrantLeft(share=0.9)}, {"grant": GrantLeft(share=0.1)}),
        (Request(), {"is_own": True}, {}),
        (Request(), {"measured": Measured(90, 10)}, {"measured": Measured(10, 90)}),
        (Request(), {}, {"measured": Measured(0, 5)}),
        (Request(), {"measured": Measured(9, 0, 5.0)}, {"measured": Measured(9, 0, 5_000.0)}),
        (Request(), {"load": 0.1}, {"load": 0.9}),
        (Request(data=(DataNeed("a", 9), DataNeed("b", 1))), {"data": frozenset("a")}, {"data": frozenset("b")}),
        (Request(data=(DataNeed("a"),)), {"near_data": frozenset("a")}, {}),
        (Request(), {"price": 0.0}, {"price": 1.0}),
        (Request(), {}, {"at_risk": "Work on the power supply."}),
        (Request(preferred_sites=("z", "a")), {}, {}),
    ],
)
def test_each_factor_decides_where_all_else_is_equal(
    request_: Request, better: dict[str, Any], worse: dict[str, Any]
) -> None:
    good, bad = Candidate("z", **better), Candidate("a", **worse)
    assert [one.site for one in choose(request_, [bad, good]).order] == ["z", "a"]


def test_the_score_is_the_mean_of_its_factors() -> None:
    choice = choose(Request(), [HERE])
    shown = explain_all(choice)[0]
    total = sum(one.weight for one in shown.factors)
    assert shown.score == pytest.approx(sum(one.weight * one.value for one in shown.factors) / total)
    assert [one.name for one in shown.factors] == [scale.name for scale in SCALES]
    assert set(Weights.__dataclass_fields__) >= {scale.name for scale in SCALES}
    assert all(one.message.endswith(".") for one in shown.factors)


def test_equal_places_come_by_name() -> None:
    names = [one.site for one in choose(Request(), [Candidate("b"), Candidate("c"), Candidate("a")]).order]
    assert names == ["a", "b", "c"]


WORDS = st.frozensets(st.sampled_from(["bigmem", "gpu", "data:x"]))
MAYBE = st.none() | st.integers(0, 8)
GPUS = st.none() | st.lists(
    st.builds(Gpu, st.sampled_from(["A100", "V100"]), st.integers(1, 4), MAYBE), max_size=2
).map(tuple)
FLAVOURS = st.none() | st.lists(
    st.builds(Flavour, st.sampled_from("abcd"), st.integers(1, 8), st.integers(1, 8), MAYBE), max_size=4
).map(tuple)
REQUESTS = st.builds(
    Request,
    work=st.sampled_from(Work),
    cores=st.integers(1, 8),
    memory_mib=st.integers(0, 8),
    disk_mib=st.integers(0, 8),
    wall_time_s=st.integers(0, 8),
    gpus=st.integers(0, 3),
    gpu_model=st.none() | st.sampled_from(["a100", "v100"]),
    count=st.integers(1, 3),
    tags=WORDS,
    data=st.lists(st.builds(DataNeed, st.sampled_from("ab"), st.integers(0, 9)), max_size=2).map(tuple),
    is_data_required=st.booleans(),
    preferred_sites=st.lists(st.sampled_from(["s0", "s1"]), unique=True).map(tuple),
    vo=st.none() | st.just("vo"),
)
GRANTS = st.none() | st.builds(GrantLeft, st.none() | st.floats(0, 100), st.floats(0, 1), MAYBE, MAYBE, MAYBE)
CANDIDATES = st.builds(
    Candidate,
    site=st.just(""),
    is_own=st.booleans(),
    cores=MAYBE,
    memory_mib=MAYBE,
    disk_mib=MAYBE,
    wall_time_s=MAYBE,
    gpus=GPUS,
    flavours=FLAVOURS,
    tags=WORDS,
    required_tags=st.just(frozenset()) | WORDS,
    quota=st.none() | st.builds(Quota, MAYBE, MAYBE, MAYBE, MAYBE),
    demands_grant=st.booleans(),
    grant=GRANTS,
    refusals=st.just(()) | st.just((Refusal("sites.drained", "No."),)),
    load=st.none() | st.floats(0, 2),
    measured=st.none() | st.builds(Measured, st.integers(0, 50), st.integers(0, 50), st.none() | st.floats(0, 1e4)),
    price=st.none() | st.floats(0, 10),
    data=st.frozensets(st.sampled_from("ab")),
)
CROWDS = st.lists(CANDIDATES, max_size=8).map(lambda some: [replace(one, site=f"s{n}") for n, one in enumerate(some)])


@given(REQUESTS, CROWDS, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(
    request_: Request, crowd: list[Candidate], chance: random.Random
) -> None:
    shuffled = chance.sample(crowd, len(crowd))
    assert choose(request_, crowd) == choose(request_, shuffled)


@given(REQUESTS, CROWDS)
def test_chosen_or_rejected_with_a_reason_never_both(request_: Request, crowd: list[Candidate]) -> None:
    choice = choose(request_, crowd)
    assert {one.key for one in choice.order} | {one.key for one in choice.rejected} == {one.key for one in crowd}
    assert len(choice.order) + len(choice.rejected) == len(crowd)
    verdicts = explain_all(choice)
    for verdict in verdicts:
        assert verdict.is_possible == (not verdict.findings)
        if not verdict.is_possible:
            first = choice.reasons[verdict.site, verdict.endpoint]
            assert first in {rule.reason for rule in RULES}
            assert first == "placement.refused" or first in {one.reason for one in verdict.findings}
    scores = [one.score for one in verdicts if one.is_possible]
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in scores)


@given(REQUESTS, CROWDS, st.integers(0, 7))
def test_a_rival_who_leaves_turns_no_two_others_around(request_: Request, crowd: list[Candidate], gone: int) -> None:
    before = [one.key for one in choose(request_, crowd).order]
    fewer = [one for n, one in enumerate(crowd) if n != gone]
    after = [one.key for one in choose(request_, fewer).order]
    assert after == [key for key in before if key in {one.key for one in fewer}]


def _more(value: int | None, by: int) -> int | None:
    return None if value is None else value + by


@given(REQUESTS, CANDIDATES, st.integers(0, 8), FLAVOURS, WORDS)
def test_more_of_anything_never_turns_yes_into_no(
    request_: Request, candidate: Candidate, by: int, flavours: tuple[Flavour, ...] | None, tags: frozenset[str]
) -> None:
    if choose(request_, [candidate]).best is None:
        return
    quota, grant = candidate.quota, candidate.grant
    larger = replace(
        candidate,
        cores=_more(candidate.cores, by),
        memory_mib=_more(candidate.memory_mib, by),
        disk_mib=_more(candidate.disk_mib, by),
        wall_time_s=_more(candidate.wall_time_s, by),
        gpus=None if candidate.gpus is None else (*candidate.gpus, Gpu("H100", 8)),
        flavours=None if candidate.flavours is None else (*candidate.flavours, *(flavours or ())),
        tags=candidate.tags | tags,
        data=candidate.data | {"a"},
        quota=quota and Quota(*(_more(getattr(quota, n), by) for n in ("machines", "cores", "memory_mib", "gpus"))),
        grant=grant and replace(grant, core_s=None if grant.core_s is None else grant.core_s + by, cores=None),
    )
    assert choose(request_, [larger]).best is not None


@given(REQUESTS, CANDIDATES)
def test_asking_for_less_never_turns_yes_into_no(request_: Request, candidate: Candidate) -> None:
    if choose(request_, [candidate]).best is None:
        return
    less = replace(request_, cores=1, memory_mib=0, disk_mib=0, wall_time_s=0, gpus=0, count=1, is_data_required=False)
    if candidate.flavours is None or request_.work is Work.JOB:
        assert choose(less, [candidate]).best is not None
