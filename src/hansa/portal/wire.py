"""Wire models of the portal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class SignIn:
    """A link that signs one browser in, once, until then. The code is behind a #: no server or proxy sees it."""

    link: str
    expires: datetime
