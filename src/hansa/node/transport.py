"""To the server: over HTTP, or over files. One kept-alive connection per thread, several addresses, no redirects."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import urllib.parse
from dataclasses import dataclass
from typing import BinaryIO, Callable, Dict, Optional, Sequence, Union

from .config import ConfigError, read_bearer
from .spool import SCHEME, Answer, Left, NoAnswer, Spool

CONNECT_TIMEOUT_S = 15.0
TRANSFER_TIMEOUT_S = 60.0
"""A transfer fails when no byte moves for so long; it may take longer as a whole."""
CHUNK_BYTES = 1 << 20
_GONE = (401, 403, 404, 410)


class Unreachable(Exception):
    """No answer, or one that says to try again: a broken connection, a 5xx, a redirect."""


class Refused(Exception):
    """The server understood and said no (4xx)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the server answered {status}: {text}" if text else f"the server answered {status}")
        self.status = status
        self.text = text

    @property
    def is_gone(self) -> bool:
        """True where the answer means that this pilot is not wanted any more."""
        return self.status in _GONE


@dataclass(frozen=True)
class Endpoint:
    """Where the server is and how to get in."""

    urls: Sequence[str]
    pilot: str
    token_file: str
    ca_file: Optional[str] = None
    key_file: str = ""
    """Of the key that the token is bound to; nothing: the token alone."""

    def bearer(self) -> str:
        """What is shown to the server; read anew, for it may have been renewed. ConfigError: it cannot be read."""
        return read_bearer(self.token_file, self.key_file)

    def path(self, rest: str) -> str:
        """The path of one of this pilot's resources, below each of ``urls``."""
        return f"/api/v1/pilots/{urllib.parse.quote(self.pilot, safe='')}/{rest}"


