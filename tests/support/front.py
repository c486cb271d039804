"""A server before a registry: counts requests, demands tokens, breaks connections, damages and redirects content."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import threading
import urllib.parse
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Behaviour:
    """Changed by tests while the server runs."""

    user: str = ""
    password: str = ""
    wants_token: bool = False
    realm: str = ""
    redirect_blobs_to: str = ""
    cut_after: int = 0
    """Break the connection after so many bytes of a blob …"""
    cuts: int = 0
    """… so many times."""
    hold_after: int = 0
    """Send so many bytes of a blob and then wait for ``go_on``."""
    flip: str = ""
    """Part of the path of blobs that get one byte wrong."""
    status: list[int] = field(default_factory=list)
    """Answers to give first."""
    ignores_ranges: bool = False


class Front(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.behaviour = Behaviour()
        self.seen: list[Seen] = []
        self.holding = threading.Event()
        self.go_on = threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def blobs(self, method: str = "GET") -> list[Seen]:
        return [one for one in self.seen if one.method == method and "/blobs/sha256:" in one.path]

    def close(self) -> None:
        self.go_on.set()
        self.shutdown()
        self.server_close()
        self.thread.join(10)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        front, behaviour = self.server, self.server.behaviour
        with front.lock:
            front.seen.append(
                Seen(self.command, self.path, {key.lower(): value for key, value in self.headers.items()})
            )
        body = self._body()
        if self.path.startswith("/token"):
            return self._token()
        if behaviour.wants_token and self.headers.get("Authorization") != "Bearer good-token":
            realm = behaviour.realm or f"http://{front.host}/token"
            challenge = f'Bearer realm="{realm}",service="front",scope="repository:any:pull"'
            return self._answer(401, b"{}", {"WWW-Authenticate": challenge})
        if behaviour.status:
            return self._answer(behaviour.status.pop(0), b"")
        is_blob = self.command == "GET" and "/blobs/sha256:" in self.path
        if is_blob and behaviour.redirect_blobs_to:
            return self._answer(307, b"", {"Location": behaviour.redirect_blobs_to + self.path})
        return self._forward(body, is_blob)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _token(self) -> None:
        behaviour = self.server.behaviour
        wanted = base64.b64encode(f"{behaviour.user}:{behaviour.password}".encode()).decode()
        if behaviour.user and self.headers.get("Authorization") != f"Basic {wanted}":
            return self._answer(401, b"{}")
        return self._answer(200, json.dumps({"token": "good-token"}).encode())

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _forward(self, body: bytes, is_blob: bool) -> None:
        behaviour = self.server.behaviour
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=120)
        left_out = {"host", "authorization", "connection"} | ({"range"} if behaviour.ignores_ranges else set())
        headers = {key: value for key, value in self.headers.items() if key.lower() not in left_out}
        try:
            connection.request(self.command, self.path, body, {**headers, "Host": self.server.host})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "content-length"):
                self.send_header(name, value)
        length = response.getheader("Content-Length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self._send(data, is_blob)

    def _send(self, data: bytes, is_blob: bool) -> None:
        behaviour = self.server.behaviour
        if is_blob and behaviour.flip and behaviour.flip in urllib.parse.unquote(self.path):
            data = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        if is_blob and behaviour.cuts and len(data) > behaviour.cut_after:
            behaviour.cuts -= 1
            self.wfile.write(data[: behaviour.cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        if is_blob and behaviour.hold_after and len(data) > behaviour.hold_after:
            self.wfile.write(data[: behaviour.hold_after])
            self.wfile.flush()
            self.server.holding.set()
            self.server.go_on.wait(60)
            data = data[behaviour.hold_after :]
        self.wfile.write(data)
