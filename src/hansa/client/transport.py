"""Performs effects synchronously, on http.client: nothing that costs start-up time."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

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
from hansa.version import __version__

T = TypeVar("T")
PIECE_BYTES = 256 * 1024
API = "/api/v1"


class Transport:
    """One keep-alive connection to one server. Not for several threads at once."""

    def __init__(self, endpoint: Endpoint, reconnect: Callable[[], Endpoint] | None = None) -> None:
        self._endpoint = endpoint
        self._reconnect = reconnect
        self._connection: http.client.HTTPConnection | None = None
        self._has_delivered = False

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    def run(self, operation: Operation[T]) -> T:
        """Perform an operation to its end. An interrupt closes the operation and the connection."""
        try:
            effect = next(operation)
            while True:
                try:
                    answer = self._perform(effect)
                except Unreachable as error:
                    effect = operation.throw(error)
                else:
                    effect = operation.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            operation.close()
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _perform(self, effect: Effect) -> object:
        if isinstance(effect, Request):
            return self._ask(effect)
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        if isinstance(effect, Work):
            return effect.run()
        if isinstance(effect, Now):
            return time.monotonic()
        assert isinstance(effect, Reconnect)  # noqa: S101 - exhaustive
        self.close()
        if self._reconnect is not None:
            self._endpoint = self._reconnect()
        return None

    def _ask(self, request: Request) -> Response:
        kept = self._connection is not None
        self._has_delivered = False
        try:
            return self._send(request)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            # A kept connection that the server had closed meanwhile is no news: once more on a fresh one.
            if not kept or self._has_delivered or not (request.repeatable or request.method == "GET"):
                raise Unreachable(f"the connection broke off ({error})", arrived=True) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            refused = isinstance(error, ConnectionRefusedError)
            raise Unreachable(_reason(error), arrived=not refused) from error
        try:
            return self._send(request)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(_reason(error), arrived=True) from error

    def _send(self, request: Request) -> Response:
        connection = self._connect(request.timeout_s or self._endpoint.timeout_s)
        body = _pieces(request.body) if isinstance(request.body, FileBody) else request.body
        try:
            connection.request(request.method, address(self._endpoint, request), body, headers(self._endpoint, request))
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a body may answer before it has read it; getresponse tells.
            if not isinstance(request.body, FileBody):
                raise
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        if request.sink is not None and answer.status < 400:
            begin(request, answer.status)
            while piece := answer.read1(PIECE_BYTES):
                self._has_delivered = True
                request.sink(piece)
            body_in = b""
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
            answer.close()  # read1 leaves it open at the end, and with it the connection busy
        else:
            body_in = answer.read()
        if found.get("connection") == "close":
            self.close()
        return Response(answer.status, found, body_in)

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._connection is None:
            parts = urlsplit(self._endpoint.url)
            host = parts.hostname or ""
            if parts.scheme == "https":
                import ssl

                context = ssl.create_default_context(cafile=self._endpoint.ca_file)
                self._connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
            else:
                self._connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
        self._connection.timeout = timeout_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        return self._connection


def begin(request: Request, status: int) -> None:
    """Before an answer is delivered: tell where all of it comes though a part was asked for."""
    if status == 200 and "Range" in request.headers and request.restart is not None:
        request.restart()


def address(endpoint: Endpoint, request: Request) -> str:
    """Path and query of a request, below whatever path the server's URL has."""
    query = urlencode({name: value for name, value in request.query.items() if value is not None})
    base = urlsplit(endpoint.url).path.rstrip("/")
    return f"{base}{API}{request.path}{'?' + query if query else ''}"


def headers(endpoint: Endpoint, request: Request) -> dict[str, str]:
    """The headers of a request, the token included."""
    found = {"Accept": "application/json", "User-Agent": f"hansa/{__version__}"}
    if token := endpoint.bearer():
        found["Authorization"] = f"Bearer {token}"
    if isinstance(request.body, FileBody):
        found["Content-Length"] = str(request.body.size - request.body.offset)
        found["Content-Type"] = "application/octet-stream"
    elif request.body is not None:
        found["Content-Type"] = "application/json"
    return found | dict(request.headers)


def _pieces(body: FileBody) -> Iterator[bytes]:
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


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    return str(error) or type(error).__name__
