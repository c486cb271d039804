"""The helper is killed at every step of what it does: nothing is made twice, nothing half-done passes for whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hansa.machines.drivers.base import Life, base_of
from hansa.machines.drivers.nspawn.helper.__main__ import VERBS
from hansa.machines.drivers.nspawn.helper.cgroups import Cgroup
from hansa.machines.drivers.nspawn.helper.store import Store
from hansa.machines.drivers.nspawn.helper.words import checked
from tests.support.killed import kill_until_done
from tests.support.nspawn import NspawnPlace, image, nspawn_place

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def place() -> Iterator[NspawnPlace]:
    one = asyncio.run(nspawn_place())
    asyncio.run(one.driver().prepare(image()))
    yield one
    assert asyncio.run(one.clear()) == []


def killed(place: NspawnPlace, verb: str, **arguments: Any) -> Any:
    """Ask the helper, killed one step later each time, until one comes to the end of it; then once more."""
    shape, work = VERBS[verb]
    store, given = Store(str(place.folder / "store")), checked(shape, arguments)
    kill_until_done(lambda: work(store, **given))
    return work(store, **given)


def wish(place: NspawnPlace) -> dict[str, Any]:
    return {
        "key": "one", "base": base_of(image()), "name": "one", "user_data": "", "ssh_keys": [], "network": None,
        "trusted": not place.is_isolated, "login": "debian", "disk_gib": 0, "cores": 1, "memory_mib": 256,
    }  # fmt: skip


def containers() -> int:
    """How many of systemd-nspawn there are for our machine, its own children not counted."""
    root, found = "/store/machines/one/root", {}
    for one in psutil.process_iter(["cmdline", "ppid"]):
        words = one.info["cmdline"] or [""]
        if words[0].endswith("systemd-nspawn") and any(word.endswith(root) for word in words):
            found[one.pid] = one.info["ppid"]
    return sum(parent not in found for parent in found.values())


def life(place: NspawnPlace) -> Life | None:
    seen = asyncio.run(place.driver().observe("one"))
    return seen.life if seen else None


def test_killed_at_every_step_of_a_life(place: NspawnPlace) -> None:
    killed(place, "create", **wish(place))
    assert life(place) is Life.RUNNING
    assert containers() == 1
    name = Store(str(place.folder / "store")).machine("one").name
    assert Path(f"/sys/class/net/vb-{name}/brport/isolated").read_text().strip() == "1", "it sees no other machine"
    killed(place, "volume", key="data", size_gib=1, name="data", trusted=not place.is_isolated)
    assert killed(place, "attach", key="data", machine="one", path=None)["attached"] == "one"
    killed(place, "stop", key="one", patience_s=0)
    assert life(place) is Life.STOPPED
    killed(place, "start", key="one")
    assert life(place) is Life.RUNNING
    assert containers() == 1
    killed(place, "resize", key="one", cores=2, memory_mib=300)
    killed(place, "delete", key="one")
    assert containers() == 0
    assert not Path(Store(str(place.folder / "store")).network("_")).exists(), "nobody is in the network without a name"
    assert killed(place, "observe-volume", key="data")["attached"] is None
    assert killed(place, "delete-volume", key="data")["gone"]
    killed(place, "network", name="lab", egress=True)
    assert killed(place, "remove-network", name="lab")["gone"]
    assert not list((place.folder / "store" / "networks").iterdir())


def test_what_was_started_and_not_finished_is_not_taken_for_whole(place: NspawnPlace) -> None:
    """Its first start: it is not there yet. A later one: it is started again. Nothing runs twice."""
    driver, machine = place.driver(), Store(str(place.folder / "store")).machine("one")
    shape, create = VERBS["create"]
    create(machine.store, **checked(shape, wish(place)))
    for content, seen in (('{"is_first": true}', None), ('{"is_first": false}', Life.STOPPED)):
        Path(machine.file("unfinished")).write_text(content)
        assert life(place) is seen
    asyncio.run(driver.start("one"))
    assert life(place) is Life.RUNNING
    assert containers() == 1
    Cgroup(machine).freeze(True)
    with machine.lock():
        assert life(place) is Life.RUNNING
        assert Cgroup(machine).is_frozen(), "somebody makes a snapshot of it"
    assert life(place) is Life.RUNNING
    assert not Cgroup(machine).is_frozen(), "nobody does: it goes on"
