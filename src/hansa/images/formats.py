"""What a disk image is, read from its first bytes; and what may not be started, whatever it claims to be.

A hypervisor trusts the header of an image: a backing file or an external data file makes it read any file of the
host, and a sparse image may claim 8 EiB. So an image is looked at before anything else opens it. Pure.

Sources: the qcow2 specification (docs/interop/qcow2.rst of QEMU), the VMDK, VDI and VHD headers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

HEAD_BYTES = 64 * 1024
"""How much of the beginning :func:`inspect` wants to see."""
MOST_VIRTUAL_BYTES = 2 * 1024**4
"""Bytes of the largest disk that an image may describe: 2 TiB."""

_QCOW = b"QFI\xfb"
_SPARSE_VMDK = b"KDMV"
_COWD_VMDK = b"COWD"
_VDI_SIGNATURE = 0xBEDA107F
_VHD = b"conectix"
_VHDX = b"vhdxfile"
_QED = b"QED\0"
_LUKS = b"LUKS\xba\xbe"
_GZIP, _XZ, _ZSTD, _BZIP2 = b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh"

_DATA_FILE_BIT = 1 << 2
_KNOWN_INCOMPATIBLE = 0b11111  # dirty, corrupt, data file, compression type, extended L2
_CORRUPT_BIT = 1 << 1
_DATA_FILE_NAME = 0x44415441
_END_OF_EXTENSIONS = 0


class Format(StrEnum):
    """How a disk is written down."""

    QCOW2 = "qcow2"
    RAW = "raw"


class UnsafeImageError(Exception):
    """The image may not be used; the text says why and what would be right."""


@dataclass(frozen=True)
class Inspected:
    """A format, and the bytes of the disk that it describes."""

    format: Format
    virtual_bytes: int


def inspect(head: bytes, size: int, declared: Format | None = None) -> Inspected:
    """What an image is, of its first bytes and its size in bytes.

    Raises UnsafeImageError on what may not be started, or is not what it is said to be.
    """
    if head.startswith(_QCOW):
        found = _inspect_qcow2(head)
    elif (other := _foreign(head)) is not None:
        raise UnsafeImageError(f"It is {other}; only qcow2 and raw images are taken: convert it with qemu-img.")
    elif size < 512 or size % 512:
        raise UnsafeImageError(f"It is neither qcow2 nor a raw disk: {size:,} bytes are no whole number of sectors.")
    elif head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise UnsafeImageError("It is a web page, not an image: the address is probably not that of the file.")
    else:
        found = Inspected(Format.RAW, size)
    if declared is not None and declared is not found.format:
        raise UnsafeImageError(f"It is said to be {declared}, and is {found.format}.")
    if found.virtual_bytes > MOST_VIRTUAL_BYTES:
        raise UnsafeImageError(
            f"It describes a disk of {found.virtual_bytes:,} bytes; {MOST_VIRTUAL_BYTES:,} is the most."
        )
    if found.virtual_bytes == 0:
        raise UnsafeImageError("It describes an empty disk.")
    return found


def _foreign(head: bytes) -> str | None:
    """The name of a format that is known and not taken."""
    names = {
        _SPARSE_VMDK: "a VMDK",
        _COWD_VMDK: "a VMDK",
        b"# Disk Descriptor": "a VMDK descriptor, which names other files",
        _VHD: "a VHD",
        _VHDX: "a VHDX",
        _QED: "a QED image",
        _LUKS: "encrypted (LUKS)",
        _GZIP: "compressed with gzip",
        _XZ: "compressed with xz",
        _ZSTD: "compressed with zstd",
        _BZIP2: "compressed with bzip2",
    }
    for magic, name in names.items():
        if head.startswith(magic):
            return name
    if len(head) >= 68 and struct.unpack_from("<I", head, 64)[0] == _VDI_SIGNATURE:
        return "a VDI"
    if head[32769 - 1 : 32774] and b"CD001" in head[32768:32775]:
        return "an ISO image"
    return None


def _inspect_qcow2(head: bytes) -> Inspected:
    if len(head) < 72:
        raise UnsafeImageError("It is a qcow2 image that was cut off.")
    version, backing_offset, _backing_size, cluster_bits, virtual = struct.unpack_from(">IQIIQ", head, 4)
    if version not in (2, 3):
        raise UnsafeImageError(f"It is qcow version {version}; versions 2 and 3 are taken.")
    if backing_offset:
        raise UnsafeImageError("It has a backing file, so it would read another file of the computer that starts it.")
    if struct.unpack_from(">I", head, 32)[0]:
        raise UnsafeImageError("It is encrypted.")
    if not 9 <= cluster_bits <= 21:
        raise UnsafeImageError(f"Its clusters have 2^{cluster_bits} bytes, which no qcow2 image has.")
    if version == 3:
        _check_features(head)
    return Inspected(Format.QCOW2, virtual)


def _check_features(head: bytes) -> None:
    if len(head) < 104:
        raise UnsafeImageError("It is a qcow2 image that was cut off.")
    incompatible, _compatible, _auto, _refcount, header_length = struct.unpack_from(">QQQII", head, 72)
    if incompatible & _DATA_FILE_BIT:
        raise UnsafeImageError("Its data is in another file, which it names.")
    if incompatible & _CORRUPT_BIT:
        raise UnsafeImageError("It is marked as corrupt.")
    if incompatible & ~_KNOWN_INCOMPATIBLE:
        raise UnsafeImageError(f"It uses features that are not known ({incompatible:#x}).")
    at = header_length
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if kind == _END_OF_EXTENSIONS:
            return
        if kind == _DATA_FILE_NAME:
            raise UnsafeImageError("It names an external data file.")
        at += 8 + (length + 7) // 8 * 8
    raise UnsafeImageError("The extensions of its header have no end.")
