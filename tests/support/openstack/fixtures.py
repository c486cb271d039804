"""The fixtures of the tier: one OpenStack for all of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openstack
import pytest

from tests.support.identity import Browser, Server
from tests.support.leftovers import RUN_VARIABLE
from tests.support.openstack import contents, packages, template
from tests.support.openstack.cloud import Cloud
from tests.support.openstack.federation import PROTOCOL, PROVIDER, federate


@pytest.fixture(scope="session")
def openstack_cloud() -> Iterator[Cloud]:
    """A running OpenStack with what :mod:`tests.support.openstack.contents` puts in."""
    try:
        needs = packages.ensure()
    except packages.UnavailableError as error:
        pytest.skip(f"no OpenStack here: {error}")
    run = os.environ.get(RUN_VARIABLE, "alone")
    root = Path(tempfile.mkdtemp(prefix=f"hansa-os-{run[:8]}-", dir="/tmp"))
    root.chmod(0o711)  # Apache's children, who are not root, read their part
    cloud = template.copy(needs, root)
    try:
        cloud.start()
        yield cloud
    finally:
        cloud.stop()
        shutil.rmtree(root, ignore_errors=True)


@dataclass
class Federation:
    """An OpenStack that trusts a Hansa server: ada is a member of a VO that has a project there, bob of none."""

    cloud: Cloud
    server: Server
    auth_url: str
    ada: Browser
    bob: Browser

    def connect(self, token: str, **auth: str) -> Any:
        """An OpenStack client of somebody who has a token of ours."""
        given = {
            "auth_url": self.auth_url,
            "identity_provider": PROVIDER,
            "protocol": PROTOCOL,
            "access_token": token,
        }
        return openstack.connection.Connection(
            auth_type="v3oidcaccesstoken", auth=given | auth, region_name="RegionOne", identity_interface="public"
        )


def fill_snapshots(api: Any) -> int:
    """Nova's fake driver makes no snapshots, and their images wait for a content: give them one. How many waited."""
    waiting = [one for one in api.image.images(status="queued") if (one.properties or {}).get("hansa_key")]
    for one in waiting:
        api.image.update_image(one, container_format="bare", disk_format="raw")
        one.data = b"\0" * 1024
        one.upload(api.image)
    return len(waiting)


VO = contents.VOS[0]


@pytest.fixture(scope="session")
def federation(openstack_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    server = Server(tmp_path_factory.mktemp("issuer") / "home").start()
    try:
        ada, bob = server.account("ada"), server.account("bob")
        server.operator().post("/vos", json={"name": VO, "manager": "ada"}).raise_for_status()
        yield Federation(openstack_cloud, server, federate(openstack_cloud, server.issuer), ada, bob)
    finally:
        server.close()
