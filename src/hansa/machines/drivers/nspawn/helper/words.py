"""What may be asked of the helper: each argument is checked against its shape. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

VERSION = 2
"""Of the verbs and their arguments: one more with each change to them, as a test demands."""

KEY = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
LABEL = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
PATH = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9._-]{0,100}){1,20}\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
SIGN_IN_KEY = re.compile(r"[ -~]{1,16000}\Z")

Check = Callable[[Any], Any]
Shape = Mapping[str, Check]


class Refusal(Exception):
    """Something is wrong with what was asked, or it does not work here."""

    def __init__(self, why: str, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.why, self.passing = why, passing


def text(pattern: re.Pattern[str]) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or not pattern.match(value):
            raise ValueError
        return value

    return check


def number(least: int, most: int) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not int or not least <= value <= most:
            raise ValueError
        return value

    return check


def flag(value: Any) -> Any:
    if type(value) is not bool:
        raise ValueError
    return value


def maybe(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def keys(value: Any) -> Any:
    if not isinstance(value, list) or len(value) > 100:
        raise ValueError
    return [text(SIGN_IN_KEY)(one) for one in value]


def blob(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > 1 << 20:
        raise ValueError
    return value


def checked(shape: Shape, given: Any) -> dict[str, Any]:
    """The arguments, exactly those of the shape. Raises Refusal."""
    if not isinstance(given, dict) or set(given) != set(shape):
        raise Refusal("usage", f"the arguments are {', '.join(sorted(shape)) or 'none'}")
    found = {}
    for name, check in shape.items():
        try:
            found[name] = check(given[name])
        except (ValueError, TypeError):
            raise Refusal("usage", f"{name} is not valid") from None
    return found
