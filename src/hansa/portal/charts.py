"""Pictures as numbers: where bars, rows and curves go. Pure; templates draw them as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa.jobs.overview import Bucket

ORDER = ("done", "failed", "killed", "running", "waiting")


@dataclass(frozen=True)
class Piece:
    """A piece of a bar: ``x`` and ``width`` in per cent of the whole."""

    kind: str
    x: float
    width: float


@dataclass(frozen=True)
class Column:
    """A stretch of an array as a column: its pieces from the bottom, and what it says."""

    x: float
    width: float
    pieces: tuple[Piece, ...]
    title: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    title: str


def stack(counts: dict[str, int]) -> list[Piece]:
    """Counts by phase as pieces of one bar; what is there is at least a hair wide."""
    total = sum(counts.values())
    found: list[Piece] = []
    x = 0.0
    for kind in ORDER:
        if not (number := counts.get(kind, 0)):
            continue
        width = max(0.4, 100 * number / total)
        found.append(Piece(kind, round(min(x, 99.6), 3), round(min(width, 100 - min(x, 99.6)), 3)))
        x += width
    return found


def columns(buckets: Sequence[Bucket]) -> list[Column]:
    """The picture of an array: one column a stretch, 100 high. A single failure among thousands can be seen."""
    width = 100 / max(1, len(buckets))
    return [
        Column(round(number * width, 4), round(width, 4), _pieces(bucket), _title(bucket))
        for number, bucket in enumerate(buckets)
    ]


def _pieces(bucket: Bucket) -> tuple[Piece, ...]:
    found: list[Piece] = []
    y = 0.0
    for kind in ("failed", "killed", "done", "running", "waiting"):
        if not (number := getattr(bucket, kind)):
            continue
        least = 8.0 if kind in ("failed", "killed") else 0.0
        height = min(100 - y, max(least, 100 * number / bucket.size))
        found.append(Piece(kind, round(100 - y - height, 2), round(height, 2)))
        y += height
    return tuple(found)


def _title(bucket: Bucket) -> str:
    parts = ", ".join(f"{getattr(bucket, kind):,} {kind}" for kind in ORDER if getattr(bucket, kind))
    span = f"{bucket.first:,}" if bucket.size == 1 else f"{bucket.first:,} to {bucket.last:,}"
    return f"{span}: {parts}"


def dots(points: Sequence[tuple[float, float, str]]) -> list[Dot]:
    """A scatter plot in a square of 100; nothing for fewer than two points."""
    if len(points) < 2:
        return []
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return [Dot(_scale(x, xs), 100 - _scale(y, ys), title) for x, y, title in points]


def _scale(value: float, values: Sequence[float]) -> float:
    low, high = min(values), max(values)
    return 50.0 if high == low else round(2 + 96 * (value - low) / (high - low), 2)


def bars(values: Sequence[float]) -> list[float]:
    """Heights of bars, the largest 100."""
    most = max(values, default=0.0)
    return [round(100 * value / most, 2) if most else 0.0 for value in values]
