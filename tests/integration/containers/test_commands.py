"""What a user does with containers, by the commands."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.integration.containers.conftest import Home


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["box:1", "sh", "-c", "exit 3"], 3),
        (["box:1", "sh", "-c", "kill -TERM $$"], 143),
        (["box:1", "no-such-program"], 127),
        (["box:1", "/etc/passwd"], 126),
        (["box:1", "sh", "-c", "exit 125"], 125),
        (["--pull=never", "no-such-image", "true"], 125),
        (["--no-such-option", "box:1"], 125),
        (["-u", "nobody-here", "box:1", "true"], 125),
        (["-w", "relative", "box:1", "true"], 125),
        (["-v", "/no/such/place:/x", "box:1", "true"], 125),
        (["box:1"], 125),
        ([], 125),
    ],
)
def test_exit_codes_of_run(home: Home, words: list[str], code: int) -> None:
    done = home("run", "--rm", *words)
    assert done.returncode == code, done.stderr
    if code in (125, 126, 127) and "exit" not in " ".join(words):
        assert done.stderr.startswith("hansa container: ")


def test_rm_leaves_nothing_behind(home: Home) -> None:
    before = home.well("ps", "-o", "id")
    home.well("run", "--rm", "box:1", "sh", "-c", "mkdir -p /a/b; chmod 0 /a; echo x > /tmp/y")
    assert home.well("ps", "-o", "id") == before
    assert home("run", "--rm", "box:1", "nothing").returncode == 127
    assert home.well("ps", "-o", "id") == before


def test_a_named_container_lasts(home: Home) -> None:
    home.well("run", "--name", "last", "box:1", "sh", "-c", "echo kept > /kept")
    assert home.well("run", "last", "cat", "/kept") == "kept"
    home.well("clone", "--name", "copy", "last")
    home.well("run", "last", "sh", "-c", "echo changed > /kept")
    assert home.well("run", "copy", "cat", "/kept") == "kept"
    home.well("rename", "copy", "other")
    assert home.well("run", "other", "cat", "/kept") == "kept"
    home.well("protect", "other")
    assert home("rm", "other").returncode == 5
    home.well("unprotect", "other")
    home.well("rm", "other", "last")
    assert home("run", "--pull=never", "other", "true").returncode == 125


def test_streams_environment_and_user(home: Home) -> None:
    assert home.well("run", "--rm", "-i", "box:1", "cat", text="through") == "through"
    assert home.well("run", "--rm", "box:1", "cat", text="not") == ""
    out = home.well("run", "--rm", "-e", "A=1", "-e", "SECRET", "box:1", "env")
    assert {"A=1", "SECRET=of-the-host", "HOME=/root"} <= set(out.splitlines())
    assert "SECRET" not in home.well("run", "--rm", "box:1", "env")
    assert "SECRET=of-the-host" in home.well("run", "--rm", "--hostenv", "box:1", "env")
    out = home.well("run", "--rm", "-u", "worker", "box:1", "sh", "-c", "id -u; id -g; id -un; echo $HOME")
    assert out.split() == ["1234", "1235", "worker", "/home/worker"]
    out = home.well("run", "--rm", "-u", "4321:5432", "box:1", "sh", "-c", "id -u; id -g; id -un")
    assert out.split() == ["4321", "5432", "user4321"]


def test_the_user_of_a_bind_is_the_caller(home: Home) -> None:
    """Whoever the program is inside: without subordinate ids the files it makes outside are the caller's."""
    if home.box.user is None:
        pytest.skip("root maps every user to itself")
    place = home.box.directory()
    home.well("run", "--rm", "-u", "worker", "-v", f"{place}:/out", "box:1", "touch", "/out/file")
    assert (place / "file").stat().st_uid == home.box.user.pw_uid


def test_host_accounts(home: Home) -> None:
    out = home.well("run", "--rm", "--hostauth", "box:1", "cat", "/etc/passwd")
    assert out == Path("/etc/passwd").read_text().strip()


def test_volumes_of_the_image_are_the_containers_own(home: Home) -> None:
    code = (
        "import sys; from hansa.node.containers.store import Store\n"
        "from hansa.node.containers.transfer import import_tarball\n"
        "from hansa.node.containers.model import ImageConfig\n"
        "config = ImageConfig(volumes=('/vol/data',), cmd=('sh', '-c', 'ls /vol/data; echo x > /vol/data/x'),"
        " workdir='/vol', env=('A=of-the-image',))\n"
        "import_tarball(Store(sys.argv[1]), open(sys.argv[2], 'rb'), 'voluminous', config)"
    )
    process = home.box.popen([home.box.python, "-c", code, str(home.store), str(home.box.place / "box.tar")])
    assert process.communicate(timeout=60)[1] == ""
    assert home.well("run", "--name", "v1", "voluminous") == ""
    assert home.well("run", "v1") == "x"
    assert home.well("run", "--rm", "voluminous") == ""
    home.well("clone", "--name", "v2", "v1")
    assert home.well("run", "v2", "sh", "-c", "pwd; echo $A; ls data").split() == ["/vol", "of-the-image", "x"]
    home.well("rm", "v1", "v2")
    home.well("rmi", "voluminous")


