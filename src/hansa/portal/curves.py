"""Use over time, and how tasks differ in it, as pictures and as tables of the same numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa.jobs.wire import JobUsage, TaskUsage, UsageSpread
from hansa.machines.wire import MachineUsage

FLOOR = 99.0
CEILING = 3.0
"""Of a picture that is 100 high: lines at its edges would be cut in half."""
HOUR_S = 3600.0
Lane = tuple[str, str, Sequence[float] | None, float]
"""Name, unit, values of stretches, and what was asked for, or 0."""


@dataclass(frozen=True)
class Curve:
    """One thing over time: an area in a square of 100, the height of what was asked for, and both in numbers."""

    name: str
    unit: str
    area: str
    line: float | None
    asked: str
    mean: str
    most: str
    top: str
    """What the upper edge of the picture stands for."""
    values: tuple[str, ...]
    """For the table: one for each stretch."""


@dataclass(frozen=True)
class Curves:
    """Curves of the same stretches: when each of them ends, in seconds from the start."""

    ends: tuple[float, ...]
    drawn: tuple[Curve, ...]


@dataclass(frozen=True)
class Bar:
    """So many tasks between two amounts, as a bar in a square of 100."""

    x: float
    width: float
    height: float
    low: str
    high: str
    tasks: int


@dataclass(frozen=True)
class Histogram:
    """How tasks differ in one thing."""

    name: str
    unit: str
    bars: tuple[Bar, ...]
    line: float | None
    asked: str
    low: str
    high: str
    row: tuple[str, ...]
    """Least, half, nine of ten, most."""


def number(value: float) -> str:
    """As many digits as say something.

    >>> number(1234.5), number(12.34), number(0.123), number(2.0)
    ('1,234', '12.3', '0.12', '2')
    """
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    if value < 0.01:
        return f"{value:.1g}" if value >= 0.0001 else "0"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def curves_of(usage: TaskUsage) -> Curves:
    """What a task used; nothing where it has no stretches."""
    lanes: list[Lane] = [
        ("cores", "", usage.cores, usage.cores_asked),
        ("memory", "MiB", usage.memory_mib, usage.memory_asked_mib),
        ("written", "MiB/s", usage.written_mib_s, 0),
        ("read", "MiB/s", usage.read_mib_s, 0),
        ("gpus", "", usage.gpus, usage.gpus_asked),
        ("gpu_memory", "MiB", usage.gpu_memory_mib, 0),
    ]
    ends = [min(usage.span_s, (place + 1) * usage.every_s) for place in range(len(usage.cores))]
    return curves(lanes, ends)


def curves_of_machine(usage: MachineUsage) -> tuple[Curves, Curves]:
    """What a machine used in the last hour, and in all its time; the second has nothing where that is not longer."""
    starts = [0.0, *usage.ends_s][: len(usage.ends_s)]
    first = next((n for n, end in enumerate(usage.ends_s) if end > usage.ends_s[-1] - HOUR_S), 0)
    lanes: list[Lane] = [
        ("cores", "", usage.cores, usage.cores_asked),
        ("memory", "MiB", usage.memory_mib, usage.memory_asked_mib),
        ("written", "MiB/s", usage.written_mib_s, 0),
        ("read", "MiB/s", usage.read_mib_s, 0),
    ]
    late: list[Lane] = [(name, unit, values[first:] if values else None, asked) for name, unit, values, asked in lanes]
    begin = starts[first] if starts else 0.0
    return curves(late, [end - begin for end in usage.ends_s[first:]]), curves(lanes if first else [], usage.ends_s)


def curves(lanes: Sequence[Lane], ends: Sequence[float]) -> Curves:
    """Lanes without values are left out, and of those that nobody asks for those in which nothing happened."""
    drawn = [
        curve(name, unit, values, ends, asked)
        for name, unit, values, asked in lanes
        if values and (asked or max(values) > 0)
    ]
    return Curves(tuple(ends) if drawn else (), tuple(drawn))


def curve(name: str, unit: str, values: Sequence[float], ends: Sequence[float], asked: float) -> Curve:
    """Steps from the left edge to the right, over the floor; what was asked for always lies in the picture."""
    top = max([*values, asked]) or 1.0
    lengths = [end - start for start, end in zip((0.0, *ends), ends, strict=False)]
    mean = sum(value * length for value, length in zip(values, lengths, strict=True)) / (ends[-1] or 1.0)
    steps = "".join(
        f"V{height(value, top):g}H{round(100 * end / (ends[-1] or 1.0), 2):g}"
        for value, end in zip(values, ends, strict=True)
    )
    return Curve(
        name,
        unit,
        f"M0 {FLOOR:g}{steps}V{FLOOR:g}z",
        height(asked, top) if asked else None,
        number(asked) if asked else "",
        number(mean),
        number(max(values)),
        number(top),
        tuple(number(value) for value in values),
    )


def height(value: float, top: float) -> float:
    """Where a value lies in a picture whose upper edge stands for ``top``."""
    return round(FLOOR - (FLOOR - CEILING) * value / top, 2)


_UNITS = {"wall_s": "s", "cores": "", "memory_mib": "MiB"}


def histograms_of(usage: JobUsage) -> list[Histogram]:
    return [histogram(spread) for spread in usage.spreads]


def histogram(spread: UsageSpread) -> Histogram:
    """Bars as wide as their bins; what was asked for is a line where it is near."""
    low, high = spread.least, spread.most
    right = spread.asked if high < spread.asked <= 4 * high else high
    span = (right - low) or 1.0
    most = max(one.tasks for one in spread.bins)
    bars = []
    for one in spread.bins:
        x = 100 * (one.low - low) / span
        width = 100 * (one.high - one.low) / span or 100.0
        tall = max(2.0, 96 * one.tasks / most) if one.tasks else 0.0
        bars.append(Bar(round(x, 2), round(width, 2), round(tall, 2), number(one.low), number(one.high), one.tasks))
    is_near = low < spread.asked <= right
    return Histogram(
        spread.name,
        _UNITS[spread.name],
        tuple(bars),
        round(100 * (spread.asked - low) / span, 2) if is_near else None,
        number(spread.asked),
        number(low),
        number(right),
        tuple(number(value) for value in (low, spread.half, spread.nine_of_ten, high)),
    )
