"""What computers and clusters say of themselves, read: whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.sites.kinds.slurm import parse_sinfo, parse_time
from hansa.sites.kinds.ssh import parse_survey
from hansa.sites.wire import Capacity


def test_a_computer() -> None:
    said = "Welcome!\ncores 8\nmemory_kib 16303956\ngpu 0, NVIDIA A100\nruntime podman\nslurm yes\n"
    assert parse_survey(said) == Capacity(8, 15921, ["0, NVIDIA A100"], ["podman"])


def test_a_cluster_of_mixed_nodes() -> None:
    said = """\
main*|2|32|64000|(null)|2-00:00:00|10/54/0/64|up
main*|1|64+|128000+|gpu:a100:2(S:0-1)|2-00:00:00|0/64/0/64|up
long|1|32|64000|gpu:1|infinite|32/0/0/32|up
old|9|8|8000|(null)|1:00:00|0/72/0/72|down
"""
    facts = parse_sinfo(said)
    main, long = facts.partitions
    assert (main.nodes, main.cores, main.idle_cores, main.cores_per_node, main.gpus) == (3, 128, 118, 64, ["a100"] * 2)
    assert (main.max_wall_time_s, main.is_default, long.max_wall_time_s) == (172_800, True, None)
    assert facts.gpus == ["a100", "gpu"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800), ("30:00", 1800), ("1:00:00", 3600), ("2-0", 172_800), ("1-2:03:04", 93_784), ("infinite", None)],
)
def test_times(text: str, seconds: int | None) -> None:
    assert parse_time(text) == seconds


@given(st.text())
def test_garbage_is_no_cluster_and_breaks_nothing(said: str) -> None:
    parse_sinfo(said)
    parse_survey(said)
    parse_sinfo("|".join([said.replace("|", "")] * 7) + "|up")
