"""Why a machine is where it is, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hansa.kernel.events import StoredEvent
from hansa.machines.model import site_of
from hansa.machines.store import load_course
from hansa.machines.views import size_view, status_of
from hansa.machines.wire import MachineExplanation
from hansa.placement.failover import Try


def machine(row: Any, volumes: Sequence[Any], timeline: Sequence[StoredEvent], now: datetime) -> MachineExplanation:
    """The explanation that CLI, API and portal show, the same text."""
    size, course = size_view(row), load_course(row.course)
    flavour = f" ({size.flavour})" if size.flavour else ""
    gpus = f", {size.gpus} GPUs" if size.gpus else ""
    image = f"{row.image['name']} {row.image['version']}".strip()
    lines = [f"It has {size.cores} cores, {size.memory_mib:,} MiB{gpus}{flavour}, started of {image}."]
    lines.append(f"Sites that fit, the best first: {', '.join(site_of(place) for place in course.order)}.")
    for one in course.attempts:
        left = "" if one.is_clean or one.state is not Try.FAILED else " Something of it may still be there."
        if one.state is Try.FAILED:
            lines.append(f"At {site_of(one.place)} it failed: {one.cause}.{left}")
        else:
            lines.append(f"At {site_of(one.place)} since {one.since:%Y-%m-%d %H:%M} UTC: {one.state}.")
    lines += [f"Its volume {one.name} ({one.size_gib:,} GiB) is {one.phase}: {one.message}" for one in volumes]
    if row.seen.get("guest_message"):
        lines.append(f"Its guest says: {row.seen['guest_message']}")
    if row.expires is not None:
        left_h = (row.expires - now).total_seconds() / 3600
        word = f"in {left_h:,.0f} h" if left_h > 0 else "over"
        lines.append(f"Its time ends {row.expires:%Y-%m-%d %H:%M} UTC ({word}); then it is stopped.")
    if row.site_ends is not None and row.place is not None:
        site = site_of(row.place)
        lines.append(
            f"{site} lets no machine live longer than until {row.site_ends:%Y-%m-%d %H:%M} UTC: it deletes it."
        )
    lines += [f"{event.time:%Y-%m-%d %H:%M:%S} {event.actor}: {event.message}" for event in timeline]
    return MachineExplanation(f"machine/{row.name}", status_of(row), lines)
