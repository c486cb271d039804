"""Wire models of identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import MaxLen, MinLen

from hansa.kernel.wire import STRICT


@dataclass(frozen=True)
class User:
    """A user: ``(issuer, sub)``, never an e-mail address."""

    id: str
    issuer: str
    sub: str
    name: str
    operator: bool


@dataclass(frozen=True)
class NewUser:
    """A user of this server's own, for small groups until an issuer is set up."""

    __pydantic_config__: ClassVar = STRICT

    name: Annotated[str, MinLen(1), MaxLen(100)]


@dataclass(frozen=True)
class NewUserToken:
    """A new user and the token that signs in as that user: shown once."""

    user: User
    token: str
