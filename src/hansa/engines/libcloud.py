"""Clouds by Apache Libcloud: an async face over its drivers, which block and run in threads here.

A driver is made for each call: they are cheap to make, and none is safe to share between threads. Errors are
:class:`Temporary` or :class:`Permanent`; no secret is part of their text. Libcloud is imported when first used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from hansa.engines.egress import EgressPolicy
from hansa.kernel.errors import DriverError, Permanent, Temporary

T = TypeVar("T")
CALL_S = 60.0
"""Seconds that a call may take unless it is given others."""
THREADS = 16
_BUSY = frozenset({408, 409, 425, 429})
_SIGN_IN = frozenset({401, 403})
_REFUSED = ("AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClient", "ExpiredToken")
"""What EC2 and its like say of keys that they do not accept, in answers of whatever status."""


class RefusedSignInError(Permanent):
    """The cloud does not accept the key."""


@dataclass(frozen=True)
class Account:
    """An account of a cloud. ``url`` None: where the provider's own addresses are."""

    provider: str
    key: str
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    region: str | None = None
    url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """What to call it in a sentence."""
        return (urlsplit(self.url).hostname if self.url else None) or self.provider


async def call(
    account: Account, work: Callable[[Any], T], egress: EgressPolicy | None = None, deadline_s: float = CALL_S
) -> T:
    """The result of ``work(driver)`` in a thread. Raises Temporary or Permanent, and Temporary when late.

    A call that was late may still have its effect.
    """
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(_pool(), _do, account, work, egress, deadline_s, loop)
    try:
        return await asyncio.wait_for(running, deadline_s)
    except TimeoutError as error:
        raise Temporary(f"{account.host} did not answer within {deadline_s:.0f} s.") from error


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="libcloud")


def _do(
    account: Account,
    work: Callable[[Any], T],
    egress: EgressPolicy | None,
    deadline_s: float,
    loop: asyncio.AbstractEventLoop,
) -> T:
    try:
        return work(make_driver(account, egress, deadline_s, loop))
    except DriverError:
        raise  # of the policy
    except Exception as error:
        translated = translate(error, account.host)
        if translated is None:
            raise
        raise translated from error


def make_driver(
    account: Account, egress: EgressPolicy | None, timeout_s: float, loop: asyncio.AbstractEventLoop
) -> Any:
    """A driver of Libcloud whose every request passes the policy. Raises Permanent where there is none such."""
    from libcloud.compute.providers import get_driver

    given: dict[str, Any] = {"timeout": timeout_s, **account.options}
    if account.provider == "ec2":
        given.setdefault("signature_version", "4")  # regions since 2014 take no other
    if account.region:
        given["region"] = account.region
    if account.token:
        given["token"] = account.token
    if account.url:
        parts = urlsplit(account.url)
        is_secure = parts.scheme == "https"
        given |= {"host": parts.hostname, "port": parts.port or (443 if is_secure else 80), "secure": is_secure}
    secrets = [account.key] if account.secret is None else [account.key, account.secret]
    if account.provider == "azure_arm":  # takes its tenant and subscription first: those are among the options
        given |= {"key": account.key, "secret": account.secret}
        secrets = []
    try:
        driver = get_driver(account.provider)(*secrets, **given)
    except AttributeError as error:
        raise Permanent(f"Libcloud has no driver for {account.provider}.") from error
    except (TypeError, ValueError) as error:  # a region, an option that the driver does not know
        raise Permanent(f"The driver of {account.provider} does not take these settings: {error}.") from error
    if egress is not None:
        _guard(driver.connection, egress, loop)
    return driver


def overrides(provider: str, *methods: str) -> bool:
    """Whether the driver of a provider does these itself. Raises Permanent where there is none such. No I/O."""
    from libcloud.compute.base import NodeDriver
    from libcloud.compute.providers import get_driver

    try:
        driver = get_driver(provider)
    except AttributeError as error:
        raise Permanent(f"Libcloud has no driver for {provider}.") from error
    return all(getattr(driver, name) is not getattr(NodeDriver, name) for name in methods)


def _guard(connection: Any, egress: EgressPolicy, loop: asyncio.AbstractEventLoop) -> None:
    """Every request passes the policy, redirects included. The name is resolved once more when it is connected to."""
    from libcloud.http import LibcloudConnection
    from requests.adapters import HTTPAdapter

    class Guarded(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            asyncio.run_coroutine_threadsafe(egress.allow(request.url), loop).result(CALL_S)
            return super().send(request, *args, **options)

    class GuardedConnection(LibcloudConnection):
        session: Any

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)  # type: ignore[no-untyped-call]
            for scheme in ("https://", "http://"):
                self.session.mount(scheme, Guarded())

    connection.conn_class = GuardedConnection
    connection.connect()


def translate(error: Exception, host: str) -> Temporary | Permanent | None:
    """What an exception of Libcloud or of its connection means; None for what is not of theirs (a defect of ours)."""
    import requests
    from libcloud.common.exceptions import BaseHTTPError
    from libcloud.common.types import InvalidCredsError, LibcloudError, MalformedResponseError

    said = " ".join(str(error).split())[:500]
    if isinstance(error, InvalidCredsError) or any(word in said for word in _REFUSED):
        return RefusedSignInError(f"{host} refused the sign-in: it does not accept the key.")
    if isinstance(error, MalformedResponseError):
        return Permanent(f"{host} answers what Libcloud does not understand.")
    if isinstance(error, requests.RequestException | OSError):
        return Temporary(f"{host} cannot be reached, or does not answer as a cloud does.")
    status = getattr(error, "code", None)
    if isinstance(error, BaseHTTPError) and status in _SIGN_IN:
        return RefusedSignInError(f"{host} refused the sign-in: {said}")
    if isinstance(error, BaseHTTPError | LibcloudError) or type(error) is Exception:  # drivers raise the bare one
        if isinstance(status, int) and (status >= 500 or status in _BUSY):
            return Temporary(f"{host}: {said}")
        return Permanent(f"{host}: {said}")
    return None
