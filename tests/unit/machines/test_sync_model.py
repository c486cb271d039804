"""Which images belong where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from hansa.kernel.reconcile import Act, Settle
from hansa.machines.sync_model import LOOK_AGAIN, REMOVE, SEND, Phase, Place, decide, described, disk_gib, wanted

NOW = datetime(2026, 11, 26, tzinfo=UTC)
CLOUD = Place("cern/cloud", frozenset({"vo.a"}))
HERE = Place("local/nspawn", None, on_demand=True)


def endorsed(version_id: str | None = None, vo: str = "vo.a", until: datetime | None = None) -> Any:
    return SimpleNamespace(image_id="i", version_id=version_id, vo=vo, until=until)


def version(name: str, phase: str = "ready", expires: datetime | None = None) -> Any:
    return SimpleNamespace(id=name, phase=phase, expires=expires, place=None)


def test_the_endorsed_version_goes_where_the_vo_is() -> None:
    versions = {"i": [version("v2"), version("v1")]}
    assert wanted([endorsed("v1")], versions, [CLOUD, HERE], NOW) == {
        ("v1", "cern/cloud", "vo.a"),
        ("v1", "local/nspawn", "vo.a"),
    }
    assert wanted([endorsed("v1", vo="vo.b")], versions, [CLOUD], NOW) == frozenset()


def test_a_new_version_takes_the_place_of_the_old_one_when_it_is_ready() -> None:
    assert wanted([endorsed()], {"i": [version("v2", "fetching"), version("v1")]}, [CLOUD], NOW) == {
        ("v1", "cern/cloud", "vo.a")
    }
    assert wanted([endorsed()], {"i": [version("v2"), version("v1")]}, [CLOUD], NOW) == {("v2", "cern/cloud", "vo.a")}


def test_what_is_withdrawn_expired_or_no_longer_endorsed_belongs_nowhere() -> None:
    assert not wanted([endorsed("v1")], {"i": [version("v1", "withdrawn")]}, [CLOUD], NOW)
    assert not wanted([endorsed("v1")], {"i": [version("v1", expires=NOW)]}, [CLOUD], NOW)
    assert not wanted([endorsed("v1", until=NOW)], {"i": [version("v1")]}, [CLOUD], NOW)
    assert not wanted([], {}, [CLOUD], NOW)


def test_clouds_get_what_was_never_fetched_and_this_computer_does_not() -> None:
    versions = {"i": [version("v1", "known")]}
    assert wanted([endorsed("v1")], versions, [CLOUD, HERE], NOW) == {("v1", "cern/cloud", "vo.a")}


def row(**values: Any) -> Any:
    usual = {"wanted": True, "phase": Phase.THERE, "generation": 1, "observed_generation": 1, "checked": NOW}
    return SimpleNamespace(**usual | values)


def test_what_comes_next() -> None:
    assert decide(row(), NOW) == Settle("images.there", NOW + LOOK_AGAIN)
    assert decide(row(phase=Phase.WAITING, checked=None), NOW) == Act(SEND, "images.sending")
    assert decide(row(), NOW + LOOK_AGAIN + timedelta(seconds=1)) == Act(SEND, "images.sending")
    assert decide(row(generation=2), NOW) == Act(SEND, "images.sending")
    assert decide(row(wanted=False), NOW) == Act(REMOVE, "images.leaving")


def test_clouds_are_told_what_an_image_is() -> None:
    about = {"os": "Linux", "os_name": "Debian GNU/Linux", "os_version": "12", "login": "debian", "licence": "free"}
    assert described("tools", "3", about) == {
        "hansa_image": "tools@3", "os_type": "linux", "os_distro": "debian", "os_version": "12",
        "os_admin_user": "debian",
    }  # fmt: skip
    assert described("tools", "3", {"os": None}) == {"hansa_image": "tools@3"}
    assert [disk_gib(size) for size in (None, 1, 1024**3, 1024**3 + 1)] == [0, 1, 1, 2]
