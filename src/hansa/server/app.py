"""The application: routers, error handlers, limits. No logic of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from hansa.accounting.routes import router as accounting_router
from hansa.identity.provider.pages import router as page_router
from hansa.identity.provider.routes import router as provider_router
from hansa.identity.routes import router as identity_router
from hansa.identity.upstream.pages import router as broker_router
from hansa.identity.vo_routes import router as vo_router
from hansa.images.routes import router as image_router
from hansa.jobs.pilot_routes import router as pilot_router
from hansa.jobs.registry_routes import router as registry_router
from hansa.jobs.routes import router as job_router
from hansa.kernel.http import BodyLimit, install_error_handlers, provide
from hansa.machines.routes import router as machine_router
from hansa.machines.sync_routes import router as image_place_router
from hansa.machines.volume_routes import router as volume_router
from hansa.placement.routes import router as plan_router
from hansa.portal.admin import router as portal_admin_router
from hansa.portal.frame import Portal
from hansa.portal.home import router as portal_home_router
from hansa.portal.image_places import router as portal_place_router
from hansa.portal.images import router as portal_image_router
from hansa.portal.job_usage import router as portal_job_usage_router
from hansa.portal.jobs import router as portal_job_router
from hansa.portal.live import router as portal_live_router
from hansa.portal.machines import router as portal_machine_router
from hansa.portal.results import router as portal_result_router
from hansa.portal.signin import router as portal_router
from hansa.portal.signin import v1_router as portal_v1_router
from hansa.portal.sites import router as portal_site_router
from hansa.portal.usage import router as portal_usage_router
from hansa.portal.vo_access import router as portal_access_router
from hansa.portal.vo_members import router as portal_member_router
from hansa.portal.volumes import router as portal_volume_router
from hansa.portal.vos import router as portal_vo_router
from hansa.server.events import router as event_router
from hansa.server.rooms import Rooms, running
from hansa.server.routes import router as server_router
from hansa.server.routes import v1_router as server_v1_router
from hansa.sites.capacity_routes import router as grant_router
from hansa.sites.routes import router as site_router
from hansa.version import __version__

_DESCRIPTION = """One front door to all the compute that a research community can reach.

Sign in with `Authorization: Bearer TOKEN`. Errors are `application/problem+json` (RFC 9457) with a stable `code`.
Lists are `{items, next}`: pass `next` as `after` for the next page. Send an `Idempotency-Key` with POST /jobs.
The API only ever adds: ignore fields that you do not know."""


def create_app(rooms: Rooms | None = None) -> FastAPI:
    """The ASGI application. Without rooms it can only describe itself (OpenAPI)."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if rooms is None:
            yield
            return
        async with running(rooms):
            yield

    app = FastAPI(title="Hansa", version=__version__, description=_DESCRIPTION, lifespan=lifespan)
    install_error_handlers(app)
    for router in (
        job_router,
        registry_router,
        pilot_router,
        site_router,
        grant_router,
        plan_router,
        identity_router,
        vo_router,
        accounting_router,
        image_router,
        machine_router,
        volume_router,
        image_place_router,
        event_router,
        portal_v1_router,
        server_v1_router,
        server_router,
        provider_router,
        page_router,
        portal_router,
        portal_live_router,
        portal_home_router,
        portal_job_router,
        portal_job_usage_router,
        portal_result_router,
        portal_machine_router,
        portal_volume_router,
        portal_site_router,
        portal_vo_router,
        portal_member_router,
        portal_access_router,
        portal_place_router,
        portal_image_router,
        portal_usage_router,
        portal_admin_router,
        broker_router,
    ):
        app.router.routes.extend(router.routes)  # include_router() would build every route a second time
    if rooms is not None:
        provide(
            app,
            rooms,
            rooms.identity,
            rooms.accounts,
            rooms.vos,
            rooms.provider,
            rooms.browser,
            Portal(rooms.browser),
            rooms.services,
            rooms.upstreams,
            rooms.authority,
            rooms.sites,
            rooms.grants,
            rooms.plans,
            rooms.registry,
            rooms.steering,
            rooms.reports,
            rooms.checks,
            rooms.own_sites,
            rooms.accounting,
            rooms.images,
            rooms.endorsing,
            rooms.image_lists,
            rooms.registry_logins,
            rooms.machines,
            rooms.meters,
            rooms.volumes,
            rooms.snapshots,
            rooms.image_places,
            rooms.files,
            rooms.jobs,
            rooms.exchange,
            rooms.channels,
            rooms.task_usage,
            rooms.enrolments,
            rooms.program,
            rooms.events,
        )
        limit = rooms.settings.server.request_limit_bytes
        app.add_middleware(BodyLimit, limit=limit, exempt=is_upload)
    return app


def is_upload(path: str) -> bool:
    """Paths whose bodies have a limit of their own."""
    return path.startswith("/api/v1/") and ("/files/sha256:" in path or path.startswith("/api/v1/vm-images/upload/"))


def create_openapi() -> dict[str, Any]:
    """The OpenAPI description: the contract that CI compares."""
    return create_app().openapi()
