"""The web within an egress policy: pinned addresses, deadlines, few redirects, bounded answers.

A name that points elsewhere a moment later (DNS rebinding), or a redirect to the metadata service, leads nowhere: the
connection goes to the very address that the policy has looked at.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import httpcore
import httpx

from hansa.engines.egress import EgressPolicy
from hansa.kernel.errors import Permanent, Temporary

MOST_REDIRECTS = 3
MOST_BYTES = 16 * 1024 * 1024


class _Backend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the policy has looked at, and to no others."""

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._plain: Any = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self._policy.addresses(host, port):
            try:
                stream: httpcore.AsyncNetworkStream = await self._plain.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return stream
        raise failure or httpcore.ConnectError("there is no address")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's own transport over a pool of such connections; proxies of the environment are not used."""

    def __init__(self, policy: EgressPolicy, context: ssl.SSLContext) -> None:
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, network_backend=_Backend(policy), max_connections=10, keepalive_expiry=5.0
        )


class Web:
    """Asks the web within a policy: deadlines, few redirects, bounded answers."""

    def __init__(self, policy: EgressPolicy, ca: str | None = None, timeout_s: float = 20.0) -> None:
        self._policy = policy
        context = ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()
        self._client = httpx.AsyncClient(
            transport=_Transport(policy, context), timeout=timeout_s, follow_redirects=False, trust_env=False
        )

    async def __aenter__(self) -> Web:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def ask(
        self, method: str, url: str, *, most_bytes: int = MOST_BYTES, **options: Any
    ) -> tuple[httpx.Response, bytes]:
        """The answer and its body. Redirects are followed for GET only, each looked at as the first address was, and
        never with the headers of another host. Raises Temporary or Permanent."""
        for _ in range(MOST_REDIRECTS + 1):
            before = self._policy.check_url(url)
            response, body = await self._once(method, url, most_bytes, options)
            if not response.is_redirect or method != "GET":
                return response, body
            url = str(httpx.URL(url).join(response.headers["location"]))
            after = self._policy.check_url(url)
            if before.scheme == "https" and after.scheme != "https":
                raise Permanent(f"{before.hostname} redirects from https to {after.scheme}.")
            if before.netloc != after.netloc:
                options = {name: value for name, value in options.items() if name not in ("headers", "auth")}
        raise Permanent(f"It redirects more than {MOST_REDIRECTS} times.")

    async def _once(
        self, method: str, url: str, most_bytes: int, options: dict[str, Any]
    ) -> tuple[httpx.Response, bytes]:
        pieces = bytearray()
        try:
            async with self._client.stream(method, url, **options) as response:
                async for piece in response.aiter_bytes():
                    pieces += piece
                    if len(pieces) > most_bytes:
                        raise Permanent(f"The answer has more than {most_bytes:,} bytes.")
        except httpx.TimeoutException as error:
            raise Temporary("It did not answer in time.") from error
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            raise Temporary(f"It cannot be asked: {error or type(error).__name__}.") from error
        return response, bytes(pieces)
