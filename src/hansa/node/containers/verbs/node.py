"""Verbs about this node."""

from __future__ import annotations

import os
from typing import Dict, List

from .. import engines, gpu, settings, subids
from ..context import Context
from ..options import VALUE, Table, parse
from ..runner import place_of

TABLES: Dict[str, Table] = {
    "doctor": {"-o": (VALUE, "output")},
    "showconf": {"-o": (VALUE, "output")},
    "version": {},
}


def doctor(context: Context, words: List[str]) -> int:
    """[-o table|json]"""
    parsed = parse(words, TABLES["doctor"])
    place = place_of(context.store)
    verdicts = engines.doctor(place)
    engines.forget(place)
    chosen = next((one.name for one in verdicts if one.is_working), "")
    rows = [
        {"engine": one.name, "works": one.is_working, "used": one.name == chosen, "why": one.why} for one in verdicts
    ]
    context.show(rows, ("engine", "works", "used", "why"), parsed.text("output", "table"), "engine")
    context.say(f"GPU: {gpu.find().describe()}")
    why = subids.reason_against()
    context.say(f"subordinate ids: {why or 'usable with run --subuids'}")
    return 0 if chosen else 1


def showconf(context: Context, words: List[str]) -> int:
    """[-o table|json]"""
    parsed = parse(words, TABLES["showconf"])
    values = {
        "HANSA_CONTAINERS": settings.store_root(context.environ),
        "HANSA_CONTAINERS_BELOW": ":".join(settings.read_only_roots(context.environ)),
        "HANSA_CONTAINERS_ENGINE": settings.wanted_engine(context.environ) or "auto",
        "store": str(context.store.root),
        "engines": ",".join(engines.NAMES),
    }
    rows = [{"setting": name, "value": value} for name, value in values.items()]
    context.show(rows, ("setting", "value"), parsed.text("output", "table"), "setting")
    return 0


def version(context: Context, words: List[str]) -> int:
    """(no arguments)"""
    parse(words, TABLES["version"])
    from ...protocol import PROTOCOL_VERSION

    context.put(f"hansa container, node protocol {PROTOCOL_VERSION}, kernel {os.uname().release}")
    return 0
