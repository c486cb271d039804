"""VM images in the Glance of an OpenStack project: sent as they are read, and of use only when they are whole.

An image is made hidden, with the checksum of its content; the content is sent; what has arrived is compared by size and
by Glance's own hash; only then it is shown, and marked as whole. A sender may die between any two of these steps: the
next one finds the image by its checksum, and finishes it or takes it away. Glance makes an image active when it has
taken a content, be it cut off: so ``active`` alone says nothing here.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hansa.kernel.errors import Temporary
from hansa.machines.drivers.base import Image, Progress, Refused, Why

CHECKSUM, WHOLE = "hansa_checksum", "hansa_whole"
_RECEIVING = ("saving", "importing", "uploading")
_PATIENCE = dict.fromkeys(_RECEIVING, timedelta(hours=1)) | {"queued": timedelta(minutes=1)}
"""Whoever sends an image that is in this state for so long has died, and Glance has not noticed."""
_HASH = "sha512"
"""Glance's usual one (``os_hash_algo``); others are not compared."""


def ensure(api: Any, image: Image, name: str, now: datetime | None = None) -> str | None:
    """Glance's id of a content, sent there where it lacks it; None: somebody else is sending it."""
    now, whole, waits = now or datetime.now(UTC), [], False
    for one in find(api, image.checksum):
        if one.status == "active" and _is_whole(one, image):
            whole.append(one)
        elif _age(one, now) < _PATIENCE.get(one.status, timedelta(0)):
            waits = True
        else:  # what a sender that died has left
            api.image.delete_image(one, ignore_missing=True)
    if whole:
        kept, *surplus = sorted(whole, key=lambda one: (str(one.created_at), one.id))
        for one in surplus:
            _leave(api, one)
        _show(api, kept, image)
        return str(kept.id)
    return None if waits else _send(api, image, name)


def remove(api: Any, checksum: str) -> Progress:
    """Take a content away: hidden at once, and gone when no machine of the project was started of it."""
    left = [one for one in find(api, checksum) if not _leave(api, one)]
    return Progress.PENDING if left else Progress.DONE


def find(api: Any, checksum: str) -> list[Any]:
    """All images of a content, hidden ones too."""
    found = [*api.image.images(**{CHECKSUM: checksum}), *api.image.images(is_hidden=True, **{CHECKSUM: checksum})]
    return list({one.id: one for one in found if _property(one, CHECKSUM) == checksum}.values())


def _send(api: Any, image: Image, name: str) -> str:
    if image.path is None:
        raise Refused(Why.IMAGE, "The image's content is not here, and not there.")
    made = api.image.create_image(
        name, disk_format=image.format, container_format="bare", visibility="private", allow_duplicates=True,
        architecture=image.arch, **image.about, **{CHECKSUM: image.checksum},
        meta={"is_hidden": True, "min_disk": image.min_disk_gib},  # not made into text
    )  # fmt: skip
    with Reading(image.path) as content:
        made.data = content
        answer = made.upload(api.image)
    if answer.status_code >= 400:
        api.image.delete_image(made, ignore_missing=True)
        if answer.status_code >= 500:
            raise Temporary(f"It failed to take the image {name}: {answer.status_code}.")
        raise Refused(Why.IMAGE, f"It does not take the image {name}: {answer.status_code} {answer.text[:200]}")
    arrived = api.image.get_image(made.id)
    if arrived.status in _RECEIVING:
        raise Temporary(f"It has the image {name}, and is still busy with it.", 10)
    if not _has_arrived(arrived, content.done_bytes, content.sum):
        api.image.delete_image(arrived, ignore_missing=True)
        raise Temporary(f"Of the image {name} {arrived.size or 0:,} of {content.done_bytes:,} bytes have arrived.")
    _show(api, arrived, image)
    return str(arrived.id)


class Reading(io.FileIO):
    """A file that is read once, from its beginning to its end, and what was read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.done_bytes = 0
        self._hash = hashlib.new(_HASH)

    @property
    def sum(self) -> str:
        return self._hash.hexdigest()

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(-1 if size is None else size) or b""
        self.done_bytes += len(piece)
        self._hash.update(piece)
        return piece


def _is_whole(found: Any, image: Image) -> bool:
    """Marked as whole; or of a sender that died before it could say so, and the same as the content here."""
    if _property(found, WHOLE) == image.checksum:
        return True
    if image.path is None or found.size != image.path.stat().st_size:
        return False
    with Reading(image.path) as content:
        while content.read(4 * 1024**2):
            pass
    return _has_arrived(found, content.done_bytes, content.sum)


def _has_arrived(found: Any, size: int, digest: str) -> bool:
    if found.status != "active" or found.size != size:
        return False
    return bool(found.hash_algo != _HASH or found.hash_value == digest)


def _show(api: Any, found: Any, image: Image) -> None:
    """For everybody in the project to start machines of; also one that was hidden, and is wanted again."""
    if found.is_hidden or _property(found, WHOLE) != image.checksum:
        _change(api, found, is_hidden=False, about={**image.about, WHOLE: image.checksum})


def _leave(api: Any, found: Any) -> bool:
    """Whether it is gone. While machines need it, it is hidden: a rebuild of theirs finds it, and nobody else."""
    if any(True for _ in api.compute.servers(details=False, image=found.id)):
        if not found.is_hidden:
            _change(api, found, is_hidden=True, about={})
        return False
    api.image.delete_image(found, ignore_missing=True)
    return True


def _change(api: Any, found: Any, *, is_hidden: bool, about: Mapping[str, str]) -> None:
    """One change of all of it; openstacksdk's own sends what Glance does not take where there are properties."""
    from openstack.exceptions import raise_from_response

    changes = [{"op": "replace", "path": "/os_hidden", "value": is_hidden}]
    changes += [{"op": "add", "path": f"/{name}", "value": value} for name, value in about.items()]
    headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    raise_from_response(api.image.patch(f"/images/{found.id}", json=changes, headers=headers))


def _property(image: Any, name: str) -> str:
    return str((image.properties or {}).get(name, ""))


def _age(image: Any, now: datetime) -> timedelta:
    changed = image.updated_at or image.created_at
    return now - datetime.fromisoformat(changed.replace("Z", "+00:00")) if changed else timedelta(0)
