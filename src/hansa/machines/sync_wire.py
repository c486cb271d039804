"""VM images at sites, as the API shows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hansa.kernel.status import Status


@dataclass(frozen=True)
class ImagePlace:
    """An image of a VO at a site. ``provider_id``: what the site calls it."""

    image: str
    version: str
    vo: str
    place: str
    status: Status
    provider_id: str | None
    checked: datetime | None


@dataclass(frozen=True)
class ImagePlacePage:
    """Images at sites, by image and site."""

    items: list[ImagePlace]
