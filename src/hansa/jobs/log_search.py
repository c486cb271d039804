"""Looking for a text in the whole log of a task, however large it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

MOST_LINES = 1000
MOST_BYTES = 256 * 1024 * 1024
_LINE_BYTES = 64 * 1024
"""Of a line that has no end, so much is looked at at a time."""


@dataclass(frozen=True)
class Found:
    """Lines, by number from 1, that have the text; ``is_cut``: there are, or may be, more."""

    lines: list[tuple[int, str]]
    is_cut: bool


async def find_lines(
    pieces: AsyncIterator[bytes], text: str, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES
) -> Found:
    """Lines with ``text`` in them, whatever its case."""
    wanted = text.lower()
    found: list[tuple[int, str]] = []
    number, size, rest = 1, 0, b""
    async for piece in pieces:
        size += len(piece)
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            _keep(found, number, line, wanted)
            number += 1
        if len(rest) > _LINE_BYTES:
            _keep(found, number, rest, wanted)
            rest = b""
        if len(found) >= most_lines or size >= most_bytes:
            return Found(found[:most_lines], is_cut=True)
    _keep(found, number, rest, wanted)
    return Found(found[:most_lines], is_cut=len(found) > most_lines)


def _keep(found: list[tuple[int, str]], number: int, line: bytes, wanted: str) -> None:
    shown = line.decode(errors="replace").rstrip("\r")
    if wanted in shown.lower():
        found.append((number, shown))
