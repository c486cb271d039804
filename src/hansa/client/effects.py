"""Operations without input and output of their own: generators that ask for effects and receive the answers.

Each thing that the client can do is written once, as a generator (an :data:`Operation`). The synchronous and
the asynchronous client only differ in who performs the effects: :mod:`hansa.client.transport` or
:mod:`hansa.client.async_transport`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileBody:
    """A file of ``size`` bytes sent as a request's body. ``progress`` hears the number of bytes of each piece."""

    path: Path
    size: int
    progress: Callable[[int], None] | None = None
    offset: int = 0
    """The part of the file before it is not sent: it is there."""


@dataclass(frozen=True, slots=True)
class Request:
    """Ask the server; answered with a :class:`Response`, or :class:`Unreachable` is thrown in.

    ``path`` is below ``/api/v1``. ``repeatable`` says whether sending it twice does no harm. With a ``sink``,
    the body of a good answer is handed to it piece by piece and ``Response.body`` stays empty.
    """

    method: str
    path: str
    query: Mapping[str, str | int | float | None] = field(default_factory=dict)
    body: bytes | FileBody | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    repeatable: bool = True
    sink: Callable[[bytes], None] | None = None
    restart: Callable[[], object] | None = None
    """Called where what is delivered begins anew: forget what was. When a request with a sink is repeated, or when
    a part was asked for (``Range``) and all of it comes."""


@dataclass(frozen=True, slots=True)
class Response:
    """The server's answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Do something that blocks (hashing, reading); answered with what it returns."""

    run: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The server did not answer: bring the embedded one back, where there is one. Answered with None."""


@dataclass(frozen=True, slots=True)
class Now:
    """Answered with seconds of a monotonic clock."""


Effect = Request | Pause | Work | Reconnect | Now
Operation = Generator[Effect, Any, T]


class Unreachable(Exception):
    """No answer: refused, broken off, or not in time. ``arrived`` says whether the server may have got it."""

    def __init__(self, message: str, *, arrived: bool) -> None:
        super().__init__(message)
        self.arrived = arrived
