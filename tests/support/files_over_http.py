"""Files over HTTP on loopback: with ranges, or broken off in the middle as often as a test wants."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """What is served, by path; ``asked`` are the requests so far, with their Range."""

    url: str
    content: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    breaks: int = 0
    """So many answers end half-way."""
    knows_ranges: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)

    def put(self, path: str, data: bytes) -> str:
        self.content[path] = data
        return f"{self.url}{path}"


@contextmanager
def serve_files() -> Iterator[Files]:
    """A server for the length of a test."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.asked.append((self.path, self.headers.get("Range", "")))
            if self.path in files.redirects:
                self.send_response(302)
                self.send_header("Location", files.redirects[self.path])
                self.end_headers()
                return
            data = files.content.get(self.path)
            status = files.statuses.get(self.path, 200 if data is not None else 404)
            if data is None or status != 200:
                self.send_error(status)
                return
            self._answer(data)

        def _answer(self, data: bytes) -> None:
            start = 0
            if files.knows_ranges and (found := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))):
                start = int(found[1])
                if start >= len(data):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            body = data[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if files.breaks > 0:
                files.breaks -= 1
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    files = Files(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
