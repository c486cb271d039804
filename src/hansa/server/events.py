"""The event stream: one SSE stream per client, resumable by ``Last-Event-ID``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse

from hansa.identity.http import allowed
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.identity.service import IdentityService
from hansa.kernel.events import EventLog, StoredEvent
from hansa.kernel.http import API, MOST, provided

router = APIRouter(prefix=API, tags=["events"])


@router.get("/events", response_class=StreamingResponse)
async def stream_events(
    request: Request,
    who: Annotated[Caller, allowed(Permission.EVENTS_READ)],
    log: Annotated[EventLog, Depends(provided(EventLog))],
    identity: Annotated[IdentityService, Depends(provided(IdentityService))],
    after: Annotated[int | None, Query(ge=0, le=MOST)] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """The caller's events as server-sent events; from now on, or behind a position: none is ever skipped."""
    resumed = min(int(last_event_id), MOST) if last_event_id and last_event_id.isdecimal() else after
    position = await log.last_position() if resumed is None else resumed

    async def lines() -> AsyncIterator[bytes]:
        yield b"retry: 2000\n\n"
        async for event in log.stream(position, who.user_id):
            if await request.is_disconnected():
                return
            yield _line(event)
            is_of_caller = event is not None and event.subject == f"user/{who.user_id}"
            if is_of_caller and not await identity.is_let_in(who.user_id):
                return

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


def _line(event: StoredEvent | None) -> bytes:
    if event is None:
        return b": still here\n\n"
    body = {
        "time": event.time.isoformat(),
        "actor": event.actor,
        "subject": event.subject,
        "phase": event.phase,
        "reason": event.reason,
        "message": event.message,
        "data": event.data,
    }
    return f"id: {event.position}\nevent: change\ndata: {json.dumps(body)}\n\n".encode()
