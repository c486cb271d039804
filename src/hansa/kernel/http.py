"""What every room's routes share: services by type, problem+json (RFC 9457), cursors, ETags."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hansa.kernel import errors

log = structlog.get_logger(__name__)
T = TypeVar("T")
MOST = 2**63 - 1
"""The largest number that a database keeps."""
API = "/api/v1"
"""Where the versioned interface lives: the prefix of every router of it."""
_BY_STATUS = {404: errors.NOT_FOUND, 405: errors.METHOD, 413: errors.TOO_LARGE}


def provided(kind: type[T]) -> Callable[[Request], Awaitable[T]]:
    """A dependency that gives the application's one ``kind`` (put there by ``provide``)."""

    async def find(request: Request) -> T:  # a plain function would be called in a thread, for every request
        services: Mapping[type, Any] = request.app.state.services
        found: T = services[kind]
        return found

    return find


def provide(app: FastAPI, *services: object) -> None:
    """Make services available to routes by their type."""
    app.state.services = {type(service): service for service in services}


def problem(fault: errors.Fault) -> JSONResponse:
    """The answer for a fault: its code decides the status; detail and hint are for people."""
    body: dict[str, Any] = {
        "type": f"urn:hansa:problem:{fault.code.code}",
        "title": fault.code.title,
        "status": fault.code.status,
        "detail": fault.detail,
        "code": fault.code.code,
        "exit_code": fault.code.exit_code,
        **fault.ids,
    }
    headers = {"WWW-Authenticate": "Bearer"} if fault.code.status == 401 else {}
    if fault.hint:
        body["hint"] = fault.hint
    if fault.retry_after_s is not None:
        body["retry_after_s"] = fault.retry_after_s
        headers["Retry-After"] = str(max(1, round(fault.retry_after_s)))
    return JSONResponse(body, fault.code.status, headers, media_type="application/problem+json")


def install_error_handlers(app: FastAPI) -> None:
    """Turn everything that goes wrong into problem+json."""

    async def on_fault(_request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.Fault)  # noqa: S101 - what Starlette promises, for the type checker
        return problem(error)

    async def on_invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return problem(invalid(error.errors()))

    async def on_http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return problem(errors.Fault(_BY_STATUS.get(error.status_code, errors.INVALID), str(error.detail)))

    async def on_defect(request: Request, error: Exception) -> Response:
        log.error("http.defect", method=request.method, path=request.url.path, exc_info=error)
        return problem(errors.Fault(errors.BUG, "The server met a defect; its log says more.", hint="hansa doctor"))

    app.add_exception_handler(errors.Fault, on_fault)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_defect)


def invalid(found: Any) -> errors.Fault:
    """A fault for pydantic's findings: the first three in words."""
    said = []
    for item in list(found)[:3]:
        place = ".".join(str(part) for part in item["loc"] if part != "body")
        said.append(f"{place}: {item['msg']}" if place else str(item["msg"]))
    return errors.Fault(errors.INVALID, "; ".join(said) + ".", hint="The API page at /docs shows what is expected.")


def encode_cursor(*key: Any) -> str:
    """An opaque cursor for the key of the last item of a page."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *kinds: type) -> list[Any] | None:
    """The key inside a cursor of ours, of these types. Raises Fault ``kernel.invalid`` on anything else."""
    if not cursor:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise errors.Fault(errors.INVALID, "This cursor is not one of ours.") from error
    if not isinstance(key, list) or [type(part) for part in key] != list(kinds):
        raise errors.Fault(errors.INVALID, "This cursor is not one of this list.")
    if any(isinstance(part, int) and abs(part) > MOST for part in key):
        raise errors.Fault(errors.INVALID, "This cursor is not one of ours.")
    return key


ANONYMOUS_LIMIT_BYTES = 64 * 1024
"""What a request without an Authorization header may have: its body is read before anybody asks who sends it."""


class BodyLimit:
    """Refuses request bodies over a limit, by Content-Length or while they arrive; uploads are exempt."""

    def __init__(self, app: ASGIApp, limit: int, exempt: Callable[[str], bool]) -> None:
        self._app = app
        self._limit = limit
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._exempt(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        limit = self._limit if b"authorization" in headers else min(self._limit, ANONYMOUS_LIMIT_BYTES)
        fault = errors.Fault(
            errors.TOO_LARGE,
            f"{'A request' if limit == self._limit else 'A request without a token'} may have {limit:,} bytes.",
            hint="Send large content as files (PUT /api/v1/files/{digest}).",
        )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            await problem(fault)(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:  # while FastAPI reads a body, this is the only error that stays what it is
                raise HTTPException(fault.code.status, fault.detail)
            return message

        await self._app(scope, counted, send)
