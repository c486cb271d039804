"""A Debian cloud image for tests, made once by the project's own builder and kept in ``.cache``."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hansa.kernel.errors import Permanent
from hansa.machines.build.builder import build
from hansa.machines.build.recipe import Recipe
from tests.support import apt

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "vm-images"
RECIPE = Recipe()


def debian_image() -> Path:
    """The path of the image (qcow2); skips the test where it cannot be made."""
    need_builder()
    CACHE.mkdir(parents=True, exist_ok=True)
    image = CACHE / f"{RECIPE.digest[:16]}-3.qcow2"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of several test processes makes it
        if not image.is_file():
            work = CACHE / "work"
            shutil.rmtree(work, ignore_errors=True)
            try:
                with ThreadPoolExecutor(1) as pool:  # the caller may have an event loop
                    made = pool.submit(lambda: asyncio.run(build(RECIPE, work, _quiet))).result()
            except Permanent as error:
                pytest.skip(f"no image of Debian can be made here: {error}")
            made.rename(image)
            shutil.rmtree(work)
    return image


def need_builder() -> None:
    """The Debian packages that a build needs; skips the test where they cannot be had."""
    packages = ["mmdebstrap", "qemu-utils", "e2fsprogs", "mtools", "grub-common", "grub-pc-bin", "grub-efi-amd64-bin"]
    apt.need(["mmdebstrap", "qemu-img", "mke2fs", "mformat", "grub-mkimage"], packages)


async def _quiet(_said: str, _share: float) -> None:
    return None
