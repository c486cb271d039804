"""Which of the possible places is best: factors between 0 and 1, each with a weight; the sum decides.

A factor looks at one candidate only, never at its rivals: who else is there cannot turn the order of two around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hansa.placement.model import Candidate, Factor, Request, Weights

UNKNOWN = 0.5
_PRIOR_STARTS, _PRIOR_RATE = 5.0, 0.8
"""A place of which nothing is known counts as five starts of which four went well."""


@dataclass(frozen=True)
class Scale:
    """One factor: its value for a candidate, and the words for it."""

    name: str
    value: Callable[[Request, Candidate, Weights], float]
    say: Callable[[Request, Candidate], str]


def _grant(_request: Request, candidate: Candidate, _weights: Weights) -> float:
    if candidate.is_own:
        return 1.0
    return 0.3 if candidate.grant is None else 0.5 + 0.5 * candidate.grant.share


def _say_grant(request: Request, candidate: Candidate) -> str:
    if candidate.is_own:
        return "It is your own."
    if candidate.grant is None:
        return "It demands no capacity grant, and promises nothing."
    return f"{request.vo} has {candidate.grant.share:.0%} of its grant there left."


def _success(_request: Request, candidate: Candidate, _weights: Weights) -> float:
    seen = candidate.measured
    if seen is None:
        return _PRIOR_RATE
    return (seen.succeeded + _PRIOR_STARTS * _PRIOR_RATE) / (seen.succeeded + seen.failed + _PRIOR_STARTS)


def _say_success(_request: Request, candidate: Candidate) -> str:
    seen = candidate.measured
    if seen is None or not seen.succeeded + seen.failed:
        return "Nothing was started there of late."
    return f"Of {seen.succeeded + seen.failed:,} starts of late, {seen.succeeded:,} went well."


def _start(_request: Request, candidate: Candidate, weights: Weights) -> float:
    seen = candidate.measured
    if seen is None or seen.start_s is None:
        return UNKNOWN
    return weights.start_half_s / (weights.start_half_s + max(0.0, seen.start_s))


def _say_start(_request: Request, candidate: Candidate) -> str:
    seen = candidate.measured
    if seen is None or seen.start_s is None:
        return "How long a start takes there is not known."
    return f"A start took {seen.start_s:,.0f} s (median)."


def _load(_request: Request, candidate: Candidate, _weights: Weights) -> float:
    load = candidate.load
    return UNKNOWN if load is None else 1.0 - min(1.0, max(0.0, load))


def _say_load(_request: Request, candidate: Candidate) -> str:
    return "Its load is not known." if candidate.load is None else f"{candidate.load:.0%} of it is in use."


def _data(request: Request, candidate: Candidate, _weights: Weights) -> float:
    if not request.data:
        return 1.0
    total = here = 0.0
    for one in request.data:
        size = max(1, one.size_bytes)
        total += size
        here += size if one.name in candidate.data else size * 0.5 if one.name in candidate.near_data else 0.0
    return here / total


def _say_data(request: Request, candidate: Candidate) -> str:
    if not request.data:
        return "No data set is asked for."
    names = {one.name for one in request.data}
    here, near = len(names & candidate.data), len((names & candidate.near_data) - candidate.data)
    more = f", {near} more {'is' if near == 1 else 'are'} in its country" if near else ""
    return f"It has {here} of {len(names)} data sets{more}."


def _cost(_request: Request, candidate: Candidate, weights: Weights) -> float:
    price = candidate.price
    return UNKNOWN if price is None else weights.price_half / (weights.price_half + max(0.0, price))


def _say_cost(_request: Request, candidate: Candidate) -> str:
    return "It names no price." if candidate.price is None else f"{candidate.price:g} for a core hour."


def _preference(request: Request, candidate: Candidate, _weights: Weights) -> float:
    wanted = request.preferred_sites
    if candidate.site not in wanted:
        return 0.0
    return 1.0 - wanted.index(candidate.site) / len(wanted)


def _say_preference(request: Request, candidate: Candidate) -> str:
    if candidate.site not in request.preferred_sites:
        return "You did not name it."
    return f"Your choice number {request.preferred_sites.index(candidate.site) + 1}."


SCALES: tuple[Scale, ...] = (
    Scale("grant", _grant, _say_grant),
    Scale("success", _success, _say_success),
    Scale("start", _start, _say_start),
    Scale("load", _load, _say_load),
    Scale("data", _data, _say_data),
    Scale("cost", _cost, _say_cost),
    Scale(
        "stability",
        lambda _r, c, _w: 0.0 if c.at_risk else 1.0,
        lambda _r, c: c.at_risk or "Nothing is announced that would disturb it.",
    ),
    Scale("preference", _preference, _say_preference),
)


def score(request: Request, candidate: Candidate, weights: Weights) -> float:
    """The weighted mean of all factors: 0 to 1."""
    total = points = 0.0
    for scale in SCALES:
        weight = getattr(weights, scale.name)
        total += weight
        points += weight * scale.value(request, candidate, weights)
    return points / total if total else 0.0


def factors(request: Request, candidate: Candidate, weights: Weights) -> tuple[Factor, ...]:
    """What :func:`score` is made of, in words."""
    return tuple(
        Factor(
            scale.name,
            scale.value(request, candidate, weights),
            getattr(weights, scale.name),
            scale.say(request, candidate),
        )
        for scale in SCALES
    )
