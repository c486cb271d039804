"""Routes about the server itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from hansa.identity.http import allowed, public
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.jobs import store_pilots
from hansa.kernel.http import API, provided
from hansa.server.metrics import render_metrics
from hansa.server.rooms import Rooms
from hansa.version import __version__

router = APIRouter(tags=["server"])
v1_router = APIRouter(prefix=API, tags=["server"])
Everything = Annotated[Rooms, Depends(provided(Rooms))]


@dataclass(frozen=True)
class FileLimits:
    """What a job may bring: bytes of one file, of all files, and their number."""

    file_bytes: int
    job_bytes: int
    job_files: int


@dataclass(frozen=True)
class Health:
    """That the server works, and what a client needs to know before it sends anything."""

    status: str
    version: str
    database: str
    limits: FileLimits


@dataclass(frozen=True)
class Draining:
    """Pilots of this server's own computer that are being stopped."""

    pilots: int


@v1_router.get("/health", dependencies=[public()])
@router.get("/health", dependencies=[public()])
async def health(rooms: Everything) -> Health:
    """Whether the server works: it asks its database."""
    async with rooms.database.read() as tx:
        await tx.execute(sa.select(sa.literal(1)))
    files = rooms.settings.files
    limits = FileLimits(files.limit_bytes, files.job_limit_bytes, files.job_limit_files)
    return Health("ok", __version__, rooms.database.dialect, limits)


@router.get("/metrics", response_class=Response)
async def metrics(rooms: Everything, who: Annotated[Caller, allowed(Permission.METRICS_READ)]) -> Response:  # noqa: ARG001
    """Figures for Prometheus."""
    return Response(await render_metrics(rooms), media_type=CONTENT_TYPE_LATEST)


@v1_router.post("/server/drain")
async def drain(rooms: Everything, who: Annotated[Caller, allowed(Permission.PILOTS_STOP)]) -> Draining:  # noqa: ARG001
    """Stop the pilots of this computer and start none: before the server is stopped. Their tasks wait meanwhile."""
    rooms.demand.pause()
    async with rooms.database.begin() as tx:
        stopped = await store_pilots.ask_to_stop(tx, "local", "now")
    return Draining(stopped)
