"""How the API is asked: what to send, how often to try, what the answer means. No input and output here.

The calls themselves are in ``job_api``, ``site_api``, ``people_api``, ``image_api``, ``machines`` and ``volumes``: who
runs a job need not read in what machines are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from hansa.client.effects import Now, Operation, Pause, Reconnect, Request, Response, Unreachable
from hansa.client.errors import NOT_HANSA, SERVER_AWAY, HansaError, ServerAway, of_response
from hansa.kernel.wire import decode, encode

T = TypeVar("T")
PATIENCE_S = 10.0
"""How long a request that may be repeated is repeated before the server counts as away."""
FIRST_DELAY_S = 0.1
LAST_DELAY_S = 5.0
Note = Callable[[str], None]


@dataclass
class Trying:
    """How patient to be, and who hears of it."""

    patience_s: float = PATIENCE_S
    note: Note | None = None
    is_noted: bool = field(default=False, init=False)


def call(request: Request, trying: Trying | None = None) -> Operation[Response]:
    """Ask until there is an answer: refused and broken connections and 503 are repeated with back-off.

    Raises ServerAway when patience ends, HansaError for an answer that is an error.
    """
    how = trying or Trying()
    began: float = yield Now()
    delay = FIRST_DELAY_S
    while True:
        cause: Exception | None = None
        try:
            response: Response = yield request
        except Unreachable as error:
            cause, arrived, wait_s = error, error.arrived, delay
        else:
            if response.status != 503:
                return _checked(request, response)
            arrived, wait_s = False, _retry_after(response, delay)
        now: float = yield Now()
        left = how.patience_s - (now - began)
        if left <= 0 or (arrived and not request.repeatable):
            raise _away(request, cause, response if cause is None else None) from cause
        _tell(how)
        if request.restart is not None and request.repeatable:
            request.restart()
        if cause is not None:
            yield Reconnect()
        yield Pause(min(wait_s, max(left, 0.01)))
        delay = min(delay * 2, LAST_DELAY_S)


def _tell(how: Trying) -> None:
    if how.note is not None and not how.is_noted:
        how.is_noted = True
        how.note("the server does not answer; trying again (what it has accepted goes on)")


def _checked(request: Request, response: Response) -> Response:
    if response.status >= 400:
        raise of_response(response.status, response.body, f"{request.method} {request.path}")
    return response


def _retry_after(response: Response, default_s: float) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", default_s)))
    except ValueError:
        return default_s


def _away(request: Request, cause: Exception | None, response: Response | None) -> HansaError:
    if response is not None:
        return of_response(response.status, response.body, f"{request.method} {request.path}")
    return ServerAway(
        SERVER_AWAY,
        f"The server does not answer: {cause}.",
        hint="Look at: hansa status. An embedded server starts with: hansa up.",
    )


def get(kind: type[T], path: str, trying: Trying | None = None, **query: Any) -> Operation[T]:
    """GET an object of the API."""
    response = yield from call(Request("GET", path, query), trying)
    return _read(kind, response)


def post(kind: type[T], path: str, body: Any, headers: dict[str, str] | None = None) -> Operation[T]:
    """POST an object; all our POSTs do no harm when repeated, those that create carry a key."""
    request = Request("POST", path, body=_json(body), headers=headers or {}, timeout_s=120.0)
    response = yield from call(request)
    return _read(kind, response)


def send(kind: type[T], method: str, path: str, body: Any = None, *, repeatable: bool = True) -> Operation[T]:
    """Change something by an object; not sent twice where that would make two, or fail the second time."""
    content = _json({} if body is None else body)
    response = yield from call(Request(method, path, body=content, timeout_s=120.0, repeatable=repeatable))
    return _read(kind, response)


def raw(method: str, path: str, body: Any = None) -> Operation[Any]:
    """Any call of the API; sent once, as nobody knows what it does."""
    content = None if body is None else _json(body)
    response = yield from call(Request(method.upper(), path, body=content, timeout_s=120.0, repeatable=False))
    return json.loads(response.body) if response.body else None


def _json(body: Any) -> bytes:
    return json.dumps(encode(body), separators=(",", ":"), ensure_ascii=False).encode()


def _read(kind: type[T], response: Response) -> T:
    try:
        return decode(kind, json.loads(response.body))
    except (ValueError, KeyError, TypeError) as error:
        raise HansaError(
            NOT_HANSA,
            f"The answer of the server is not what was expected ({error}).",
            hint="Check the address (HANSA_SERVER), and the server's version: hansa status.",
        ) from error


def health() -> Operation[dict[str, Any]]:
    """How the server is; needs no token."""
    return (yield from get(dict, "/health"))


def part(text: str) -> str:
    return quote(text, safe="")
