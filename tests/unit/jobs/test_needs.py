"""What a task needs, what a place offers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.jobs.needs import (
    Gpu,
    Needs,
    Place,
    Room,
    fill_needs,
    gpu_of,
    gpus_for,
    lacks,
    needs_from_text,
    needs_text,
    place_of_pilot,
    queue_digest,
    room_left,
    tasks_wanted,
    weight,
)
from hansa.jobs.wire import Requirements

NEEDS = Needs(cores=2, memory_mib=2048, gpus=1, wall_time_s=60, site=None)


@pytest.mark.parametrize(
    ("needs", "place", "words"),
    [
        (NEEDS, Place("here", 2, 2048, (Gpu("A100"),)), []),
        (NEEDS, Place("here", 1, 2048, (Gpu("A100"),)), ["2 cores asked, 1 there"]),
        (NEEDS, Place("here", 2, 1024), ["2,048 MiB", "1,024 there", "1 GPUs asked, 0 there"]),
        (Needs(1, 1, 0, 1, "garching"), Place("here", 9, 9), ["asks for site garching"]),
        (Needs(1, 1, 0, 1, "here"), Place("here", 9, 9), []),
        (Needs(1, 1, 0, 1, None, nodes=2), Place("here", 9, 9, nodes=1), ["2 nodes asked, 1 there"]),
        (Needs(1, 1, 0, 1, None), Place("here", 9, 9, nodes=2), ["1 nodes asked, 2 there"]),
        (Needs(1, 1, 0, 1, None, batch=("--qos=high",)), Place("here", 9, 9, batch=()), ["other options"]),
        (Needs(1, 1, 0, 1, None, batch=("--qos=high",)), Place("here", 9, 9), []),
    ],
)
def test_whether_a_task_fits_a_place(needs: Needs, place: Place, words: list[str]) -> None:
    said = ", ".join(lacks(needs, place))
    assert all(word in said for word in words)
    assert bool(said) == bool(words)


def test_defaults_fill_what_was_not_asked() -> None:
    filled = fill_needs(Requirements(gpus=1), cores=2, memory_mib=512, wall_time_s=60)
    assert filled == Needs(2, 512, 1, 60, None)
    asked = Requirements(cores=4, memory_mib=1, wall_time_s=5, site="here")
    assert fill_needs(asked, cores=2, memory_mib=512, wall_time_s=60) == Needs(4, 1, 0, 5, "here")


PLACE = Place(
    site="here",
    cores=8,
    memory_mib=16384,
    gpus=(Gpu("NVIDIA A100-SXM4-40GB", 40960), Gpu("Tesla T4", 15360)),
    disk_mib=1000,
    tags=frozenset({"bigmem", "data:sky"}),
    os=frozenset({"linux", "debian", "debian12"}),
    arch="x86_64",
    glibc="2.36",
    cpu_features=frozenset({"avx", "avx2"}),
    data=frozenset({"sky"}),
    is_pilot=True,
)
ONE = Needs(1, 1, 0, 60, None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, None),
        ({"disk_mib": 1000}, None),
        ({"disk_mib": 1001}, "1,001 MiB of disk asked, 1,000 there"),
        ({"gpus": 2}, None),
        ({"gpus": 1, "gpu_model": "a100"}, None),
        ({"gpus": 2, "gpu_model": "a100"}, "2 GPUs like a100 asked, 1 there"),
        ({"gpus": 1, "gpu_memory_mib": 40960}, None),
        ({"gpus": 1, "gpu_memory_mib": 80000}, "1 GPUs with 80,000 MiB asked, 0 there"),
        ({"tags": ("bigmem",)}, None),
        ({"tags": ("bigmem", "fpga", "ib")}, "it lacks the tags fpga, ib"),
        ({"os": "debian"}, None),
        ({"os": "el9"}, "el9 asked, debian/debian12/linux there"),
        ({"arch": "aarch64"}, "aarch64 asked, x86_64 there"),
        ({"glibc": "2.4"}, None),
        ({"glibc": "2.38"}, "glibc 2.38 asked, 2.36 there"),
        ({"cpu_features": ("avx2",)}, None),
        ({"cpu_features": ("avx2", "avx512f")}, "its processor has no avx512f"),
        ({"sites": ("here", "there")}, None),
        ({"sites": ("there",)}, "the job asks for one of the sites there"),
        ({"banned_sites": ("here",)}, "the job does not want this site"),
        ({"data": ("sky",)}, None),
        ({"data": ("sea",)}, "the data sea are not there"),
    ],
)
def test_what_a_place_lacks(more: dict[str, Any], said: str | None) -> None:
    assert lacks(replace(ONE, **more), PLACE) == ([] if said is None else [said])


def test_a_site_may_demand_tags_of_the_jobs() -> None:
    picky = replace(PLACE, tags=frozenset({"gold"}), required_tags=frozenset({"gold"}))
    assert lacks(ONE, picky) == ["it takes only jobs with the tag gold"]
    assert lacks(replace(ONE, tags=("gold",)), picky) == []


def test_what_is_not_known_of_a_site_may_be_there_but_not_of_a_pilot() -> None:
    asked = replace(ONE, os="el9", arch="x86_64", glibc="2.17", cpu_features=("avx",), disk_mib=1)
    bare = Place("here", 1, 1)
    assert lacks(asked, bare) == []
    assert len(lacks(asked, replace(bare, is_pilot=True))) == 4


def test_a_gpu_is_asked_for_by_its_model_alone() -> None:
    assert fill_needs(Requirements(gpu_model="A100"), cores=1, memory_mib=1, wall_time_s=1).gpus == 1


@pytest.mark.parametrize(
    ("text", "gpu"),
    [
        ("0, NVIDIA A100", Gpu("NVIDIA A100")),
        ("1, Tesla T4, 15360 MiB", Gpu("Tesla T4", 15360)),
        ("A100", Gpu("A100")),
        ("0", Gpu("")),
    ],
)
def test_gpus_as_the_driver_lists_them(text: str, gpu: Gpu) -> None:
    assert gpu_of(text) == gpu


def test_which_of_a_pilots_gpus_are_as_asked() -> None:
    both = SimpleNamespace(gpus=["0, A100, 40960 MiB", "1, Tesla T4, 15360 MiB"], node=None)
    told = SimpleNamespace(gpus=["0", "1"], node={"gpu_names": both.gpus})
    for pilot in (both, told):
        assert gpus_for(replace(ONE, gpus=1, gpu_model="t4"), pilot) == ["1"]
        assert gpus_for(replace(ONE, gpus=1, gpu_memory_mib=20_000), pilot) == ["0"]
        assert gpus_for(replace(ONE, gpus=1), pilot) is None
        assert gpus_for(ONE, pilot) is None
    by_slurm = SimpleNamespace(gpus=["a100", "a100"], node={"gpu_names": both.gpus})
    assert gpus_for(replace(ONE, gpus=1, gpu_model="a100"), by_slurm) is None, "Slurm says which at the start"


def test_a_pilot_is_what_it_was_given_and_what_it_found() -> None:
    node = {"machine": "x86_64", "glibc": "2.36", "os": ["linux"], "cpu_features": ["avx"], "disk_mib": 7}
    row = SimpleNamespace(
        site="here", cores=2, memory_mib=3, gpus=["0, T4"], node=node, tags=["data:sky"], required_tags=[], nodes=1,
        batch=[],
    )  # fmt: skip
    place = place_of_pilot(row)
    assert (place.disk_mib, place.glibc, place.arch) == (7, "2.36", "x86_64")
    assert place.gpus == (Gpu("T4"),)
    assert place.data == {"sky"}
    assert place_of_pilot(SimpleNamespace(**{**vars(row), "node": None})).os is None


def test_needs_survive_the_database_and_equal_needs_make_one_queue() -> None:
    one = fill_needs(Requirements(tags=["b", "a", "a"]), cores=1, memory_mib=1, wall_time_s=1)
    two = fill_needs(Requirements(tags=["a", "b"]), cores=1, memory_mib=1, wall_time_s=1)
    assert needs_from_text(needs_text(one)) == one
    assert queue_digest("ada", "", "", one) == queue_digest("ada", "", "", two)
    assert queue_digest("ada", "", "", one) != queue_digest("ada", "sky", "", two)
    assert queue_digest("ada", "sky", "g", one) != queue_digest("ada", "sky", "", two)


FREE = Room(cores=8, memory_mib=8192, cores_free=8, memory_free_mib=8192, gpus_free=2)


@pytest.mark.parametrize(
    ("want", "more", "room", "tasks"),
    [
        (0, {}, {}, 0),
        (-3, {}, {}, 0),
        (5, {}, {"cores_free": 0}, 5),
        (8, {"cores": 4}, {"cores_free": 0}, 2),
        (3, {"cores": 4}, {"cores_free": 4}, 1),
        (3, {"cores": 4}, {"cores_free": 3}, 1),
        (3, {"cores": 4}, {"cores_free": 3, "has_backlog": True}, 0),
        (3, {"cores": 4}, {"cores_free": 4, "has_backlog": True}, 1),
        (16, {"memory_mib": 4096}, {}, 4),
        (3, {"memory_mib": 4096}, {"memory_free_mib": 1000, "has_backlog": True}, 0),
        (16, {"gpus": 1}, {}, 2),
        (16, {"gpus": 1}, {"gpus_free": 1}, 1),
        (16, {"gpus": 1}, {"gpus_free": 0}, 0),
        (1, {"gpus": 1, "cores": 4}, {}, 1),
        (16, {"whole_node": True}, {}, 1),
        (3, {"whole_node": True}, {"cores_free": 7, "has_backlog": True}, 0),
        (3, {"whole_node": True}, {"cores_free": 7}, 1),
        (16, {"whole_node": True}, {"is_exact": True}, 1),
        (16, {"whole_node": True}, {"is_exact": True, "cores_free": 0}, 0),
        (16, {"whole_node": True}, {"is_exact": True, "has_backlog": True}, 0),
        (16, {"cores": 8, "nodes": 2}, {"is_exact": True}, 1),
        (16, {"cores": 8, "nodes": 2}, {"is_exact": True, "cores_free": 0}, 0),
    ],
)
def test_how_many_tasks_answer_a_wish(want: int, more: dict[str, Any], room: dict[str, Any], tasks: int) -> None:
    assert tasks_wanted(want, replace(ONE, **more), replace(FREE, **room)) == tasks


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 9000), st.integers(0, 3))
def test_no_answer_is_larger_than_the_wish_but_for_one_task(want: int, cores: int, memory: int, gpus: int) -> None:
    needs = Needs(min(cores, 8), min(memory, 8192), min(gpus, 2), 1, None)
    count = tasks_wanted(want, needs, FREE)
    assert count <= 1 or weight(needs, FREE) * count <= want
    left = room_left(FREE, needs, count)
    assert left.gpus_free == FREE.gpus_free - needs.gpus * count
    assert left.cores_free >= 0
    assert left.memory_free_mib >= 0
