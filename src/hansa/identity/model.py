"""Who calls."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TokenKind(StrEnum):
    """What a token is for. A pilot's token can do nothing but that one pilot's exchange."""

    USER = "user"
    PILOT = "pilot"


@dataclass(frozen=True)
class Caller:
    """The one behind a request. ``pilot`` is set for a pilot, which acts for ``user_id``."""

    user_id: str
    name: str
    is_operator: bool = False
    pilot: str | None = None

    @property
    def actor(self) -> str:
        """How events name this caller."""
        return f"pilot/{self.pilot}" if self.pilot else f"user/{self.name}"
