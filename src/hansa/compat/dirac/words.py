"""DIRAC's words for states and platforms, and Hansa's for the same. Pure."""

from __future__ import annotations

import re

from hansa.compat.dirac.jdl import JdlError

STATUS = {"waiting": "Waiting", "running": "Running", "done": "Done", "failed": "Failed", "killed": "Killed"}
"""DIRAC's words for Hansa's phases."""
STATES = (
    "Submitting", "Received", "Checking", "Scouting", "Staging", "Waiting", "Matched", "Running", "Stalled",
    "Completing", "Completed", "Done", "Failed", "Rescheduled", "Killed", "Deleted",
)  # fmt: skip
"""All states that DIRAC has."""
_ARCHITECTURE = "x86_64|aarch64|ppc64le|s390x|riscv64"
_GENERIC = re.compile(rf"(?:linux_)?({_ARCHITECTURE})(?:[_-]glibc[-=](\d+\.\d+))?", re.IGNORECASE)
_SYSTEM = re.compile(
    rf"(?:({_ARCHITECTURE})[-_])?((?:linux|debian|ubuntu|rhel|el|fedora|centos|rocky|almalinux|sles|opensuse)[0-9.]*)",
    re.IGNORECASE,
)
_SCIENTIFIC = re.compile(r"(?:(x86_64)[-_])?slc?(\d)", re.IGNORECASE)
_OURS = re.compile(r"glibc=\d+\.\d+|[a-z][a-z0-9_]*\d[a-z0-9_]*")


def platform_words(name: str) -> list[str]:
    """What a platform asks for, in the words of ``hansa run --platform``. Raises JdlError.

    >>> platform_words("Linux_x86_64_glibc-2.28")
    ['x86_64', 'glibc=2.28']
    >>> platform_words("x86_64-el9")
    ['x86_64', 'el9']
    """
    if match := _GENERIC.fullmatch(name):
        return [match[1].lower(), *([f"glibc={match[2]}"] if match[2] else [])]
    if match := _SYSTEM.fullmatch(name):
        return [one.lower() for one in match.groups() if one]
    if match := _SCIENTIFIC.fullmatch(name):
        return [*([match[1].lower()] if match[1] else []), f"el{match[2]}"]
    if _OURS.fullmatch(name):
        return [name]
    raise JdlError(
        f"the Platform {name} is not known here; write x86_64, el9, x86_64-el9, Linux_x86_64_glibc-2.28, "
        "or features of the processor, as in avx2"
    )


def wanted_states(text: str) -> tuple[set[str], list[str]]:
    """States of ``dstat -S``, in lower case, and those of them that no job has here. Raises JdlError.

    >>> wanted_states("failed,Matched")
    ({'failed', 'matched'}, ['Matched'])
    """
    known = {one.lower(): one for one in STATES}
    wanted = {one.strip().lower() for one in text.split(",") if one.strip()}
    if "all" in wanted:
        return set(STATUS), []
    for one in sorted(wanted - set(known)):
        raise JdlError(f"there is no state {one}; there are {', '.join(STATES)}, and all")
    return wanted, sorted(known[one] for one in wanted if known[one] not in STATUS.values())
