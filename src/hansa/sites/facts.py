"""What a site says of itself, made safe: bounded, checked, and with a note on what cannot be. Pure.

A site that lies about its quota or answers garbage harms only itself: what is kept is small, typed and plausible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from hansa.sites.wire import Capacity, Facts, Quota

T = TypeVar("T")
MOST_FLAVOURS = 2_000
MOST_IMAGES = 5_000
MOST_NETWORKS = 500
MOST_PARTITIONS = 500
MOST_NAMES = 200
LONGEST = 300
LARGEST = 10**9
"""No number that a site tells is larger: cores, MiB, GiB, machines."""


def checked(facts: Facts) -> Facts:
    """The facts, cut to what is plausible; ``notes`` say what was cut."""
    notes = [_text(one) for one in facts.notes[:20]]
    quotas = {}
    for name, quota in list(facts.quotas.items())[:50]:
        quotas[_text(name)] = _quota(name, quota, notes)
    cut = Facts(
        flavours=_items("flavours", facts.flavours, MOST_FLAVOURS, notes),
        vm_images=_items("VM images", facts.vm_images, MOST_IMAGES, notes),
        networks=_items("networks", facts.networks, MOST_NETWORKS, notes),
        partitions=_items("partitions", facts.partitions, MOST_PARTITIONS, notes),
        quotas=quotas,
        gpus=[_text(one) for one in facts.gpus[:MOST_NAMES]],
        capacity=_capacity(facts.capacity, notes),
        load=facts.load if facts.load is not None and 0 <= facts.load <= 1 else None,
    )
    if any(one.vcpus < 1 or one.memory_mib < 1 for one in cut.flavours):
        notes.append("Flavours without cores or memory were left out.")
        cut = replace(cut, flavours=[one for one in cut.flavours if one.vcpus > 0 and one.memory_mib > 0])
    return replace(cut, notes=notes)


def _quota(name: str, quota: Quota, notes: list[str]) -> Quota:
    limit, used = quota.limit, max(0, min(quota.used, LARGEST))
    if limit is not None and (limit < 0 or limit > LARGEST):  # -1 is OpenStack's way to say: none
        if limit != -1:
            notes.append(f"The limit of {_text(name)} ({limit}) is not plausible; it counts as none.")
        limit = None
    if used != quota.used:
        notes.append(f"What is used of {_text(name)} ({quota.used}) is not plausible.")
    if limit is not None and used > limit:
        notes.append(f"More {_text(name)} is used ({used:,}) than its limit ({limit:,}): nothing is free.")
    return Quota(limit, used)


def _capacity(capacity: Capacity | None, notes: list[str]) -> Capacity | None:
    if capacity is None:
        return None
    if not 0 <= capacity.cores <= LARGEST or not 0 <= capacity.memory_mib <= LARGEST * 1000:
        notes.append("Its capacity is not plausible; it counts as nothing.")
        return Capacity(0, 0)
    return replace(
        capacity,
        gpus=[_text(one) for one in capacity.gpus[:MOST_NAMES]],
        container_runtimes=[_text(one) for one in capacity.container_runtimes[:MOST_NAMES]],
    )


def _items(what: str, items: Sequence[T], most: int, notes: list[str]) -> list[T]:
    if len(items) > most:
        notes.append(f"It has {len(items):,} {what}; the first {most:,} are kept.")
    return [_item(one) for one in items[:most]]


def _item(item: T) -> T:
    values: dict[str, Any] = {}
    for one in fields(item):  # type: ignore[arg-type]
        value = getattr(item, one.name)
        if isinstance(value, str):
            values[one.name] = _text(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            values[one.name] = max(0, min(value, LARGEST))
        elif isinstance(value, list):
            values[one.name] = [_text(str(word)) for word in value[:MOST_NAMES]]
    changed: T = replace(item, **values)  # type: ignore[type-var]
    return changed


def _text(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text[:LONGEST])
