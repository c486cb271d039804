"""Makes a disk start by itself, by BIOS and by UEFI: a partition table and GRUB around a root file system.

All is written into an ordinary file, without loop devices and without root. GRUB looks for the file system called
``cloudroot`` and reads ``/boot/grub/grub.cfg`` there, so nothing here depends on what is in it. The same file system
gives the same disk. Sources: the UEFI specification (5.3, GPT), GRUB's ``boot.S`` and ``diskboot.S``.
"""

from __future__ import annotations

import binascii
import os
import shutil
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SECTOR, MIB = 512, 1024**2
ROOT_AT = 16 * MIB
"""Where the root file system begins, in bytes."""
ROOT_NAME = "hansa-root"
"""Of its partition: whoever reads it knows that there is a kernel with a small initial RAM disk in /boot."""
TAIL = MIB
"""Behind it, for the second partition table."""
_GRUB_AT, _ESP_AT, _ESP_BYTES = MIB, 2 * MIB, 8 * MIB
_BIOS_TYPE = "21686148-6449-6e6f-744e-656564454649"
_ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
_LINUX_TYPE = "0fc63daf-8483-4772-8e79-3d69d8477de4"
_MODULES = ("part_gpt", "ext2", "search_label", "normal", "configfile", "linux", "serial", "terminal", "echo", "test")
_EARLY = "search.fs_label cloudroot root\nconfigfile ($root)/boot/grub/grub.cfg\n"
GRUB_CFG = """# The newest kernel, as Debian links it; no menu, on the screen and on the first serial line.
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
linux /vmlinuz root=LABEL=cloudroot rw console=tty0 console=ttyS0,115200 net.ifnames=0
initrd /initrd.img
boot
"""

PROGRAMS = {"grub-mkimage": "grub-common", "mformat": "mtools"}
FILES = {
    Path("/usr/lib/grub/i386-pc/boot.img"): "grub-pc-bin",
    Path("/usr/lib/grub/x86_64-efi/linux.mod"): "grub-efi-amd64-bin",
}


def missing() -> set[str]:
    """Debian packages that are needed to make a disk start by itself, and are not here."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = {package for name, package in PROGRAMS.items() if shutil.which(name, path=path) is None}
    return absent | {package for file, package in FILES.items() if not file.exists()}


@dataclass(frozen=True)
class Partition:
    """A range of sectors, both ends included."""

    name: str
    kind: str
    first: int
    last: int


def disk_bytes(root_bytes: int) -> int:
    """Of the disk around a root file system."""
    return ROOT_AT + root_bytes + TAIL


def make_bootable(disk: Path, root_bytes: int, disk_id: uuid.UUID, date: int) -> None:
    """Write everything around a root file system that is at ``ROOT_AT`` of the disk."""
    size = disk_bytes(root_bytes)
    os.truncate(disk, size)
    partitions = (
        Partition("bios-boot", _BIOS_TYPE, _GRUB_AT // SECTOR, _ESP_AT // SECTOR - 1),
        Partition("efi", _ESP_TYPE, _ESP_AT // SECTOR, (_ESP_AT + _ESP_BYTES) // SECTOR - 1),
        Partition(ROOT_NAME, _LINUX_TYPE, ROOT_AT // SECTOR, (ROOT_AT + root_bytes) // SECTOR - 1),
    )
    head, tail = tables(partitions, size // SECTOR, disk_id)
    with tempfile.TemporaryDirectory(prefix="hansa-boot-") as name, disk.open("rb+") as file:
        folder = Path(name)
        mbr, core = bios(Path("/usr/lib/grub/i386-pc/boot.img").read_bytes(), _grub(folder, "i386-pc", ["biosdisk"]))
        for at, content in (
            (0, mbr[:440] + head[440:]),
            (_GRUB_AT, core),
            (_ESP_AT, _esp(folder, disk_id, date)),
            (size - len(tail), tail),
        ):
            file.seek(at)
            file.write(content)


def bios(boot: bytes, core: bytes) -> tuple[bytes, bytes]:
    """GRUB's first sector and the rest of it, told where the rest lies. Pure."""
    mbr, rest, at = bytearray(boot), bytearray(core), _GRUB_AT // SECTOR
    struct.pack_into("<Q", mbr, 0x5C, at)
    mbr[0x66:0x68] = b"\x90\x90"  # as grub-install does for hard disks: believe what the firmware says of the drive
    struct.pack_into("<Q", rest, SECTOR - 12, at + 1)
    if len(rest) > _ESP_AT - _GRUB_AT:
        raise ValueError("GRUB is larger than its partition")
    return bytes(mbr), bytes(rest)


