"""A real machine on the computer at hand, by the command line: from the wish to a sign-in, its failure, and its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from hansa.machines.drivers.nspawn.root import probe
from tests.support import apt
from tests.support.cli import Desk
from tests.support.serverprocess import eventually
from tests.support.vmimage import debian_image

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]
_FIRST_BOOT = "#cloud-config\nwrite_files:\n  - {path: /etc/greeting, content: hello}\n"


def is_gone(desk: Desk) -> bool:
    desk.hansa("machine", "delete", "web", code=None)
    return bool(desk.hansa("machine", "list", "-o", "json").json() == [])


def run_of(store: Path) -> Any:
    """What is written down of the machine's process; nothing while it is started."""
    (folder,) = (store / "machines").iterdir()
    try:
        return json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        return {}


def test_it_is_signed_in_to_fails_and_comes_back(make_desk: Callable[..., Desk]) -> None:
    apt.need(["systemd-nspawn", "nft", "debugfs", "ip"], ["systemd-container", "nftables", "e2fsprogs", "iproute2"])
    image = debian_image()
    desk = make_desk(HANSA_MACHINES__LOCAL="nspawn")
    desk.environ["XDG_CONFIG_HOME"] = str(desk.home.parent / "config")
    store = desk.home / "machines" / "nspawn" / "store"
    if not (found := probe(store.parent)).works:
        pytest.skip(f"nspawn machines do not work here: {found.problem}")
    assert "nspawn: containers of a whole system" in desk.hansa("doctor", code=None).out
    desk.hansa("image", "add", "tools", "--file", str(image), "--login", "debian")
    desk.write("first.yaml", _FIRST_BOOT)

    def show() -> Any:
        return desk.hansa("machine", "show", "web", "-o", "json").json()

    try:
        wish = ("--image", "tools", "--name", "web", "--memory", "256M", "--cloud-init", "first.yaml", "--restart")
        assert desk.hansa("machine", "create", *wish, "-o", "json").json()["status"]["phase"] == "running"
        eventually(lambda: show()["guest"] == "ready", "its first boot is over", 300, 1)
        assert desk.hansa("machine", "ssh", "web", "cat", "/etc/greeting").out == "hello"
        assert desk.hansa("machine", "ssh", "web", "exit", "7", code=7).code == 7
        assert "Cloud-init" in desk.hansa("machine", "logs", "web").out
        assert "Welcome to Debian" in desk.hansa("machine", "console", "web").out

        keeper = run_of(store)["pid"]
        for child in psutil.Process(keeper).children():
            child.kill()
        desk.hansa("machine", "extend", "web", "9d")  # whatever is changed, it is looked at; else each minute
        eventually(lambda: run_of(store).get("pid", keeper) != keeper, "it is started again", 300, 1)
        eventually(lambda: desk.hansa("machine", "ssh", "web", "true", code=None).code == 0, "it is back", 300, 1)
        assert "It is being started" in desk.hansa("machine", "explain", "web").out
    finally:
        eventually(lambda: is_gone(desk), "it is deleted", 120, 1)
    assert list((store / "machines").iterdir()) == []
