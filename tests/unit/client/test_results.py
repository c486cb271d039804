"""Rows of results, paths of outputs, order of output."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.client.errors import HansaError
from hansa.client.fetch import place
from hansa.client.operations import _Streams
from hansa.client.results import Spool, Table, TaskResults, flatten, write_csv
from hansa.jobs.wire import Phase, Task


def task(index: int = 0, **more: object) -> Task:
    return Task(job=12, index=index, phase=Phase.DONE, attempt=1, **more)  # type: ignore[arg-type]


def test_fields_follow_and_clashes_are_renamed() -> None:
    table = Table(["rate", "state"])
    row = table.row(task(values={"rate": "1", "state": "x"}, fields={"rate": 2, "m": {"a": True}, "node": [1]}))
    assert row["rate"] == "1"
    assert row["param.state"] == "x"
    assert (row["result.rate"], row["m.a"], row["result.node"]) == (2, True, [1])
    assert table.columns[:4] == ["job", "task", "rate", "param.state"]
    assert table.columns[-3:] == ["result.rate", "m.a", "result.node"]


def test_columns_that_appear_late_are_in_the_header() -> None:
    spool = Spool(["x"])
    spool.add(task(0, values={"x": 'a,"b"'}, fields={"one": 1.5}))
    spool.add(task(1, values={"x": "ü\nz"}, fields={"two": None}))
    out = io.StringIO()
    write_csv(spool.table.columns, spool.rows(), out)
    spool.close()
    lines = out.getvalue().split("\n", 1)
    assert lines[0] == "job,task,x,state,exit_code,cpu_s,memory_mib,wall_s,site,node,message,one,two"
    assert lines[1] == '12,0,"a,""b""",done,,,,,,,,1.5,\n12,1,"ü\nz",done,,,,,,,,,\n'


def test_a_table_becomes_a_file(tmp_path: Path) -> None:
    table = TaskResults(["task", "score"], [{"task": 0, "score": 0.5}, {"task": 1}])
    assert table.to_csv(tmp_path / "t.csv").read_text() == "task,score\n0,0.5\n1,\n"


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers(), lambda x: st.dictionaries(st.text(), x))))
def test_only_one_level_is_flattened(fields: dict[str, object]) -> None:
    width = sum(len(v) if isinstance(v, dict) and v else 1 for v in fields.values())
    assert len(flatten(fields)) <= width


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a/..", ".hansa-job", "x\0y"])
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(HansaError):
        place(tmp_path, path)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/tmp")
    with pytest.raises(HansaError, match="is a link"):
        place(tmp_path, "a/b")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_no_path_leads_out(path: str) -> None:
    root = Path("/some/where")
    try:
        found = place(root, path)
    except HansaError:
        return
    assert found.is_relative_to(root)
    assert ".." not in found.parts


@given(
    st.binary(min_size=1, max_size=50),
    st.lists(st.tuples(st.integers(0, 49), st.integers(1, 20)), max_size=20),
)
def test_repeated_pieces_are_heard_once(data: bytes, repeats: list[tuple[int, int]]) -> None:
    heard = bytearray()
    streams = _Streams(lambda _index, _attempt, _stream, piece: heard.extend(piece), {})
    streams.add(0, 1, "stdout", 0, data)
    for start, size in repeats:
        piece = data[start : start + size]
        if piece:
            streams.add(0, 1, "stdout", start, piece)
    assert bytes(heard) == data
