"""Arrays and parameter files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.client.arrays import (
    Array,
    filler,
    has_template,
    parse_array,
    per_file,
    read_params,
    substitute,
    unknown_words,
)
from hansa.client.errors import HansaError


def test_a_range_is_no_list_of_rows() -> None:
    assert parse_array("0-999999999") == Array(1_000_000_000, 0)
    assert parse_array("7-7") == Array(1, 7)
    assert parse_array("5-9:1") == Array(5, 5)


def test_lists_and_steps_become_rows() -> None:
    assert parse_array("1,5,9") == Array(3, 0, ["i"], [["1"], ["5"], ["9"]])
    assert parse_array("0-100:50").rows == [["0"], ["50"], ["100"]]
    assert parse_array("3, 8-9").rows == [["3"], ["8"], ["9"]]
    assert parse_array("1,5,9").values(2) == {"i": "9"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("200", "0-199"),
        ("0", "0-0"),
        ("9-0", "0-199"),
        ("0-9:0", "0-199"),
        ("", "0-199"),
        ("a-b", "0-199"),
        ("1,1", "once"),
        ("0-99999999:2", "0-199"),
        ("-5", "0-199"),
    ],
)
def test_a_bad_array_says_what_to_write(text: str, word: str) -> None:
    with pytest.raises(HansaError) as caught:
        parse_array(text)
    assert word in str(caught.value.hint)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=50, unique=True))
def test_each_index_comes_once_in_order(numbers: list[int]) -> None:
    found = parse_array(",".join(map(str, numbers)))
    assert found.rows == [[str(number)] for number in numbers]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_with_bom_quotes_blank_lines(tmp_path: Path) -> None:
    found = read_params(write(tmp_path, "p.csv", '\ufeffrate, kind\r\n0.1,"a, b"\r\n\r\n0.2,"say ""x"""\r\n'))
    assert found == Array(2, 0, ["rate", "kind"], [["0.1", "a, b"], ["0.2", 'say "x"']])


def test_other_kinds_of_files(tmp_path: Path) -> None:
    assert read_params(write(tmp_path, "p.tsv", "a\tb\n1\t2\n")).rows == [["1", "2"]]
    assert read_params(write(tmp_path, "s.csv", "a;b\n1,5;2\n")).rows == [["1,5", "2"]]
    lines = '{"a": 1, "b": "x"}\n\n{"b": null, "a": 1.5}\n'
    assert read_params(write(tmp_path, "p.jsonl", lines)) == Array(2, 0, ["a", "b"], [["1", "x"], ["1.5", ""]])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.csv", "a,a\n1,2\n", "line 1 names 'a' twice"),
        ("p.csv", "a,\n1,2\n", "line 1 has no name for column 2"),
        ("p.csv", "a,b\n1,2\n1\n", "line 3 has 1 values"),
        ("p.csv", "a,b\n1,2,3\n", "line 2 has 3 values"),
        ("p.csv", 'a\n"x\n', "is no CSV"),
        ("p.csv", "", "is empty"),
        ("p.csv", "a,b\n", "has no row"),
        ("p.csv", "i\n1\n", "the task's index"),
        ("p.csv", b"a\n\xff\n", "is not UTF-8"),
        ("p.jsonl", '{"a": 1}\n{"b": 1}\n', "line 2 has other names"),
        ("p.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("p.jsonl", "{\n", "line 1 is no JSON"),
        ("p.xlsx", "", "is not known"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    with pytest.raises(HansaError) as caught:
        read_params(write(tmp_path, name, content))
    assert words in caught.value.detail
    assert caught.value.hint


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, "params.csv", "a\n1\n")
    with pytest.raises(HansaError) as caught:
        read_params(tmp_path / "parms.csv")
    assert "params.csv" in str(caught.value.hint)


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=2, max_size=2),
        min_size=1,
    )
)
def test_what_csv_wrote_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["x", "y"], *rows])
    separators = "\x1c\x1d\x1e\x85\u2028\u2029"
    if not any(c in separators for c in out.getvalue()):
        path = write(tmp_path_factory.mktemp("params"), "p.csv", out.getvalue())
        assert read_params(path).rows == rows


def test_a_task_for_each_file_that_matches_in_order(tmp_path: Path) -> None:
    for name in ("data/b.fits", "data/a.fits", "data/note.txt", "data/deep/c.fits", "data/d.fits/inner"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert per_file("data/*.fits", tmp_path) == Array(2, 0, ["file"], [["data/a.fits"], ["data/b.fits"]])
    assert per_file("data/**/*.fits", tmp_path).count == 3


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("data/*.fit", "No file matches"),
        ("/etc/*", "begins in the current directory"),
        ("../*.fits", "begins in the current directory"),
        ("", "begins in the current directory"),
        ("data/**.fits", "no pattern"),
    ],
)
def test_a_pattern_that_cannot_be_used_says_why(tmp_path: Path, glob: str, words: str) -> None:
    with pytest.raises(HansaError, match=words):
        per_file(glob, tmp_path)


def test_templates() -> None:
    assert substitute("{a}/{b}/{a b}", {"a": "1", "a b": "2"}) == "1/{b}/2"
    assert filler("{i}.{x.y}", ["i", "x.y"])({"i": "{x.y}", "x.y": "2"}) == "{x.y}.2"
    assert has_template("run-{i}", ["i", "job"])
    assert not has_template("run-{job}", ["i", "job"])


def test_unknown_words_are_told() -> None:
    array = Array(1, 0, ["rate"], [["1"]])
    assert list(unknown_words(["{rate}", "{i}", "{}", '{"a": 1}'], array)) == []
    (note,) = unknown_words(["{rat}", "x{rat}"], array)
    assert "did you mean {rate}?" in note
