"""The server's end of a spool."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from hansa.jobs.relay import _Conversation
from hansa.node.protocol import RESUME_BYTES
from hansa.node.relay import PIECE_BYTES, Unframer

SIZE = RESUME_BYTES + 1000
PATH = "/api/v1/pilots/p/files/sha256:x"


class Wire:
    """What the relay hears."""

    def __init__(self) -> None:
        self.unframer = Unframer()
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        for head, _ in self.unframer.feed(data):
            if "id" in head:
                await self.heard.put(head)


@pytest.mark.parametrize(
    ("status", "received", "offset", "start"),
    [(200, 5_000_000, 0, 5_000_000), (200, 5_000_000, 4_000_000, 1_000_000), (404, 0, 0, 0), (200, 10, 4_000_000, 0)],
)
async def test_only_the_rest_of_a_large_upload_is_sent(status: int, received: int, offset: int, start: int) -> None:
    came: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        came.append(request)
        return httpx.Response(status if request.method == "GET" else 204, json={"received": received})

    wire = Wire()
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://server")
    async with asyncio.timeout(60), client, _Conversation(wire, client) as talk:  # type: ignore[arg-type]
        path = f"{PATH}?offset={offset}" if offset else PATH
        await talk.hear({"id": "a", "pilot": "p", "method": "PUT", "path": path, "size": SIZE, "token": "t"}, b"")
        assert await wire.heard.get() == {"id": "a", "start": start}
        for at in range(start, SIZE, PIECE_BYTES):
            await talk.hear({"id": "a"}, bytes(min(PIECE_BYTES, SIZE - at)))
        await talk.hear({"id": "a", "end": True}, b"")
        while not (head := await wire.heard.get()).get("last"):
            pass
        assert head["status"] == 204
    asked, put = came
    assert asked.url.raw_path.decode() == f"{PATH}/received?size={offset + SIZE}"
    assert put.url.raw_path.decode() == f"{PATH}?offset={offset + start}"
    assert len(put.content) == int(put.headers["content-length"]) == SIZE - start
