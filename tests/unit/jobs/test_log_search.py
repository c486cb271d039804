"""Which lines are looked for, and how they are found in pieces."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.jobs.log_search import LONGEST_LINE_BYTES, Wanted, matching
from hansa.jobs.logs import Piece, _last_lines, _Search
from hansa.kernel.errors import Fault


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for one in data:
        yield one


async def joined(found: AsyncIterator[bytes]) -> bytes:
    return b"".join([one async for one in found])


@given(st.text(max_size=20), st.text(max_size=5), st.text(max_size=5))
def test_a_text_is_taken_as_it_is(text: str, before: str, after: str) -> None:
    text = text.replace("\n", " ")
    assert Wanted.text(text).has(f"{before}{text}{after}".encode())
    assert Wanted.text("a.b+", any_case=True).has(b"xA.B+x")
    assert not Wanted.text("a.b").has(b"aXb")


@pytest.mark.parametrize("bad", ["(", "(?=x)", "a{1000}{1000}{1000}", r"(a)\1"])
def test_what_is_no_expression_is_refused_in_words(bad: str) -> None:
    with pytest.raises(Fault, match="is no regular expression that can be used here: "):
        Wanted(bad)


def test_an_expression_cannot_keep_the_server_busy() -> None:
    began = time.process_time()
    assert not Wanted("^(a+)+$").has(b"a" * 100_000 + b"b")
    assert time.process_time() - began < 30, "other engines need longer than the universe"


async def test_lines_come_as_they_are_whatever_the_pieces() -> None:
    found = await joined(matching(pieces(b"one\nt", b"wo\xff\r\nthr", b"ee", b"\ntwo"), Wanted("^two|e$")))
    assert found == b"one\ntwo\xff\r\nthree\ntwo"
    endless = [b"x" * LONGEST_LINE_BYTES] * 3
    assert await joined(matching(pieces(*endless, b"end\n"), Wanted("end"))) == (b"x" * LONGEST_LINE_BYTES + b"end\n")


async def test_the_last_of_the_lines_that_were_found() -> None:
    assert await joined(_last_lines(pieces(b"1\n2\n", b"3\n", b"4"), 2)) == b"3\n4"


def test_lines_of_many_tasks_in_turn_each_byte_once() -> None:
    search = _Search(Wanted("^b"))
    come = [(0, 0, b"a0\nb"), (1, 0, b"b1\n"), (0, 0, b"a0\nb"), (0, 3, b"b0\nc\n"), (1, 3, b"bb")]
    found = [line for index, offset, data in come for line in search.add(Piece(index, 1, "stdout", offset, data))]
    assert [(line.index, line.text) for line in [*found, *search.end()]] == [(1, "b1"), (0, "b0"), (1, "bb")]
