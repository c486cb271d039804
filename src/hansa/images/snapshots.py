"""Snapshots in the catalogue: versions that machines were, instead of coming from an address or an upload.

The content of one comes here, where the driver has it on this computer; a cloud's stays at the cloud, and machines of
it start there only (``place``). Called inside the unit of work of whoever makes the snapshot.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from hansa.images import errors, store
from hansa.images.controller import VersionRoom, turn
from hansa.images.depot import Content, Depot
from hansa.images.formats import Format
from hansa.images.model import Phase
from hansa.images.service import IMAGE_NAME, VERSION
from hansa.kernel.database import Tx
from hansa.kernel.errors import INVALID, Fault
from hansa.kernel.events import EventLog
from hansa.kernel.ids import new_id
from hansa.kernel.status import Party

SOURCE = "snapshot"


async def begin(
    tx: Tx, owner: tuple[str, str], name: str, version: str | None, about: Mapping[str, Any], now: datetime
) -> tuple[str, str]:
    """A version that waits for a machine's disk, of the owner's image of this name; its id and its version.

    ``owner``: id and name. The image is made where there is none, and is the owner's alone.
    Raises Fault ``kernel.invalid``, ``images.taken``.
    """
    if not IMAGE_NAME.fullmatch(name):
        hint = "Small letters, digits and . _ - only: debian-12."
        raise Fault(INVALID, f"{name!r} cannot name a VM image.", hint=hint)
    if version is not None and not VERSION.fullmatch(version):
        raise Fault(INVALID, f"{version!r} cannot name a version.", hint="Letters, digits and . _ + -.")
    scope = f"user/{owner[0]}"
    image = await store.find_image(tx, scope, name)
    if image is None:
        image_id = new_id("image")
        await store.insert_image(
            tx, id=image_id, scope=scope, name=name, owner_id=owner[0], owner_name=owner[1], vo=None,
            visibility="owner", about=dict(about), created=now,
        )  # fmt: skip
        known: set[str] = set()
    else:
        image_id, known = image.id, {row.version for row in await store.versions_of(tx, [image.id])}
    if version in known:
        raise Fault(errors.TAKEN, f"{name} has a version {version} already; versions never change.")
    chosen = version or next(str(number) for number in range(1, len(known) + 2) if str(number) not in known)
    version_id = new_id("imgver")
    await store.insert_version(
        tx, id=version_id, image_id=image_id, version=chosen, source=SOURCE, done_bytes=0, wanted=True,
        phase=Phase.UPLOADING.value, reason="images.snapshot", message="It is being taken of a machine.",
        waiting_on=Party.HANSA.value, since=now, created=now, due_at=now,
    )  # fmt: skip
    return version_id, chosen


async def has_come(tx: Tx, events: EventLog, version_id: str, content: Content, now: datetime) -> None:
    """Its content is in the depot."""
    values = vars(content) | {"format": content.format.value, "done_bytes": content.size_bytes}
    values |= {"checksum": f"sha256:{content.sha256}", "since": now}
    message = f"{content.size_bytes:,} bytes, {content.format}, of a machine."
    await _ready(tx, events, version_id, values, message)


async def is_kept(
    tx: Tx,
    events: EventLog,
    version_id: str,
    place: str,
    provider_id: str,
    size_bytes: int,
    disk_bytes: int,
    now: datetime,
) -> None:
    """Its content stays at the machine's place. ``disk_bytes``: that machines of it need; 0: not known."""
    site = place.partition("/")[0]
    values = {"place": place, "provider_id": provider_id, "size_bytes": size_bytes or None, "since": now}
    values |= {"virtual_bytes": disk_bytes or None}
    await _ready(tx, events, version_id, values, f"It is kept at {site}: machines of it start there.")


async def _ready(tx: Tx, events: EventLog, version_id: str, values: Mapping[str, Any], message: str) -> None:
    row: Any = await store.get_version(tx, version_id, lock=True)
    if row is None or Phase(row.phase) is not Phase.UPLOADING:
        return
    await store.update_version(tx, version_id, **values)
    image = await store.get_image(tx, row.image_id)
    await turn(tx, events, row, image, Phase.READY, "images.ready", message, Party.NOBODY)


async def came_to_nothing(tx: Tx, events: EventLog, version_id: str, why: str, now: datetime) -> None:
    """There will be no content."""
    row: Any = await store.get_version(tx, version_id, lock=True)
    if row is None or Phase(row.phase).is_final:
        return
    image = await store.get_image(tx, row.image_id)
    await store.update_version(tx, version_id, since=now)
    await turn(tx, events, row, image, Phase.REFUSED, "images.refused", why, Party.USER)
    await VersionRoom.queue.poke(tx, now, version_id)


async def adopt(depot: Depot, version_id: str, path: Path, form: Format) -> Content:
    """Take a disk that a driver has written into the depot. Raises Permanent on what may not be started.

    The driver's file stays until the driver is told to delete it; twice gives the same content.
    """
    await asyncio.to_thread(depot.check_room, path.stat().st_size)
    partial = depot.partial(version_id)
    await asyncio.to_thread(_copy, path, partial)
    return await depot.publish(partial, None, form)


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with source.open("rb") as read, target.open("xb") as write:
        shutil.copyfileobj(read, write, 4 * 1024**2)
