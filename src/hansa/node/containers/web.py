"""HTTP for registries: connections that are kept, proxies, TLS, and one place where plain HTTP is allowed or not."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import ssl
import threading
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from .compression import PIECE_BYTES
from .errors import RegistryAway, RegistryRefused

CONNECT_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 60.0
USER_AGENT = "hansa-node"
_MOST_BODY_BYTES = 16 << 20
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_AWAY_STATUSES = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class WebSettings:
    """What the user and the site allow."""

    is_insecure: bool = False
    """Plain HTTP to registries on this machine's loopback addresses."""
    insecure_hosts: Tuple[str, ...] = ()
    """``host`` or ``host:port`` that speak plain HTTP."""
    token_hosts: Tuple[str, ...] = ()
    """Hosts of token servers outside their registry's domain that may get its credentials."""
    mirrors: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)
    """Registry: places to ask first, ``host[:port][/prefix]``."""
    ca_file: Optional[str] = None
    proxies: Optional[Mapping[str, str]] = None
    """``http``, ``https``, ``no``; None takes the environment's."""


class Response:
    """An answer whose body is still to be read, or closed."""

    def __init__(self, raw: http.client.HTTPResponse, url: str, release: Any) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self.url = url
        self._raw = raw
        self._release = release

    def pieces(self) -> Iterator[bytes]:
        """The body. Raises RegistryAway when the connection breaks, also short of the announced length."""
        is_whole = False
        try:
            while True:
                piece = self._raw.read1(PIECE_BYTES)  # what is there: a download that is killed keeps it
                if not piece:
                    break
                yield piece
            if self._raw.length:
                raise RegistryAway(f"{host_of(self.url)} closed the connection {self._raw.length:,} bytes too early")
            is_whole = True
        except (OSError, http.client.HTTPException) as error:
            raise RegistryAway(f"the connection to {host_of(self.url)} broke: {_said(error)}") from error
        finally:
            self._release(is_whole)

    def body(self, most: int = _MOST_BODY_BYTES) -> bytes:
        """The body, whole. Raises RegistryRefused when it is larger than ``most``."""
        out: List[bytes] = []
        size = 0
        for piece in self.pieces():
            size += len(piece)
            if size > most:
                raise RegistryRefused(f"{host_of(self.url)} sends more than {most:,} bytes where a document belongs")
            out.append(piece)
        return b"".join(out)

    def close(self) -> None:
        """Give up the body."""
        self._release(False)


