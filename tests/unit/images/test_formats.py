"""What a disk image is, and what may not be started whatever it claims to be."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.images.formats import HEAD_BYTES, Format, Inspected, UnsafeImageError, inspect

GIB = 1024**3


def qcow2(
    *,
    version: int = 3,
    backing: int = 0,
    virtual: int = GIB,
    crypt: int = 0,
    incompatible: int = 0,
    extensions: bytes = b"",
) -> bytes:
    """The beginning of a qcow2 image, as QEMU's specification lays it out."""
    head = b"QFI\xfb" + struct.pack(">IQIIQ", version, backing, 20 if backing else 0, 16, virtual)
    head += struct.pack(">IIQQIIQ", crypt, 1, 0x30000, 0x10000, 1, 0, 0)
    head += struct.pack(">QQQII", incompatible, 0, 0, 4, 104)
    return (head + extensions + struct.pack(">II", 0, 0)).ljust(4096, b"\0")


def test_a_qcow2_image_says_how_large_its_disk_is() -> None:
    assert inspect(qcow2(), 200_000) == Inspected(Format.QCOW2, GIB)
    assert inspect(qcow2(version=2), 200_000) == Inspected(Format.QCOW2, GIB)


def test_anything_of_whole_sectors_is_a_raw_disk() -> None:
    assert inspect(b"\xeb\x63".ljust(512, b"\0"), 4096) == Inspected(Format.RAW, 4096)


@pytest.mark.parametrize(
    ("head", "size", "why"),
    [
        (qcow2(backing=1024), 4096, "backing file"),
        (qcow2(incompatible=4), 4096, "in another file"),
        (qcow2(extensions=struct.pack(">II", 0x44415441, 11) + b"/etc/shadow".ljust(16, b"\0")), 4096, "data file"),
        (qcow2(crypt=1), 4096, "encrypted"),
        (qcow2(incompatible=2), 4096, "corrupt"),
        (qcow2(incompatible=1 << 40), 4096, "not known"),
        (qcow2(virtual=8 * 1024**6), 4096, "9,223,372,036,854,775,808 bytes"),
        (qcow2(virtual=0), 4096, "empty disk"),
        (qcow2(version=9), 4096, "qcow version 9"),
        (qcow2()[:80], 80, "cut off"),
        (b"KDMV".ljust(512, b"\0"), 512, "VMDK"),
        (b"# Disk DescriptorFile\nversion=1\n".ljust(512, b"\0"), 512, "names other files"),
        (b"\x1f\x8b".ljust(512, b"\0"), 512, "gzip"),
        (b"LUKS\xba\xbe".ljust(512, b"\0"), 512, "LUKS"),
        (b"\n<!DOCTYPE html><html>".ljust(512), 512, "web page"),
        (b"short", 5, "no whole number of sectors"),
        (b"\0" * 32768 + b"\x01CD001".ljust(4096, b"\0"), 40960, "ISO"),
    ],
)  # fmt: skip
def test_what_may_not_be_started(head: bytes, size: int, why: str) -> None:
    with pytest.raises(UnsafeImageError, match=why):
        inspect(head, size)


def test_an_image_is_what_it_is_said_to_be() -> None:
    with pytest.raises(UnsafeImageError, match="said to be raw, and is qcow2"):
        inspect(qcow2(), 4096, Format.RAW)


@given(st.binary(max_size=2048), st.integers(0, 2**62))
def test_no_header_breaks_the_reader(junk: bytes, size: int) -> None:
    for head in (junk, b"QFI\xfb" + junk, (qcow2()[:104] + junk)[:HEAD_BYTES]):
        try:
            found = inspect(head, size)
        except UnsafeImageError:
            continue
        assert 0 < found.virtual_bytes <= 2 * 1024**4
