"""Values as people read them: numbers, sizes, durations, moments. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from markupsafe import Markup

from hansa.kernel.texts import _

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def show_count(value: float | None) -> str:
    """``1,234``; a dash for nothing."""
    return "–" if value is None else f"{value:,.0f}"


def show_bytes(size: float | None) -> str:
    """
    >>> show_bytes(1536)
    '1.5 KiB'
    """
    if size is None:
        return "–"
    value = float(size)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{value:,.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:,.1f} {unit}"
        value /= 1024
    raise AssertionError


def show_mib(size: float | None) -> str:
    return show_bytes(None if size is None else size * 1024**2)


def show_seconds(seconds: float | None) -> str:
    """``3.2 s``, ``4 min 05 s``, ``2 h 07 min``, ``3 d 4 h``."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def show_hours(seconds: float | None) -> str:
    """Seconds of cores as core hours."""
    if seconds is None:
        return "–"
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:,.2f}"


def show_time(moment: datetime | None) -> Markup:
    """A moment in UTC, which the script shows in the reader's zone."""
    if moment is None:
        return Markup("–")
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        utc.isoformat(timespec="seconds"), f"{utc:%Y-%m-%d %H:%M} UTC"
    )


def show_countdown(moment: datetime | None) -> Markup:
    """A moment to come, which the script counts down to."""
    if moment is None:
        return Markup("–")
    utc = moment.astimezone(UTC)
    return Markup('<time datetime="{}" data-countdown>{}</time>').format(
        utc.isoformat(timespec="seconds"), f"{utc:%Y-%m-%d %H:%M} UTC"
    )


def show_day(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d}"


def show_part(part: float | None) -> str:
    """``99.87 %``; a dash where nothing is known."""
    return "–" if part is None else f"{100 * part:.2f} %"


def show_plain_hours(hours: float | None) -> str:
    return show_hours(None if hours is None else hours * 3600)


def show_actor(actor: str) -> str:
    """Who did it, as people call them: nobody reads the id of a pilot.

    >>> show_actor("user/root"), show_actor("pilot/pilot_01a2"), show_actor("hansa")
    ('root', 'a pilot', 'Hansa')
    """
    kind, _slash, name = actor.partition("/")
    if kind == "pilot":
        return _("a pilot")
    return name or {"hansa": "Hansa"}.get(kind, kind)


@dataclass(frozen=True)
class Thing:
    """What an event is about: its kind, its name, and its page (none: ``""``)."""

    kind: str
    name: str
    path: str


def show_thing(subject: str, data: Mapping[str, Any]) -> Thing:
    """What people call the subject of an event; never an id that nobody reads.

    >>> show_thing("job/12", {}), show_thing("machine/machine_01a2", {"name": "web"}).name
    (Thing(kind='job', name='12', path='/jobs/12'), 'web')
    """
    kind, _, rest = subject.partition("/")
    if kind == "grant" and "@" in rest:
        vo, _, site = rest.partition("@")
        return Thing("grant", f"{vo}, {site}", f"/vos/{vo}")
    if kind in ("machine", "volume"):
        return Thing(kind, str(data.get("name") or ""), f"/{kind}s/{rest}")
    if kind == "image":
        scope, _, name = rest.rpartition("/")  # events name people by their ids, addresses by their names
        return Thing("VM image", name, f"/images/show/{name if scope.startswith('user/') else rest}")
    if kind in ("job", "site", "vo"):
        return Thing({"vo": "organisation"}.get(kind, kind), rest, f"/{kind}s/{rest}")
    return Thing({"authority": "sign-in", "grant": "sign-in"}.get(kind, kind), "", "")


@dataclass(frozen=True)
class Told:
    """A line of an explanation: a sentence, or with its moment and actor something that happened."""

    text: str
    time: datetime | None = None
    actor: str = ""


_HAPPENED = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (\S+): (.*)", re.DOTALL)


def tell(lines: Sequence[str]) -> list[Told]:
    """An explanation as every face of ours gets it, apart: sentences, and what has happened."""
    found = []
    for line in lines:
        event = _HAPPENED.fullmatch(line)
        if event is None:
            found.append(Told(line))
        else:
            moment = datetime.fromisoformat(event[1]).replace(tzinfo=UTC)
            found.append(Told(event[3], moment, event[2]))
    return found


FILTERS = {
    "actor": show_actor,
    "tell": tell,
    "thing": show_thing,
    "urldecode": unquote,
    "day": show_day,
    "hours": show_plain_hours,
    "part": show_part,
    "count": show_count,
    "size": show_bytes,
    "mib": show_mib,
    "seconds": show_seconds,
    "core_hours": show_hours,
    "moment": show_time,
    "countdown": show_countdown,
}
