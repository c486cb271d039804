"""Files to the server and back: beside cp, and beside curl with the same requests; what a file costs that is there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.embedded import Embedded, embedded
from benchmarks.harness import Better, Row, median, rounded, seconds, used_by_others
from hansa.client import fetch, files, job_api, operations
from hansa.client.draft import Options, prepare
from hansa.client.effects import FileBody
from hansa.client.transport import Transport

MIB = 1 << 20


def run(quick: bool) -> list[Row]:
    """Medians of several files, each with new content, which does not compress."""
    runs, size = (1, 64 * MIB) if quick else (3, 512 * MIB)
    noise = used_by_others()
    times: dict[str, list[float]] = {}
    with embedded() as server, tempfile.TemporaryDirectory(dir=server.home.parent) as folder:
        server.warm_up()
        transport = Transport(server.endpoint)
        before = server.usage().server_mib
        for number in range(runs):
            for name, took in _one(server, transport, Path(folder), number, size).items():
                times.setdefault(name, []).append(took)
        after = server.usage().server_mib
    speed = {name: rounded(size / MIB / median(found)) for name, found in times.items()}
    detail = {"runs_s": {name: [rounded(one) for one in found] for name, found in times.items()}, "noise": noise}
    what = f"{size // MIB} MiB that do not compress"
    copied = {"cp and fsync": speed["cp"]}
    return [
        Row(f"upload {what}", "MiB/s", Better.HIGHER, speed["up"], copied | {"curl": speed["curl up"]}, None, detail),
        Row(f"download {what}", "MiB/s", Better.HIGHER, speed["down"], copied | {"curl": speed["curl down"]}),
        Row(f"submit a file of {size // MIB} MiB that is there", "s", Better.LOWER, rounded(median(times["again"])),
            {"sha256sum": rounded(median(times["sha256sum"]))}),
        Row("server's memory, growth by that", "MiB", Better.LOWER, round(after - before, 1), {}, 128.0),
    ]  # fmt: skip


def _one(server: Embedded, transport: Transport, folder: Path, number: int, size: int) -> dict[str, float]:
    mine, other = folder / f"mine-{number}", folder / f"other-{number}"
    for path in (mine, other):
        with path.open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
    digest = files.digest(files.source(mine, "in"))
    token = f"Authorization: Bearer {server.endpoint.bearer()}"
    curl = ["curl", "-sS", "--fail", "-H", token, "-o", str(folder / "from-curl")]
    base = f"{server.endpoint.url}/api/v1"
    other_digest = f"sha256:{hashlib.sha256(other.read_bytes()).hexdigest()}"
    times = {
        "cp": seconds(lambda: _copy(mine, folder / "copy")),
        "up": seconds(lambda: transport.run(job_api.upload_file(digest, FileBody(mine, size)))),
        "curl up": seconds(lambda: _do([*curl, "-T", str(other), f"{base}/files/{other_digest}"])),
    }
    draft = prepare(["cp", "in", "out"], Options(inputs=[f"{mine}=in"], outputs=["out"], memory="64M", scan=False))
    made = []
    times["again"] = seconds(lambda: made.append(transport.run(operations.submit(draft))))
    times["sha256sum"] = seconds(lambda: _do(["sha256sum", str(mine)]))
    job = server.finish(made[0])
    target = folder / f"fetched-{number}"
    times["down"] = seconds(lambda: transport.run(fetch.fetch(job, target, server.endpoint.url)))
    times["curl down"] = seconds(lambda: _do([*curl, f"{base}/jobs/{job.number}/tasks/0/files/out"]))
    shutil.rmtree(target)
    for path in (mine, other, folder / "copy", folder / "from-curl"):
        path.unlink()
    return times


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _do(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
