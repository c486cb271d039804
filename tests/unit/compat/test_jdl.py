"""DIRAC's job descriptions."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.compat.dirac.jdl import JdlError, parse, render
from hansa.compat.dirac.parametric import collapse, expand, padded, parameters, parametric
from hansa.compat.dirac.translate import stream_names, translate
from hansa.compat.dirac.words import platform_words, wanted_states

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
    assert parameters({"parameters": 2}) == [{"value": "1"}] * 2, "DIRAC begins with 1 and has no step"
    assert parameters({"parameters": 2, "parameterstart.x": 5, "parameterstep.x": 2.5}) == [
        {"value": "1", "x": "5"}, {"value": "1", "x": "7.5"}
    ]  # fmt: skip
    with pytest.raises(JdlError):
        parameters({"parameters.a": [1], "parameters.b": [1, 2]})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a,b", ["a", "b"]),
        ("0:10:5", [0, 5]),
        ("1:4", [1, 2, 3]),
        ("1:8:0:2", [1, 2, 4]),
        ("10:0:-4", [10, 6, 2]),
        ("0:1:0.5", [0, 0.5]),
        ("a,1:3", ["a", 1, 2]),
    ],
)
def test_a_loop_stops_before_its_end_as_in_comdirac(text: str, values: list[object]) -> None:
    assert parametric(text) == {"parameters": values}


@pytest.mark.parametrize("text", ["5:9:0", "1:x", "1:2:3:4:5", "3:3", "9:1", "0:1:1e-9", "0:nan"])
def test_a_loop_without_an_end_is_refused(text: str) -> None:
    with pytest.raises(JdlError, match="--Parametric="):
        parametric(text)


def test_places_are_filled_and_found_again() -> None:
    names = frozenset({"value", "x"})
    assert expand("%s-%(X)s-%(y)s-%n-%j-5%%", names) == "{value}-{x}-%(y)s-{i}-{job}-5%"
    assert collapse("{value}-{x}-{i}-{job}-{other}-5%", names) == "%s-%(x)s-%n-%j-{other}-5%%"
    assert padded(7, 100) == "07"
    found = parse('Executable = "/bin/a"; Arguments = "%n"; Parameters = 12; JobName = "j_%n";')
    job = translate(found, lambda _path: False)
    assert job.rows is not None
    assert job.rows[3] == {"value": "1", "dirac_n": "03"}
    assert job.command == ["/bin/a", "{dirac_n}"]
    assert stream_names({"dirac.stdout": "o_%s_%n_%j"}, 7, "03", {"value": "a/b"}) == {
        "stdout": "o_a_b_03_7", "stderr": "std.err"
    }  # fmt: skip


def test_a_sandbox_is_flat_and_its_executable_is_in_it() -> None:
    found = parse('Executable = "run.sh"; InputSandbox = {"some/run.sh", "data/in.txt"};')
    job = translate(found, lambda _path: False)
    assert (job.command, job.program) == (["./run.sh"], "run.sh")
    assert job.inputs == ["some/run.sh=run.sh", "data/in.txt=in.txt"]
    assert translate({"executable": "x/run.sh"}, lambda _path: True).command == ["./run.sh"]
    assert translate({"executable": "run.sh"}, lambda _path: True, is_text=lambda _path: True).command[0] == "/bin/sh"


def test_words_of_platforms_and_states() -> None:
    assert platform_words("x86_64-EL9") == ["x86_64", "el9"]
    assert platform_words("Linux_x86_64_glibc-2.17") == ["x86_64", "glibc=2.17"]
    with pytest.raises(JdlError, match="not known here"):
        platform_words("x86_64-el9-gcc12-opt")
    assert wanted_states("failed, Matched") == ({"failed", "matched"}, ["Matched"])
    with pytest.raises(JdlError, match="no state fialed"):
        wanted_states("fialed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('JobType = "MCSimulation"', "JobType changes nothing"),
        ("MaxNumberOfProcessors = 8", "MaxNumberOfProcessors changes nothing"),
        ('Owner = "ada"', "hansa whoami"),
        ('OutputSE = "disk"', "no storage element"),
        ('Arguments = "$HOME"', "no shell expands"),
        ("Foo = 1", "foo is not known here"),
        ("ParameterFoo = 1", "parameterfoo is not known here"),
    ],
)
def test_nothing_is_ignored_without_a_word(text: str, said: str) -> None:
    (note,) = translate(parse(f'Executable = "/bin/a"; {text};'), lambda _path: False).notes
    assert said in note


def test_what_cannot_be_done_is_refused() -> None:
    for attributes in (
        {},
        {"executable": "dir/none"},
        {"executable": "/bin/true", "inputdata": ["LFN:/vo/x"]},
        {"executable": "/bin/true", "inputsandbox": ["LFN:/vo/x"]},
        {"executable": "/bin/true", "inputsandbox": ["a/x", "b/x"]},
        {"executable": "/bin/true", "parameterstart": 1},
        {"executable": "/bin/true", "cputime": "nan"},
        {"executable": "/bin/true", "numberofprocessors": 1.5},
    ):
        with pytest.raises(JdlError):
            translate(attributes, lambda _path: False)  # type: ignore[arg-type]
