"""How images look to the API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hansa.images.wire import Endorsement, ImageVersion, Subscription, VmImage
from hansa.kernel.status import Party, Status


def image_view(row: Any, versions: Sequence[Any], endorsements: Sequence[Any]) -> VmImage:
    """An image with those of the versions and endorsements that are its own."""
    names = {one.id: one.version for one in versions if one.image_id == row.id}
    scope = f"user/{row.owner_name}" if row.scope.startswith("user/") else row.scope
    return VmImage(
        name=row.name,
        scope=scope,
        visibility=row.visibility,
        created=row.created,
        versions=[version_view(one) for one in versions if one.image_id == row.id],
        endorsements=[
            Endorsement(one.vo, one.by, one.since, names.get(one.version_id), one.until)
            for one in endorsements
            if one.image_id == row.id
        ],
        **row.about,
    )


def version_view(row: Any) -> ImageVersion:
    return ImageVersion(
        row.version, _status(row), row.source, row.checksum, row.sha256, row.format, row.size_bytes, row.virtual_bytes,
        row.done_bytes, row.created, row.expires, row.place.partition("/")[0] if row.place else None,
    )  # fmt: skip


def subscription_view(row: Any) -> Subscription:
    return Subscription(
        row.id, row.vo, row.url, row.authorities is not None, _status(row), row.endorser, row.identifier, row.version,
        row.images, row.expires, row.read,
    )  # fmt: skip


def _status(row: Any) -> Status:
    return Status(row.phase, row.reason, row.message, Party(row.waiting_on), row.since)
