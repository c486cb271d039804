"""How many pilots are started where, and how large. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hansa.jobs.batch import EXCLUSIVE
from hansa.jobs.needs import Needs, Place, lacks
from hansa.jobs.placing import Offer, request_of
from hansa.placement.filter import fitting_flavours
from hansa.placement.model import Flavour
from hansa.placement.views import BATCH_OVERHEAD_S

PATIENCE_S = 120.0
"""A pilot that has waited for longer to start is not counted on any more: another site is tried beside it."""
GROW_S = 10.0
"""Where a pilot works on a queue, another one is started only for what has waited so long."""
_START_S = 180.0
"""Of a pilot's life, what starting and tidying up may take."""
_USUAL_WALL_S = 4 * 3600.0


@dataclass(frozen=True)
class Size:
    """A pilot to be started; cores and the like of each of its nodes. ``wall_time_s`` None: no end."""

    cores: int
    memory_mib: int
    gpus: tuple[str, ...] = ()
    nodes: int = 1
    is_whole: bool = False
    wall_time_s: float | None = None


@dataclass
class Live:
    """A pilot that lives or is being started, as the books of one look have it; what is free is counted down."""

    place: Place
    vo: str | None
    where: str
    """Id of its endpoint, or name of its site."""
    is_starting: bool
    age_s: float
    cores_free: int
    memory_free_mib: int
    trouble: str = ""
    """Why it cannot be started now, in a sentence; empty: it can, or lives."""
    waiting_on: str = ""
    """Who could end the trouble."""
    banned: frozenset[str] = frozenset()
    """VOs of which its site wants nothing, though it is for all of its owner's."""

    @property
    def is_stuck(self) -> bool:
        return self.is_starting and (bool(self.trouble) or self.age_s > PATIENCE_S)

    def serves(self, needs: Needs, vo: str) -> bool:
        """Whether tasks of a queue can run there."""
        is_for = self.vo is None or self.vo == vo
        return is_for and vo not in self.banned and not lacks(needs, self.place)

    def take(self, needs: Needs, count: int) -> int:
        """Reckon with ``count`` tasks there; how many find room."""
        if needs.is_exact:
            found = min(count, 1) if self.cores_free >= self.place.cores else 0
            self.cores_free -= found * self.place.cores
            return found
        room = min(self.cores_free // needs.cores, self.memory_free_mib // max(1, needs.memory_mib))
        found = max(0, min(count, room))
        self.cores_free -= found * needs.cores
        self.memory_free_mib -= found * needs.memory_mib
        return found


def uncovered(needs: Needs, vo: str, waiting: int, live: Sequence[Live]) -> int:
    """How many of the waiting tasks find no room at pilots that are there, or will soon be."""
    for one in live:
        if waiting <= 0:
            break
        if not one.is_stuck and one.serves(needs, vo):
            waiting -= one.take(needs, waiting)
    return max(0, waiting)


def size_for(needs: Needs, waiting: int, offer: Offer) -> Size:
    """A pilot for these tasks there. A computer is taken whole; of a batch system, what the tasks can use.

    The whole node, too, where nobody else would get the rest of it.
    """
    candidate = offer.candidate
    if offer.is_machine:
        return _machine(needs, waiting, offer)
    if candidate.kind != "slurm":
        gpus = offer.site.capacity.gpus if offer.endpoint is None else _capacity(offer)
        cores = candidate.cores if candidate.cores is not None else needs.cores
        memory = candidate.memory_mib if candidate.memory_mib is not None else needs.memory_mib
        return Size(cores, memory, tuple(gpus))
    wall = _wall_time(needs, offer)
    if needs.nodes > 1:
        return Size(needs.cores, needs.memory_mib, _gpus(needs, needs.gpus, offer), needs.nodes, needs.whole_node, wall)
    if needs.whole_node:
        gpus = _gpus(needs, _all_gpus(needs, needs.gpus, offer), offer)
        return Size(candidate.cores or needs.cores, candidate.memory_mib or needs.memory_mib, gpus, 1, True, wall)
    count = max(1, min(waiting, *_rooms(needs, offer)))
    cores, memory, many = count * needs.cores, count * needs.memory_mib, count * needs.gpus
    if _has_node_to_itself(needs, offer):  # what is not asked for would lie idle: there is room for more tasks
        cores, memory = candidate.cores or cores, candidate.memory_mib or memory
        many = _all_gpus(needs, many, offer)
    return Size(cores, memory, _gpus(needs, many, offer), wall_time_s=wall)


def _all_gpus(needs: Needs, asked: int, offer: Offer) -> int:
    """The GPUs of a whole node. None where tasks ask for none: nodes without them must do, too."""
    return len(offer.candidate.gpus or ()) or asked if needs.gpus else 0


def _has_node_to_itself(needs: Needs, offer: Offer) -> bool:
    """Whether the batch system gives the node to nobody else, by an option of the site or of the job."""
    options = (*getattr(offer.settings, "extra", ()), *needs.batch)
    return EXCLUSIVE in options and getattr(offer.settings, "pilot_cores", None) is None


def _machine(needs: Needs, waiting: int, offer: Offer) -> Size:
    """The smallest flavour that has room for all that waits, else the one with most room; or made to measure."""
    wall = _wall_time(needs, offer)
    flavours = fitting_flavours(request_of(needs, None), offer.candidate)
    if not flavours:
        count = max(1, min(waiting, *_rooms(needs, offer)))
        return Size(count * needs.cores, count * needs.memory_mib, ("gpu",) * count * needs.gpus, wall_time_s=wall)
    most = getattr(offer.settings, "pilot_cores", None) or math.inf
    within = [one for one in flavours if one.cores <= most] or flavours[:1]
    enough = [one for one in within if _tasks_in(needs, one) >= waiting]
    best = enough[0] if enough else max(within, key=lambda one: _tasks_in(needs, one))
    gpus = tuple(f"{gpu.model or 'gpu'}" for gpu in best.gpus for _ in range(gpu.count))
    numbered = tuple(f"{index}, {model}" for index, model in enumerate(gpus))
    return Size(best.cores, best.memory_mib, numbered, wall_time_s=wall)


def _tasks_in(needs: Needs, flavour: Flavour) -> int:
    rooms = [flavour.cores // needs.cores, flavour.memory_mib // max(1, needs.memory_mib)]
    if needs.gpus:
        rooms.append(sum(gpu.count for gpu in flavour.gpus) // needs.gpus)
    return min(rooms)


def _rooms(needs: Needs, offer: Offer) -> list[int]:
    """How many tasks a node has room for, by each of its limits; one where it is not known."""
    candidate = offer.candidate
    most = min(candidate.cores or needs.cores, getattr(offer.settings, "pilot_cores", None) or math.inf)
    found = [int(most) // needs.cores]
    if candidate.memory_mib is not None:
        found.append(candidate.memory_mib // max(1, needs.memory_mib))
    if needs.gpus:
        found.append(len(candidate.gpus or ()) // needs.gpus)
    return found


def _wall_time(needs: Needs, offer: Offer) -> float:
    longest = offer.candidate.wall_time_s
    usual = float(getattr(offer.settings, "pilot_wall_time_s", None) or _USUAL_WALL_S)
    if needs.is_exact:
        usual = 0.0
    if longest is not None:
        usual = min(usual, longest + _START_S)
    return max(needs.wall_time_s + _START_S, usual)


assert _START_S < BATCH_OVERHEAD_S  # noqa: S101 - the batch system's own grace must find room, too


def _gpus(needs: Needs, count: int, offer: Offer) -> tuple[str, ...]:
    models = [one.model or "gpu" for one in offer.candidate.gpus or ()]
    like = [model for model in models if (needs.gpu_model or "").lower() in model.lower()]
    return tuple((like + ["gpu"] * count)[:count])


def _capacity(offer: Offer) -> Sequence[str]:
    """The GPUs of a computer behind SSH, as they were discovered."""
    facts = next(iter(offer.endpoint.facts.values()), None) if offer.endpoint is not None else None
    return facts.capacity.gpus if facts is not None and facts.capacity is not None else ()


def most_at(offer: Offer) -> int:
    """Pilots that may live at a place at the same time; of the embedded site, for each owner."""
    return 1 if offer.settings is None else int(offer.settings.max_pilots)


def most_waiting_at(offer: Offer) -> int:
    """Pilots of a place that may wait to be started."""
    return int(getattr(offer.settings, "max_waiting", 1) or 1)