class Transport:
    """A connection for one thread. Not thread-safe."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._place = 0
        self._connection: Optional[http.client.HTTPConnection] = None
        self._prefix = ""
        self._token = endpoint.bearer()

    def post(self, path: str, body: bytes, timeout_s: float) -> bytes:
        """POST JSON and give back the body of a 200."""
        headers = {"Content-Type": "application/json"}
        response = self._send("POST", path, body, headers, timeout_s)
        return self._finish(response)

    def put_file(self, path: str, stream: BinaryIO, size: int, leaves: Callable[[], bool] = bool) -> None:  # noqa: ARG002
        """PUT ``size`` bytes of a file, streamed."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._finish(self._send("PUT", path, stream, headers, TRANSFER_TIMEOUT_S))

    def get(self, path: str, write: Callable[[bytes], object], leaves: Callable[[], bool] = bool) -> int:  # noqa: ARG002
        """GET, handing the body to ``write`` in pieces. Returns its length."""
        response = self._send("GET", path, None, {}, TRANSFER_TIMEOUT_S)
        if response.status != 200:
            self._finish(response)
        total = 0
        try:
            while True:
                piece = response.read(CHUNK_BYTES)
                if not piece:
                    return total
                total += len(piece)
                write(piece)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
                self.close()
                raise  # most likely the disk
            self.close()
            raise Unreachable(f"{path}: {error}") from error

    can_leave = False
    """There is nobody with whom a request could be left."""

    def leave(self, path: str, body: bytes) -> bool:  # noqa: ARG002
        """It cannot."""
        return False

    def close(self) -> None:
        """Drop the connection; the next request makes a new one, to the next address."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._place += 1

    def interrupt(self) -> None:
        """From another thread: make a request that hangs fail."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            try:
                connection.sock.shutdown(2)
            except OSError:
                pass

    def _send(
        self,
        method: str,
        path: str,
        body: Union[bytes, BinaryIO, None],
        headers: Dict[str, str],
        timeout_s: float,
    ) -> http.client.HTTPResponse:
        reused = self._connection is not None
        try:
            return self._send_once(method, path, body, headers, timeout_s)
        except (ConnectionError, http.client.RemoteDisconnected) as error:
            # A kept-alive connection may have been closed by the server in the meantime: that is no outage.
            self.close()
            self._place -= 1
            if not reused or not (body is None or isinstance(body, bytes)):
                self._place += 1
                raise Unreachable(str(error) or type(error).__name__) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(str(error) or type(error).__name__) from error
        try:
            return self._send_once(method, path, body, headers, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(str(error) or type(error).__name__) from error

    def _send_once(
        self,
        method: str,
        path: str,
        body: Union[bytes, BinaryIO, None],
        headers: Dict[str, str],
        timeout_s: float,
    ) -> http.client.HTTPResponse:
        connection = self._connect()
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        headers = {**headers, "Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        connection.request(method, self._prefix + path, body=body, headers=headers)
        return connection.getresponse()

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            urls = self._endpoint.urls
            parts = urllib.parse.urlsplit(urls[self._place % len(urls)])
            host = parts.hostname or ""
            if parts.scheme == "https":
                context = ssl.create_default_context(cafile=self._endpoint.ca_file)
                self._connection = http.client.HTTPSConnection(
                    host, parts.port, timeout=CONNECT_TIMEOUT_S, context=context
                )
            else:
                self._connection = http.client.HTTPConnection(host, parts.port, timeout=CONNECT_TIMEOUT_S)
            self._prefix = parts.path.rstrip("/")
            self._connection.connect()
        return self._connection

    def _finish(self, response: http.client.HTTPResponse) -> bytes:
        try:
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(str(error) or type(error).__name__) from error
        if 200 <= response.status < 300:
            return body
        text = describe_problem(body)
        if response.status == 401:
            self._read_token_again()
        if 400 <= response.status < 500 and response.status not in (408, 425, 429):
            raise Refused(response.status, text)
        self.close()
        raise Unreachable(f"the server answered {response.status}: {text}")

    def _read_token_again(self) -> None:
        """A server may have renewed the token in its file: then a 401 is worth another try."""
        try:
            token = self._endpoint.bearer()
        except ConfigError:
            return
        if token != self._token:
            self._token = token
            raise Unreachable("the token was renewed")


class SpoolTransport:
    """The same over files that a relay carries; see ``spool.py``. Not thread-safe, but for ``interrupt``."""

    can_leave = True

    def __init__(self, endpoint: Endpoint, folder: str) -> None:
        self._endpoint = endpoint
        self._spool = Spool(folder, endpoint.pilot)

    def post(self, path: str, body: bytes, timeout_s: float) -> bytes:
        """POST JSON and give back the body of a 200."""
        return self._finish(self._ask("POST", path, body, timeout_s))

    def put_file(self, path: str, stream: BinaryIO, size: int, leaves: Callable[[], bool] = bool) -> None:  # noqa: ARG002 - the spool counts itself
        """PUT a file. It lies there for whoever comes, once ``leaves`` says that nobody waits any longer."""
        try:
            self._finish(self._ask("PUT", path, stream, None, leaves))
        except Left:
            return

    def get(self, path: str, write: Callable[[bytes], object], leaves: Callable[[], bool] = bool) -> int:
        """GET, handing the body to ``write`` in pieces. Returns its length."""
        try:
            answer = self._ask("GET", path, None, None, leaves)
        except Left as error:
            raise Unreachable("this pilot waits for no answer any more") from error
        if answer.status != 200:
            self._finish(answer)
        total = 0
        try:
            with open(answer.path, "rb") as stream:
                while True:
                    piece = stream.read(CHUNK_BYTES)
                    if not piece:
                        return total
                    total += len(piece)
                    write(piece)
        finally:
            os.unlink(answer.path)

    def leave(self, path: str, body: bytes) -> bool:
        """POST and do not wait: whoever comes later carries it. True: it will be."""
        try:
            self._spool.leave("POST", path, self._endpoint.bearer(), body)
        except (OSError, ConfigError):
            return False
        return True

    def close(self) -> None:
        """Nothing is open."""

    def interrupt(self) -> None:
        """From another thread: make a request that hangs fail."""
        self._spool.interrupt()

    def _ask(
        self,
        method: str,
        path: str,
        body: Union[bytes, BinaryIO, None],
        timeout_s: Optional[float],
        leaves: Callable[[], bool] = bool,
    ) -> Answer:
        try:
            return self._spool.ask(method, path, self._endpoint.bearer(), body, timeout_s, leaves)
        except (NoAnswer, OSError, ValueError, ConfigError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error

    def _finish(self, answer: Answer) -> bytes:
        body = answer.read()
        if 200 <= answer.status < 300:
            return body
        text = describe_problem(body)
        if 400 <= answer.status < 500 and answer.status not in (408, 425, 429):
            raise Refused(answer.status, text)
        raise Unreachable(f"the server answered {answer.status}: {text}")


AnyTransport = Union[Transport, SpoolTransport]


def open_transport(endpoint: Endpoint) -> AnyTransport:
    """A connection for one thread: over files where an address is ``spool:FOLDER``, else over HTTP."""
    for url in endpoint.urls:
        if url.startswith(SCHEME):
            return SpoolTransport(endpoint, url[len(SCHEME) :])
    return Transport(endpoint)


def describe_problem(body: bytes) -> str:
    """The human part of a problem+json answer, or the beginning of the body."""
    try:
        data = json.loads(body)
    except ValueError:
        return body[:200].decode("utf-8", "replace").strip()
    if isinstance(data, dict):
        return str(data.get("detail") or data.get("title") or "")[:500]
    return ""
