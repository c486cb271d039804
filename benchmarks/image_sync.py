"""Contents of VM images on their way: fetched, checked and kept; and sent on to a cloud. Beside curl and the sums.

Both sides are on loopback: what is measured is what Hansa costs where neither network nor cloud is in the way.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Better, Row, median, rounded, seconds, used_by_others

MIB = 1 << 20
SERVER = """
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def do_GET(self):
        with open(os.path.join(sys.argv[1], os.path.basename(self.path)), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.send_response(200); self.send_header("Content-Length", str(size)); self.end_headers()
            self.wfile.flush()
            done = 0
            while done < size:
                done += os.sendfile(self.connection.fileno(), file.fileno(), done, size - done)
    def do_PUT(self):
        if self.headers.get("Expect"):
            self.send_response_only(100); self.end_headers()
        left, buffer = int(self.headers["Content-Length"]), bytearray(1 << 20)
        while left:
            left -= self.rfile.readinto(memoryview(buffer)[:min(left, len(buffer))])
        self.send_response(204); self.end_headers()
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def run(quick: bool) -> list[Row]:
    """Medians of several contents that do not compress."""
    runs, size = (1, 64 * MIB) if quick else (3, 1024 * MIB)
    noise, times = used_by_others(), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as name, _served(Path(name)) as url:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(runs):
            for what, took in _one(Path(name), url, number, size).items():
                times.setdefault(what, []).append(took)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    speed = {what: rounded(size / MIB / median(found)) for what, found in times.items()}
    detail = {"runs_s": {what: [rounded(one) for one in found] for what, found in times.items()}, "noise": noise}
    fetched = {"curl, sha256sum": speed["curl down"], "cp and fsync": speed["cp"]}
    return [
        Row(f"fetch an image of {size // MIB} MiB, check and keep it", "MiB/s", Better.HIGHER, speed["fetch"], fetched,
            None, detail),
        Row("send it to a cloud, hashed as Glance does", "MiB/s", Better.HIGHER, speed["send"],
            {"curl, sha512sum": speed["curl up"]}),
        Row("memory that this takes", "MiB", Better.LOWER, round(grown, 1), {}, 64.0),
    ]  # fmt: skip


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    server = subprocess.Popen([sys.executable, "-c", SERVER, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    finally:
        server.kill()
        server.communicate()


def _one(folder: Path, url: str, number: int, size: int) -> dict[str, float]:
    from keystoneauth1.session import Session

    from hansa.images.depot import Depot
    from hansa.images.sources import Sources, allow_all
    from hansa.machines.drivers.openstack_images import Reading

    content, copy, theirs = folder / f"disk-{number}", folder / "copy", folder / "theirs"
    digest = hashlib.sha256()
    with content.open("wb") as file:
        for _ in range(size // MIB):
            piece = b"\1" * 512 + os.urandom(MIB - 512)
            digest.update(piece)
            file.write(piece)
    checksum, depot = f"sha256:{digest.hexdigest()}", Depot(folder / f"depot-{number}", 0)

    async def fetch() -> None:
        partial = depot.partial("one")
        await Sources(2 * size, allow_all).fetch(f"{url}/{content.name}", checksum, partial, _no_progress)
        await depot.publish(partial, checksum, None)

    def send() -> None:
        with Reading(content) as reading:
            Session().put(f"{url}/sent", data=reading, headers={"Content-Type": "application/octet-stream"})
            assert reading.done_bytes == size, reading.sum

    down = f"curl -sS --fail -o {theirs} {url}/{content.name} && sync {theirs} && sha256sum {theirs}"
    times = {
        "cp": seconds(lambda: _do(f"cp {content} {copy} && sync {copy}")),
        "fetch": seconds(lambda: asyncio.run(fetch())),
        "curl down": seconds(lambda: _do(down)),
        "send": seconds(send),
        "curl up": seconds(lambda: _do(f"curl -sS --fail -T {content} {url}/sent && sha512sum {content}")),
    }
    for path in (content, copy, theirs, depot.path(digest.hexdigest())):
        path.unlink()
    return times


async def _no_progress(_done: int, _total: int | None) -> None:
    return None


def _do(words: str) -> None:
    subprocess.run(["sh", "-c", words], check=True, capture_output=True)
