"""Every error that a person can meet, in one registry: code, HTTP status, exit code, meaning.

A code is ``room.reason`` and never changes its meaning. Rooms register theirs in ``errors.py`` modules; the
reference page and the tests read :func:`registry`. Drivers raise :class:`Temporary` or :class:`Permanent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Exit:
    """Exit codes of the command line. ``hansa run`` uses OWN for all of them: the others are the job's."""

    FAILED = 1
    USAGE = 2
    SIGN_IN = 3
    NOT_FOUND = 4
    REFUSED = 5
    AWAY = 6
    LIMIT = 7
    OWN = 125


@dataclass(frozen=True)
class Code:
    """One kind of error. ``title`` is its meaning in a sentence without particulars."""

    code: str
    status: int
    exit_code: int
    title: str


_registry: dict[str, Code] = {}


def register(code: str, status: int, exit_code: int, title: str) -> Code:
    """Add a code at import of a room's ``errors.py``. Twice the same code is a defect."""
    if code in _registry:
        raise ValueError(f"error code {code} is registered twice")
    entry = Code(code, status, exit_code, title)
    _registry[code] = entry
    return entry


def registry() -> dict[str, Code]:
    """All codes registered so far, by code."""
    return dict(sorted(_registry.items()))


class Fault(Exception):
    """An error with a code, a sentence with particulars, and what to do next."""

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        hint: str | None = None,
        retry_after_s: float | None = None,
        **ids: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.ids = ids


class DriverError(Exception):
    """What a driver raises: exactly one of the two below, with the cause chained."""


class Temporary(DriverError):
    """It may work later: the engine tries again after ``retry_after_s`` (its own back-off where None)."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Permanent(DriverError):
    """It will not work, however often it is tried: somebody has to change something."""


INVALID = register("kernel.invalid", 422, Exit.USAGE, "The request is not valid.")
TOO_LARGE = register("kernel.too_large", 413, Exit.LIMIT, "The request is larger than this server accepts.")
NOT_FOUND = register("kernel.not_found", 404, Exit.NOT_FOUND, "There is nothing at this address.")
METHOD = register("kernel.method", 405, Exit.USAGE, "This address does not take that method.")
BUG = register("kernel.bug", 500, Exit.AWAY, "A defect of Hansa. Nothing was changed.")
STORAGE_FULL = register("kernel.storage_full", 507, Exit.LIMIT, "The disk of the server is full.")
STORAGE_AWAY = register("kernel.storage_away", 503, Exit.AWAY, "The server's object store cannot be reached.")
DATABASE_AWAY = register("kernel.database_away", 503, Exit.AWAY, "The server's database cannot be reached.")
SCHEMA = register("kernel.schema", 500, Exit.REFUSED, "The database's schema is not this server's.")
NETWORK_DISK = register(
    "kernel.network_disk", 500, Exit.REFUSED, "An embedded database cannot live on a network file system."
)
IDEMPOTENCY = register(
    "kernel.idempotency_reused", 409, Exit.REFUSED, "This Idempotency-Key was used for another request."
)
PRECONDITION = register("kernel.precondition", 412, Exit.REFUSED, "The thing has changed since it was read.")
SETTING = register("kernel.setting", 500, Exit.USAGE, "A setting is not valid.")
MASTER_KEY = register("kernel.master_key", 500, Exit.REFUSED, "The server's master key cannot be used.")
SEALED = register("kernel.sealed", 500, Exit.REFUSED, "A secret of the server cannot be opened.")