def tables(partitions: Sequence[Partition], sectors: int, disk_id: uuid.UUID) -> tuple[bytes, bytes]:
    """The first 34 sectors of a disk and its last 33: a partition table (GPT), twice. Pure."""
    entries = bytearray(128 * 128)
    for number, one in enumerate(partitions):
        kind, own = uuid.UUID(one.kind), uuid.uuid5(disk_id, one.name)
        name = one.name.encode("utf-16-le").ljust(72, b"\0")
        fields = (kind.bytes_le, own.bytes_le, one.first, one.last, 0, name)
        struct.pack_into("<16s16sQQQ72s", entries, 128 * number, *fields)
    last = sectors - 1
    first_half = _header(1, last, 2, sectors, disk_id, bytes(entries))
    second_half = _header(last, 1, last - 32, sectors, disk_id, bytes(entries))
    whole = (0, 0, 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, min(last, 2**32 - 1), b"\x55\xaa")
    protective = struct.pack("<440xIHB3sB3sII48x2s", *whole)
    return protective + first_half + bytes(entries), bytes(entries) + second_half


def _header(own: int, other: int, entries_at: int, sectors: int, disk_id: uuid.UUID, entries: bytes) -> bytes:
    def packed(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, checksum, 0, own, other, 34, sectors - 34,
            disk_id.bytes_le, entries_at, 128, 128, binascii.crc32(entries),
        )  # fmt: skip

    return packed(binascii.crc32(packed(0))).ljust(SECTOR, b"\0")


def _grub(folder: Path, platform: str, more: Sequence[str]) -> bytes:
    """GRUB as one file, with what it does first inside."""
    early, made = folder / "early.cfg", folder / platform
    early.write_text(_EARLY, encoding="ascii")
    options = ["-O", platform, "-p", "/boot/grub", "-c", str(early), "-o", str(made)]
    subprocess.run(["grub-mkimage", *options, *more, *_MODULES], check=True, stdin=subprocess.DEVNULL)
    return made.read_bytes()


def _esp(folder: Path, disk_id: uuid.UUID, date: int) -> bytes:
    """A small FAT file system with GRUB for UEFI."""
    loader, image = folder / "BOOTX64.EFI", folder / "esp"
    loader.write_bytes(_grub(folder, "x86_64-efi", ()))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(date), "MTOOLS_SKIP_CHECK": "1"}
    serial = f"{disk_id.time_low:08x}"
    for argv in (
        ["mformat", "-i", str(image), "-C", "-T", str(_ESP_BYTES // SECTOR), "-N", serial, "-v", "EFI", "::"],
        ["mmd", "-i", str(image), "::/EFI", "::/EFI/BOOT"],
        ["mcopy", "-i", str(image), str(loader), "::/EFI/BOOT/BOOTX64.EFI"],
    ):
        subprocess.run(argv, check=True, env=environment, stdin=subprocess.DEVNULL)
    return image.read_bytes()


def wrap(root: Path, disk: Path, disk_id: uuid.UUID, date: int) -> None:
    """A disk that starts by itself, of a file with a bare root file system; holes stay holes."""
    size = root.stat().st_size
    with root.open("rb") as source, disk.open("wb") as target:
        target.truncate(disk_bytes(size))
        at = 0
        while at < size:
            try:
                start = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:  # a hole up to the end
                break
            at = os.lseek(source.fileno(), start, os.SEEK_HOLE)
            target.seek(ROOT_AT + start)
            target.flush()
            while start < at:
                start += os.sendfile(target.fileno(), source.fileno(), start, min(at - start, 1 << 30))
    make_bootable(disk, size, disk_id, date)


def is_made_here(head: bytes) -> bool:
    """Of a disk's first 64 KiB: whether all of it is in one file system whose kernel GRUB finds by our rules. Pure."""
    return ROOT_NAME.encode("utf-16-le") in head


def needs_boot(head: bytes) -> bool:
    """Of a disk's first bytes: whether it is a bare ext file system, which no firmware starts. Pure."""
    return head[510:512] != b"\x55\xaa" and head[1080:1082] == b"\x53\xef"
