"""A real S3 server: OpenStack Swift with its S3 face, from Debian's packages, in a mount namespace of its own.

Swift reads ``/etc/swift``; each server here sees a folder of its own there. Needs root (as CI is), else tests skip.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import apt
from tests.support.slurm import free_ports

ACCESS, SECRET = "hansa:tester", "a-secret-for-tests"
_PACKAGES = ("swift-proxy", "swift-account", "swift-container", "swift-object", "memcached")
_KINDS = ("account", "container", "object")
_PATIENCE_S = 90.0
_RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, ports = sys.argv[1], sys.argv[2:]
for kind, port in zip(("account", "container", "object"), ports):
    builder = RingBuilder(2, 1, 1)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": "d1", "ip": "127.0.0.1",
                     "port": int(port), "replication_ip": "127.0.0.1", "replication_port": int(port), "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""
_COMMON = """[swift-hash]
swift_hash_path_suffix = tests
[storage-policy:0]
name = one
default = yes
"""
_NODE = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
devices = {devices}
mount_check = false
user = root
workers = 0
disable_fallocate = true
log_level = WARNING
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = root
workers = 0
log_level = WARNING
[pipeline:main]
pipeline = catch_errors cache s3api tempauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache}
[filter:s3api]
use = egg:swift#s3api
location = here
allow_multipart_uploads = false
[filter:tempauth]
use = egg:swift#tempauth
user_hansa_tester = {secret} .admin
"""


@dataclass(frozen=True)
class S3:
    """Where the server is. ``environ`` is what a client of it needs."""

    endpoint: str
    region: str = "here"

    @property
    def environ(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}

    def client(self) -> Any:
        import boto3

        return boto3.session.Session(ACCESS, SECRET, region_name=self.region).client("s3", endpoint_url=self.endpoint)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[S3]:
    """A server with nothing in it, for as long as the context lasts. Skips where it cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("a mount namespace for Swift needs root")
    apt.need([*(f"swift-{kind}-server" for kind in ("proxy", *_KINDS)), "memcached"], _PACKAGES)
    *nodes, proxy, cache = free_ports(5)
    etc, devices = folder / "etc", folder / "devices"
    etc.mkdir(parents=True)
    (devices / "d1").mkdir(parents=True)
    (etc / "swift.conf").write_text(_COMMON)
    Path("/etc/swift").mkdir(exist_ok=True)
    inside = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/swift && exec "$@"', str(etc)]
    rings = [*inside, "/usr/bin/python3", "-c", _RINGS, str(etc), *map(str, nodes)]
    subprocess.run(rings, check=True, capture_output=True, timeout=_PATIENCE_S)
    for kind, port in zip(_KINDS, nodes, strict=True):
        (etc / f"{kind}.conf").write_text(_NODE.format(kind=kind, port=port, devices=devices))
    (etc / "proxy.conf").write_text(_PROXY.format(port=proxy, cache=cache, secret=SECRET))
    commands = [["memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(cache), "-m", "16"]]
    commands += [[*inside, f"swift-{kind}-server", f"/etc/swift/{kind}.conf"] for kind in (*_KINDS, "proxy")]
    processes: list[subprocess.Popen[bytes]] = []
    with (folder / "log").open("wb") as log:
        try:
            for command in commands:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                processes.append(process)
            for port in (*nodes, proxy, cache):
                _await(port, processes, folder / "log")
            yield S3(f"http://127.0.0.1:{proxy}")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
                process.wait()


def _await(port: int, processes: list[subprocess.Popen[bytes]], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        ended = [process.args for process in processes if process.poll() is not None]
        assert not ended, f"{ended}\n{log.read_text(errors='replace')[-3000:]}"
        time.sleep(0.1)
    raise AssertionError(f"nothing listens at {port}:\n{log.read_text(errors='replace')[-3000:]}")
