"""The choice of a place: filter, then rank. One pure function; the same input gives the same order, in any order."""

from __future__ import annotations

from collections.abc import Iterable

from hansa.placement import filter as fits
from hansa.placement import rank
from hansa.placement.model import Candidate, Choice, Request, Verdict, Weights

DEFAULT = Weights()


def choose(request: Request, candidates: Iterable[Candidate], weights: Weights = DEFAULT) -> Choice:
    """Where it can run, the best first; ties go by name. Sentences are made by :func:`explain` only."""
    rules = fits.rules_for(request)
    tests = [(rule.fails, rule.reason) for rule in rules]
    ranked: list[tuple[float, tuple[str, str], Candidate]] = []
    rejected: list[Candidate] = []
    reasons: dict[tuple[str, str], str] = {}
    for candidate in candidates:
        for fails, reason in tests:
            if fails(request, candidate):
                rejected.append(candidate)
                reasons[candidate.key] = reason
                break
        else:
            ranked.append((-rank.score(request, candidate, weights), candidate.key, candidate))
    ranked.sort(key=_place)
    rejected.sort(key=_name)
    return Choice(
        request,
        weights,
        tuple(candidate for _, _, candidate in ranked),
        {key: -negative for negative, key, _ in ranked},
        tuple(rejected),
        reasons,
    )


def _place(entry: tuple[float, tuple[str, str], Candidate]) -> tuple[float, tuple[str, str]]:
    return entry[0], entry[1]


def _name(candidate: Candidate) -> tuple[str, str]:
    return candidate.site, candidate.endpoint


def explain(choice: Choice, candidate: Candidate, place: int | None = None) -> Verdict:
    """All there is to say about one candidate of a choice; ``place``: where it stands in the order, from 1."""
    request = choice.request
    found = () if place is not None else fits.findings(request, candidate)
    flavour = fits.fitting_flavour(request, candidate) if candidate.flavours else None
    return Verdict(
        candidate.site,
        candidate.endpoint,
        place,
        choice.scores.get(candidate.key, 0.0),
        found,
        rank.factors(request, candidate, choice.weights) if place is not None else (),
        flavour.name if flavour else None,
    )


def why(choice: Choice, candidate: Candidate) -> str:
    """What counted for a place of the order, in words: every factor."""
    return " ".join(one.message for one in rank.factors(choice.request, candidate, choice.weights))


def why_not(choice: Choice, candidate: Candidate) -> str:
    """All that speaks against a place, and what would change it, in words."""
    found = fits.findings(choice.request, candidate)
    return " ".join(text for one in found for text in (one.message, one.remedy) if text)


def explain_all(choice: Choice) -> list[Verdict]:
    """Every candidate: the chosen ones in their order, then the rejected by name."""
    chosen = [explain(choice, candidate, place) for place, candidate in enumerate(choice.order, 1)]
    return chosen + [explain(choice, candidate) for candidate in choice.rejected]
