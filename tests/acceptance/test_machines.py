"""Machines as a user has them, by the command line, at a computer that only pretends to run them."""

from __future__ import annotations

from collections.abc import Callable

from hansa import Hansa
from tests.support.cli import Desk
from tests.unit.images.test_formats import qcow2


def test_a_machine_from_create_to_delete(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(HANSA_MACHINES__LOCAL="fake", XDG_CONFIG_HOME="")
    desk.environ["XDG_CONFIG_HOME"] = str(desk.home.parent / "config")
    (desk.folder / "disk.qcow2").write_bytes(qcow2())
    desk.hansa("image", "add", "tools", "--file", "disk.qcow2", "--login", "debian")

    made = desk.hansa("machine", "create", "--image", "tools", "--cpus", "1", "--memory", "512M", "-o", "json")
    machine = made.json()
    assert (machine["name"], machine["status"]["phase"], machine["site"]) == ("tools-1", "running", "local")
    assert "tools-1: It is being created at local." in made.err
    assert "It runs at local." in made.err
    assert machine["ssh"]["user"] == "debian"
    assert (desk.home.parent / "config" / "hansa" / "ssh" / "id_ed25519").stat().st_mode & 0o777 == 0o600

    table = desk.hansa("machine", "list").out
    assert "tools-1" in table
    assert "running" in table
    assert desk.hansa("machine", "stop", "tools-1", "-o", "json").json()["status"]["phase"] == "stopped"
    assert desk.hansa("machine", "start", "tools-1", "-o", "json").json()["status"]["phase"] == "running"
    desk.hansa("machine", "reboot", "tools-1", "--hard")
    desk.hansa("machine", "rename", "tools-1", "web")
    assert "no end now" in desk.hansa("machine", "extend", "web", "never").err
    assert "login:" in desk.hansa("machine", "console", "web").out
    said = desk.hansa("machine", "explain", "web").out
    assert "started of tools 1" in said
    assert "renamed it from tools-1 to web" in said

    with Hansa(home=desk.home) as hansa:
        (known,) = hansa.machines()
        assert (known.name, known.phase) == ("web", "running")
        other = hansa.create_machine("tools", "other", ssh_keys=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me"]).wait(60)
        assert other.address
        other.delete()

    assert desk.hansa("machine", "delete", "web").out.strip() == "web"
    assert desk.hansa("machine", "list", "--deleted", "-o", "json").json()[0]["status"]["phase"] == "deleted"
    refused = desk.hansa("machine", "create", "--image", "tools", "--gpus", "4", code=5)
    assert "No site can run it" in refused.err
    lost = desk.hansa("machine", "show", "nothing", code=4)
    assert "hansa machine list" in lost.err
