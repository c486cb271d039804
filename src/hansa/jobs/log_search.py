"""Looking for lines in logs, however large they are.

Expressions of users run in the server: their engine (Rust's, which pydantic brings along) takes time in proportion to
the text, whatever the expression, and holds no more than a line.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from pydantic_core import SchemaError, SchemaValidator, core_schema

from hansa.kernel import errors
from hansa.kernel.errors import Fault

MOST_LINES = 1000
LONGEST_LINE_BYTES = 1024**2
MOST_BYTES = 256 * 1024 * 1024
_LINE_BYTES = 64 * 1024
"""Of a line that has no end, so much is looked at at a time."""


class Wanted:
    """Which lines are wanted: those in which a regular expression is found.

    Raises Fault ``kernel.invalid`` on what is none.
    """

    def __init__(self, expression: str) -> None:
        schema = core_schema.str_schema(pattern=expression, regex_engine="rust-regex")
        try:
            self._schema = SchemaValidator(schema)
        except SchemaError as error:
            why = str(error).strip().splitlines()[-1].removeprefix("error: ")
            raise Fault(
                errors.INVALID,
                f"{expression[:200]!r} is no regular expression that can be used here: {why}.",
                hint="All but look-around and back references is there; a \\ before a character takes it as it is.",
            ) from error

    @classmethod
    def text(cls, text: str, *, any_case: bool = False) -> Wanted:
        """Lines with this text in them."""
        return cls(("(?i)" if any_case else "") + re.sub(r"([^0-9A-Za-z_ ])", _escaped, text))

    def has(self, line: bytes) -> bool:
        return self._schema.isinstance_python(line.decode(errors="replace"))


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{{{ord(found[1]):x}}}"


async def matching(pieces: AsyncIterator[bytes], wanted: Wanted) -> AsyncIterator[bytes]:
    """The lines that are wanted, as they are; of a line without an end no more than its last MiB is looked at."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if found := [line + b"\n" for line in lines if wanted.has(line)]:
            yield b"".join(found)
        rest = rest[-LONGEST_LINE_BYTES:]
    if rest and wanted.has(rest):
        yield rest


@dataclass(frozen=True)
class Found:
    """Lines, by number from 1, that have the text; ``is_cut``: there are, or may be, more."""

    lines: list[tuple[int, str]]
    is_cut: bool


async def find_lines(
    pieces: AsyncIterator[bytes], wanted: Wanted, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES
) -> Found:
    """Lines that are wanted, with their numbers."""
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


def _keep(found: list[tuple[int, str]], number: int, line: bytes, wanted: Wanted) -> None:
    if wanted.has(line):
        found.append((number, line.decode(errors="replace").rstrip("\r")))
