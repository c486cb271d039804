"""Which addresses Hansa may connect to on somebody's word.

Whoever adds a site says where its endpoints are, and the server connects there from inside its own network. So names
are resolved here, and each address is looked at. ``hansa.engines.web`` connects to the very address that was looked at.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from urllib.parse import SplitResult, urlsplit

from hansa.kernel.errors import Permanent, Temporary

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_METADATA = {ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")}


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as this computer resolves it. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class EgressPolicy:
    """Decides about addresses. Link-local, multicast, unspecified and metadata addresses are never allowed."""

    def __init__(
        self, networks: Iterable[str] = (), *, allow_private: bool = False, resolve: Resolve = resolve_by_system
    ) -> None:
        self._networks = [ipaddress.ip_network(one, strict=False) for one in networks]
        self.allow_private = allow_private
        self._resolve = resolve

    def refusal(self, text: str) -> str | None:
        """Why this IP address must not be connected to; None: it may be."""
        address = _unwrapped(ipaddress.ip_address(text.partition("%")[0]))
        if address in _METADATA or address.is_link_local:
            return "it is link-local: the computer's own metadata, or a neighbour's"
        if address.is_multicast or address.is_unspecified or (address.is_reserved and not address.is_loopback):
            return "it is no address of one computer"
        if any(address in network for network in self._networks if network.version == address.version):
            return None
        if address.is_loopback:
            return None if self.allow_private else "it is the server itself"
        if not address.is_global:
            return None if self.allow_private else "it is in a private network (setting sites.networks allows some)"
        return None

    def check_url(self, url: str) -> SplitResult:
        """The parts of a URL that may be asked, as far as can be told without resolving. Raises Permanent."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Permanent(f"{url!r} is no URL.") from error
        if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
            raise Permanent(f"{url!r} is no URL of the web; https://HOST[:PORT]/PATH is expected.")
        if parts.username or parts.password:
            raise Permanent("A URL must not have a password in it; that belongs into the credential.")
        if parts.scheme == "http" and not (self.allow_private or self._networks):
            raise Permanent(f"{url} is not encrypted; https is needed.")
        try:
            why = self.refusal(parts.hostname)
        except ValueError:
            return parts  # a name: its addresses are looked at when it is connected to
        if why:
            raise Permanent(f"Hansa must not connect to {parts.hostname}: {why}.")
        return parts

    async def allow(self, url: str) -> None:
        """That a URL may be asked, its name resolved. A connection made later by name is not pinned: prefer
        :class:`hansa.engines.web.Web`. Raises Temporary or Permanent."""
        parts = self.check_url(url)
        await self.addresses(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses to connect to. One bad address spoils a name. Raises Temporary or Permanent."""
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            raise Temporary(f"The name {host} cannot be resolved: {error.strerror or error}.") from error
        if not found:
            raise Temporary(f"The name {host} has no address.")
        for one in found:
            if why := self.refusal(one):
                shown = host if host == one else f"{host} ({one})"
                raise Permanent(f"Hansa must not connect to {shown}: {why}.")
        return found


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
