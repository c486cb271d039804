"""A job for which a real machine is made: it boots, gives its ticket for a token, runs the task, and is deleted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from hansa.machines.drivers.nspawn.root import probe
from hansa.server.launch import server_status
from tests.support import apt
from tests.support.cli import Desk
from tests.support.serverprocess import eventually
from tests.support.vmimage import debian_image

pytestmark = [pytest.mark.root, pytest.mark.slow]
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


@pytest.mark.timeout(900)
def test_a_task_runs_in_a_machine_made_for_it(make_desk: Callable[..., Desk], tmp_path: Path) -> None:
    apt.need(["systemd-nspawn", "nft", "debugfs", "ip"], ["systemd-container", "nftables", "e2fsprogs", "iproute2"])
    apt.need(["socat"], ["socat"])
    image = debian_image()
    desk = make_desk(HANSA_MACHINES__LOCAL="nspawn")
    desk.hansa("up")
    if not (found := probe(desk.home / "machines" / "nspawn")).works:
        pytest.skip(f"nspawn machines do not work here: {found.problem}")
    desk.hansa("image", "add", "tools", "--file", str(image), "--login", "debian")
    info = server_status(desk.home)
    assert info is not None
    url = info.url
    desk.write("vms.yaml", _SITE.format(url=url))
    desk.hansa("site", "add", "vms.yaml")
    number = desk.hansa(
        "run", "-d", "--site", "vms", "--memory", "128M", "--", "sh", "-c", "id -un; hostname"
    ).out.strip()

    def phase() -> str:
        return str(desk.hansa("job", "show", number, "-o", "json").json()["status"]["phase"])

    def said() -> str:
        return desk.hansa("job", "explain", number).out

    try:
        guest = eventually(lambda: first_process(desk.home / "machines" / "nspawn" / "store"), "a machine runs", 300, 1)
        assert "Its machine pilot-" in said()
        (machine,) = desk.hansa("machine", "list", "-o", "json").json()
        with way_in(guest, urlsplit(url).port or 0, tmp_path):
            eventually(lambda: phase() not in ("waiting", "running"), "the task has ended", 300, 1)
            (result,) = desk.results(number)
            assert result.get("exit_code") == 0, f"{result}\n{said()}"
            output = desk.hansa("job", "logs", number).out.split()
            assert output == ["hansa", machine["name"]], "an ordinary user of the machine"
            eventually(
                lambda: desk.hansa("machine", "list", "-o", "json").json() == [], "it is deleted when idle", 300, 1
            )
        assert not list((desk.home / "machines" / "nspawn" / "store" / "machines").iterdir())
    finally:
        desk.hansa("job", "kill", number, code=None)
        eventually(lambda: is_empty(desk), "nothing is left", 120, 1)
