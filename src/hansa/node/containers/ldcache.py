"""The dynamic linker's cache, /etc/ld.so.cache: read, and written with more libraries. Pure.

Source: the format of glibc 2.2 and later ("glibc-ld.so.cache1.1"), alone or behind the old one ("ld.so-1.7.0").
"""

from __future__ import annotations

import functools
import struct
from typing import List, NamedTuple, Sequence

_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_MAGIC = b"ld.so-1.7.0"
_HEADER = struct.Struct("=20sIIB3xI12x")
_ENTRY = struct.Struct("=iIIIQ")
_ELF_LIBC6 = 3
_FLAGS = {"x86_64": 0x0300, "aarch64": 0x0A00, "ppc64le": 0x0500, "s390x": 0x0400, "riscv64": 0x1000}


class Entry(NamedTuple):
    """One library: flags (kind and architecture), soname, path, and what the machine must have."""

    flags: int
    name: str
    path: str
    osversion: int = 0
    hwcap: int = 0


def flags_for(machine: str) -> int:
    """The flags of an ordinary library for a machine, as ``uname -m`` calls it."""
    return _FLAGS.get(machine, 0) | _ELF_LIBC6


def parse(data: bytes) -> List[Entry]:
    """All entries. Raises ValueError for what is no such cache."""
    try:
        return _parse(data)
    except (struct.error, IndexError) as error:
        raise ValueError("a damaged cache of the dynamic linker") from error


def _parse(data: bytes) -> List[Entry]:
    base = 0
    if data.startswith(_OLD_MAGIC):
        count = struct.unpack_from("=I", data, 12)[0]
        base = (16 + count * 12 + 7) & ~7
    if data[base : base + len(_MAGIC)] != _MAGIC:
        raise ValueError("no cache of the dynamic linker")
    _, count, _, _, _ = _HEADER.unpack_from(data, base)
    out = []
    for index in range(count):
        at = base + _HEADER.size + index * _ENTRY.size
        flags, key, value, osversion, hwcap = _ENTRY.unpack_from(data, at)
        out.append(Entry(flags, _string(data, base + key), _string(data, base + value), osversion, hwcap))
    return out


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("utf-8", "surrogateescape")


def build(entries: Sequence[Entry]) -> bytes:
    """The file with these entries. Of several with one name the linker takes the first in ``entries`` that fits.

    Entries that need a hardware capability are left out: their names lie in an extension that is not written.
    """
    kept = sorted((entry for entry in entries if entry.hwcap == 0), key=functools.cmp_to_key(_in_file_order))
    start = _HEADER.size + len(kept) * _ENTRY.size
    strings = bytearray()
    table = bytearray()
    for entry in kept:
        key = start + len(strings)
        strings += entry.name.encode("utf-8", "surrogateescape") + b"\0"
        value = start + len(strings)
        strings += entry.path.encode("utf-8", "surrogateescape") + b"\0"
        table += _ENTRY.pack(entry.flags, key, value, entry.osversion, 0)
    return _HEADER.pack(_MAGIC, len(kept), len(strings), 2, 0) + bytes(table) + bytes(strings)


def _in_file_order(one: Entry, other: Entry) -> int:
    return compare(other.name, one.name)  # descending; equal names keep their order


def compare(one: str, other: str) -> int:
    """The linker's order of names: like strings, but runs of digits by their value, and after other characters."""
    at, to = 0, 0
    while at < len(one):
        if to >= len(other):
            return 1
        first, second = one[at], other[to]
        if first.isdigit():
            if not second.isdigit():
                return 1
            at, number = _number(one, at)
            to, against = _number(other, to)
            if number != against:
                return number - against
        elif second.isdigit():
            return -1
        elif first != second:
            return ord(first) - ord(second)
        else:
            at, to = at + 1, to + 1
    return -1 if to < len(other) else 0


def _number(text: str, at: int) -> "tuple[int, int]":
    end = at
    while end < len(text) and text[end].isdigit():
        end += 1
    return end, int(text[at:end])
