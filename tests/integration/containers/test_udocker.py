"""Job scripts written for udocker."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.containers.conftest import Home, finish
from tests.support.boxes import SOURCES

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Udocker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def place(home: Home) -> Path:
    """A directory of the user's."""
    return home.box.directory()


@pytest.fixture
def udocker(home: Home, place: Path) -> Udocker:
    """The command, as the box's user: of Hansa it needs the node's part and its own."""
    if home.box.run_python("import sys; print(sys.version_info >= (3, 11))") != "True":
        pytest.skip("the only Python that this user may execute is older than hansa-udocker's")
    compat = home.box.sources / "hansa" / "compat"
    shutil.copytree(SOURCES / "hansa" / "compat" / "udocker", compat / "udocker", dirs_exist_ok=True)
    for name in ("compat/__init__.py", "version.py"):
        shutil.copy(SOURCES / "hansa" / name, home.box.sources / "hansa" / name)

    def run(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [home.box.python, "-m", "hansa.compat.udocker.main", "--allow-root", *words]
        env = {"HANSA_CONTAINERS": str(home.store), "HANSA_REGISTRY_AUTH": str(place / "auth"), "UDOCKER_DIR": ""}
        return finish(home.box.popen(command, **env), words, text)

    return run


def test_a_job_script(udocker: Udocker) -> None:
    created = udocker("create", "--name=job", "box:1")
    assert UUID.fullmatch(created.stdout.strip())
    assert udocker("create", "--name=job", "box:1").returncode == 1
    done = udocker("-q", "run", "--env=A=1", "--volume=/etc/hostname", "job", "sh", "-c", "echo $A; exit 5")
    assert (done.returncode, done.stdout) == (5, "1\n")
    loud = udocker("run", "job", "echo", "hello")
    assert loud.stdout.splitlines()[0].strip() == "*" * 78
    assert f"STARTING {created.stdout.strip()}" in loud.stdout
    assert loud.stdout.endswith("\nhello\n")
    assert udocker("-q", "run", created.stdout.strip(), "echo", "by id").stdout == "by id\n"
    assert udocker("run", "--nobanner", "job", "cat", text="stdin").stdout == "stdin"
    assert udocker("-q", "run", "--entrypoint=/bin/sh -c", "job", "exit 9").returncode == 9
    who = udocker("-q", "run", "--user=worker", "job", "sh", "-c", "pwd; echo $HOME $USER $LOGNAME")
    assert who.stdout.split() == ["/", "/home/worker", "worker", "worker"], "the image has no such home"
    assert udocker("-q", "run", "job", "sh", "-c", "pwd; echo $USER").stdout.split() == ["/root", "root"]
    assert udocker("-q", "run", "--workdir=/etc", "job", "pwd").stdout == "/etc\n"
    for refused in ("job /bin/nothing", "-v /no/such:/x job true", "--user=nobody-here job true", "-w /no job true"):
        said = udocker("-q", "run", *refused.split())
        assert (said.returncode, said.stdout) == (2, ""), said.stderr
        assert said.stderr.startswith("Error: ")
    rows = udocker("ps", "-m").stdout.splitlines()
    assert rows[0].split() == ["CONTAINER", "ID", "P", "M", "MOD", "NAMES", "IMAGE"]
    assert [row.split() for row in rows if "job" in row] == [
        [created.stdout.strip(), ".", "W", "P1", "['job']", "box:1"]
    ]
    assert udocker("rm", "job").stdout == f"Info: deleting container: {created.stdout.strip()}\n"
    assert udocker("rm", "job").returncode == 1


def test_names_clones_and_protection(udocker: Udocker) -> None:
    udocker("create", "--name=a", "box:1")
    assert udocker("name", "a", "b").returncode == 0
    assert udocker("rmname", "b").returncode == 0
    assert udocker("rename", "a", "c").returncode == 0
    assert udocker("clone", "--name=d", "c").returncode == 0
    assert udocker("protect", "d").returncode == 0
    assert udocker("rm", "d").returncode == 1
    assert udocker("setup", "--execmode=F3", "d").returncode == 1
    assert udocker("unprotect", "d").returncode == 0
    assert udocker("setup", "--execmode=F3", "d").returncode == 0
    assert udocker("setup", "d").stdout.splitlines() == ["execmode: F3", "nvidiamode: False"]
    assert udocker("inspect", "d").stdout.startswith('{\n    "architecture"')
    assert udocker("rmname", "d").stdout == "Info: container name: d removed.\n"
    assert udocker("name", "d", "e").returncode == 1
    unnamed = udocker("ps").stdout.splitlines()[-1].split()[0]
    assert udocker("rm", "c", unnamed).returncode == 0


def test_containers_outlive_their_image(udocker: Udocker, home: Home, place: Path) -> None:
    archive = str(home.box.place / "box.tar")
    assert udocker("import", archive, "mine:1").stdout.startswith("Info: added layer ")
    again = udocker("import", archive, "mine:1")
    assert (again.returncode, again.stdout) == (1, "Info: tag already exists in repo: 1\n")
    udocker("create", "--name=lasting", "mine:1")
    assert udocker("rmi", "mine:1").returncode == 0
    assert udocker("-q", "run", "lasting", "cat", "/data/low").stdout == "low"
    assert json.loads(udocker("inspect", "lasting").stdout)["config"]["Env"] is None
    imported = udocker("import", "--tocontainer", "--name=direct", archive)
    assert UUID.fullmatch(imported.stdout.strip())
    assert "imported" not in udocker("images").stdout
    assert udocker("-q", "run", "direct", "cat", "/data/low").stdout == "low"
    assert udocker("rm", "lasting", "direct").returncode == 0


def test_images(udocker: Udocker, place: Path) -> None:
    assert udocker("images").stdout.splitlines()[0] == "REPOSITORY"
    assert "box:1    ." in udocker("images").stdout.splitlines()
    assert udocker("verify", "box:1").stdout.splitlines()[-1] == "Info: image Ok"
    assert udocker("tag", "box:1", "else/where:2").returncode == 0
    assert udocker("save", "-o", str(place / "x.tar"), "else/where:2").returncode == 0
    assert udocker("rmi", "else/where:2").returncode == 0
    assert "else/where:2" in udocker("load", "-i", str(place / "x.tar")).stdout.splitlines()
    assert udocker("rmi", "else/where:2").returncode == 0
    assert udocker("rmi", "else/where:2").returncode == 1


def test_the_rest(udocker: Udocker, place: Path) -> None:
    assert udocker("version").stdout.startswith("version: ")
    assert udocker("showconf").returncode == 0
    assert udocker("install").returncode == 0
    assert udocker("help").returncode == 0
    assert udocker("nonsense").returncode == 1
    assert udocker("mkrepo", str(place / "repo")).returncode == 0
    assert udocker("mkrepo", str(place / "repo")).returncode == 1
    assert udocker(f"--repo={place / 'repo'}", "images").stdout == "REPOSITORY\n"
    assert udocker(f"--repo={place / 'absent'}", "images").returncode == 1
    assert udocker("logout").returncode == 1
