"""The server's end of a spool: answers requests that a relay on a login node sends through an SSH connection.

Each request is made anew over HTTP to this server, with the pilot's own token: a relay can do no more than the pilots
whose requests it carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import structlog

from hansa.engines.shell import Shell, Stream
from hansa.kernel.errors import DriverError, Temporary
from hansa.node.relay import PIECE_BYTES, Unframer, frame, is_resumed

log = structlog.get_logger(__name__)
_BEAT_S = 10.0
_SILENCE_S = 30.0
_UNUSED_S = 120.0
_PIECES = 16
_METHODS = ("GET", "POST", "PUT")


class RelayLink:
    """Keeps one relay running for as long as somebody calls :meth:`ensure`."""

    def __init__(self, shell: Shell, urls: Callable[[], Sequence[str]], ca_file: Path | None = None) -> None:
        self._shell = shell
        self._urls = urls
        self._ca_file = ca_file
        self._task: asyncio.Task[None] | None = None
        self._asked = 0.0
        self._up_since: float | None = None

    def ensure(self, argv: Sequence[str]) -> None:
        """See to it that the relay ``argv`` runs, for two minutes from now at least."""
        self._asked = time.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep(list(argv)), name=f"relay {self._shell.name}")

    @property
    def up_s(self) -> float:
        """For how many seconds it has been carrying without a break; 0: it does not now."""
        return 0.0 if self._up_since is None else time.monotonic() - self._up_since

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _keep(self, argv: list[str]) -> None:
        pause_s = 0.5
        while time.monotonic() - self._asked < _UNUSED_S:
            began = time.monotonic()
            try:
                async with self._shell.open(argv) as stream:
                    await self._serve(stream)
            except (DriverError, TimeoutError) as error:
                log.warning("relay.broken", where=self._shell.name, error=str(error) or "it fell silent")
            finally:
                self._up_since = None
            pause_s = 0.5 if time.monotonic() - began > 60 else min(30.0, pause_s * 2)
            await asyncio.sleep(pause_s)

    async def _serve(self, stream: Stream) -> None:
        url = self._urls()[0]
        verify: Any = ssl.create_default_context(cafile=self._ca_file) if url.startswith("https") else True
        timeout = httpx.Timeout(60.0, read=90.0)
        async with (
            httpx.AsyncClient(base_url=url, verify=verify, timeout=timeout, trust_env=False) as client,
            _Conversation(stream, client) as talk,
        ):
            unframer = Unframer()
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    data = await stream.read(1 << 20)
                if not data:
                    raise Temporary(f"the relay ended: {await stream.complaint()}")
                if self._up_since is None:
                    self._up_since = time.monotonic()
                for head, body in unframer.feed(data):
                    await talk.hear(head, body)
                if time.monotonic() - self._asked > _UNUSED_S:
                    return


class _Conversation:
    """The requests that are under way over one stream."""

    def __init__(self, stream: Stream, client: httpx.AsyncClient) -> None:
        self._stream = stream
        self._client = client
        self._lock = asyncio.Lock()
        self._bodies: dict[str, asyncio.Queue[bytes | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> _Conversation:
        self._start(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def hear(self, head: dict[str, Any], body: bytes) -> None:
        name = head.get("id")
        if not isinstance(name, str):
            return
        if "method" in head:
            self._bodies[name] = asyncio.Queue(_PIECES)
            self._start(self._forward(name, head))
        elif name in self._bodies:
            await self._bodies[name].put(None if head.get("end") else body)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            with contextlib.suppress(DriverError):
                await self._say({"beat": 1})

    async def _forward(self, name: str, head: dict[str, Any]) -> None:
        pieces = self._bodies[name]
        try:
            if not _is_allowed(head):
                await self._say({"id": name, "status": 400, "last": True}, b'{"detail": "not a request of a pilot"}')
            else:
                await self._ask(name, head, pieces)
        except httpx.HTTPError as error:
            with contextlib.suppress(DriverError):
                await self._say({"id": name, "status": 503, "last": True}, str(error).encode())
        except DriverError:
            log.debug("relay.answer_lost", request=name)
        finally:
            del self._bodies[name]
            while not pieces.empty():  # whoever fills it must not wait for ever
                pieces.get_nowait()

    async def _ask(self, name: str, head: dict[str, Any], pieces: asyncio.Queue[bytes | None]) -> None:
        headers = {"Authorization": f"Bearer {head['token']}", "Accept": "application/json"}
        content: AsyncIterator[bytes] | None = None
        path, size = str(head["path"]), int(head["size"])
        if head["method"] == "GET":
            await pieces.get()
        else:
            kind = "application/json" if head["method"] == "POST" else "application/octet-stream"
            if is_resumed(head):
                path, size = await self._go_on(name, path, size, headers)
            headers |= {"Content-Type": kind, "Content-Length": str(size)}
            content = _body(pieces)
        async with self._client.stream(head["method"], path, headers=headers, content=content) as answer:
            async for piece in answer.aiter_bytes(PIECE_BYTES):
                await self._say({"id": name, "status": answer.status_code}, piece)
            await self._say({"id": name, "status": answer.status_code, "last": True})

    async def _go_on(self, name: str, path: str, size: int, headers: dict[str, str]) -> tuple[str, int]:
        """Of a large upload that an earlier relay had begun, only the rest is asked for: its path, and its size."""
        bare, _, offset = path.partition("?offset=")
        before = int(offset) if offset.isdecimal() else 0
        answer = await self._client.get(f"{bare}/received", params={"size": before + size}, headers=headers)
        received = answer.json()["received"] if answer.status_code == 200 else 0
        start = min(size, max(0, received - before))
        await self._say({"id": name, "start": start})
        return f"{bare}?offset={before + start}", size - start

    async def _say(self, head: dict[str, Any], body: bytes = b"") -> None:
        async with self._lock:
            await self._stream.write(frame(head, body))


def _is_allowed(head: dict[str, Any]) -> bool:
    """Whether a request is one of those that pilots make: nothing else goes through a relay."""
    path, pilot = str(head.get("path")), str(head.get("pilot"))
    is_whole = isinstance(head.get("token"), str) and isinstance(head.get("size"), int)
    return is_whole and head["method"] in _METHODS and path.startswith(f"/api/v1/pilots/{pilot}/") and ".." not in path


async def _body(pieces: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (piece := await pieces.get()) is not None:
        yield piece