class Web:
    """Thread-safe; a connection serves one request at a time and is then kept for the next."""

    def __init__(self, settings: Optional[WebSettings] = None) -> None:
        self.settings = settings or WebSettings()
        self._idle: Dict[Tuple[str, str, int], List[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()
        self._context: Optional[ssl.SSLContext] = None
        proxies = self.settings.proxies
        self._proxies = dict(_environment_proxies() if proxies is None else proxies)

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def base_url(self, host: str) -> str:
        """``https://host``, or ``http://`` where that is allowed."""
        return f"{'http' if self.is_plain(host) else 'https'}://{host}"

    def is_plain(self, host: str) -> bool:
        """True if plain HTTP may be spoken with ``host[:port]``."""
        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        if host in self.settings.insecure_hosts or name in self.settings.insecure_hosts:
            return True
        return self.settings.is_insecure and is_loopback(name)

    def request(
        self,
        method: str,
        url: str,
        headers: Optional[Mapping[str, str]] = None,
        body: Any = None,
        is_followed: bool = True,
    ) -> Response:
        """One request; redirects of GET and HEAD are followed, without Authorization where the origin changes.

        Raises RegistryAway for no answer and for answers that say to try later; RegistryRefused for unsafe redirects.
        """
        sent = {"User-Agent": USER_AGENT, **(headers or {})}
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._once(method, url, sent, body)
            if response.status not in _REDIRECTS or not is_followed or method not in ("GET", "HEAD"):
                return response
            target = urllib.parse.urljoin(url, response.headers.get("Location", ""))
            response.close()
            self._check_target(url, target)
            if origin_of(target) != origin_of(url):
                sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
            url = target
        raise RegistryRefused(f"{host_of(url)} redirects more than {_MOST_REDIRECTS} times")

    def _check_target(self, url: str, target: str) -> None:
        parts = urllib.parse.urlsplit(target)
        is_allowed = parts.scheme == "https" or (
            parts.scheme == "http" and self.is_plain(parts.netloc.rpartition("@")[2])
        )
        if not is_allowed or not parts.hostname or "@" in parts.netloc:
            raise RegistryRefused(
                f"{host_of(url)} redirects to {parts.scheme}://{parts.hostname}, which is not allowed"
            )

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> Response:
        key, path, extra = self._route(url)
        connection, is_reused = self._take(key, url)
        try:
            return self._send(connection, method, path, {**headers, **extra}, body, url, key)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            # A kept connection may have been closed by the other side meanwhile: that is no failure.
            if not is_reused or not (body is None or isinstance(body, bytes)):
                raise RegistryAway(f"{host_of(url)} does not answer: {_said(error)}") from error
        except BaseException:
            connection.close()  # of the body: what was sent is not whole
            raise
        connection = self._connect(url)
        try:
            return self._send(connection, method, path, {**headers, **extra}, body, url, key)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise RegistryAway(f"{host_of(url)} does not answer: {_said(error)}") from error

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Any,
        url: str,
        key: Tuple[str, str, int],
    ) -> Response:
        connection.request(method, path, body=body, headers=dict(headers))
        raw = connection.getresponse()

        def release(is_whole: bool) -> None:
            if is_whole and not raw.will_close:
                raw.close()  # the answer, not the connection
                with self._lock:
                    self._idle.setdefault(key, []).append(connection)
            else:
                raw.close()
                connection.close()

        return Response(raw, url, release)

    def _route(self, url: str) -> Tuple[Tuple[str, str, int], str, Dict[str, str]]:
        """Key of the connection, path in the request line, extra headers."""
        parts = urllib.parse.urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.hostname or ""
        proxy = self._proxy(parts.scheme, host, port)
        if proxy and parts.scheme == "http":
            return (f"proxy {proxy}", "", 0), urllib.parse.urlunsplit(parts), _proxy_headers(proxy)
        return (parts.scheme, host, port), path, {}

    def _proxy(self, scheme: str, host: str, port: int) -> str:
        if is_loopback(host) or _is_excepted(host, port, self._proxies.get("no", "")):
            return ""
        return self._proxies.get(scheme, "")

    def _take(self, key: Tuple[str, str, int], url: str) -> Tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            idle = self._idle.get(key)
            if idle:
                return idle.pop(), True
        return self._connect(url), False

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        proxy = self._proxy(parts.scheme, host, port)
        way = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}") if proxy else None
        at = (way.hostname or "", way.port or 3128) if way is not None else (host, port)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(*at, timeout=CONNECT_TIMEOUT_S, context=self._tls())
            if way is not None:
                connection.set_tunnel(host, port, _proxy_headers(proxy))
        else:
            connection = http.client.HTTPConnection(*at, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise RegistryRefused(
                f"the certificate of {host} is not trusted: {error.verify_message}",
                "set SSL_CERT_FILE to the file of its certificate authority",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            hint = ""
            if isinstance(error, ssl.SSLError) and not self.is_plain(parts.netloc):
                hint = "a registry on this computer that speaks plain HTTP needs --insecure"
            raise RegistryAway(f"{host_of(url)} cannot be reached: {_said(error)}", hint) from error
        connection.sock.settimeout(READ_TIMEOUT_S)
        return connection

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = ssl.create_default_context(cafile=self.settings.ca_file)
            return self._context


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def is_away(status: int) -> bool:
    """True for answers that say to try again later."""
    return status in _AWAY_STATUSES


def host_of(url: str) -> str:
    """``host[:port]`` of a URL, for messages: paths of storage carry signatures."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


def origin_of(url: str) -> Tuple[str, str, int]:
    """Scheme, host and port."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def is_loopback(host: str) -> bool:
    """True for names and addresses of this very machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _environment_proxies() -> Dict[str, str]:
    found = {}
    for kind in ("http", "https", "no"):
        value = os.environ.get(f"{kind}_proxy") or os.environ.get(f"{kind.upper()}_PROXY") or ""
        if kind == "http" and "REQUEST_METHOD" in os.environ:
            value = os.environ.get("http_proxy", "")  # in CGI, HTTP_PROXY comes from a request's header
        found[kind] = value
    return found


def _is_excepted(host: str, port: int, listed: str) -> bool:
    """Does ``no_proxy`` name this host, its domain or its network?"""
    for one in _listed(listed):
        if one == "*" or one in (host, f"{host}:{port}") or host.endswith("." + one.lstrip("*").lstrip(".")):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(one, strict=False):
                return True
        except ValueError:
            continue
    return False


def _listed(text: str) -> Iterable[str]:
    return [one.strip().lower() for one in text.split(",") if one.strip()]


def _proxy_headers(proxy: str) -> Dict[str, str]:
    parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.username is None:
        return {}
    user = urllib.parse.unquote(parts.username)
    secret = urllib.parse.unquote(parts.password or "")
    return {"Proxy-Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode("ascii")}
