"""Looking into layers that are not mounted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hansa.node.containers import lookup


@pytest.fixture
def roots(tmp_path: Path) -> tuple[str, ...]:
    top, low = tmp_path / "top", tmp_path / "low"
    for path in (top / "etc", low / "etc/deep", low / "usr/bin"):
        path.mkdir(parents=True)
    (low / "etc/both").write_text("low")
    (top / "etc/both").write_text("top")
    (low / "etc/only").write_text("low only")
    (low / "usr/bin/prog").write_text("x")
    (low / "bin").symlink_to("usr/bin")
    (low / "abs").symlink_to("/etc/only")
    (low / "up").symlink_to("../../../etc/only")
    (low / "loop").symlink_to("loop")
    return str(top), str(low)


def test_the_uppermost_wins_and_links_stay_inside(roots: tuple[str, ...]) -> None:
    assert lookup.read_text(roots, "/etc/both") == "top"
    for path in ("/etc/only", "/abs", "/up", "/etc/deep/../only", "/../../etc/only"):
        assert lookup.read_text(roots, path) == "low only", path
    assert lookup.find(roots, "/bin/prog") == f"{roots[1]}/usr/bin/prog"


@pytest.mark.parametrize("path", ["/nowhere", "/loop", "/etc/both/below", "/etc/nowhere/x"])
def test_what_is_not_there(roots: tuple[str, ...], path: str) -> None:
    assert lookup.find(roots, path) is None


def test_a_place_for_something_new_is_in_the_uppermost(roots: tuple[str, ...]) -> None:
    assert lookup.place(roots, "/bin/new/file") == f"{roots[0]}/usr/bin/new/file"
    assert lookup.place(roots, "/etc/only") == f"{roots[0]}/etc/only"


def test_an_opaque_directory_hides_what_is_below(roots: tuple[str, ...]) -> None:
    try:
        os.setxattr(f"{roots[0]}/etc", "user.overlay.opaque", b"y")
    except OSError:
        pytest.skip("no extended attributes here")
    assert lookup.find(roots, "/etc/only") is None
    assert lookup.read_text(roots, "/etc/both") == "top"


def test_binds_come_first(roots: tuple[str, ...], tmp_path: Path) -> None:
    bound = tmp_path / "bound"
    bound.mkdir()
    (bound / "tool").write_text("bound")
    binds = [("/usr/bin", str(bound))]
    assert lookup.find(roots, "/bin/tool", binds) == f"{bound}/tool"
    assert lookup.find(roots, "/bin/prog", binds) is None
