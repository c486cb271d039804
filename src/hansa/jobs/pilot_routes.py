"""HTTP routes of pilots: the exchange, their files, their program."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter, ValidationError

from hansa.identity.http import allowed, public
from hansa.identity.model import Caller
from hansa.identity.policy import Permission
from hansa.jobs.channels import ChannelService
from hansa.jobs.enrolment import EnrolReply, EnrolRequest, EnrolService
from hansa.jobs.exchange import ExchangeService
from hansa.jobs.files import FileService
from hansa.jobs.program import NodeProgram
from hansa.jobs.routes import Size, upload_length
from hansa.jobs.wire import Received
from hansa.kernel.http import API, invalid, provided
from hansa.node.protocol import ChannelReply, ChannelRequest, Checkpoint, ExchangeReply, ExchangeRequest

router = APIRouter(prefix=API, tags=["pilots"])
Pilot = Annotated[Caller, allowed(Permission.PILOT_EXCHANGE)]
Exchanges = Annotated[ExchangeService, Depends(provided(ExchangeService))]
Files = Annotated[FileService, Depends(provided(FileService))]
_request = TypeAdapter(ExchangeRequest)
_reply = TypeAdapter(ExchangeReply)


@router.post(
    "/pilots/{pilot}/exchange",
    response_model=ExchangeReply,
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": _request.json_schema()}}}},
)
async def exchange(pilot: str, who: Pilot, exchanges: Exchanges, request: Request) -> Response:  # noqa: ARG001
    """Results in, tasks out; see hansa.node.protocol. The body is read by pydantic directly: this is the hot path."""
    try:
        asked = _request.validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False)) from error
    answer = await exchanges.exchange(pilot, asked)
    return Response(_reply.dump_json(answer), media_type="application/json")


@router.post("/pilots/{pilot}/enrol", dependencies=[public()])
async def enrol(
    pilot: str, body: EnrolRequest, enrolments: Annotated[EnrolService, Depends(provided(EnrolService))]
) -> EnrolReply:
    """The token of a pilot in a machine made for it, for the ticket in that machine's user data: once."""
    return await enrolments.enrol(pilot, body)


@router.post("/pilots/{pilot}/channels/{channel}")
async def swap_channel(
    pilot: str,
    channel: str,
    body: ChannelRequest,
    who: Pilot,  # noqa: ARG001
    channels: Annotated[ChannelService, Depends(provided(ChannelService))],
) -> ChannelReply:
    """What a pilot says and hears on a channel beside one of its tasks."""
    return await channels.swap_pilot(pilot, channel, body)


@router.post("/pilots/{pilot}/checkpoints", status_code=204)
async def keep_checkpoint(pilot: str, body: Checkpoint, who: Pilot, exchanges: Exchanges) -> None:  # noqa: ARG001
    """What a running task's checkpoint folder holds; its files were uploaded before."""
    await exchanges.keep_checkpoint(pilot, body)


@router.get("/pilots/{pilot}/files/{digest}", response_class=StreamingResponse)
async def download(
    pilot: str,
    digest: str,
    who: Pilot,  # noqa: ARG001
    exchanges: Exchanges,
    files: Files,
    offset: Size = 0,
) -> StreamingResponse:
    """Content that the pilot's owner brought here, from ``offset`` on."""
    await exchanges.check_download(pilot, digest)
    return StreamingResponse(files.open(digest, offset), media_type="application/octet-stream")


@router.get("/pilots/{pilot}/files/{digest}/received")
async def received(pilot: str, digest: str, size: Size, who: Pilot, files: Files) -> Received:  # noqa: ARG001
    """How much of an output whose upload broke off is here."""
    return await files.received_of(pilot, digest, size)


@router.put("/pilots/{pilot}/files/{digest}", status_code=204)
async def upload(
    pilot: str,
    digest: str,
    who: Pilot,  # noqa: ARG001
    files: Files,
    request: Request,
    offset: Size = 0,
) -> None:
    """An output of a task, or the rest of it from ``offset`` on, before the exchange that reports it."""
    await files.store_stream(pilot, digest, upload_length(request), request.stream(), offset)


@router.get("/pilots/{pilot}/node.pyz")
async def program(
    pilot: str,  # noqa: ARG001
    who: Annotated[Caller, allowed(Permission.PILOT_PROGRAM)],  # noqa: ARG001
    node: Annotated[NodeProgram, Depends(provided(NodeProgram))],
) -> Response:
    """The pilot's program; bootstrap.py checks its digest."""
    return Response(node.zipapp, media_type="application/zip")
