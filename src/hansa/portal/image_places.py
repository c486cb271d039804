"""The page of VM images at sites: which is where, for whom, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from hansa.identity.policy import Permission
from hansa.kernel.http import provided
from hansa.machines.sync_service import SyncService
from hansa.machines.sync_wire import ImagePlace
from hansa.portal.frame import PageRoute, Portal, Visit, visitor

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Places = Annotated[SyncService, Depends(provided(SyncService))]
Pages = Annotated[Portal, Depends(provided(Portal))]
Reader = Annotated[Visit, visitor(Permission.IMAGES_READ)]
Text = Annotated[str, Query(max_length=200)]
THERE = "there"


@dataclass(frozen=True)
class Line:
    """A version of an image for an organisation, and how it is at each of the sites (None: not wanted there)."""

    image: str
    version: str
    vo: str
    cells: tuple[ImagePlace | None, ...]


def table_of(places: Sequence[ImagePlace]) -> tuple[list[str], list[Line]]:
    """Sites from left to right, images from top to bottom. Pure."""
    sites = sorted({one.place for one in places})
    lines: dict[tuple[str, str, str], dict[str, ImagePlace]] = {}
    for one in places:
        lines.setdefault((one.image, one.version, one.vo), {})[one.place] = one
    return sites, [Line(*key, tuple(cells.get(site) for site in sites)) for key, cells in lines.items()]


@router.get("/images/places")
async def show_places(
    visit: Reader, places: Places, portal: Pages, q: Text = "", vo: Text = "", site: Text = "", only: Text = ""
) -> Response:
    """The table image by site, with filters in the address."""
    every = (await places.list_places(visit.caller)).items
    word = q.strip().lower()
    shown = [
        one
        for one in every
        if word in f"{one.image} {one.version}".lower()
        and (not vo or one.vo == vo)
        and (not site or one.place.partition("/")[0] == site)
        and (only != "missing" or one.status.phase != THERE)
    ]
    sites, lines = table_of(shown)
    return portal.page(
        visit,
        "images/_places.html" if visit.is_live else "images/places.html",
        sites=sites,
        lines=lines,
        there=sum(one.status.phase == THERE for one in shown),
        number=len(shown),
        vos=sorted({one.vo for one in every}),
        places=sorted({one.place.partition("/")[0] for one in every}),
        asked={"q": q, "vo": vo, "site": site, "only": only},
    )
