"""Performs effects asynchronously, on httpx; the same operations as the synchronous transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx

from hansa.client.connect import Endpoint
from hansa.client.effects import (
    Effect,
    FileBody,
    Now,
    Operation,
    Pause,
    Reconnect,
    Request,
    Response,
    Unreachable,
    Work,
)
from hansa.client.transport import PIECE_BYTES, address, begin, headers

T = TypeVar("T")


class AsyncTransport:
    """A pool of connections to one server. Several operations may run at once."""

    def __init__(self, endpoint: Endpoint, reconnect: Callable[[], Endpoint] | None = None) -> None:
        self._endpoint = endpoint
        self._reconnect = reconnect
        self._client = httpx.AsyncClient(trust_env=False, verify=_verify(endpoint))

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    async def run(self, operation: Operation[T]) -> T:
        """Perform an operation to its end; cancelling closes it."""
        try:
            effect = next(operation)
            while True:
                try:
                    answer = await self._perform(effect)
                except Unreachable as error:
                    effect = operation.throw(error)
                else:
                    effect = operation.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            operation.close()
            raise

    async def close(self) -> None:
        await self._client.aclose()

    async def _perform(self, effect: Effect) -> object:
        if isinstance(effect, Request):
            return await self._ask(effect)
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
            return None
        if isinstance(effect, Work):
            return await asyncio.to_thread(effect.run)
        if isinstance(effect, Now):
            return time.monotonic()
        assert isinstance(effect, Reconnect)  # noqa: S101 - exhaustive
        if self._reconnect is not None:
            self._endpoint = await asyncio.to_thread(self._reconnect)
        return None

    async def _ask(self, request: Request) -> Response:
        timeout_s = request.timeout_s or self._endpoint.timeout_s
        body = _pieces(request.body) if isinstance(request.body, FileBody) else request.body
        if self._endpoint.login is not None:
            await asyncio.to_thread(self._endpoint.bearer)  # which may have to ask for a fresh one
        parts = urlsplit(self._endpoint.url)
        url = urlunsplit((parts.scheme, parts.netloc, "", "", "")) + address(self._endpoint, request)
        sent = self._client.stream(
            request.method, url, content=body, headers=headers(self._endpoint, request), timeout=timeout_s
        )
        try:
            async with sent as answer:
                if request.sink is not None and answer.status_code < 400:
                    begin(request, answer.status_code)
                    async for piece in answer.aiter_raw(PIECE_BYTES):
                        request.sink(piece)
                    return Response(answer.status_code, dict(answer.headers), b"")
                return Response(answer.status_code, dict(answer.headers), await answer.aread())
        except (httpx.TransportError, ConnectionAbortedError) as error:
            arrived = not isinstance(error, httpx.ConnectError)
            raise Unreachable(str(error) or type(error).__name__, arrived=arrived) from error


def _verify(endpoint: Endpoint) -> bool | str:
    return endpoint.ca_file or endpoint.url.startswith("https://")


async def _pieces(body: FileBody) -> AsyncIterator[bytes]:
    left = body.size - body.offset
    with body.path.open("rb") as file:
        file.seek(body.offset)
        while left and (piece := file.read(min(PIECE_BYTES, left))):
            left -= len(piece)
            if body.progress is not None:
                body.progress(len(piece))
            yield piece
    if left:
        raise ConnectionAbortedError(f"{body.path} became shorter while it was sent")
