"""Parametric jobs: the values of each task, and the places where they go. Pure.

Source: DIRAC's own expansion (``ParametricJob.py``) and COMDIRAC's ``--Parametric``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence

from hansa.compat.dirac.jdl import JdlError, Scalar, Value

PLACE = re.compile(r"%(?:\((\w+)\)s|([snj%]))")
PARAMETERS, START, STEP, FACTOR = "parameters", "parameterstart", "parameterstep", "parameterfactor"
PADDED = "dirac_n"
"""The column with ``%n`` as DIRAC writes it: as wide as the last one, ``07`` of 12."""
MOST = 1_000_000
_LOOP = re.compile(r"([^:]+):([^:]+)(?::([^:]+)(?::([^:]+))?)?")


def names_of(attributes: Mapping[str, Value]) -> dict[str, str]:
    """Suffix of an attribute (empty, or ``.x``) to the name of the parameter: ``value`` for the one without."""
    found = {}
    for key in attributes:
        word, dot, name = key.partition(".")
        if word in (PARAMETERS, START, STEP, FACTOR):
            found[dot + name] = name or "value"
    return found


def parameters(attributes: Mapping[str, Value]) -> list[dict[str, str]] | None:
    """The parameters of each task. None for a single job. Raises JdlError."""
    lengths = {key: _length(key, attributes[key]) for key in attributes if key.partition(".")[0] == PARAMETERS}
    suffixes = names_of(attributes)
    if not lengths:
        if suffixes:
            raise JdlError("there is a ParameterStart, ParameterStep or ParameterFactor, but no Parameters")
        return None
    if len(set(lengths.values())) != 1:
        raise JdlError(f"the parameters are of different lengths: {', '.join(map(str, sorted(lengths.values())))}")
    count = next(iter(lengths.values()))
    if not count:
        raise JdlError("Parameters is an empty list")
    columns = {name: _column(attributes, suffix, count) for suffix, name in suffixes.items()}
    return [{name: str(column[index]) for name, column in columns.items()} for index in range(count)]


def _length(key: str, given: Value) -> int:
    if isinstance(given, list):
        return len(given)
    if isinstance(given, bool) or not str(given).isdigit():
        raise JdlError(f"Parameters{key[len(PARAMETERS) :]} is {given!r}, neither a list nor a count")
    if int(given) > MOST:
        raise JdlError(f"{int(given):,} parameters are more than {MOST:,}; submit them as several jobs")
    return int(given)


def _column(attributes: Mapping[str, Value], suffix: str, count: int) -> Sequence[Scalar]:
    given = attributes.get(PARAMETERS + suffix)
    if isinstance(given, list):
        return given
    value = number(attributes, START + suffix, 1)
    step = number(attributes, STEP + suffix, 0)
    factor = number(attributes, FACTOR + suffix, 1)
    column: list[Scalar] = []
    for _ in range(count):
        column.append(value)
        value = value * factor + step
    return column


def number(attributes: Mapping[str, Value], name: str, default: int) -> int | float:
    """A number of the description; also one that is written as a string. Raises JdlError."""
    value = attributes.get(name, default)
    found = value if isinstance(value, int | float) else _read(str(value))
    if found is None or not math.isfinite(found):
        raise JdlError(f"{name} is {value!r}, no number")
    return found


def _read(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def parametric(text: str) -> dict[str, Value]:
    """``--Parametric``: words and loops, with commas: ``a,b,1:5``.

    A loop ``start:stop[:step[:factor]]`` goes on below ``stop``, as in COMDIRAC and in Python; downwards where stop is
    below start. Raises JdlError.
    """
    values: list[Scalar] = []
    for part in text.split(","):
        if ":" not in part:
            values.append(part.strip())
            continue
        match = _LOOP.fullmatch(part.strip())
        read = [_read(one) for one in match.groups() if one is not None] if match else []
        numbers = [one for one in read if one is not None and math.isfinite(one)]
        if not numbers or len(numbers) != len(read):
            raise JdlError(f"--Parametric={part}: it is start:stop[:step[:factor]], all numbers")
        values += _loop(part, *numbers)
    return {PARAMETERS: values}


def _loop(text: str, start: float, stop: float, step: float = 1, factor: float = 1) -> list[Scalar]:
    sign = 1 if start < stop else -1
    values: list[Scalar] = []
    value = start
    while (value - stop) * sign < 0:
        values.append(value)
        following = value * factor + step
        if (following - value) * sign <= 0 or len(values) > MOST:
            raise JdlError(f"--Parametric={text} never comes to its end, or has more than {MOST:,} values")
        value = following
    if not values:
        raise JdlError(f"--Parametric={text} has no value: it stops before {stop:g}")
    return values


def expand(text: str, names: Collection[str]) -> str:
    """``%s``, ``%(x)s``, ``%n``, ``%j`` and ``%%`` as ``{value}``, ``{x}``, ``{i}``, ``{job}`` and ``%``."""

    def place(match: re.Match[str]) -> str:
        name, letter = match.groups()
        if name is not None:
            return "{" + name.lower() + "}" if name.lower() in names else match.group()
        index = PADDED if PADDED in names else "i"
        return {"s": "{value}" if "value" in names else "%s", "n": "{" + index + "}", "j": "{job}", "%": "%"}[letter]

    return PLACE.sub(place, text)


def collapse(text: str, names: Collection[str]) -> str:
    """What :func:`expand` makes of a text, turned back."""
    places = {"value": "%s", "i": "%n", PADDED: "%n", "job": "%j"}

    def place(match: re.Match[str]) -> str:
        name = match[1]
        return places.get(name, f"%({name})s") if name in names or name in ("i", "job") else match.group()

    return re.sub(r"\{(\w+)\}", place, text.replace("%", "%%"))


def fill(text: str, job: int, index: str, values: Mapping[str, str]) -> str:
    """The places of a text with one task's values: for what Hansa does not fill itself."""

    def place(match: re.Match[str]) -> str:
        name, letter = match.groups()
        if name is not None or letter == "s":
            return values.get((name or "value").lower(), match.group())
        return {"n": index, "j": str(job), "%": "%"}[letter]

    return PLACE.sub(place, text)


def padded(index: int, count: int) -> str:
    """``%n``: as wide as the last index.

    >>> padded(7, 12)
    '07'
    """
    return str(index).zfill(len(str(count - 1)))
