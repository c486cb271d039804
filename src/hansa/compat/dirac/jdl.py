"""The job description language: text to values and back. Pure.

Source: the ClassAds language as DIRAC uses it: ``Name = value;`` where a value is a string, a number, a truth value or
a list of them; around it all there may be brackets. Names know no case. Comments: ``#``, ``//`` to the end of the line,
``/* */``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

Scalar = str | int | float | bool
Value = Scalar | list[Scalar]

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*|//[^\n]*|/\*.*?\*/)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<mark>[=;,{}\[\]])
      | (?P<word>[^\s=;,{}\[\]"]+)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = {"n": "\n", "t": "\t", "r": "\r"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_INTEGER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?")


class JdlError(ValueError):
    """The text is no job description; the message says where and why."""


def parse(text: str) -> dict[str, Value]:
    """Attributes by their names in lower case. Raises JdlError."""
    tokens = list(_tokens(text))
    if tokens and tokens[0][0] == "[":
        if tokens[-1][0] != "]":
            raise JdlError("the bracket that opens the description is not closed")
        tokens = tokens[1:-1]
    found: dict[str, Value] = {}
    at = 0
    while at < len(tokens):
        if tokens[at][0] == ";":
            at += 1
            continue
        kind, name, line = tokens[at]
        if kind != "word" or not _NAME.fullmatch(name):
            raise JdlError(f"line {line}: {name!r} is no name of an attribute")
        if at + 1 >= len(tokens) or tokens[at + 1][0] != "=":
            raise JdlError(f"line {line}: there is no '=' after {name}")
        value, at = _value(tokens, at + 2, name, line)
        if name.lower() in found:
            raise JdlError(f"line {line}: {name} comes twice")
        found[name.lower()] = value
        if at < len(tokens) and tokens[at][0] != ";":
            raise JdlError(f"line {tokens[at][2]}: there is no ';' after the value of {name}")
    return found


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """(kind, text, line); kind is the mark itself, ``word`` or ``string``."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        line = text.count("\n", 0, at) + 1
        if match is None:
            raise JdlError(f"line {line}: a string is not closed")
        at = match.end()
        said = match.group()
        if match.lastgroup == "mark":
            yield said, said, line
        elif match.lastgroup == "string":
            yield "string", _ESCAPE.sub(lambda one: _SPECIAL.get(one.group(1), one.group(1)), said[1:-1]), line
        elif match.lastgroup == "word":
            yield "word", said, line


def _value(tokens: list[tuple[str, str, int]], at: int, name: str, line: int) -> tuple[Value, int]:
    if at >= len(tokens) or tokens[at][0] == ";":
        raise JdlError(f"line {line}: {name} has no value")
    if tokens[at][0] != "{":
        return _scalar(tokens[at]), at + 1
    items: list[Scalar] = []
    at += 1
    while at < len(tokens) and tokens[at][0] != "}":
        items.append(_scalar(tokens[at]))
        at += 1
        if at < len(tokens) and tokens[at][0] == ",":
            at += 1
        elif at < len(tokens) and tokens[at][0] != "}":
            raise JdlError(f"line {tokens[at][2]}: there is no ',' between the values of {name}")
    if at >= len(tokens):
        raise JdlError(f"line {line}: the list of {name} is not closed")
    return items, at + 1


def _scalar(token: tuple[str, str, int]) -> Scalar:
    kind, text, line = token
    if kind == "string":
        return text
    if kind != "word":
        raise JdlError(f"line {line}: {text!r} where a value was expected")
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def render(attributes: Mapping[str, Value]) -> str:
    """The text that :func:`parse` reads back, an attribute a line."""
    lines = [f"    {name} = {_render(value)};" for name, value in attributes.items()]
    return "\n".join(["[", *lines, "]"]) + "\n"


def _render(value: Value) -> str:
    if isinstance(value, list):
        return "{" + ", ".join(_render(item) for item in value) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + escaped.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'
    return repr(value)
