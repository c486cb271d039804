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


def area(values: Sequence[float]) -> list[Dot]:
    """A line over time in a square of 100, from zero to the largest; nothing for fewer than two points."""
    if len(values) < 2:
        return []
    most = max(values) or 1.0
    step = 100 / (len(values) - 1)
    return [Dot(round(number * step, 3), round(100 - 96 * value / most, 2), "") for number, value in enumerate(values)]


@dataclass(frozen=True)
class Spread:
    """How values are spread: the least, the middle, nine tenths, the most."""

    least: float
    middle: float
    most_of: float
    most: float


def spread(values: Sequence[float]) -> Spread | None:
    """None for nothing."""
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    return Spread(ordered[0], ordered[last // 2], ordered[round(last * 0.9)], ordered[-1])


def lane(points: Sequence[tuple[float, float]], limit: float | None = None) -> tuple[list[Dot], float | None]:
    """Dots from zero up, in a square of 100, and the height of a limit (what was asked for) among them."""
    if not points:
        return [], None
    most = max([y for _, y in points] + ([limit] if limit else [])) or 1.0
    xs = [x for x, _ in points]
    dots = [Dot(_scale(x, xs), round(98 - 94 * y / most, 2), "") for x, y in points]
    return dots, None if not limit else round(98 - 94 * limit / most, 2)


def shapes(found: Sequence[Column]) -> list[tuple[str, str]]:
    """A picture of columns as one SVG path for each kind: a tenth of the bytes of a rectangle for each piece."""
    paths: dict[str, list[str]] = {}
    for column in found:
        for piece in column.pieces:
            box = f"M{column.x:g} {piece.x:g}h{column.width:g}v{piece.width:g}h-{column.width:g}z"
            paths.setdefault(piece.kind, []).append(box)
    return [(kind, "".join(boxes)) for kind, boxes in paths.items()]


def points(dots: Sequence[Dot]) -> str:
    """Dots as one SVG path: lines of no length with round ends."""
    return "".join(f"M{dot.x:g} {dot.y:g}h0" for dot in dots)
