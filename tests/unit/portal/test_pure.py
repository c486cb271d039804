"""What the portal computes: pictures, forms, snippets, texts, values for people."""

from __future__ import annotations

import doctest
import shlex
from datetime import UTC, datetime
from typing import Any

import pytest

from hansa.jobs.overview import Bucket
from hansa.jobs.wire import JobSpec, Requirements
from hansa.kernel.errors import Fault
from hansa.portal import charts, job_form, show, snippets, texts
from hansa.portal.frame import templates, with_query
from tests.support.tools import load_tool


def test_a_bar_shows_the_smallest_share_and_stays_inside() -> None:
    pieces = charts.stack({"done": 999_999, "failed": 1})
    assert [piece.kind for piece in pieces] == ["done", "failed"]
    assert pieces[1].width >= 0.4
    assert all(piece.x + piece.width <= 100.001 for piece in pieces)
    assert charts.stack({}) == []


def test_one_failure_among_thousands_can_be_seen_in_the_picture() -> None:
    (column,) = charts.columns([Bucket(0, 2499, 0, 0, 2499, 1, 0)])
    failed = next(piece for piece in column.pieces if piece.kind == "failed")
    assert failed.width >= 8
    assert column.title == "0 to 2,499: 2,499 done, 1 failed"
    assert len(charts.columns([Bucket(i, i, 1, 0, 0, 0, 0) for i in range(3)])) == 3


def test_a_plot_needs_two_points_and_stands_one_value() -> None:
    assert charts.dots([(1, 1, "a")]) == []
    assert {dot.y for dot in charts.dots([(1, 5, "a"), (2, 5, "b")])} == {50.0}
    assert charts.bars([2, 1, 0]) == [100.0, 50.0, 0.0]
    assert charts.bars([0.0]) == [0.0]


def form(**fields: str) -> dict[str, str]:
    return job_form.blank() | {"command": "echo 'a b'"} | fields


def test_a_form_becomes_a_job() -> None:
    spec, wrong = job_form.read(
        form(first="3", last="7", memory_gib="0,5", hours="1.5", env="A=1\nB=x=y\n", outputs="*.csv\n", name=" n ")
    )
    assert wrong == []
    assert spec == JobSpec(
        command=["echo", "a b"],
        name="n",
        array=True,
        first=3,
        count=5,
        env={"A": "1", "B": "x=y"},
        outputs=["*.csv"],
        requirements=Requirements(memory_mib=512, wall_time_s=5400),
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"command": "echo 'half"}, "command"),
        ({"command": " "}, "command"),
        ({"first": "3"}, "last"),
        ({"first": "3", "last": "2"}, "last"),
        ({"last": "ten"}, "last"),
        ({"cores": "0"}, "cores"),
        ({"cores": "9" * 50}, "cores"),
        ({"memory_gib": "much"}, "memory_gib"),
        ({"hours": "nan"}, "hours"),
        ({"env": "novalue"}, "env"),
        ({"priority": "11"}, "priority"),
    ],
)
def test_what_is_wrong_names_its_field(fields: dict[str, str], field: str) -> None:
    spec, wrong = job_form.read(form(**fields))
    assert spec is None
    assert field in {one.field for one in wrong}


def test_indices_as_people_write_them() -> None:
    assert job_form.indices(" ") is None
    assert job_form.indices("3, 7 10-12") == [3, 7, 10, 11, 12]
    for bad in ("x", "3-", "-3", "0-999999"):
        with pytest.raises(Fault):
            job_form.indices(bad)


def test_snippets_say_the_same_and_quote_it() -> None:
    spec = JobSpec(command=["echo", "a'; rm -rf b"], name="x y", array=True, count=3, env={"K": "v w"})
    found = {one.name: one.text for one in snippets.of_job(spec, "https://h.example.org")}
    words = shlex.split(found["CLI"])
    assert words[:3] == ["hansa", "job", "submit"]
    assert words[words.index("--") + 1 :] == spec.command
    assert words[words.index("--name") + 1] == "x y"
    assert "K=v w" in words
    assert "https://h.example.org/api/v1/jobs" in shlex.split(found["curl"].replace("\\\n", " "))
    compile(found["Python"], "snippet", "exec")


def test_values_for_people() -> None:
    assert doctest.testmod(show).failed == 0
    assert show.show_seconds(3725) == "1 h 02 min"
    assert show.show_hours(7200) == "2.00"
    moment = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)
    assert show.show_time(moment) == '<time datetime="2026-11-25T12:30:00+00:00">2026-11-25 12:30 UTC</time>'
    assert show.show_time(None) == "–"


def test_filters_stay_in_the_address() -> None:
    assert with_query("/jobs", {"phase": "failed", "after": "x"}, after=None, q="a b") == "/jobs?phase=failed&q=a+b"
    assert with_query("/jobs", {}) == "/jobs"


def test_there_is_one_catalogue_of_texts_and_it_is_complete() -> None:
    assert load_tool("texts").main(["--check"]) == 0
    german = texts.translator({"Job {number}": "Auftrag {number}"})
    assert german("Job {number}", number=3) == "Auftrag 3"
    assert german("Files") == "Files"


def test_every_template_can_be_read() -> None:
    environment = templates()
    found = environment.list_templates()
    assert len(found) > 20
    for name in found:
        environment.get_template(name)
        source, _, _ = environment.loader.get_source(environment, name)  # type: ignore[union-attr]
        assert " style=" not in source, name
        assert "<script>" not in source, name
        assert "| safe" not in source, name


def test_a_wrong_value_never_becomes_markup() -> None:
    hostile: Any = "<script>"
    assert "<script>" not in templates().from_string("{{ value }}").render(value=hostile)
