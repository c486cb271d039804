"""Sizes and times as people write them, and back."""

from __future__ import annotations

import re

from hansa.client.errors import USAGE, HansaError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)", re.IGNORECASE)
_MIB = {"": 1.0, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{2})(?::(\d{2}))?")


def parse_memory(text: str) -> int:
    """MiB of ``2G``, ``512M``, ``1024`` (MiB), ``1.5GiB``; rounded up.

    >>> parse_memory("1.5G"), parse_memory("512")
    (1536, 512)
    """
    match = _SIZE.fullmatch(text.strip())
    value = float(match[1]) * _MIB[match[2].lower()] if match else 0.0
    if not match or value <= 0 or (match[3] and not match[2]):
        raise HansaError(USAGE, f"{text!r} is no amount of memory.", hint="Write it as 512M, 2G, or 1024 (MiB).")
    return max(1, -int(-value // 1))


def parse_bytes(text: str) -> int:
    """Bytes of ``4K``, ``1M``, ``1000``.

    >>> parse_bytes("4K"), parse_bytes("1000")
    (4096, 1000)
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * (_MIB[match[2].lower()] * 1024**2 if match[2] else 1)) if match else 0
    if size <= 0:
        raise HansaError(USAGE, f"{text!r} is no number of bytes.", hint="Write it as 4K, 1M, or 1000.")
    return size


def parse_time(text: str) -> int:
    """Seconds of ``30m``, ``2h``, ``1h30m``, ``1-00:00:00``, ``01:30:00``, ``90`` (s); rounded up.

    >>> parse_time("1h30m"), parse_time("1-00:00:00"), parse_time("90")
    (5400, 86400, 90)
    """
    found = text.strip()
    seconds = 0.0
    if re.fullmatch(r"\d+(\.\d+)?", found):
        seconds = float(found)
    elif re.fullmatch(rf"(?:{_PART.pattern})+", found, re.IGNORECASE):
        seconds = sum(float(value) * _SECONDS[unit.lower()] for value, unit in _PART.findall(found))
    elif (match := _CLOCK.fullmatch(found)) and int(match[3]) < 60:
        days, hours, minutes = int(match[1] or 0), int(match[2]), int(match[3])
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + int(match[4] or 0)
        if match[4] is None:
            raise HansaError(
                USAGE,
                f"{text!r} may be minutes or hours.",
                hint=f"Write {hours}h{minutes}m or {hours}m{minutes}s, or with seconds, as in 01:30:00.",
            )
    if seconds <= 0:
        raise HansaError(
            USAGE,
            f"{text!r} is no length of time.",
            hint="Write it as 30m, 2h, 1h30m, 1-00:00:00 (days), 01:30:00, or 90 (seconds).",
        )
    return max(1, -int(-seconds // 1))


def show_bytes(size: float) -> str:
    """``1.5 GiB``; four figures at most.

    >>> show_bytes(10), show_bytes(1536), show_bytes(3 * 1024**3)
    ('10 B', '1.5 KiB', '3 GiB')
    """
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1023.95 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.1f}".removesuffix(".0") + f" {units[0]}"


def show_time(seconds: float) -> str:
    """``45 s``, ``2 min``, ``1 h 30 min``, ``2 d``: two parts at most.

    >>> show_time(3600), show_time(5400), show_time(75)
    ('1 h', '1 h 30 min', '1 min 15 s')
    """
    if 0 < seconds < 9.95 and seconds != int(seconds):
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    left = round(seconds)
    parts = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        value, left = divmod(left, size)
        if value:
            parts.append(f"{value} {name}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def show_count(number: int, one: str, many: str | None = None) -> str:
    """``1 core``, ``2 cores``, ``1,000 tasks``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
