"""Which VM images belong where, and what is to be done about one image at one site. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from hansa.images.model import usable
from hansa.kernel.reconcile import Act, Settle

SEND = "send"
REMOVE = "remove"
LOOK_AGAIN = timedelta(hours=6)
"""A site may lose an image: so often is it made sure of."""
Key = tuple[str, str, str]
"""A version's id, a place (``SITE/ENDPOINT``), a VO."""


class Phase(StrEnum):
    """Where an image is on its way to a site."""

    WAITING = "waiting"
    SENDING = "sending"
    THERE = "there"
    FAILED = "failed"
    LEAVING = "leaving"
    """It is not to be started there any more, and goes when nothing needs it."""


@dataclass(frozen=True)
class Place:
    """Where images are brought by themselves. ``vos`` None: for all VOs; ``on_demand``: only what is here already."""

    name: str
    vos: frozenset[str] | None
    on_demand: bool = False


def wanted(
    endorsements: Iterable[Any], versions: Mapping[str, Sequence[Any]], places: Iterable[Place], now: datetime
) -> frozenset[Key]:
    """What belongs where: of each endorsed image one version, at each place that supports the VO.

    ``versions`` are those of each image, the newest first. Where a VO follows an image it is the newest that is ready,
    so that a new one takes the place of the old one when it can be started, not before.
    """
    found = set()
    there = list(places)
    for one in endorsements:
        if one.until is not None and one.until <= now:
            continue
        fit = [row for row in versions.get(one.image_id, ()) if usable(row.phase, row.expires, now)]
        fit = [row for row in fit if row.place is None and one.version_id in (None, row.id)]
        ready = [row for row in fit if row.phase == "ready"]
        for place in there:
            chosen = ready[:1] or ([] if place.on_demand else fit[:1])
            if place.vos is None or one.vo in place.vos:
                found |= {(row.id, place.name, one.vo) for row in chosen}
    return frozenset(found)


def decide(row: Any, now: datetime) -> Act | Settle:
    """What comes next for an image at a site."""
    if not row.wanted:
        return Act(REMOVE, "images.leaving")
    if row.phase == Phase.THERE and row.observed_generation >= row.generation and row.checked + LOOK_AGAIN > now:
        return Settle("images.there", row.checked + LOOK_AGAIN)
    return Act(SEND, "images.sending")


def described(name: str, version: str, about: Mapping[str, Any]) -> dict[str, str]:
    """An image as clouds describe it, in Glance's words; what the catalogue does not say is left out."""
    words = {
        "hansa_image": f"{name}@{version}",
        "os_type": str(about.get("os") or "").lower(),
        "os_distro": str(about.get("os_name") or "").lower().partition(" ")[0],
        "os_version": str(about.get("os_version") or ""),
        "os_admin_user": str(about.get("login") or ""),
    }
    return {key: value for key, value in words.items() if value}


def disk_gib(virtual_bytes: int | None) -> int:
    """The whole GiB that a disk of so many bytes needs; 0: not known."""
    return -(-(virtual_bytes or 0) // 1024**3)
