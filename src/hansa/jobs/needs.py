"""What a task needs, what a place offers, and whether the one fits the other. Pure.

A *place* is a site before a pilot is there (some facts are unknown: a pilot will tell), or a pilot (what it has not
told it has not got).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

from hansa.jobs.batch import batch_words
from hansa.jobs.wire import Requirements

_MIB = re.compile(r"^\s*(\d+)\s*MiB\s*$")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Needs:
    """What one task needs, defaults filled in: the key of its task queue, beside the owner."""

    cores: int
    memory_mib: int
    gpus: int
    wall_time_s: int
    site: str | None
    disk_mib: int = 0
    gpu_model: str | None = None
    gpu_memory_mib: int = 0
    tags: tuple[str, ...] = ()
    os: str | None = None
    arch: str | None = None
    glibc: str | None = None
    cpu_features: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    banned_sites: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    whole_node: bool = False
    nodes: int = 1
    """Computers at the same time; all that is counted above is of each."""
    batch: tuple[str, ...] = ()
    """Options for a batch system, a word each."""
    mounts: tuple[str, ...] = ()
    """Paths of ``site`` that must be there."""
    preferred_sites: tuple[str, ...] = ()
    """The most wanted first."""
    near_data: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether a task has a pilot of just its size to itself."""
        return self.nodes > 1 or self.whole_node


_NAMES = frozenset(field.name for field in fields(Needs))


@dataclass(frozen=True)
class Gpu:
    """A GPU by model; memory in MiB, None where nobody said."""

    model: str
    memory_mib: int | None = None


@dataclass(frozen=True)
class Place:
    """What a site or a pilot offers to one task. None: not known."""

    site: str
    cores: int
    memory_mib: int
    gpus: tuple[Gpu, ...] = ()
    disk_mib: int | None = None
    tags: frozenset[str] = frozenset()
    required_tags: frozenset[str] = frozenset()
    """A task without these is not taken."""
    os: frozenset[str] | None = None
    """All names that it answers to: ``linux``, ``debian``, ``debian12``, ``el9``."""
    arch: str | None = None
    glibc: str | None = None
    cpu_features: frozenset[str] | None = None
    data: frozenset[str] = frozenset()
    is_pilot: bool = False
    nodes: int | None = None
    batch: tuple[str, ...] | None = None
    """Options of jobs that it was started with; None: it can be started with any."""


def fill_needs(asked: Requirements, *, cores: int, memory_mib: int, wall_time_s: int) -> Needs:
    """The needs of a task, with the server's defaults where the user said nothing.

    What is a set is sorted, so that the same needs make the same queue however they are written.
    """
    return Needs(
        cores=asked.cores or cores,
        memory_mib=asked.memory_mib or memory_mib,
        gpus=max(asked.gpus, 1 if asked.gpu_model or asked.gpu_memory_mib else 0),
        wall_time_s=asked.wall_time_s or wall_time_s,
        site=asked.site,
        disk_mib=asked.disk_mib,
        gpu_model=asked.gpu_model or None,
        gpu_memory_mib=asked.gpu_memory_mib,
        tags=_set(asked.tags),
        os=asked.os.lower() if asked.os else None,
        arch=asked.arch or None,
        glibc=asked.glibc or None,
        cpu_features=_set(asked.cpu_features),
        sites=_set(asked.sites),
        banned_sites=_set(asked.banned_sites),
        data=_set(asked.data),
        whole_node=asked.whole_node,
        nodes=asked.nodes,
        batch=_set(batch_words(asked.batch)),
        mounts=_set(asked.mounts),
        preferred_sites=tuple(dict.fromkeys(asked.preferred_sites)),
        near_data=_set(asked.near_data),
    )


def _set(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(words)))


