"""Fair shares: whose turn it is where several want the same cores. Pure.

Shares form a tree: VOs, in each its groups, in each its users. On every level, who has used least for its weight comes
first. What was used loses half its worth in every half-life, so that nobody pays for ever, and what runs now counts as
if it would run on for a while. Over time, those who always want get what their weights say, whoever asks for more.

Usage is kept as one number per user, VO and group: worth what it was at the start of a *period* of one half-life, so
that it is added to by a single statement, whatever the time (see :func:`scaled` and :func:`worth`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

DEFAULT_WEIGHT = 1.0
HORIZON_S = 3600.0
"""What runs counts as used for so much longer."""

Key = tuple[str, str, str]
"""VO ("" for none), group ("" for none), user."""
Weights = Mapping[tuple[str, str], float]
"""By (parent, name): ("", VO), (VO, group), (VO/GROUP, user). What is not there weighs 1."""


@dataclass(frozen=True)
class Claim:
    """Somebody wants ``cores`` more, and has ``running``."""

    vo: str
    group: str
    user: str
    cores: int
    running: int = 0

    @property
    def key(self) -> Key:
        return (self.vo, self.group, self.user)


@dataclass(frozen=True)
class Standing:
    """Where somebody stands among its like: what part is due, and what part was used lately (0 to 1)."""

    parent: str
    name: str
    weight: float
    due: float
    used: float


def period_of(now: datetime, half_life_s: float) -> int:
    """The number of the half-life that ``now`` is in."""
    return int(now.timestamp() // half_life_s)


def scaled(amount: float, now: datetime, half_life_s: float) -> float:
    """What is used now, as it would have been worth at the start of its period."""
    return float(amount * 2.0 ** (now.timestamp() / half_life_s % 1.0))


def worth(amount: float, period: int, now: datetime, half_life_s: float) -> float:
    """What is left now of an amount that is kept for a period."""
    age = now.timestamp() / half_life_s - period
    return float(amount * 2.0 ** -max(0.0, age)) if age < 1000 else 0.0


@dataclass
class _Node:
    weight: float = DEFAULT_WEIGHT
    used: float = 0.0
    wants: int = 0
    claim: Claim | None = None
    children: dict[str, _Node] = field(default_factory=dict)
    heap: list[tuple[float, str]] = field(default_factory=list)


def order(claims: Sequence[Claim], usage: Mapping[Key, float], weights: Weights) -> list[Claim]:
    """Whose turn it is first, second, …: as if each were given all that it wants in its turn, and nobody waited."""
    root = _tree(claims, usage, weights, HORIZON_S)
    return [claim for claim in _walk(root) if claim.cores > 0]


def _walk(node: _Node) -> Iterator[Claim]:
    if node.claim is not None:
        yield node.claim
    for _, name in sorted((child.used / child.weight, name) for name, child in node.children.items()):
        yield from _walk(node.children[name])


def divide(
    cores: int,
    claims: Sequence[Claim],
    usage: Mapping[Key, float],
    weights: Weights,
    *,
    quantum: int = 1,
    horizon_s: float = HORIZON_S,
) -> dict[Key, int]:
    """How many of ``cores`` free ones each claim gets, ``quantum`` at a time; none is left while somebody wants one."""
    root = _tree(claims, usage, weights, horizon_s)
    _heapify(root)
    given: dict[Key, int] = {}
    while cores > 0 and root.wants > 0:
        path = _pick(root)
        claim = path[-1].claim
        assert claim is not None  # noqa: S101 - leaves are claims, for the type checker
        count = min(cores, quantum, path[-1].wants)
        given[claim.key] = given.get(claim.key, 0) + count
        cores -= count
        _give(path, claim, count, horizon_s)
    return given


def _pick(root: _Node) -> list[_Node]:
    """From the root to the leaf whose turn it is."""
    path = [root]
    while path[-1].heap:
        path.append(path[-1].children[path[-1].heap[0][1]])
    return path


def _give(path: list[_Node], claim: Claim, count: int, horizon_s: float) -> None:
    for node in path:
        node.used += count * horizon_s
        node.wants -= count
    for parent, name in zip(path, (claim.vo, claim.group, claim.user), strict=False):
        child = parent.children[name]
        if child.wants > 0:
            heapq.heapreplace(parent.heap, (child.used / child.weight, name))
        else:
            heapq.heappop(parent.heap)


def _tree(claims: Sequence[Claim], usage: Mapping[Key, float], weights: Weights, horizon_s: float) -> _Node:
    root = _Node()
    for claim in claims:
        used = claim.running * horizon_s
        for node in _path(root, claim.key, weights):
            node.used += used
            node.wants += claim.cores
        leaf = _path(root, claim.key, weights)[-1]
        before = leaf.claim
        more = (before.cores, before.running) if before is not None else (0, 0)
        leaf.claim = Claim(*claim.key, claim.cores + more[0], claim.running + more[1])
    for key, used in usage.items():
        for node in _path(root, key, weights):
            node.used += used
    return root


def _path(root: _Node, key: Key, weights: Weights) -> list[_Node]:
    path = [root]
    for parent, name in zip(parents(key), key, strict=True):
        node = path[-1].children.get(name)
        if node is None:
            node = path[-1].children[name] = _Node(max(1e-9, weights.get((parent, name), DEFAULT_WEIGHT)))
        path.append(node)
    return path


def parents(key: Key) -> tuple[str, str, str]:
    """What the parts of a key are children of, as weights name it."""
    return ("", key[0], f"{key[0]}/{key[1]}")


def _heapify(node: _Node) -> None:
    node.heap = [(child.used / child.weight, name) for name, child in node.children.items() if child.wants > 0]
    heapq.heapify(node.heap)
    for child in node.children.values():
        _heapify(child)


def standings(usage: Mapping[Key, float], weights: Weights) -> list[Standing]:
    """Every VO, group and user that has used something or has a weight, beside its like."""
    root = _tree([], usage, weights, HORIZON_S)
    for parent, name in weights:
        vo, _, group = parent.partition("/")
        if not parent:
            root.children.setdefault(name, _Node(weights[parent, name]))
        elif "/" not in parent and vo in root.children:
            root.children[vo].children.setdefault(name, _Node(weights[parent, name]))
        elif vo in root.children and group in root.children[vo].children:
            root.children[vo].children[group].children.setdefault(name, _Node(weights[parent, name]))
    return list(_stand(root, []))


def _stand(node: _Node, path: list[str]) -> Iterator[Standing]:
    total = sum(child.weight for child in node.children.values())
    for name, child in sorted(node.children.items()):
        used = child.used / node.used if node.used else 0.0
        yield Standing("/".join(path), name, child.weight, child.weight / total, used)
        yield from _stand(child, [*path, name])