def test_images_go_out_and_come_in(home: Home) -> None:
    place = home.box.directory()
    home.well("run", "--name", "source", "box:1", "sh", "-c", "echo new > /new; rm /data/low")
    home.well("export", "-o", str(place / "all.tar"), "source")
    with tarfile.open(place / "all.tar") as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    assert {"new", "bin/busybox"} <= names
    assert "data/low" not in names
    home.well("commit", "-m", "mine", "source", "made:2")
    assert home.well("run", "--rm", "made:2", "cat", "/new") == "new"
    home.well("save", "-o", str(place / "saved.tar"), "made:2")
    home.well("rm", "source")
    home.well("rmi", "made:2")
    assert home.well("load", "-i", str(place / "saved.tar")).endswith("made:2")
    assert home.well("run", "--rm", "made:2", "cat", "/new") == "new"
    assert home.well("verify", "made:2").endswith("good")
    home.well("tag", "made:2", "made:3")
    assert home.well("history", "made:3")
    home.well("rmi", "made:2", "made:3")


def test_listings(home: Home) -> None:
    home.well("create", "--name", "listed", "box:1")
    containers = json.loads(home.well("ps", "-s", "-o", "json"))
    assert [one["names"] for one in containers if "listed" in one["names"]] == [["listed"]]
    assert "listed" in home.well("ps")
    assert "docker.io/library/box:1" in home.well("images")
    assert json.loads(home.well("inspect", "listed"))["image"] == "box:1"
    assert Path(home.well("inspect", "-p", "listed")).is_dir()
    home.well("rm", "listed")
    assert home("inspect", "listed").returncode == 4


def test_the_doctor_tells_of_every_engine(home: Home) -> None:
    verdicts = {one["engine"]: one for one in json.loads(home.well("doctor", "-o", "json"))}
    assert verdicts["overlay"]["works"], verdicts["overlay"]["why"]
    assert all(one["works"] or one["why"] for one in verdicts.values())


def test_a_container_in_an_unpacked_copy(home: Home) -> None:
    home.well("create", "--name", "copied", "--engine", "copy", "box:1")
    home.well("run", "copied", "sh", "-c", "echo kept > /kept; rm /data/low")
    assert home.well("run", "copied", "sh", "-c", "cat /kept; ls /data") == "kept"
    home.well("clone", "--name", "copied2", "copied")
    assert home.well("run", "copied2", "cat", "/kept") == "kept"
    home.well("commit", "copied", "from-copy")
    assert home.well("run", "--rm", "from-copy", "sh", "-c", "cat /kept; ls /data") == "kept"
    home.well("rm", "copied", "copied2")
    home.well("rmi", "from-copy")


def test_a_hidden_directory_stays_hidden(home: Home) -> None:
    """What the pilot covers for its tasks, a container that a task starts cannot uncover."""
    secret = home.box.directory()
    (secret / "token").write_text("hush")
    (secret / "token").chmod(0o644)
    code = (
        "import os, sys; from hansa.node import isolation\n"
        "state = isolation.isolate(isolation.make_plan([sys.argv[1]], [sys.argv[2]], []))\n"
        "assert state.kind == 'user+mount', state\n"
        "os.execv(sys.argv[3], sys.argv[3:])"
    )
    script = "ls /in; umount /in; ls /in; cat /proc/*/root/*/token; ls /in"
    run = home.command("run", "--rm", "-v", f"{secret}:/in", "box:1", "sh", "-c", script)
    process = home.box.popen([home.box.python, "-c", code, str(home.store), str(secret), *run])
    out, err = process.communicate(timeout=60)
    assert "hush" not in out + err
    assert "token" not in out.split()
    assert process.returncode == 0, err


def test_subordinate_ids(home: Home) -> None:
    if home.box.user is None:
        assert home.well("run", "--rm", "box:1", "sh", "-c", "chown 1:2 /tmp && stat -c %u:%g /tmp") == "1:2"
        return
    done = home("run", "--rm", "--subuids", "box:1", "sh", "-c", "chown 1:2 /tmp && stat -c %u:%g /tmp")
    if done.returncode == 125:
        assert "uid" in done.stderr
        pytest.skip(done.stderr.strip())
    assert done.stdout.strip() == "1:2", done.stderr


def test_it_runs_from_the_zipapp(home: Home, tmp_path: Path) -> None:
    from hansa.node.pack import build_node_zipapp

    path = home.box.directory() / "node.pyz"
    path.write_bytes(build_node_zipapp())
    path.chmod(0o644)
    words = [
        home.box.python,
        str(path),
        "container",
        "--store",
        str(home.store),
        "run",
        "--rm",
        "box:1",
        "echo",
        "zipped",
    ]
    process = home.box.popen(words, PYTHONPATH="")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "zipped\n"), err
    assert os.path.exists(path)  # noqa: PTH110
