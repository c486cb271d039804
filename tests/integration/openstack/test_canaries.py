"""Canaries at a real OpenStack, by a server with its real loops, that is killed while one is out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.openstack.test_machines import eventually
from tests.support.openstack import contents
from tests.support.openstack.cloud import Cloud
from tests.support.openstack.fixtures import VO, Federation

pytestmark = [pytest.mark.openstack, pytest.mark.timeout(900)]
SITE = "NEBULA-CANARY"


def canaries_in(cloud: Cloud) -> list[Any]:
    """Everything at the cloud that calls itself one, in whatever project."""
    with contents.connect(cloud.place) as admin:
        return [one for one in admin.compute.servers(all_projects=True) if one.name == "hansa-canary"]


def test_a_machine_is_started_found_after_a_kill_and_deleted(federation: Federation) -> None:
    server, cloud = federation.server, federation.cloud
    end = {
        "kind": "openstack", "name": "cloud", "url": federation.auth_url, "vos": {VO: None},
        "settings": {"issuer": server.issuer},
    }  # fmt: skip
    new = {"name": SITE, "endpoints": [end], "policy": {"canaries": True}}
    server.operator().post("/sites", json=new).raise_for_status()

    def health() -> Any:
        return server.operator().get(f"/sites/{SITE}/health").raise_for_status().json()["endpoints"][0]

    (canary, *more) = eventually(lambda: canaries_in(cloud), bool)
    assert server.process is not None
    server.process.kill()
    server.process.wait(60)
    assert more == []
    assert canary.metadata["hansa"] == "canary"
    assert canary.flavor["original_name"] == "m1.tiny"
    assert canary.metadata["hansa_key"].startswith("canary-")
    assert not [one for net in canary.addresses.values() for one in net if one["OS-EXT-IPS:type"] == "floating"]
    server.start()
    (told,) = eventually(lambda: health()["canaries"], bool)
    assert told["state"] == "ran", told
    assert "(m1.tiny) was active" in told["message"]
    eventually(lambda: canaries_in(cloud), lambda found: found == [])
    server.operator().delete(f"/sites/{SITE}").raise_for_status()
