"""Sizes and times as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.client.errors import HansaError
from hansa.client.units import parse_bytes, parse_memory, parse_time, show_bytes, show_time


@pytest.mark.parametrize(
    ("text", "mib"),
    [("512", 512), ("512M", 512), ("2G", 2048), ("2GiB", 2048), ("1.5g", 1536), ("1T", 1024**2), ("100K", 1)],
)
def test_memory_is_read(text: str, mib: int) -> None:
    assert parse_memory(text) == mib


@pytest.mark.parametrize("text", ["", "0", "-1", "2X", "G", "1e3", "2 G B", "nan", "512B"])
def test_bad_memory_says_how_to_write_it(text: str) -> None:
    with pytest.raises(HansaError) as caught:
        parse_memory(text)
    assert "512M" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1-00:00:00", 86400),
        ("01:30:00", 5400),
        ("1-02:03:04", 93784),
        ("0.5", 1),
    ],
)
def test_time_is_read(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "m", "1x", "1:2", "10:70:00", "-5", "1h 30m"])
def test_bad_time_is_an_error(text: str) -> None:
    with pytest.raises(HansaError):
        parse_time(text)


def test_ambiguous_time_is_asked_back() -> None:
    with pytest.raises(HansaError) as caught:
        parse_time("01:30")
    assert "1h30m or 1m30s" in str(caught.value.hint)


@given(st.integers(1, 10**8))
def test_seconds_come_back(seconds: int) -> None:
    days, rest = divmod(seconds, 86400)
    clock = f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    assert parse_time(clock) == parse_time(f"{seconds}s") == seconds


@given(st.text(max_size=12))
def test_parsers_raise_nothing_else(text: str) -> None:
    for parse in (parse_memory, parse_time, parse_bytes):
        with contextlib.suppress(HansaError):
            assert parse(text) >= 1


def test_amounts_are_shown() -> None:
    assert [show_bytes(n) for n in (0, 1023, 1024, 1024**2 - 1, 3 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1 MiB",
        "3 TiB",
    ]
    assert [show_time(n) for n in (0, 0.25, 59, 60, 3600, 90061, 7205)] == [
        "0 s",
        "0.2 s",
        "59 s",
        "1 min",
        "1 h",
        "1 d 1 h",
        "2 h",
    ]
