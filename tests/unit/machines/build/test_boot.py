"""What makes a disk start by itself, and a file system the same each time."""

from __future__ import annotations

import binascii
import struct
import uuid

import pytest

from hansa.machines.build.boot import ROOT_AT, ROOT_NAME, Partition, bios, disk_bytes, is_made_here, needs_boot, tables
from hansa.machines.build.still import settle
from hansa.machines.drivers.nspawn.helper.disks import partitions

DISK = uuid.UUID("0c9d4a5e-5b1a-4a5e-8b0e-3d6f7a1b2c3d")
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
SECTORS = disk_bytes(64 * 1024**2) // 512


def made() -> tuple[bytes, bytes]:
    root = Partition(ROOT_NAME, LINUX, ROOT_AT // 512, SECTORS - 2049)
    return tables([Partition("efi", LINUX, 2048, 4095), root], SECTORS, DISK)


def test_the_root_file_system_is_found_in_the_table() -> None:
    head, _ = made()
    assert partitions(head)[0] == ROOT_AT
    assert ROOT_NAME.encode("utf-16-le") in head
    assert head[510:512] == b"\x55\xaa"
    assert head[450] == 0xEE, "older programs see a disk that is full"


def test_both_tables_agree_and_their_checksums_are_right() -> None:
    head, tail = made()
    first, second = head[512:1024], tail[-512:]
    entries = head[1024:]
    assert entries == tail[:-512]
    for header, own, other in ((first, 1, SECTORS - 1), (second, SECTORS - 1, 1)):
        checksum, entries_sum = struct.unpack_from("<I", header, 16)[0], struct.unpack_from("<I", header, 88)[0]
        assert struct.unpack_from("<QQ", header, 24) == (own, other)
        assert checksum == binascii.crc32(header[:16] + bytes(4) + header[20:92])
        assert entries_sum == binascii.crc32(entries)
    assert made() == (head, tail)


def test_grub_is_told_where_the_rest_of_it_is() -> None:
    mbr, core = bios(bytes(512), bytes(1000))
    assert struct.unpack_from("<Q", mbr, 0x5C)[0] == 2048
    assert struct.unpack_from("<Q", core, 500)[0] == 2049
    with pytest.raises(ValueError, match="larger"):
        bios(bytes(512), bytes(2 * 1024**2))


def test_a_bare_file_system_needs_what_starts_it() -> None:
    bare = bytearray(4096)
    bare[1080:1082] = b"\x53\xef"
    assert needs_boot(bytes(bare))
    assert not is_made_here(bytes(bare))
    assert not needs_boot(made()[0])
    assert is_made_here(made()[0])


def test_only_files_that_are_there_get_another_time() -> None:
    table = bytearray(b"\x7f" * 256 * 3)
    struct.pack_into("<H", table, 256 + 26, 0)
    before = bytes(table)
    assert settle(table, 256, 1000) == 2
    assert table[256:512] == before[256:512], "what is deleted stays"
    for at in (0, 512):
        assert struct.unpack_from("<III", table, at + 8) == (1000, 1000, 0x7F7F7F7F), (
            "the time of change of its content"
        )
        assert struct.unpack_from("<IIIII", table, at + 132) == (0, 0, 0, 1000, 0)
