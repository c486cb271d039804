"""Command lines by table."""

from __future__ import annotations

import pytest

from hansa.node.containers import runline
from hansa.node.containers.options import BadOption, parse
from hansa.node.containers.semantics import RunRefused


def test_all_ways_to_write_an_option() -> None:
    words = ["-it", "-e", "A=b", "--env=C=d", "-eE=f", "--rm", "--name", "x", "-v", "/a:/b", "img", "cmd", "-x", "--rm"]
    request = runline.read(words, is_udocker=False)
    assert request.target == "img"
    assert request.options.command == ("cmd", "-x", "--rm")
    assert request.options.env == ("A=b", "C=d", "E=f")
    assert request.options.volumes == ("/a:/b",)
    assert (request.name, request.is_removed, request.options.has_stdin) == ("x", True, True)


def test_docker_and_udocker_differ_in_entrypoint() -> None:
    docker = runline.read(["--entrypoint", "/bin/sh -c", "img", "a"], is_udocker=False)
    assert docker.options.entrypoint == ("/bin/sh -c",)
    udocker = runline.read(["--entrypoint=/bin/sh -c", "img", "a"], is_udocker=True)
    assert udocker.options.entrypoint == ("/bin/sh", "-c")
    none = runline.read(["--entrypoint", "img", "a"], is_udocker=True)
    assert (none.options.entrypoint, none.target) == ((), "img")


@pytest.mark.parametrize(
    "words", [["--nonsense", "img"], ["--rm"], ["-e"], ["--pull=sometimes", "img"], ["--rm=x", "i"]]
)
def test_what_cannot_be_understood(words: list[str]) -> None:
    with pytest.raises(BadOption):
        runline.read(words, is_udocker=False)


def test_another_network_is_refused() -> None:
    with pytest.raises(RunRefused, match="host's network"):
        runline.read(["--network=none", "img"], is_udocker=False)


def test_what_follows_two_dashes_is_no_option() -> None:
    assert parse(["--", "-x"], {}).words == ["-x"]
