"""The query language of jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.jobs.query import FIELDS, QueryError, Term, parse

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("  ", []),
        ("state:failed", [Term("state", ":", ("failed",), position=0)]),
        ("phase=done,killed", [Term("state", ":", ("done", "killed"))]),
        ("name~sim", [Term("name", "~", ("sim",))]),
        ("-group:test", [Term("group", ":", ("test",), negated=True)]),
        ("!vo:sky", [Term("vo", ":", ("sky",), negated=True)]),
        ("label:a=b,c", [Term("label", ":", ("a=b", "c"))]),
        ('name:"night, run"', [Term("name", ":", ("night, run",))]),
        ('"two words" x:y', None),
        ("fit.py", [Term("", "~", ("fit.py",))]),
        ("tasks>=100 exit:1,2", [Term("tasks", ">=", (100,)), Term("exit", ":", (1, 2), position=11)]),
        ("created<2d", [Term("created", ">", (NOW - timedelta(days=2),))]),
        ("created>=2d", [Term("created", "<=", (NOW - timedelta(days=2),))]),
        ("ended>2026-11-01", [Term("ended", ">", (datetime(2026, 11, 1, tzinfo=UTC),))]),
        ("ended<2026-11-01T10:00+02:00", [Term("ended", "<", (datetime(2026, 11, 1, 8, tzinfo=UTC),))]),
    ],
)
def test_what_is_understood(text: str, terms: list[Term] | None) -> None:
    if terms is None:
        with pytest.raises(QueryError):
            parse(text, NOW)
    else:
        assert list(parse(text, NOW)) == terms


@pytest.mark.parametrize(
    ("text", "words", "position"),
    [
        ("sitee:x", "did you mean site?", 0),
        ("state:failed frobnicate:x", "there is no field 'frobnicate'; there are", 13),
        ("state:faild", "did you mean failed?", 6),
        ("state:done,faild", "did you mean failed?", 11),
        ("state~failed", "state goes with :, not with ~", 5),
        ("name:", "a value is missing", 5),
        ("exit:1,", "a value is missing", 7),
        ('name:"x', "not closed", 5),
        ("exit:one", "exit is a number", 5),
        ("created<soon", "no time", 8),
        ("created:2d", "created goes with", 7),
        ("created<99999999w", "longer ago than anything", 8),
        ("a " * 31, "at most 30 words", 60),
    ],
)
def test_what_is_refused_and_where(text: str, words: str, position: int) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text, NOW)
    assert words in str(caught.value)
    assert caught.value.position == position


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused_at_a_place_in_it(text: str) -> None:
    try:
        terms = parse(text, NOW)
    except QueryError as error:
        assert 0 <= error.position <= len(text)  # noqa: PT017 - it need not come
    else:
        assert all(term.field in {"", *FIELDS} and term.values for term in terms)
