"""What guests say of their first boot."""

from __future__ import annotations

import pytest

from hansa.machines.drivers.base import Guest
from hansa.machines.drivers.guest import guest_of, guest_on_console, keys_on_console

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
