"""What guests say of their first boot."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hansa.machines.drivers.base import Guest, Life, Observed
from hansa.machines.drivers.guest import first_boot, guest_of, guest_on_console, keys_on_console, note_of

CONSOLE = """
[    9.1] cloud-init[311]: Cloud-init v. 22.4.2 running 'modules:final'
-----BEGIN SSH HOST KEY KEYS-----
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDKqZIqPRj+I3bCuBK3Hy8PtbubcxePZtTNBvZsGuzed root@x
-----END SSH HOST KEY KEYS-----
"""


def test_of_its_result() -> None:
    assert guest_of(None) == (Guest.BOOTING, "")
    assert guest_of({"v1": {"errors": []}}) == (Guest.READY, "")
    assert guest_of({"v1": {"errors": ["no package x"]}}) == (Guest.FAILED, "no package x")


@pytest.mark.parametrize("odd", [{}, [], "x", {"v1": 3}])
def test_odd_results_are_failures(odd: object) -> None:
    assert guest_of(odd)[0] is Guest.FAILED


def test_of_its_console() -> None:
    assert guest_on_console(CONSOLE) == (Guest.BOOTING, "")
    done = f"{CONSOLE}cloud-init[1]: Cloud-init v. 22.4.2 finished at Thu, 26 Nov 2026"
    assert guest_on_console(done) == (Guest.READY, "")
    failed = f"[FAILED] Failed to start cloud-final.service - Execute cloud user/final scripts.\n{done}"
    assert guest_on_console(failed)[0] is Guest.FAILED
    assert "cloud-final" in guest_on_console(failed)[1]


def test_host_keys_on_the_console() -> None:
    assert keys_on_console(CONSOLE) == (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDKqZIqPRj+I3bCuBK3Hy8PtbubcxePZtTNBvZsGuzed",
    )
    assert keys_on_console("") == ()


NOW = datetime(2026, 11, 26, tzinfo=UTC)
RUNS = Observed("i-1", Life.RUNNING, created=NOW - timedelta(minutes=1))
BAD = "Cloud-init v. 23.4 running\ncloud-init[6]: ERROR: no numpy\nCloud-init v. 23.4 finished at now"


def test_a_first_boot_is_read_of_the_console_once_and_noted() -> None:
    notes: list[str] = []
    seen = first_boot(RUNS, "", NOW, lambda: BAD, notes.append)
    assert (seen.guest, seen.guest_message) == (Guest.FAILED, "cloud-init[6]: ERROR: no numpy")
    assert notes == ["failed: cloud-init[6]: ERROR: no numpy"]

    def never() -> str:
        raise AssertionError("it is known")

    assert first_boot(RUNS, notes[0], NOW + timedelta(days=9), never, notes.append) == seen
    assert first_boot(replace(RUNS, life=Life.STOPPED), "", NOW, never, notes.append).guest is Guest.UNKNOWN
    assert first_boot(RUNS, "", NOW + timedelta(days=9), never, notes.append).guest is Guest.UNKNOWN, "it was long ago"


def test_a_first_boot_that_is_under_way_or_silent_is_not_noted() -> None:
    notes: list[str] = []
    assert first_boot(RUNS, "", NOW, lambda: "login:", notes.append).guest is Guest.UNKNOWN
    assert first_boot(RUNS, "", NOW, lambda: "Cloud-init v. 23.4 running", notes.append).guest is Guest.BOOTING
    assert not notes
    assert len(note_of(Guest.FAILED, "x" * 1000)) == 255
