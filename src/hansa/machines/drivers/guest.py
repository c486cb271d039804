"""What guests say of their first boot. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hansa.machines.drivers.base import Guest, Life, Observed

NOTE = "hansa_guest"
"""What the note is called among a machine's tags."""
_FIRST_BOOT = timedelta(minutes=30)
_FINISHED = re.compile(r"Cloud-init v\. \S+ finished at")
_SPEAKS = re.compile(r"Cloud-init v\. \S+ (?:running|finished)")
_FAILED = re.compile(
    r"\[(?:FAILED|DEPEND)\S*\] .*cloud-(?:init|config|final)\S*|cloud-init\[\d+\]: .*(?:ERROR|Failed).*"
)
_KEYS = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_KEY = re.compile(r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+) [A-Za-z0-9+/=]{40,}")


def guest_of(result: Any) -> tuple[Guest, str]:
    """How far its first boot is, of cloud-init's result.json; None: it is not written yet."""
    if result is None:
        return Guest.BOOTING, ""
    told = result.get("v1") if isinstance(result, dict) else None
    if not isinstance(told, dict):
        return Guest.FAILED, "cloud-init's result cannot be read."
    errors = told.get("errors") or []
    if errors:
        return Guest.FAILED, "; ".join(str(one) for one in errors)[:1000]
    return Guest.READY, ""


def guest_on_console(log: str) -> tuple[Guest, str]:
    """The same of what it wrote on its console since it was started."""
    failures = [match.group(0).strip() for match in _FAILED.finditer(log)]
    if _FINISHED.search(log) is None:
        return Guest.BOOTING, ""
    return (Guest.FAILED, "; ".join(failures)[:1000]) if failures else (Guest.READY, "")


def is_told(log: str) -> bool:
    """Whether cloud-init has said anything at all: guests without it, and consoles that nobody reads, are unknown."""
    return _SPEAKS.search(log) is not None


def first_boot(
    found: Observed, note: str, now: datetime, console: Callable[[], str], write: Callable[[str], object]
) -> Observed:
    """The machine, with what its guest says of its first boot where the provider cannot look inside.

    ``note``: what was written on the machine before, by ``write``, of how that ended: asked for once, and known for
    good. Without it the console of a young machine that runs is read.
    """
    if found.life is not Life.RUNNING:
        return found
    guest, said = guest_noted(note)
    is_young = found.created is not None and now - found.created < _FIRST_BOOT
    if guest is Guest.UNKNOWN and is_young and is_told(log := console()):
        guest, said = guest_on_console(log)
        if guest in (Guest.READY, Guest.FAILED):
            write(note_of(guest, said))
    return replace(found, guest=guest, guest_message=said)


def note_of(guest: Guest, said: str) -> str:
    """What is written on a machine of how its first boot ended, at most 255 characters; ``guest_noted`` reads it."""
    return f"{guest}: {said}"[:255]


def guest_noted(note: str) -> tuple[Guest, str]:
    """What was written so; UNKNOWN where nothing was."""
    word, _, said = note.partition(": ")
    return (Guest(word), said) if word in (Guest.READY, Guest.FAILED) else (Guest.UNKNOWN, "")


def keys_on_console(log: str) -> tuple[str, ...]:
    """The public host keys that cloud-init printed last."""
    found = _KEYS.findall(log)
    return tuple(match.group(0) for match in _KEY.finditer(found[-1])) if found else ()
