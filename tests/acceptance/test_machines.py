"""Machines as a user has them, by the command line, at a computer that only pretends to run them."""

from __future__ import annotations

import os
from collections.abc import Callable

from hansa import Hansa
from tests.support.cli import Desk
from tests.unit.images.test_formats import qcow2


def test_a_machine_from_create_to_delete(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(HANSA_MACHINES__LOCAL="fake", XDG_CONFIG_HOME="")
    desk.environ["XDG_CONFIG_HOME"] = str(desk.home.parent / "config")
    (desk.folder / "disk.qcow2").write_bytes(qcow2())
    (desk.folder / "sparse.raw").touch()
    os.truncate(desk.folder / "sparse.raw", 128 * 1024**3)
    about = ("--login", "debian", "--licence", "MIT", "--gpu-driver", "nvidia-535")
    large = desk.hansa("image", "add", "tools", "--file", "sparse.raw", *about, code=5)
    assert "(setting images.limit_bytes)" in large.err
    assert "qemu-img convert" in large.err
    assert (
        "--licence is said of all"
        in desk.hansa("image", "add", "tools", "--file", "disk.qcow2", *about[2:4], code=2).err
    )
    desk.hansa("image", "add", "tools", "--file", "disk.qcow2")  # again, another file
    shown = desk.hansa("image", "show", "tools", "-o", "json").json()
    assert (shown["licence"], shown["gpu_drivers"], shown["versions"][0]["status"]["phase"]) == (
        "MIT", ["nvidia-535"], "ready",
    )  # fmt: skip

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
    desk.hansa("machine", "resize", "web", "--cpus", "2", "--memory", "1G")
    assert desk.hansa("machine", "change", "web", "--restart", "-o", "json").json()["restart"] is True
    assert desk.hansa("machine", "change", "web", "--no-restart", "-o", "json").json()["restart"] is False
    assert "--no-restart" in desk.hansa("machine", "change", "web", code=2).err
    assert "login:" in desk.hansa("machine", "console", "web").out
    said = desk.hansa("machine", "explain", "web").out
    assert "started of tools 1" in said
    assert "renamed it from tools-1 to web" in said
    assert "has it restarted when it fails" in said

    taken = desk.hansa("machine", "snapshot", "web", "--name", "gold", "-o", "json").json()
    assert (taken["image"], taken["version"], taken["status"]["phase"]) == ("gold", "1", "ready")
    assert "gold@1" in desk.hansa("machine", "snapshots").out
    assert desk.hansa("volume", "create", "data", "10G", "-o", "json").json()["status"]["phase"] == "available"
    again = ("machine", "create", "--image", "gold@1", "--name", "again")
    desk.hansa(*again, "--volume", "data:/data", "--volume", "1G", "-o", "json")
    for line in ("data", "again-disk-2"):
        assert line in desk.hansa("volume", "list").out
    assert "It is given to" in (said := desk.hansa("volume", "explain", "data").out) or "again has it" in said
    assert "10" in desk.hansa("machine", "create", "--image", "tools", "--volume", "10", code=2).err
    assert "hansa volume detach data" in desk.hansa("volume", "delete", "data", code=5).err
    assert desk.hansa("volume", "detach", "data", "-o", "json").json().get("machine") is None
    desk.hansa("volume", "attach", "data", "web")
    desk.hansa("machine", "delete", "again")
    desk.hansa("volume", "detach", "data")
    assert desk.hansa("volume", "delete", "data", "again-disk-2").out.split() == ["data", "again-disk-2"]

    with Hansa(home=desk.home) as hansa:
        (known,) = hansa.machines()
        assert (known.name, known.phase) == ("web", "running")
        other = hansa.create_machine("tools", "other", ssh_keys=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me"]).wait(60)
        assert other.address
        disk = hansa.create_volume("disk", 1).wait(timeout=60).attach("other").wait("attached", timeout=60)
        assert [one.name for one in hansa.volumes()] == ["disk"]
        assert other.snapshot("gold", timeout=60).version == "2"
        disk.detach().wait("available", timeout=60).delete().wait("deleted", timeout=60)
        other.delete()

    assert desk.hansa("machine", "delete", "web").out.strip() == "web"
    assert desk.hansa("machine", "list", "--deleted", "-o", "json").json()[0]["status"]["phase"] == "deleted"
    refused = desk.hansa("machine", "create", "--image", "tools", "--gpus", "4", code=5)
    assert "No site can run it" in refused.err
    lost = desk.hansa("machine", "show", "nothing", code=4)
    assert "hansa machine list" in lost.err
