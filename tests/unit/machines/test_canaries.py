"""Of what a canary at a cloud is made, and what its machine says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hansa.machines.canaries import choose, judge
from hansa.machines.drivers.base import Life, Observed
from hansa.sites.kinds.base import Sighting, State
from hansa.sites.wire import Facts, Flavour, SitePolicy, VmImage


def test_of_what_a_canary_is_made() -> None:
    images = [
        VmImage("a", "windows", is_public=True, min_disk_gib=30, min_memory_mib=4096),
        VmImage("b", "debian", is_public=True, min_disk_gib=10, size_bytes=9),
        VmImage("c", "cirros", is_public=True, size_bytes=1),
        VmImage("d", "of-the-vo", size_bytes=5),
    ]
    flavours = [Flavour("z", "zero", 1, 64, 0), Flavour("t", "tiny", 1, 64, 1), Flavour("s", "small", 1, 2048, 20)]
    facts = Facts(flavours=flavours, vm_images=images)

    def made(facts: Facts = facts, policy: SitePolicy | None = None, *more: Any) -> Any:
        found = choose(facts, policy or SitePolicy(), *(more or ([],)))
        return found if isinstance(found, str) else (found.image.name, found.flavour.name)

    assert made() == ("cirros", "tiny")
    assert made(facts, None, ["d"]) == ("of-the-vo", "tiny"), "what the VO endorses comes first"
    assert made(facts, SitePolicy(vm_images_denied=["cirros"])) == ("debian", "small")
    assert made(facts, None, [], "a") == "There is no flavour there that the VM image of a canary fits."
    assert made(facts, None, [], "c", "small") == ("cirros", "small")
    assert "There is no flavour huge there" in made(facts, None, [], "c", "huge")
    assert "There is no VM image fedora there" in made(facts, None, [], "fedora")
    nothing = made(replace(facts, vm_images=images[3:]))
    assert "There is no public or endorsed VM image there" in nothing


def test_one_that_is_older_than_a_start_may_take_failed() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    building = Observed("m", Life.BUILDING, created=now - timedelta(seconds=100))
    assert judge(building, now, 200) == Sighting(State.WAITS, "A machine is being built.")
    failed = judge(building, now, 99)
    assert (failed.state, failed.leaves) == (State.FAILED, True)
    assert failed.message == "A machine was still not active after 100 s."
