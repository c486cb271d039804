"""What each cloud of Libcloud is told when a machine is made; requests themselves are not sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hansa.engines.libcloud import Account, overrides
from hansa.kernel.errors import Permanent
from hansa.machines.drivers.base import Can, Image, MachineSpec, Refused, Size, Why
from hansa.machines.drivers.libcloud import _HAND_OVER, LibcloudMachines, _observed, _size, name_of

SPEC = MachineSpec(
    "m", Image("", provider_id="i", login="debian"), user_data=b"#cloud-config\n{}\n", ssh_keys=("ssh-ed25519 A a",)
)


def told(provider: str, spec: MachineSpec = SPEC) -> dict[str, Any]:
    return _HAND_OVER[provider](spec, "machine_1")


def test_google_takes_metadata() -> None:
    assert told("gce") == {
        "ex_metadata": {
            "user-data": "#cloud-config\n{}\n", "ssh-keys": "debian:ssh-ed25519 A a", "hansa_key": "machine_1",
            "hansa_login": "debian",
        }
    }  # fmt: skip


def test_azure_takes_custom_data_and_one_key() -> None:
    found = told("azure_arm")
    assert found["auth"].pubkey == "ssh-ed25519 A a"
    assert (found["ex_user_name"], found["ex_customdata"]) == ("debian", "#cloud-config\n{}\n")
    with pytest.raises(Refused):
        told("azure_arm", MachineSpec("m", Image("", provider_id="i")))


def test_opennebula_takes_a_context() -> None:
    context = told("opennebula")["context"]
    assert context["SSH_PUBLIC_KEY"] == "ssh-ed25519 A a"
    assert (context["USER_DATA_ENCODING"], context["HANSA_KEY"]) == ("base64", "machine_1")


@pytest.mark.parametrize("provider", sorted(_HAND_OVER))
def test_their_drivers_take_what_they_are_told(provider: str) -> None:
    """Names of arguments, against the drivers of the Libcloud that is installed."""
    import inspect

    from libcloud.compute.providers import get_driver

    driver: Any = get_driver(provider)
    if provider == "opennebula":
        from libcloud.compute.drivers.opennebula import OpenNebula_3_8_NodeDriver as driver
    assert set(told(provider)) <= set(inspect.signature(driver.create_node).parameters)


async def test_a_cloud_that_nobody_has_written_down_gets_no_keys() -> None:
    driver = LibcloudMachines(Account("vultr", "key"))
    with pytest.raises(Refused) as refused:
        await driver.ensure(SPEC, "machine_1")
    assert refused.value.why is Why.UNABLE
    with pytest.raises(Permanent, match="no driver for nonsense"):
        overrides("nonsense", "stop_node")
    assert Can.POWER in LibcloudMachines(Account("gce", "key")).capabilities().can
    assert Can.POWER not in LibcloudMachines(Account("opennebula", "key")).capabilities().can


def test_a_name_is_one_that_every_cloud_takes() -> None:
    assert name_of("machine_1") == name_of("machine_1") != name_of("machine_2")
    assert name_of("machine_1").replace("-", "").isalnum()
    assert len(name_of("x" * 63)) <= 63


def test_what_a_cloud_gives_back_is_read() -> None:
    node = SimpleNamespace(
        id=1, name="n", state="running", public_ips=["192.0.2.1", None], size=None,
        private_ips=[SimpleNamespace(address="10.0.0.1")], created_at=None,
        extra={"metadata": {"items": [{"key": "hansa_login", "value": "debian"}]}},
    )  # fmt: skip
    seen = _observed(node)
    assert (seen.public, seen.private) == (("192.0.2.1",), ("10.0.0.1",))
    assert seen.ssh is not None
    assert (seen.ssh.host, seen.ssh.user) == ("192.0.2.1", "debian")


def test_the_smallest_size_that_is_large_enough() -> None:
    sizes = [
        SimpleNamespace(id=1, name="a", ram=512, extra={"guestCpus": 1}),
        SimpleNamespace(id=2, name="b", ram=4096, extra={"numberOfCores": 2}),
        SimpleNamespace(id=3, name="c", ram=8192, extra={"vcpus": 8}),
    ]
    api = SimpleNamespace(list_sizes=lambda: sizes)
    assert _size(api, Size(2, 1024)).name == "b"
    assert _size(api, Size(flavour="3")).name == "c"
    with pytest.raises(Refused):
        _size(api, Size(64, 1024))
