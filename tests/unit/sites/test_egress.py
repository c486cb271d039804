"""Which addresses are asked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hansa.engines.egress import EgressPolicy
from hansa.kernel.errors import Permanent, Temporary

SHARED = EgressPolicy()
INSTITUTE = EgressPolicy(["10.1.0.0/16", "fd12:3456::/32"])
EMBEDDED = EgressPolicy(allow_private=True)

NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fd00:ec2::254",
    "100.100.100.200",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
]
PRIVATE = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.2.0.1", "192.168.1.1", "172.16.0.1", "fd99::1"]
PRIVATE += ["100.64.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]
PUBLIC = ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"]


def test_what_is_never_asked() -> None:
    for address in NEVER:
        for policy in (SHARED, INSTITUTE, EMBEDDED, EgressPolicy(["0.0.0.0/0", "::/0"])):
            assert policy.refusal(address), address


def test_what_only_ones_own_server_asks() -> None:
    for address in PRIVATE:
        assert SHARED.refusal(address), address
        assert EMBEDDED.refusal(address) is None, address
    assert INSTITUTE.refusal("10.1.2.3") is None
    assert INSTITUTE.refusal("fd12:3456::9") is None
    assert INSTITUTE.refusal("10.2.2.3")
    assert INSTITUTE.refusal("127.0.0.1")


def test_public_ones_may_be_asked() -> None:
    for address in PUBLIC:
        assert SHARED.refusal(address) is None, address


@pytest.mark.parametrize(
    "url",
    [
        "http://k.example.org",
        "https://user:secret@k.example.org",
        "ftp://k.example.org",
        "file:///etc/passwd",
        "https://",
        "https://k.example.org:99999",
        "https://k.example.org:0",
        "https://127.0.0.1:5000",
        "https://[::1]:5000",
        "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/",
        "keystone.example.org",
        "https://[bad",
    ],
)
def test_urls_that_cannot_be_a_sites(url: str) -> None:
    with pytest.raises(Permanent) as error:
        SHARED.check_url(url)
    assert "secret" not in str(error.value)


def test_urls_that_can() -> None:
    assert SHARED.check_url("https://keystone.example.org:5000/v3").port == 5000
    assert EMBEDDED.check_url("http://127.0.0.1:5000/v3").port == 5000
    assert INSTITUTE.check_url("http://10.1.0.5/").hostname == "10.1.0.5"


def answering(*addresses: str) -> EgressPolicy:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return EgressPolicy(resolve=resolve)


async def test_one_bad_address_spoils_a_name() -> None:
    assert list(await answering("8.8.8.8", "8.8.4.4").addresses("a", 443)) == ["8.8.8.8", "8.8.4.4"]
    for bad in ("10.0.0.1", "169.254.169.254", "::1"):
        with pytest.raises(Permanent, match="must not connect"):
            await answering("8.8.8.8", bad).addresses("a", 443)
    with pytest.raises(Temporary):
        await answering().addresses("a", 443)
    with pytest.raises(Permanent):
        await answering("127.0.0.1").allow("https://rebound.example.org/v3")
