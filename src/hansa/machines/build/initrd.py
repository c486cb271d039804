"""A small initial RAM disk: busybox and the modules that a virtual machine's disk and network need.

Debian's own takes longer to unpack than this takes to hand over, which counts where a processor is emulated.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path

MODULES = (
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "virtio_rng",
    "ext4",
    "isofs",
    "crc32c_generic",
    "crc32c_intel",
    "overlay",
)
ELSEWHERE = ("sd_mod", "nvme", "xen_blkfront", "hv_storvsc", "ahci", "ata_piix", "xen_netfront", "hv_netvsc", "ena")
"""For clouds that give a machine no virtio disk: loaded only where none is found within a second."""
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
while read m; do /bin/busybox insmod "/lib/modules/$m" 2>/dev/null; done < /lib/modules/order
disk=; tries=0
while [ -z "$disk" ] && [ $tries -lt 200 ]; do
  disk=$(/bin/busybox findfs LABEL=cloudroot 2>/dev/null) || { disk=; /bin/busybox usleep 50000; }
  tries=$((tries+1))
  if [ $tries = 20 ]; then
    while read m; do /bin/busybox insmod "/lib/modules/$m" 2>/dev/null; done < /lib/modules/elsewhere
  fi
done
/bin/busybox mount -t ext4 -o rw,noatime "$disk" /newroot || exec /bin/busybox sh
for d in dev proc sys; do /bin/busybox mount --move /$d /newroot/$d; done
exec /bin/busybox switch_root /newroot /sbin/init
"""


def needed(names: Iterable[str], dependencies: Mapping[str, tuple[str, list[str]]]) -> list[str]:
    """Paths of modules in the order in which they are loaded; those that are built in, or unknown, are left out."""
    found: list[str] = []

    def add(path: str, behind: list[str]) -> None:
        for one in reversed(behind):
            if one not in found:
                found.append(one)
        if path not in found:
            found.append(path)

    for name in names:
        if name in dependencies:
            add(*dependencies[name])
    return found


def read_dependencies(text: str) -> dict[str, tuple[str, list[str]]]:
    """``modules.dep``: name of a module → its path and those it needs, the nearest first."""
    found = {}
    for line in text.splitlines():
        path, _, behind = line.partition(":")
        name = Path(path).name.split(".ko")[0].replace("-", "_")
        found[name] = (path, behind.split())
    return found


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive in the format that kernels unpack (newc): (name, mode, content)."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")]):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def make_initrd(root: Path) -> bytes | None:
    """Of the one kernel in a root file system; None where it has no kernel. The same input gives the same bytes."""
    kernels = sorted(path for path in (root / "lib/modules").glob("*") if (path / "modules.dep").is_file())
    busybox = root / "bin/busybox"
    if not kernels or not busybox.is_file():
        return None
    home = kernels[-1]
    dependencies = read_dependencies((home / "modules.dep").read_text(encoding="utf-8"))
    usual = needed(MODULES, dependencies)
    order = usual + [path for path in needed(ELSEWHERE, dependencies) if path not in usual]
    folders = ("bin", "dev", "proc", "sys", "newroot", "lib", "lib/modules")
    entries: list[tuple[str, int, bytes]] = [(folder, 0o40755, b"") for folder in folders]
    names = [Path(path).name.removesuffix(".xz") for path in order]
    entries += [
        ("bin/busybox", 0o100755, busybox.read_bytes()),
        ("init", 0o100755, INIT.encode()),
        ("lib/modules/order", 0o100644, "".join(f"{name}\n" for name in names[: len(usual)]).encode()),
        ("lib/modules/elsewhere", 0o100644, "".join(f"{name}\n" for name in names[len(usual) :]).encode()),
    ]
    entries += [
        (f"lib/modules/{name}", 0o100644, _module(home / path)) for name, path in zip(names, order, strict=True)
    ]
    return gzip.compress(cpio(entries), compresslevel=6, mtime=0)


def _module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content
