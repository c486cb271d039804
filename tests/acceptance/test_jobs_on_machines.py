"""A job for which a real machine is made: it boots, gives its ticket for a token, runs the task, and is deleted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from hansa.machines.drivers.nspawn.root import probe
from hansa.server.launch import server_status
from tests.support import apt
from tests.support.cli import Desk
from tests.support.serverprocess import eventually
from tests.support.vmimage import debian_image

pytestmark = pytest.mark.slow
_SITE = """
name: vms
endpoints:
  - kind: machines
    settings: {{image: tools, here: true, urls: ["{url}"], idle_timeout_s: 5, max_pilots: 1}}
"""


def first_process(store: Path) -> int:
    """The process 1 of the only machine there; 0: none runs yet."""
    for file in store.glob("machines/*/run.json"):
        try:
            keeper = psutil.Process(json.loads(file.read_text())["pid"])
            for child in keeper.children(recursive=True):
                status = Path(f"/proc/{child.pid}/status").read_text()
                words = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if len(words) > 2 and words[-1] == "1":
                    return child.pid
        except (OSError, ValueError, psutil.Error):
            continue
    return 0


def is_empty(desk: Desk) -> bool:
    """Whether no machine is there any more; those that are, are deleted."""
    found = desk.hansa("machine", "list", "-o", "json").json()
    for one in found:
        desk.hansa("machine", "delete", one["name"], code=None)
    return not found


@contextmanager
def way_in(guest: int, port: int, folder: Path) -> Iterator[None]:
    """The server's port on the guest's own loopback: guests of this computer reach nothing else of it."""
    path = folder / "way"
    outside = ["socat", f"UNIX-LISTEN:{path},fork", f"TCP:127.0.0.1:{port}"]
    inside = ["nsenter", "-t", str(guest), "-n", "socat"]
    inside += [f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", f"UNIX-CONNECT:{path}"]
    started = [subprocess.Popen(words, start_new_session=True) for words in (outside, inside)]
    try:
        yield
    finally:
        for one in started:
            for child in psutil.Process(one.pid).children(recursive=True):
                child.kill()
            one.kill()
            one.wait()


@dataclass
class Vms:
    """A site at whose machines jobs run, and a job for it. ``close`` waits until nothing of them is left."""

    desk: Desk
    url: str
    """Where guests find the server."""
    number: str = ""

    def submit(self) -> None:
        self.desk.hansa("image", "add", "tools", "--file", str(debian_image()), "--login", "debian")
        self.desk.write("vms.yaml", _SITE.format(url=self.url))
        self.desk.hansa("site", "add", "vms.yaml")
        wish = ("-d", "--site", "vms", "--memory", "128M", "--", "sh", "-c", "id -un; hostname")
        self.number = self.desk.hansa("run", *wish).out.strip()

    def phase(self) -> str:
        return str(self.desk.hansa("job", "show", self.number, "-o", "json").json()["status"]["phase"])

    def said(self) -> str:
        return self.desk.hansa("job", "explain", self.number).out

    def machines(self) -> list[Any]:
        found: list[Any] = self.desk.hansa("machine", "list", "-o", "json").json()
        return found

    def see_it_done(self) -> None:
        """The task ran as an ordinary user of a machine that was made for it, and that goes when it is idle."""
        (machine,) = self.machines()
        eventually(lambda: self.phase() not in ("waiting", "running"), "the task has ended", 600, 1)
        (result,) = self.desk.results(self.number)
        assert result.get("exit_code") == 0, f"{result}\n{self.said()}"
        assert self.desk.hansa("job", "logs", self.number).out.split() == ["hansa", machine["name"]]
        eventually(lambda: self.machines() == [], "it is deleted when idle", 300, 1)

    def close(self) -> None:
        if self.number:
            self.desk.hansa("job", "kill", self.number, code=None)
        eventually(lambda: is_empty(self.desk), "nothing is left", 120, 1)


@pytest.mark.root
@pytest.mark.timeout(900)
def test_a_task_runs_in_a_machine_made_for_it(make_desk: Callable[..., Desk], tmp_path: Path) -> None:
    apt.need(["systemd-nspawn", "nft", "debugfs", "ip"], ["systemd-container", "nftables", "e2fsprogs", "iproute2"])
    apt.need(["socat"], ["socat"])
    desk = make_desk(HANSA_MACHINES__LOCAL="nspawn")
    desk.hansa("up")
    if not (found := probe(desk.home / "machines" / "nspawn")).works:
        pytest.skip(f"nspawn machines do not work here: {found.problem}")
    info = server_status(desk.home)
    assert info is not None
    store = desk.home / "machines" / "nspawn" / "store"
    vms = Vms(desk, info.url)
    try:
        vms.submit()
        guest = eventually(lambda: first_process(store), "a machine runs", 300, 1)
        assert "Its machine pilot-" in vms.said()
        with way_in(guest, urlsplit(info.url).port or 0, tmp_path):
            vms.see_it_done()
        assert not list((store / "machines").iterdir())
    finally:
        vms.close()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_task_runs_in_an_emulated_machine_made_for_it(make_desk: Callable[..., Desk]) -> None:
    """By QEMU's own way out: the guest finds the server's loopback at 10.0.2.2. A boot takes a minute here."""
    apt.need(["qemu-system-x86_64", "qemu-img", "debugfs"], ["qemu-system-x86", "qemu-utils", "e2fsprogs"])
    desk = make_desk(HANSA_MACHINES__LOCAL="qemu")
    desk.hansa("up")
    info = server_status(desk.home)
    assert info is not None
    store = desk.home / "machines" / "qemu" / "machines"
    vms = Vms(desk, f"http://10.0.2.2:{urlsplit(info.url).port}")
    try:
        vms.submit()
        eventually(lambda: [one for one in vms.machines() if one["status"]["phase"] == "running"], "one runs", 600, 1)
        assert [one["endpoint"] for one in vms.machines()] == ["qemu"]
        vms.see_it_done()
        assert not list(store.iterdir())
    finally:
        vms.close()
