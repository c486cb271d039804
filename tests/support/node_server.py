"""A server that speaks the node protocol, small and strict: what it finds wrong is collected in
``faults``."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "token-of-the-pilot"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeServer

    def log_message(self, *args: object) -> None:
        return

    def _answer(self, status: int, body: bytes = b"", kind: str = "application/json") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def _refused(self) -> bool:
        fake = self.server
        length = int(self.headers.get("Content-Length") or 0)
        status = fake.failing(self.path)
        if status is None and (self.headers.get("Authorization") or "").partition("~")[0] != f"Bearer {TOKEN}":
            status = 401
        if status is None:
            return False
        self.rfile.read(length)
        if status == 0:
            self.close_connection = True
            self.connection.close()
        else:
            self._answer(status, b'{"detail": "made to fail"}')
        return True

    def do_GET(self) -> None:
        if self._refused():
            return
        content = self.server.files.get(self.path.rpartition("/")[2])
        self.server.downloads.append(self.path)
        if content is None:
            self._answer(404, b'{"detail": "no such file"}')
        else:
            self._answer(200, content, "application/octet-stream")

    def do_PUT(self) -> None:
        if self._refused():
            return
        content = self.rfile.read(size := int(self.headers["Content-Length"]))
        if len(content) < size:  # whoever sent it was cut off
            self.close_connection = True
            return
        digest = self.path.rpartition("/")[2]
        if "sha256:" + hashlib.sha256(content).hexdigest() != digest:
            self.server.faults.append(f"upload with a wrong digest: {digest}")
        self.server.files[digest] = content
        self._answer(201)

    def do_POST(self) -> None:
        if self._refused():
            return
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        reply = self.server.exchange(raw)
        if self.server.drop_after():
            self.close_connection = True
            self.connection.close()
            return
        self._answer(200, reply)


class FakeServer(ThreadingHTTPServer):
    """Leases what `add` was given; keeps results, logs and everything that was said."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Condition()
        self.jobs: dict[int, dict[str, Any]] = {}
        self.queue: list[tuple[int, int, int, list[dict[str, Any]] | None]] = []
        self.leases: dict[int, tuple[int, int, int, float]] = {}
        self.open: dict[int, set[int]] = {}
        self.results: dict[tuple[int, int], dict[str, Any]] = {}  # by job, index
        self.raw: dict[tuple[int, int], str] = {}
        self.logs: dict[tuple[int, int, str], bytearray] = {}
        self.files: dict[str, bytes] = {}
        self.downloads: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.keeps_requests = True
        self.faults: list[str] = []
        self.outbound: list[dict[str, Any]] = []  # merged into the next answers
        self.answers: dict[tuple[str, int], bytes] = {}
        self.arrivals = 0
        self.next_lease = 1
        self.failing: Callable[[str], int | None] = lambda _path: None
        self.drops = 0
        self.ending: str | None = None
        self.node: dict[str, Any] | None = None
        self.returned: list[tuple[int, int]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        return

    def drop_after(self) -> bool:
        with self.lock:
            if self.drops > 0:
                self.drops -= 1
                return True
            return False

    def add(self, number: int, command: list[str], count: int = 1, **more: Any) -> None:
        rows = more.pop("rows", None)
        order = {
            "number": number,
            "command": command,
            "cores": 1,
            "memory_mib": 256,
            "wall_time_s": 600,
            **more,
        }
        with self.lock:
            self.jobs[number] = order
            self.queue.append((number, 0, count - 1, rows))
            self.lock.notify_all()

    def put(self, content: bytes, path: str, **more: Any) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.files[digest] = content
        return {"path": path, "digest": digest, "size": len(content), **more}

    def say(self, **reply: Any) -> None:
        with self.lock:
            self.outbound.append(reply)
            self.lock.notify_all()

    def lease_of(self, job: int, index: int) -> int:
        with self.lock:
            return next(k for k, v in self.leases.items() if v[0] == job and v[1] <= index <= v[2])

    def exchange(self, raw: bytes) -> bytes:
        request = json.loads(raw)
        key = (request["session"], request["sequence"])
        with self.lock:
            self.arrivals += 1
            mine = self.arrivals
            self.lock.notify_all()
            self._take(request, len(raw))
            if key in self.answers:
                return self.answers[key]
            until = time.monotonic() + request.get("wait_s", 0)
            while True:
                reply = self._reply(request)
                left = until - time.monotonic()
                if reply or left <= 0 or self.arrivals != mine:
                    break
                self.lock.wait(left)
            self.answers[key] = json.dumps(reply).encode()
            if len(self.answers) > 50:
                del self.answers[next(iter(self.answers))]
            return self.answers[key]

    def _take(self, request: dict[str, Any], size: int) -> None:
        if size > 8 * 1024 * 1024:
            self.faults.append(f"a request of {size} bytes")
        if self.keeps_requests:
            self.requests.append(request)
        self.node = request.get("node") or self.node
        for chunk in request.get("logs", ()):
            self._take_log(chunk)
        for result in request.get("results", ()):
            self._take_result(result)
        if request.get("ending"):
            self.ending = request["ending"]
            for lease, indices in self.open.items():
                self.returned += [(self.leases[lease][0], index) for index in sorted(indices)]
            self.open.clear()
        self.lock.notify_all()

    def _take_log(self, chunk: dict[str, Any]) -> None:
        job = self.leases[chunk["lease"]][0]
        log = self.logs.setdefault((job, chunk["index"], chunk["stream"]), bytearray())
        data = base64.b64decode(chunk["data"])
        if chunk["offset"] > len(log):
            self.faults.append(f"a gap in a log: {chunk['offset']} after {len(log)}")
        log[chunk["offset"] : chunk["offset"] + len(data)] = data
        if (job, chunk["index"]) in self.results and self.raw.get((job, chunk["index"])) is None:
            self.faults.append("a log after its result")

    def _take_result(self, result: dict[str, Any]) -> None:
        job, first, last, _ = self.leases[result["lease"]]
        if not first <= result["index"] <= last:
            self.faults.append(f"a result of an index that was not leased: {result}")
        key = (job, result["index"])
        stable = json.dumps({k: v for k, v in result.items() if k != "ended_ago_s"}, sort_keys=True)
        if self.raw.setdefault(key, stable) != stable:
            self.faults.append(f"two different results: {self.raw[key]} and {stable}")
        self.results[key] = result
        still = self.open.get(result["lease"])
        if still is not None:
            still.discard(result["index"])
            if not still:
                del self.open[result["lease"]]

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        reply: dict[str, Any] = {}
        want = request.get("want", 0)
        while want > 0 and self.queue:
            job, first, last, rows = self.queue[0]
            take = min(want, last - first + 1)
            lease = self.next_lease
            self.next_lease += 1
            item = {"lease": lease, "job": job, "first": first, "last": first + take - 1, "attempt": 1}
            if rows is not None:
                item["rows"] = rows[first : first + take]
            reply.setdefault("leases", []).append(item)
            if self.jobs[job] not in reply.setdefault("jobs", []):
                reply["jobs"].append(self.jobs[job])
            self.leases[lease] = (job, first, first + take - 1, time.monotonic())
            self.open[lease] = set(range(first, first + take))
            want -= take
            if first + take > last:
                self.queue.pop(0)
            else:
                self.queue[0] = (job, first + take, last, rows)
        if self.outbound:
            reply.update(self.outbound.pop(0))
        return reply

    def wait(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Until the condition holds; AssertionError after the deadline."""
        until = time.monotonic() + timeout_s
        with self.lock:
            while not condition():
                left = until - time.monotonic()
                assert left > 0, f"waited {timeout_s} s; results: {self.results}, faults: {self.faults}"
                self.lock.wait(min(left, 0.05))
