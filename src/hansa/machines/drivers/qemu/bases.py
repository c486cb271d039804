"""Images as QEMU starts machines of them: kept beside the machines, with the kernel where the image boots by none."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hansa.engines.qemu_img import convert, first_bytes
from hansa.kernel.errors import Permanent
from hansa.machines.build.boot import is_made_here
from hansa.machines.drivers.base import Image, Refused, Why
from hansa.machines.drivers.nspawn.helper.disks import partitions
from hansa.machines.drivers.scratch import scratch

_NAME = re.compile(r"/\d+/10\d+/\d+/\d+/(vmlinuz-[\w.+~-]+|initrd\.img-[\w.+~-]+|hansa-initrd\.img)/")


@dataclass(frozen=True)
class Base:
    """An image that is here. ``kernel`` None: the disk boots by itself."""

    disk: Path
    format: str
    kernel: Path | None = None
    initrd: Path | None = None


class Bases:
    """A folder of images by checksum."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, asyncio.Lock] = {}

    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("*") if (path / "base.json").is_file())

    def find(self, name: str) -> Base | None:
        folder = self._folder / name
        try:
            about = json.loads((folder / "base.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        kernel = folder / "kernel" if about["has_kernel"] else None
        return Base(folder / "disk", about["format"], kernel, folder / "initrd" if kernel else None)

    async def prepare(self, name: str, image: Image) -> Base:
        """The image as a base; made once. Raises Refused, Temporary or Permanent."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            found = self.find(name)
            if found is not None:
                return found
            if image.path is None or image.format not in ("qcow2", "raw"):
                raise Refused(Why.IMAGE, "Its content is not on this computer as qcow2 or raw.")
            with scratch(self._folder) as work:
                await asyncio.to_thread(_share, image.path, work / "disk")
                has_kernel = await _take_kernel(work, image.format)
                about: dict[str, Any] = {"format": image.format, "has_kernel": has_kernel}
                (work / "base.json").write_text(json.dumps(about), encoding="utf-8")
                try:
                    work.rename(self._folder / name)
                except OSError:  # another process was first
                    if self.find(name) is None:
                        raise
            base = self.find(name)
            if base is None:
                raise Permanent(f"The image {name[:16]} could not be kept in {self._folder}.")
            return base

    def remove(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)


def _share(source: Path, target: Path) -> None:
    """The same content under another name: the depot may drop its own while machines need this one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o400)


async def _take_kernel(work: Path, form: str) -> bool:
    """Whether the disk needs its kernel handed to it, which is then beside it; False: it has a boot sector."""
    first = await first_bytes(work / "disk", form, work)
    offsets = partitions(first)
    if not is_made_here(first) and (offsets or first[510:512] == b"\x55\xaa"):
        return False
    if not offsets and first[1080:1082] != b"\x53\xef":
        raise Refused(Why.IMAGE, "It has neither a boot sector nor an ext file system with a kernel.")
    raw = await convert(work / "disk", form, "raw", work)
    root = f"{raw}?offset={offsets[0] if offsets else 0}"
    try:
        listing = await _debugfs(root, "ls -p /boot")
        names = sorted(match.group(1) for match in map(_NAME.match, listing.splitlines()) if match)
        kernels = [name for name in names if name.startswith("vmlinuz-")]
        initrds = [name for name in names if name.endswith("-initrd.img")] or [
            name for name in names if "initrd" in name
        ]
        if not kernels or not initrds:
            raise Refused(Why.IMAGE, "There is no kernel with an initial RAM disk in its /boot.")
        await _debugfs(root, f"dump /boot/{kernels[-1]} kernel", work)
        await _debugfs(root, f"dump /boot/{initrds[-1]} initrd", work)
    finally:
        raw.unlink(missing_ok=True)
    if not (work / "kernel").is_file() or not (work / "initrd").is_file():
        raise Refused(Why.IMAGE, "Its kernel cannot be read.")
    return True


async def _debugfs(root: str, request: str, folder: Path | None = None) -> str:
    program = shutil.which("debugfs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise Permanent("debugfs is not installed: apt install e2fsprogs.")
    process = await asyncio.create_subprocess_exec(
        program, "-R", request, root, cwd=folder, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode("utf-8", "replace")
