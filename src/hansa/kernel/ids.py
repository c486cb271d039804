"""Ids: UUIDv7 (RFC 9562) behind a prefix that names the type, e.g. ``pilot_0198…``; they sort by time."""

from __future__ import annotations

import os
import time


def new_id(prefix: str) -> str:
    """A new id: ``prefix``, ``_`` and 32 hex digits of a UUIDv7."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (2**48 - 1)) << 80
    value |= 0x7 << 76
    value |= ((random >> 62) & 0xFFF) << 64
    value |= 0b10 << 62
    value |= random & (2**62 - 1)
    return f"{prefix}_{value:032x}"
