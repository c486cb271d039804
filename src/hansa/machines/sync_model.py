"""Which VM images belong where, and what is to be done about one image at one site. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from hansa.images.formats import Format
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
    REFUSED = "refused"
    """The site's own policy is against it: it is not sent, and nothing of it is left there."""
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


@dataclass(frozen=True)
class Changes:
    """What is to be written down: keys that are missing, and rows that no longer belong, belong again, or whose site
    has changed its mind."""

    missing: Sequence[Key] = ()
    extra: Sequence[Any] = ()
    back: Sequence[Any] = ()
    judged: Sequence[Any] = ()


def compare(want: frozenset[Key], refused: Mapping[Key, tuple[str, str]], known: Mapping[Key, Any]) -> Changes:
    """What has changed between what belongs where and the rows that there are."""
    no = {key: code for key, (code, _) in refused.items()}
    judged = [row for key, row in known.items() if row.wanted and key in want and _is_stale(row, no.get(key))]
    return Changes(
        sorted(want - known.keys()),
        [row for key, row in known.items() if row.wanted and key not in want],
        [row for key, row in known.items() if not row.wanted and key in want],
        judged,
    )


def _is_stale(row: Any, refused: str | None) -> bool:
    """Whether what a row says does not fit its site's policy; one that is on its way out fits a refusal."""
    if refused is None:
        return bool(row.phase == Phase.REFUSED)
    return row.phase != Phase.LEAVING and (row.phase, row.reason) != (Phase.REFUSED, refused)


def decide(row: Any, now: datetime, *, is_refused: bool = False) -> Act | Settle:
    """What comes next for an image at a site."""
    if not row.wanted:
        return Act(REMOVE, "images.leaving")
    if is_refused:
        is_done = row.phase == Phase.REFUSED and row.observed_generation >= row.generation
        return Settle("images.refused", None) if is_done else Act(REMOVE, "images.refused")
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


def format_for(has: Format, takes: Sequence[str]) -> Format:
    """In which format a place is sent a content that has another one. ``takes`` empty: whatever."""
    if not takes or has in takes:
        return has
    return Format.RAW if Format.RAW in takes else Format.QCOW2


def disk_gib(virtual_bytes: int | None) -> int:
    """The whole GiB that a disk of so many bytes needs; 0: not known."""
    return -(-(virtual_bytes or 0) // 1024**3)
