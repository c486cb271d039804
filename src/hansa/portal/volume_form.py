"""The form of a volume: its fields, and the NewVolume that they ask for. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.texts import _
from hansa.kernel.wire import encode
from hansa.machines.volume_wire import NewVolume

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def read(form: Mapping[str, str]) -> NewVolume:
    """The volume that is asked for. Raises Fault ``kernel.invalid`` with what would be right."""
    name, size = form.get("name", "").strip(), form.get("size_gib", "").strip()
    if not _NAME.fullmatch(name):
        raise Fault(
            INVALID,
            _("{name} cannot name a volume.", name=repr(name[:63])),
            hint=_("Small letters, digits and -, a letter first."),
        )
    if not (size.isascii() and size.isdigit() and 1 <= int(size[:8]) <= 1_000_000):
        raise Fault(INVALID, _("Its size is a whole number of GiB from 1 to 1,000,000."))
    site = form.get("site", "")[:200]
    return NewVolume(name, int(size), vo=form.get("vo", "")[:200] or None, sites=[site] if site else [])


def command(new: NewVolume) -> str:
    """The same on the command line."""
    words = ["hansa", "volume", "create", shlex.quote(new.name), f"{new.size_gib}G"]
    words += ["--vo", shlex.quote(new.vo)] if new.vo else []
    for site in new.sites:
        words += ["--site", shlex.quote(site)]
    return " ".join(words)


def body(new: NewVolume) -> dict[str, Any]:
    """What the API is asked, without what it takes for granted."""
    usual = encode(NewVolume(new.name, new.size_gib))
    return {name: value for name, value in encode(new).items() if name in ("name", "size_gib") or value != usual[name]}
