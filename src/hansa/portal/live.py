"""The one stream of a browser: what has changed, never how. Its tabs ask for the parts that they show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.responses import StreamingResponse

from hansa.identity.policy import Permission
from hansa.jobs.service import JobService
from hansa.kernel.events import EventLog
from hansa.kernel.http import MOST, provided
from hansa.portal.frame import PageRoute, Visit, visitor

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_BEAT_S = 15.0
_PAUSE_S = 0.7
"""Between two looks: a busy job changes many times a second, a reader can follow one or two."""


@router.get("/live", response_class=StreamingResponse)
async def stream_changes(
    visit: Annotated[Visit, visitor(Permission.EVENTS_READ)],
    log: Annotated[EventLog, Depends(provided(EventLog))],
    jobs: Annotated[JobService, Depends(provided(JobService))],
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Subjects of the reader's that have changed, as server-sent events."""
    resumed = min(int(last_event_id), MOST) if last_event_id and last_event_id.isdecimal() else None

    async def lines() -> AsyncIterator[bytes]:
        position = await log.last_position() if resumed is None else resumed
        yield b"retry: 2000\n\n"
        async for changed in jobs.changes(visit.caller, position, _BEAT_S):
            if changed is None:
                yield b": still here\n\n"
                continue
            position, subjects = changed
            yield f"id: {position}\nevent: changed\ndata: {json.dumps(subjects)}\n\n".encode()
            if f"user/{visit.caller.user_id}" in subjects:
                return  # the browser comes back, and is let in if it still may
            await asyncio.sleep(_PAUSE_S)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)
