"""From image and options to a process: Docker's rules, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from hansa.node.containers.errors import ContainerError
from hansa.node.containers.model import ImageConfig
from hansa.node.containers.process import Bind
from hansa.node.containers.semantics import (
    DEFAULT_PATH,
    Host,
    RunOptions,
    RunRefused,
    arguments,
    find_user,
    parse_cpus,
    parse_env_file,
    parse_volume,
    plan,
)

PASSWD = "root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1235::/home/worker:/bin/sh\n77:x:78:78::/odd:/bin/sh\n"
GROUP = "root:x:0:\nworkers:x:1235:\nextra:x:2000:worker,other\n"
HOST = Host(
    uid=5000,
    gid=5001,
    name="ann",
    home="/home/ann",
    environ={"PATH": "/host/bin", "LANG": "de_DE", "HOME": "/home/ann", "TERM": "vt100"},
    cwd="/home/ann/job",
    hosts="127.0.0.1 localhost\n",
)


def planned(config: ImageConfig | None = None, **options: Any) -> Any:
    options.setdefault("command", ("x",))
    return plan(config or ImageConfig(), RunOptions(**options), HOST, PASSWD, GROUP)


def env_of(config: ImageConfig | None = None, **options: Any) -> dict[str, str]:
    return dict(planned(config, **options).process.env)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "given", "command", "expected"),
    [
        ((), ("a", "b"), None, (), ("a", "b")),
        ((), ("a", "b"), None, ("c",), ("c",)),
        (("e",), ("a",), None, (), ("e", "a")),
        (("e",), ("a",), None, ("c", "d"), ("e", "c", "d")),
        (("e",), ("a",), ("n",), (), ("n",)),
        (("e",), ("a",), ("n",), ("c",), ("n", "c")),
        (("e",), ("a",), (), ("c",), ("c",)),
    ],
)
def test_the_command_line(entrypoint: Any, cmd: Any, given: Any, command: Any, expected: Any) -> None:
    config = ImageConfig(entrypoint=entrypoint, cmd=cmd)
    assert arguments(config, RunOptions(entrypoint=given, command=command)) == expected


def test_no_command_at_all_is_refused_unless_there_is_a_default() -> None:
    with pytest.raises(RunRefused, match="names no command"):
        arguments(ImageConfig(), RunOptions())
    with pytest.raises(RunRefused, match="names no command"):
        arguments(ImageConfig(cmd=("a",)), RunOptions(entrypoint=()))
    assert arguments(ImageConfig(), RunOptions(default_command=("sh",))) == ("sh",)


def test_the_environment_of_the_image_wins_over_defaults_and_the_users_over_all() -> None:
    config = ImageConfig(env=("PATH=/image/bin", "A=image", "B=image"))
    env = env_of(config, env_files=("A=file\nC=file\n",), env=("A=user", "LANG", "NOT_THERE", "EMPTY="))
    assert env == {
        "PATH": "/image/bin",
        "A": "user",
        "B": "image",
        "C": "file",
        "LANG": "de_DE",
        "EMPTY": "",
        "HOME": "/root",
    }
    assert env_of()["PATH"] == DEFAULT_PATH


def test_the_hosts_environment_only_where_it_is_asked_for() -> None:
    assert "LANG" not in env_of()
    env = env_of(has_host_env=True)
    assert env["LANG"] == "de_DE"
    assert (env["PATH"], env["HOME"]) == (DEFAULT_PATH, "/root")


def test_a_terminal_and_a_name_are_told_in_the_environment() -> None:
    env = env_of(has_tty=True, hostname="cell")
    assert (env["TERM"], env["HOSTNAME"]) == ("vt100", "cell")


def test_a_variable_without_a_value_on_the_host_is_taken_away() -> None:
    assert "A" not in env_of(ImageConfig(env=("A=image",)), env=("A",))


def test_environment_files() -> None:
    assert parse_env_file("# no\n\n  A=1 # part of it\nB\nC='q'\n") == ["A=1 # part of it", "B", "C='q'"]
    with pytest.raises(RunRefused, match="line 2"):
        parse_env_file("A=1\nexport B=2\n")


@pytest.mark.parametrize(
    ("wanted", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (), "/root"),
        ("root", 0, 0, (), "/root"),
        ("worker", 1234, 1235, (2000,), "/home/worker"),
        ("1234", 1234, 1235, (2000,), "/home/worker"),
        ("worker:extra", 1234, 2000, (2000,), "/home/worker"),
        ("9:7", 9, 7, (), "/"),
        ("9", 9, 0, (), "/"),
        ("77", 78, 78, (), "/odd"),
        ("ann", 5000, 5001, (), "/home/ann"),
    ],
)
def test_users(wanted: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    user = find_user(wanted, PASSWD, GROUP, HOST)
    assert (user.uid, user.gid, user.groups, user.home) == (uid, gid, groups, home)


@pytest.mark.parametrize("wanted", ["nobody-here", "worker:nogroup"])
def test_unknown_users_and_groups_are_refused(wanted: str) -> None:
    with pytest.raises(RunRefused, match="in the image"):
        find_user(wanted, PASSWD, GROUP, HOST)


def test_a_user_that_the_image_does_not_know_gets_an_entry() -> None:
    files = dict(planned(user="9:7").process.files)
    assert files["/etc/passwd"].endswith("user9:x:9:7::/:/bin/sh\n")
    assert files["/etc/passwd"].startswith(PASSWD)
    assert files["/etc/group"].endswith("user9:x:7:\n")
    assert planned(user="worker").process.files == ()
    assert planned(user="9", has_host_auth=True).process.files == ()


def test_the_images_user_counts_unless_one_is_given() -> None:
    assert planned(ImageConfig(user="worker")).process.uid == 1234
    assert planned(ImageConfig(user="worker"), user="0").process.uid == 0
    assert planned(ImageConfig(user="worker"), has_meta=False).process.uid == 0


@pytest.mark.parametrize(
    ("image", "given", "expected"),
    [("", "", "/"), ("/srv", "", "/srv"), ("srv", "", "/srv"), ("/srv", "/a/../b", "/b")],
)
def test_the_working_directory(image: str, given: str, expected: str) -> None:
    assert planned(ImageConfig(workdir=image), workdir=given).process.cwd == expected


def test_a_relative_working_directory_is_refused() -> None:
    with pytest.raises(RunRefused, match="absolute"):
        planned(workdir="here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a:/b", Bind("/a", "/b")),
        ("/a:/b:ro", Bind("/a", "/b", is_read_only=True)),
        ("/a/:/b/:rw,z", Bind("/a", "/b")),
        ("./a:/b", Bind("/home/ann/job/a", "/b")),
        ("/a", None),
    ],
)
def test_volumes(text: str, expected: Bind | None) -> None:
    assert parse_volume(text, HOST.cwd, is_one_path_bound=False) == expected


def test_one_path_is_a_bind_for_udocker() -> None:
    assert parse_volume("/a", "/", is_one_path_bound=True) == Bind("/a", "/a")


@pytest.mark.parametrize("text", ["name:/b", "/a:b", "/a:/b:wrong", "/a:/b:/c:ro", ":/b", "/a:", "/a:/", "rel"])
def test_bad_volumes(text: str) -> None:
    with pytest.raises(RunRefused):
        parse_volume(text, "/", is_one_path_bound=False)


def test_volumes_of_the_image_are_the_containers_own_unless_something_is_bound_there() -> None:
    config = ImageConfig(volumes=("/data", "/logs/"))
    assert planned(config).volumes == ("/data", "/logs")
    assert planned(config, volumes=("/x:/data", "/own")).volumes == ("/logs", "/own")


def targets(**options: Any) -> set[str]:
    return {bind.target for bind in planned(**options).process.binds}


def test_what_comes_from_the_host() -> None:
    assert targets() == {"/etc/resolv.conf", "/etc/host.conf", "/etc/hosts"}
    assert targets(has_system=False) == set()
    assert {"/etc/passwd", "/etc/group"} <= targets(has_host_auth=True)
    assert "/home/ann" in targets(has_home=True)
    assert "/etc/hosts" not in targets(without_volumes=("/etc/hosts",))
    assert "/dev/x" in targets(devices=("/dev/x",))
    with pytest.raises(RunRefused, match="not a device"):
        targets(devices=("/etc/shadow",))


def test_a_name_of_its_own_is_known_inside() -> None:
    found = planned(hostname="cell")
    assert dict(found.process.files)["/etc/hosts"] == "127.0.0.1 localhost\n127.0.0.1\tcell\n"
    assert "/etc/hosts" not in {bind.target for bind in found.process.binds}


def test_cores() -> None:
    assert parse_cpus("0,2-4,3") == (0, 2, 3, 4)
    for text in ("", "a", "1-", "3-1"):
        with pytest.raises(ContainerError):
            parse_cpus(text)
