"""Checks of a job as it is described."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.jobs.needs import Needs
from hansa.jobs.submission import check_spec, plain_spec
from hansa.jobs.wire import JobSpec
from hansa.kernel.errors import Fault
from hansa.node.protocol import File, TaskRow

DIGEST = "sha256:" + "0" * 64
LIMIT = 1000
SINGLE = JobSpec(["true"])
ARRAY = JobSpec(["echo", "{x}"], array=True, count=2, names=["x"], rows=[TaskRow(["1"]), TaskRow(["2"])])


def refusal(spec: JobSpec) -> Fault:
    with pytest.raises(Fault) as caught:
        check_spec(spec, LIMIT)
    return caught.value


@pytest.mark.parametrize("spec", [SINGLE, ARRAY, JobSpec(["true"], array=True, first=5, count=LIMIT)])
def test_what_can_be_run(spec: JobSpec) -> None:
    check_spec(spec, LIMIT)


@pytest.mark.parametrize(
    ("spec", "changes", "words"),
    [
        (SINGLE, {"count": 2}, "set array"),
        (SINGLE, {"first": 1}, "set array"),
        (SINGLE, {"rows": [TaskRow()]}, "set array"),
        (SINGLE, {"command": [""]}, "program is empty"),
        (SINGLE, {"command": ["echo", "a\0b"]}, "NUL"),
        (SINGLE, {"command": ["echo", "x" * 200_000]}, "bytes; put it in a file"),
        (SINGLE, {"env": {"A": "b\0"}}, "NUL"),
        (SINGLE, {"env": {"": "b"}}, "name of an environment variable"),
        (SINGLE, {"env": {"A=B": "b"}}, "name of an environment variable"),
        (SINGLE, {"name": "a\0b"}, "NUL"),
        (SINGLE, {"setup": "a\0b"}, "NUL"),
        (SINGLE, {"vo": "a\0b"}, "NUL"),
        (SINGLE, {"names": ["x"]}, "names of parameters but no rows"),
        (ARRAY, {"rows": [TaskRow(["1"])]}, "2 tasks but 1 rows"),
        (ARRAY, {"rows": [TaskRow(["1"]), TaskRow([])]}, "row 1 has 0 values for 1 names"),
        (ARRAY, {"rows": [TaskRow(["1"]), TaskRow(["\0"])]}, "NUL"),
        (ARRAY, {"names": ["x", "x"]}, "comes twice"),
        (ARRAY, {"names": ["job"]}, "cannot name a parameter"),
        (ARRAY, {"names": ["a\0"]}, "NUL"),
        (SINGLE, {"inputs": [File("a", DIGEST, -1)]}, "size of a is negative"),
        (ARRAY, {"rows": [TaskRow(["1"], [File("../a", DIGEST, 1)]), TaskRow(["2"])]}, "must be relative"),
    ],
)
def test_what_cannot_be_run(spec: JobSpec, changes: dict[str, Any], words: str) -> None:
    fault = refusal(replace(spec, **changes))
    assert fault.code.code == "jobs.bad_spec"
    assert words in fault.detail


def test_an_array_has_a_limit() -> None:
    assert refusal(JobSpec(["true"], array=True, count=LIMIT + 1)).code.code == "jobs.array_limit"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "../x", "a/../b", "a//b", "a/", "a\0b", "x" * 5000])
def test_paths_stay_below_the_task(path: str) -> None:
    assert "must be relative" in refusal(replace(SINGLE, inputs=[File(path, DIGEST, 1)])).detail
    if "\0" not in path:
        assert "must be relative" in refusal(replace(SINGLE, outputs=[path])).detail


@given(st.text(min_size=1, max_size=30))
def test_a_path_that_passes_stays_below_the_task(path: str) -> None:
    try:
        check_spec(replace(SINGLE, inputs=[File(path, DIGEST, 1)]), LIMIT)
    except Fault:
        return
    depth = 0
    for part in path.split("/"):
        depth += -1 if part == ".." else 1
        assert depth > 0
    assert not path.startswith("/")


def test_what_the_database_keeps() -> None:
    plain = plain_spec(ARRAY, Needs(2, 512, 0, 60, None))
    assert "rows" not in plain
    kept = {"cores": 2, "memory_mib": 512, "gpus": 0, "wall_time_s": 60, "site": None}
    assert kept.items() <= plain["requirements"].items()
    assert plain["command"] == ["echo", "{x}"]
