"""DIRAC's job descriptions."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.compat.dirac.jdl import JdlError, parse, render
from hansa.compat.dirac.translate import parameters, parametric, translate

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
SCALARS = st.one_of(TEXTS, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}(\.[a-z]{1,5})?", fullmatch=True)


@given(st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=5)), max_size=6))
def test_what_is_written_is_read(attributes: dict[str, object]) -> None:
    assert parse(render(attributes)) == attributes  # type: ignore[arg-type]


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(JdlError):
        parse(text)


def test_a_description_as_people_write_them() -> None:
    found = parse(
        """[
        # a comment
        Executable = "/bin/echo"; // another
        Arguments = "a \\"b c\\" %s";   /* and
        one more */
        Parameters = {"x", "y"};
        CPUTime = 3600; Site = "LCG.CERN.ch";
        OutputSandbox = {"std.out", "std.err", "out.dat"}
        ]"""
    )
    job = translate(found, lambda _path: False)
    assert job.command == ["/bin/echo", "a", "b c", "{value}"]
    assert job.rows == [{"value": "x"}, {"value": "y"}]
    assert job.outputs == ["out.dat"]
    assert job.options == {"wall_time": 3600, "sites": ["LCG.CERN.ch"]}


@pytest.mark.parametrize(
    "text",
    [
        "Executable",
        "Executable =",
        "= 1",
        'A = "open',
        "A = {1, 2",
        "A = 1 B = 2",
        "A = 1; a = 2;",
        "[ A = 1;",
        "A = ]",
    ],
)
def test_what_is_wrong_is_said(text: str) -> None:
    with pytest.raises(JdlError):
        parse(text)


def test_parameters() -> None:
    assert parameters({"parameters": 3, "parameterstart": 1, "parameterstep": 2, "parameterfactor": 2}) == [
        {"value": "1"}, {"value": "4"}, {"value": "10"}
    ]  # fmt: skip
    assert parameters({"parameters.a": [1, 2], "parameters.b": ["x", "y"]}) == [
        {"a": "1", "b": "x"}, {"a": "2", "b": "y"}
    ]  # fmt: skip
    assert parametric("0:10:5") == {"parameters": [0, 5, 10]}
    assert parametric("1:8:0:2") == {"parameters": [1, 2, 4, 8]}
    assert parametric("a,b") == {"parameters": ["a", "b"]}
    for wrong in ("5:9:0", "1:x", "1:2:3:4:5"):
        with pytest.raises(JdlError):
            parametric(wrong)
    with pytest.raises(JdlError):
        parameters({"parameters.a": [1], "parameters.b": [1, 2]})


def test_what_cannot_be_done_is_refused() -> None:
    for attributes in (
        {},
        {"executable": "dir/none"},
        {"executable": "/bin/true", "inputdata": ["LFN:/vo/x"]},
        {"executable": "/bin/true", "inputsandbox": ["LFN:/vo/x"]},
    ):
        with pytest.raises(JdlError):
            translate(attributes, lambda _path: False)  # type: ignore[arg-type]