def needs_of(plain: Mapping[str, Any]) -> Needs:
    """Needs from JSON, as the database keeps them; what an older server did not write has its default."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    return Needs(**{name: value for name, value in values.items() if name in _NAMES})


def needs_text(needs: Needs) -> str:
    """The needs as canonical JSON."""
    return json.dumps(asdict(needs), sort_keys=True, separators=(",", ":"))


def queue_digest(owner_id: str, vo: str, vo_group: str, needs: Needs) -> str:
    """The key of a task queue: what is the same here is matched together."""
    key = json.dumps([owner_id, vo, vo_group, needs_text(needs)])
    return hashlib.sha256(key.encode()).hexdigest()


@lru_cache(maxsize=8192)
def needs_from_text(text: str) -> Needs:
    """The inverse of :func:`needs_text`; cached, as a queue is looked at in every exchange."""
    return needs_of(json.loads(text))


def needs_of_queue(row: Any) -> Needs:
    """The needs of a row of ``queues``; those of an older schema have columns only."""
    if row.needs:
        return needs_from_text(row.needs)
    return Needs(row.cores, row.memory_mib, row.gpus, row.wall_time_s, row.site or None)


def gpu_of(text: str) -> Gpu:
    """A GPU from ``INDEX, MODEL[, 40960 MiB]``, as nvidia-smi lists them; ``MODEL`` alone will do."""
    parts = [part.strip() for part in text.split(",")]
    memory = next((int(found[1]) for part in parts[1:] if (found := _MIB.match(part))), None)
    names = [part for part in parts if part and not part.isdecimal() and not _MIB.match(part)]
    return Gpu(names[0] if names else "", memory)


def gpus_for(needs: Needs, pilot: Any) -> list[str] | None:
    """By their numbers, the GPUs of a pilot that are as asked. None: any, or nobody has said which is which."""
    if not needs.gpus or not (needs.gpu_model or needs.gpu_memory_mib):
        return None
    has = {str(text).partition(",")[0].strip() for text in pilot.gpus}
    told = [str(text) for text in (pilot.node or {}).get("gpu_names") or pilot.gpus]
    like = [text.partition(",")[0].strip() for text in told if _is_like(gpu_of(text), needs, unknown=False)]
    like = [number for number in like if number in has]
    return like if len(like) >= needs.gpus else None


def _data(tags: Iterable[str]) -> frozenset[str]:
    return frozenset(tag.removeprefix("data:") for tag in tags if tag.startswith("data:"))


def coming_place(pilot: Any) -> Place:
    """A pilot that may still be on its way: until it has told what it found on its node, that may be what is asked."""
    return replace(place_of_pilot(pilot), is_pilot=pilot.node is not None)


def place_of_pilot(pilot: Any) -> Place:
    """A pilot by its row: what it was started with, and what it found on its node."""
    node: Mapping[str, Any] = pilot.node or {}
    found = node.get("gpu_names") or pilot.gpus
    return Place(
        site=pilot.site,
        cores=pilot.cores,
        memory_mib=pilot.memory_mib,
        gpus=tuple(gpu_of(str(text)) for text in found)[: len(pilot.gpus)],
        disk_mib=_int(node.get("disk_mib")),
        tags=frozenset(pilot.tags),
        required_tags=frozenset(pilot.required_tags),
        os=_words(node.get("os")),
        arch=node.get("machine"),
        glibc=node.get("glibc"),
        cpu_features=_words(node.get("cpu_features")),
        data=_data(pilot.tags),
        is_pilot=True,
        nodes=pilot.nodes,
        batch=tuple(pilot.batch or ()),
    )


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _words(value: Any) -> frozenset[str] | None:
    return frozenset(map(str, value)) if isinstance(value, list) else None


def lacks(needs: Needs, place: Place) -> list[str]:
    """Why a task with these needs can never run at a place, a phrase for each reason; none: it can."""
    found = _lacks_site(needs, place)
    for asked, there, what in (
        (needs.cores, place.cores, "cores"),
        (needs.memory_mib, place.memory_mib, "MiB of memory"),
    ):
        if asked > there:
            found.append(f"{asked:,} {what} asked, {there:,} there")
    if place.nodes is not None and needs.nodes != place.nodes:
        found.append(f"{needs.nodes} nodes asked, {place.nodes} there")
    if place.batch is not None and needs.batch != place.batch:
        found.append("it was started with other options of the batch system")
    if needs.disk_mib and place.disk_mib is not None and needs.disk_mib > place.disk_mib:
        found.append(f"{needs.disk_mib:,} MiB of disk asked, {place.disk_mib:,} there")
    return found + _lacks_gpus(needs, place) + _lacks_tags(needs, place) + _lacks_platform(needs, place)


def _lacks_site(needs: Needs, place: Place) -> list[str]:
    if needs.site is not None and needs.site != place.site:
        return [f"the job asks for site {needs.site}"]
    if needs.sites and place.site not in needs.sites:
        return [f"the job asks for one of the sites {', '.join(needs.sites)}"]
    return ["the job does not want this site"] if place.site in needs.banned_sites else []


def _lacks_gpus(needs: Needs, place: Place) -> list[str]:
    if not needs.gpus:
        return []
    fit = [gpu for gpu in place.gpus if _is_like(gpu, needs, unknown=not place.is_pilot)]
    if len(fit) >= needs.gpus:
        return []
    model = f" like {needs.gpu_model}" if needs.gpu_model else ""
    memory = f" with {needs.gpu_memory_mib:,} MiB" if needs.gpu_memory_mib else ""
    return [f"{needs.gpus} GPUs{model}{memory} asked, {len(fit)} there"]


def _is_like(gpu: Gpu, needs: Needs, *, unknown: bool) -> bool:
    if needs.gpu_model and needs.gpu_model.lower() not in gpu.model.lower():
        return False
    if gpu.memory_mib is None:
        return unknown or not needs.gpu_memory_mib
    return gpu.memory_mib >= needs.gpu_memory_mib


def _lacks_tags(needs: Needs, place: Place) -> list[str]:
    found = []
    if missing := sorted(set(needs.tags) - place.tags):
        found.append(f"it lacks {_tags(missing)}")
    if missing := sorted(place.required_tags - set(needs.tags)):
        found.append(f"it takes only jobs with {_tags(missing)}")
    if missing := sorted(set(needs.data) - place.data):
        found.append(f"the data {', '.join(missing)} are not there")
    return found


def _tags(names: Sequence[str]) -> str:
    return f"the tag{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _lacks_platform(needs: Needs, place: Place) -> list[str]:
    found = []
    if needs.os and _differs(place.os is None, place, needs.os not in (place.os or ())):
        found.append(f"{needs.os} asked, {'/'.join(sorted(place.os or ['something else']))} there")
    if needs.arch and _differs(place.arch is None, place, needs.arch != place.arch):
        found.append(f"{needs.arch} asked, {place.arch or 'another processor'} there")
    if needs.glibc and _differs(place.glibc is None, place, version_key(place.glibc or "0") < version_key(needs.glibc)):
        found.append(f"glibc {needs.glibc} asked, {place.glibc or 'an unknown one'} there")
    missing = sorted(set(needs.cpu_features) - (place.cpu_features or frozenset()))
    if missing and _differs(place.cpu_features is None, place, True):
        found.append(f"its processor has no {', '.join(missing)}")
    return found


def _differs(is_unknown: bool, place: Place, says: bool) -> bool:
    """What is not known of a site may be so; of a pilot it is not."""
    return place.is_pilot if is_unknown else says


def version_key(version: str) -> tuple[int, ...]:
    """``2.17`` before ``2.28``, as numbers."""
    return tuple(int(number) for number in _NUMBER.findall(version))


@dataclass(frozen=True)
class Room:
    """What of a pilot is free, beside all that it has."""

    cores: int
    memory_mib: int
    cores_free: int
    memory_free_mib: int
    gpus_free: int
    has_backlog: bool = False
    """Whether it holds tasks that it has not started."""
    is_exact: bool = False
    """Whether the pilot was made for just one task: the next one has another, which may start at once."""


def weight(needs: Needs, room: Room) -> int:
    """How many one-core tasks one of these stands for: by cores, or by the share of memory where that is more."""
    if needs.whole_node:
        return max(1, room.cores)
    by_memory = -(-needs.memory_mib * room.cores // room.memory_mib) if room.memory_mib else 0
    return max(1, needs.cores, by_memory)


def tasks_wanted(want: int, needs: Needs, room: Room) -> int:
    """How many tasks with these needs answer a pilot's wish for ``want`` one-core tasks.

    Small tasks may wait on the pilot, so that no core idles. GPUs are few and their tasks long: a pilot gets no more
    of them than can start, so that others get some. One large task is given to a pilot that has nothing in wait, even
    if not all of what it needs is free: the pilot keeps cores free for it, which small tasks would take for ever.
    """
    if want <= 0:
        return 0
    heavy = weight(needs, room)
    fits_now = room.cores_free >= (room.cores if needs.whole_node else needs.cores)
    fits_now = fits_now and room.memory_free_mib >= needs.memory_mib
    count = want // heavy if heavy > 1 else want
    if needs.is_exact:
        count = min(1, count)
    if room.is_exact and (room.has_backlog or not fits_now):
        return 0
    if needs.gpus:
        return min(max(count, 1), room.gpus_free // needs.gpus) if fits_now else 0
    if count == 0:
        return 1 if fits_now or not room.has_backlog else 0
    return count


def room_left(room: Room, needs: Needs, count: int) -> Room:
    """The room after ``count`` tasks with these needs were given."""
    if not count:
        return room
    return replace(
        room,
        cores_free=max(0, room.cores_free - needs.cores * count),
        memory_free_mib=max(0, room.memory_free_mib - needs.memory_mib * count),
        gpus_free=max(0, room.gpus_free - needs.gpus * count),
        has_backlog=room.has_backlog or weight(needs, room) * count > room.cores_free,
    )
