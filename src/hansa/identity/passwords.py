"""Passwords: hashed with argon2id, in threads, a few at a time (each takes 64 MiB)."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING

from hansa.identity.errors import BAD_PASSWORD
from hansa.kernel.errors import Fault

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST = 10
LONGEST = 1000
_AT_ONCE = asyncio.Semaphore(4)


def check_password(password: str, name: str) -> None:
    """Raise Fault ``identity.bad_password`` for one that is too easy. Length is what counts (NIST SP 800-63B)."""
    if len(password) < SHORTEST:
        raise Fault(BAD_PASSWORD, f"A password has at least {SHORTEST} characters.", hint="Take a few random words.")
    if len(password) > LONGEST:
        raise Fault(BAD_PASSWORD, f"A password has at most {LONGEST} characters.")
    without_name = password.casefold().replace(name.casefold(), "")
    if len(set(password)) < 4 or len(without_name) < SHORTEST / 2:
        raise Fault(BAD_PASSWORD, "This password is too easy to guess.", hint="Take a few random words.")


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _nobody() -> str:
    return _hasher().hash("a password that nobody has")


async def hash_password(password: str) -> str:
    """What the database keeps of a password."""
    async with _AT_ONCE:
        return await asyncio.to_thread(lambda: _hasher().hash(password))


async def verify_password(password: str, digest: str | None) -> bool:
    """Whether it is the password. Without one (no such user) it takes as long, and is False."""
    async with _AT_ONCE:
        return await asyncio.to_thread(_verify, password[: LONGEST + 1], digest)


def _verify(password: str, digest: str | None) -> bool:
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        return _hasher().verify(digest or _nobody(), password) and digest is not None
    except (Argon2Error, InvalidHashError):
        return False
