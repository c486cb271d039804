"""Which engine is taken, and when it is tried out again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hansa.node.containers import engines, subids
from hansa.node.containers.engines import trial
from hansa.node.containers.engines.base import Engine
from hansa.node.containers.process import ProcessSpec


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Engine -> why it does not work; what was tried is counted under "count"."""
    reasons: dict[str, str] = {"count": ""}

    def try_out(engine: Engine, _place: str) -> str:
        reasons["count"] += "x"
        return reasons.get(engine.name, "no")

    monkeypatch.setattr(trial, "try_out", try_out)
    return reasons


def test_the_first_that_works_is_taken_and_remembered(tried: dict[str, str], tmp_path: Path) -> None:
    tried["copy"] = ""
    assert engines.choose(str(tmp_path)).name == "copy"
    count = tried["count"]
    assert engines.choose(str(tmp_path)).name == "copy"
    assert tried["count"] == count
    engines.forget(str(tmp_path))
    tried["overlay"] = ""
    assert engines.choose(str(tmp_path)).name == "overlay"


def test_another_kernel_is_another_node(tried: dict[str, str], tmp_path: Path) -> None:
    tried["overlay"] = ""
    engines.choose(str(tmp_path))
    memory = next(tmp_path.glob(".engine-*.json"))
    known = json.loads(memory.read_text())
    known["key"][1] = "4.18"
    memory.write_text(json.dumps(known))
    tried["overlay"], tried["bwrap"] = "gone", ""
    assert engines.choose(str(tmp_path)).name == "bwrap"


def test_new_tools_make_anything_but_the_best_be_tried_again(
    tried: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried["copy"] = ""
    engines.choose(str(tmp_path))
    tool = tmp_path / "bin" / "fuse-overlayfs"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    tried["fuse"] = ""
    assert engines.choose(str(tmp_path)).name == "fuse"


def test_where_none_works_every_reason_is_told(tried: dict[str, str], tmp_path: Path) -> None:
    tried["overlay"] = "user namespaces are off"
    with pytest.raises(engines.NoEngine, match="overlay: user namespaces are off") as failure:
        engines.choose(str(tmp_path))
    assert all(f"{name}: " in failure.value.message for name in engines.NAMES)


def test_a_wanted_engine_is_taken_unasked(tried: dict[str, str], tmp_path: Path) -> None:
    assert engines.choose(str(tmp_path), "runc").name == "runc"
    assert tried["count"] == ""
    with pytest.raises(engines.NoEngine, match="there is no engine"):
        engines.choose(str(tmp_path), "docker")


def test_command_lines_of_other_launchers() -> None:
    from hansa.node.containers.engines.apptainer import command as apptainer
    from hansa.node.containers.engines.udocker import command as udocker
    from hansa.node.containers.process import Bind

    spec = ProcessSpec(("prog", "a b"), {"A": "1"}, cwd="/w", binds=(Bind("/etc", "/x", True),), hostname="cell")
    words, env = apptainer("/bin/apptainer", "/tree", spec, {"PATH": "/bin"})
    assert words[-3:] == ["/tree", "prog", "a b"]
    assert "/etc:/x:ro" in words
    assert env == {"PATH": "/bin", "APPTAINERENV_A": "1"}
    words = udocker("/bin/udocker", "/tree", spec)
    assert {"--location=/tree", "--env=A=1", "--volume=/etc:/x", "--workdir=/w"} <= set(words)
    assert words[-2:] == ["prog", "a b"]


@pytest.mark.parametrize(
    ("wanted", "lent", "expected"),
    [
        (0, (100000, 65536), [0, 1000, 1, 1, 100000, 65536]),
        (5, (100000, 65536), [0, 100000, 5, 5, 1000, 1, 6, 100005, 65531]),
        (70000, (100000, 65536), [0, 100000, 65536, 70000, 1000, 1]),
    ],
)
def test_maps_of_subordinate_ids(wanted: int, lent: tuple[int, int], expected: list[int]) -> None:
    assert subids.extents(wanted, 1000, lent) == expected


def test_ranges_of_subordinate_ids(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("# no\nann:100000:65536\n1001:200000:10\n")
    assert subids.find_range(str(path), "ann", 1000) == (100000, 65536)
    assert subids.find_range(str(path), "bob", 1001) == (200000, 10)
    assert subids.find_range(str(path), "eve", 1002) is None
    assert subids.find_range(str(tmp_path / "absent"), "ann", 1000) is None
