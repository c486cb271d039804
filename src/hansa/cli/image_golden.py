"""The half of ``hansa image build`` that starts from another image: a golden image."""

from __future__ import annotations

import asyncio
import hashlib
import time
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from hansa.cli.session import home, note
from hansa.client import image_api
from hansa.client.errors import USAGE, HansaError
from hansa.client.transport import Transport
from hansa.images.wire import VmImage

_READY_S = 3600.0
"""Seconds that the server may take to fetch the image that is started of."""


def make(
    session: Transport, base: str, cloud_init: Path | None, playbook: Path | None, folder: Path, tell: Any
) -> Path:
    """The customised image, as a file in the folder. Raises Permanent or Temporary where it cannot be made."""
    from hansa.kernel.settings import MachineSettings
    from hansa.machines.build import golden
    from hansa.machines.drivers.base import Image
    from hansa.machines.local import drivers

    if cloud_init is None and playbook is None:
        raise HansaError(USAGE, "Say what is to be different: --cloud-init FILE, --playbook FILE, or both.")
    ways = drivers(MachineSettings(), home() / "machines")
    if not ways:
        raise HansaError(USAGE, "This computer runs no machines, and one is needed.", hint="hansa doctor says why.")
    name, _, version = base.partition("@")
    about = session.run(image_api.vm_image(name))
    content = fetch(session, name, version or None, folder / "base")
    way = asyncio.run(golden.choose(ways, content, folder))
    note(f"{base}, customised in a throw-away machine by {way}")
    with content.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    image = Image(f"sha256:{checksum}", content, format="qcow2", arch=about.arch, login=about.login or "root")
    wish = golden.Wish(cloud_init.read_bytes() if cloud_init else b"", playbook.absolute() if playbook else None)
    try:
        return asyncio.run(golden.customise(ways[way], image, wish, folder, tell))
    finally:
        content.unlink(missing_ok=True)


def fetch(session: Transport, name: str, version: str | None, target: Path) -> Path:
    """The content of an image as qcow2; waits until the server has it."""
    deadline, told = time.monotonic() + _READY_S, False
    while True:
        try:
            with target.open("wb") as out:
                restart = partial(_restart, out)
                session.run(image_api.download_vm_image(name, version, "qcow2", partial(_write, out), restart))
            return target
        except HansaError as error:
            if error.code.code != "images.not_ready" or time.monotonic() > deadline:
                raise
            if not told:
                note(f"waiting until {name} is on the server (hansa image show {name})")
            told = True
            time.sleep(2)


def _write(out: BinaryIO, piece: bytes) -> None:
    out.write(piece)


def _restart(out: BinaryIO) -> None:
    out.truncate(out.seek(0))


def described(base: VmImage) -> dict[str, str]:
    """What the new image takes over of the other one's description."""
    return {"os_name": base.os_name, "os_version": base.os_version, "login": base.login, "licence": base.licence}
