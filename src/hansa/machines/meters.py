"""What machines use over their time: samples of running totals, few of them however long a machine runs. Pure.

Totals lose nothing when samples between them are left out. So the newest hour is kept as it was looked at, and the
older a sample is, the more of its neighbours have gone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hansa.machines.drivers.base import Meter

EVERY_S = 30.0
MOST = 240


@dataclass(frozen=True)
class Sample:
    """A machine at a moment (seconds since 1970): totals since its last start, and the most memory since the sample
    before."""

    at: float
    cpu_s: float
    memory_mib: float
    read_mib: float | None = None
    written_mib: float | None = None


@dataclass(frozen=True)
class Stretch:
    """Between two samples. Rates are means; ``memory_mib`` is the most that was seen."""

    start: float
    end: float
    cores: float
    memory_mib: float
    read_mib_s: float | None
    written_mib_s: float | None


def sample_of(meter: Meter, at: float) -> Sample:
    return Sample(at, meter.cpu_s, meter.memory_mib, meter.read_mib, meter.written_mib)


def plain(samples: Sequence[Sample]) -> list[list[float | None]]:
    """As they are kept."""
    rows: list[list[float | None]] = [
        [one.at, one.cpu_s, one.memory_mib, one.read_mib, one.written_mib] for one in samples
    ]
    return [[None if value is None else round(value, 3) for value in row] for row in rows]


def samples_of(kept: Sequence[Sequence[Any]]) -> list[Sample]:
    return [Sample(*row) for row in kept]


def with_sample(samples: Sequence[Sample], new: Sample) -> list[Sample]:
    """With one more; of too many, the older half becomes half as many. One that is not newer is left out."""
    if samples and new.at <= samples[-1].at:
        return list(samples)
    found = [*samples, new]
    if len(found) <= MOST:
        return found
    old, young = found[: MOST // 2], found[MOST // 2 :]
    first, rest = old[0], old[1:]  # the first one is where all begins
    thinned = []
    for place in range(1, len(rest), 2):
        before, after = rest[place - 1], rest[place]
        peak = max(before.memory_mib, after.memory_mib)
        thinned.append(Sample(after.at, after.cpu_s, peak, after.read_mib, after.written_mib))
    return [first, *thinned, *rest[len(rest) - len(rest) % 2 :], *young]


def stretches(samples: Sequence[Sample]) -> list[Stretch]:
    """What was used between samples; a total that fell began anew, with the machine."""
    found = []
    for before, after in itertools.pairwise(samples):
        length = after.at - before.at
        found.append(
            Stretch(
                before.at,
                after.at,
                _grown(before.cpu_s, after.cpu_s, length) or 0.0,
                after.memory_mib,
                _grown(before.read_mib, after.read_mib, length),
                _grown(before.written_mib, after.written_mib, length),
            )
        )
    return found


def _grown(before: float | None, after: float | None, length_s: float) -> float | None:
    if before is None or after is None:
        return None
    return (after - before if after >= before else after) / length_s
