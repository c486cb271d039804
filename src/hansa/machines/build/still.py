"""Takes the times of its making out of a file system: mke2fs copies when each file was last changed or read here.

``mke2fs`` has options for everything else that differs from build to build. Of an ext4 file system without checksums of
its metadata only, as builds make them. Source: the kernel's documentation of ext4's on-disk layout.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAGIC, _CHECKSUMS, _64BIT = 0xEF53, 0x400, 0x80
_ATIME, _CTIME, _LINKS = 8, 12, 26
_CTIME_EXTRA, _MTIME_EXTRA, _ATIME_EXTRA, _CRTIME = 132, 136, 140, 144


@dataclass(frozen=True)
class Shape:
    """Where the inodes of a file system are."""

    block_bytes: int
    inode_bytes: int
    inodes_per_group: int
    tables: tuple[int, ...]
    """The first block of each group's inodes."""


def still(disk: Path, at: int, date: int) -> int:
    """Give every file of the file system at byte ``at`` these times of access and change; the number of files."""
    with disk.open("rb+") as file:
        shape = read_shape(file, at)
        size = shape.inode_bytes * shape.inodes_per_group
        count = 0
        for table in shape.tables:
            begin = at + table * shape.block_bytes
            file.seek(begin)
            inodes = bytearray(file.read(size))
            done = settle(inodes, shape.inode_bytes, date)
            if done:
                file.seek(begin)
                file.write(inodes)
            count += done
        return count


def read_shape(file: BinaryIO, at: int) -> Shape:
    """Raises ValueError where it is no such file system."""
    file.seek(at + 1024)
    head = file.read(1024)
    magic, incompatible, compatible = (
        struct.unpack_from(form, head, where)[0] for form, where in (("<H", 56), ("<I", 96), ("<I", 100))
    )
    if magic != _MAGIC or compatible & _CHECKSUMS:
        raise ValueError("no ext4 file system without checksums of its metadata")
    blocks, first, log, per_group, inodes = (struct.unpack_from("<I", head, where)[0] for where in (4, 20, 24, 32, 40))
    inode_bytes, wide = struct.unpack_from("<H", head, 88)[0], struct.unpack_from("<H", head, 254)[0]
    block_bytes = 1024 << log
    entry = wide if incompatible & _64BIT else 32
    groups = -(-(blocks - first) // per_group)
    file.seek(at + (first + 1) * block_bytes)
    table = file.read(groups * entry)
    found = []
    for number in range(groups):
        low = struct.unpack_from("<I", table, number * entry + 8)[0]
        high = struct.unpack_from("<I", table, number * entry + 40)[0] if entry > 40 else 0
        found.append(high << 32 | low)
    return Shape(block_bytes, inode_bytes, inodes, tuple(found))


def settle(inodes: bytearray, size: int, date: int) -> int:
    """The same for one table of inodes, in place; those that nothing links to are left. Pure but for its argument."""
    count = 0
    for at in range(0, len(inodes), size):
        if not struct.unpack_from("<H", inodes, at + _LINKS)[0]:
            continue
        count += 1
        struct.pack_into("<II", inodes, at + _ATIME, date, date)
        if size > _CRTIME + 8:
            struct.pack_into("<IIIII", inodes, at + _CTIME_EXTRA, 0, 0, 0, date, 0)
    return count
