"""Places for machines in containers, for tests that run as root."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from hansa.machines.drivers.base import Image, Progress
from hansa.machines.drivers.nspawn.driver import Nspawn
from hansa.machines.drivers.nspawn.root import Helper, find_helper, probe
from tests.support import apt
from tests.support.vmimage import CACHE, debian_image


@functools.cache
def image() -> Image:
    """The image that tests start, made once."""
    path = debian_image()
    return Image(f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}", path=path, login="debian")


@dataclass
class NspawnPlace:
    """A store of machines of the tests' own."""

    folder: Path
    helper: Helper
    is_isolated: bool

    def driver(self) -> Nspawn:
        return Nspawn(self.folder / "driver", self.helper, is_isolated=self.is_isolated)

    async def clear(self) -> list[str]:
        """Delete what is there; what is left nevertheless."""
        driver = self.driver()
        for key in await driver.list_keys():
            await driver.delete(key)
        for key in await driver.volumes():
            assert await driver.delete_volume(key) is Progress.DONE, key
        await driver.delete_network("lab")
        return await driver.leftovers()


async def nspawn_place() -> NspawnPlace:
    """A place where machines run for real; skips the test where they cannot.

    It stays, without machines, so that the image is unpacked once.
    """
    folder = CACHE / f"nspawn-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    apt.need(["systemd-nspawn", "nft", "debugfs", "ip"], ["systemd-container", "nftables", "e2fsprogs", "iproute2"])
    found = probe(folder)
    if not found.works:
        pytest.skip(f"nspawn machines do not work here: {found.problem}")
    helper = find_helper(folder / "store")
    assert helper is not None
    place = NspawnPlace(folder, helper, found.is_isolated)
    await place.clear()  # of a run that was killed
    return place


def qemu_folder() -> Path:
    """Where QEMU's machines of tests live; the image stays there between tests."""
    apt.need(["qemu-system-x86_64", "qemu-img"], ["qemu-system-x86", "qemu-utils"])
    return CACHE / f"qemu-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
