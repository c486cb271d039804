"""The real OpenStack client through Hansa, and the stock client of the EGI federation at a site that trusts Hansa."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hansa.client import oidc, openstack
from tests.support.openstack import packages
from tests.support.openstack.contents import IMAGE
from tests.support.openstack.fixtures import VO, Federation

HANSA = str(Path(sys.executable).with_name("hansa"))
pytestmark = [pytest.mark.openstack, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def clients() -> Path:
    try:
        return packages.ensure_clients()
    except packages.UnavailableError as error:
        pytest.skip(f"no OpenStack clients here: {error}")


@pytest.fixture
def environ(clients: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{clients}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "HANSA_TEST_RUN": os.environ["HANSA_TEST_RUN"],
    }


@pytest.fixture
def site(federation: Federation) -> Iterator[Any]:
    """The OpenStack as a site of the server."""
    endpoint = {"kind": "openstack", "url": federation.auth_url}
    with federation.server.operator() as api:
        body = {"name": "NEBULA", "endpoints": [endpoint], "vos": {VO: {}}}
        answer = api.post("/sites", json=body)
        assert answer.status_code == 201, answer.text
        yield answer.json()
        api.delete("/sites/NEBULA").raise_for_status()


def run(environ: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def hansa_environ(federation: Federation, environ: dict[str, str], token: str) -> dict[str, str]:
    return environ | {"HANSA_SERVER": federation.server.url, "HANSA_TOKEN": token}


def test_the_real_client_at_all_sites(federation: Federation, site: Any, environ: dict[str, str]) -> None:
    """The same OpenStack as two sites: one table of both. Her only VO need not be named."""
    token = federation.ada.tokens()["access_token"]
    mine = hansa_environ(federation, environ, token)
    endpoint = {"kind": "openstack", "url": federation.auth_url}
    with federation.server.operator() as api:
        api.post("/sites", json={"name": "ORION", "endpoints": [endpoint], "vos": {VO: {}}}).raise_for_status()
        try:
            rows = json.loads(run(mine, HANSA, "site", "openstack", "--all-sites", "-o", "json", "--", "image", "list"))
        finally:
            api.delete("/sites/ORION").raise_for_status()
    assert {("NEBULA", IMAGE), ("ORION", IMAGE)} <= {(row["site"], row["Name"]) for row in rows}
    one = json.loads(run(mine, HANSA, "site", "openstack", "NEBULA", "--vo", VO, "-o", "json", "--", "image", "list"))
    assert IMAGE in {row["Name"] for row in one}
    assert all("site" not in row for row in one)
    told = run(mine, HANSA, "site", "env", "NEBULA", "--vo", VO)
    assert "OS_PROJECT_ID=" in told
    assert token not in told


def test_a_token_for_sites_is_good_for_them_and_not_for_hansa(federation: Federation) -> None:
    mine = federation.ada.tokens(scope=f"{openstack.SCOPE} hansa")["access_token"]
    endpoint = f"{federation.server.protocol}/token"
    narrowed = oidc.narrowed(endpoint, mine, openstack.SCOPE, None)
    access = openstack.SiteAccess("NEBULA", federation.auth_url, VO, None)
    assert openstack.find_project(access, narrowed)
    assert federation.server.whoami(mine) == 200
    assert federation.server.whoami(narrowed) in (401, 403)


def test_what_env_prints_works_in_a_shell(federation: Federation, environ: dict[str, str]) -> None:
    token = federation.ada.tokens()["access_token"]
    access = openstack.SiteAccess("NEBULA", federation.auth_url, VO, None, region="RegionOne")
    text = openstack.exports(access, openstack.find_project(access, token))
    script = f"hansa() {{ echo {token}; }}; {text}; openstack image list -f value -c Name"
    assert IMAGE in run(environ, "bash", "-c", script).split()


def test_the_federations_own_client(federation: Federation, environ: dict[str, str], tmp_path: Path) -> None:
    """`fedcloud`, as it is on PyPI, with a token of ours and the site in its own site format."""
    sites = tmp_path / ".config" / "fedcloud" / "site-config"
    sites.mkdir(parents=True)
    token = federation.ada.tokens()["access_token"]
    access = openstack.SiteAccess("NEBULA", federation.auth_url, VO, None)
    project = openstack.find_project(access, token)
    (sites / "NEBULA.yaml").write_text(
        f"gocdb: NEBULA\nendpoint: {federation.auth_url}\nprotocol: openid\nvos:\n- name: {VO}\n  auth:\n"
        f"    project_id: {project}\n"
    )
    mine = environ | {"FEDCLOUD_OIDC_ACCESS_TOKEN": token}
    where = ["--site", "NEBULA", "--vo", VO]
    assert IMAGE in run(mine, "fedcloud", "openstack", "image", "list", *where)
    assert "Token is valid until" in run(mine, "fedcloud", "token", "check")
    assert f'OS_PROJECT_ID="{project}"' in run(mine, "fedcloud", "site", "env", *where)
    assert "m1.large" in run(mine, "fedcloud", "select", "flavor", "--vcpus", "4", *where)
    stranger = environ | {"FEDCLOUD_OIDC_ACCESS_TOKEN": federation.bob.tokens()["access_token"]}
    done = subprocess.run(
        ["fedcloud", "openstack", "image", "list", *where], env=stranger, capture_output=True, text=True, check=False
    )
    assert IMAGE not in done.stdout
    assert "401" in done.stdout + done.stderr


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What a condition is, once it is something. Raises AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
    return found


def test_a_site_that_trusts_hansa_is_probed_and_discovered_with_its_tokens(federation: Federation) -> None:
    """ada manages the VO: as her, with a token made for that site, the server signs in there by itself."""
    settings = {"issuer": federation.server.issuer}
    endpoint = {"kind": "openstack", "url": federation.auth_url, "settings": settings}
    with federation.server.operator() as api, federation.server.api(federation.ada.tokens()["access_token"]) as ada:
        asked = {"name": "FED", "visibility": "owner", "endpoints": [endpoint], "vos": {VO: {}}}
        checked = ada.post("/sites/check", json=asked, timeout=120).json()
        api.post("/sites", json={"name": "FED", "endpoints": [endpoint], "vos": {VO: {}}}).raise_for_status()
        try:
            (steps,) = [one["steps"] for one in checked["endpoints"]]
            assert [one["ok"] for one in steps] == [True, True], checked
            seen = until(lambda: [one for one in ada.get("/sites/FED").json()["endpoints"] if one["discovered"]])
            assert seen[0]["health"]["message"] == "It lets us in and lists its VM images."
            where = {"work": "machine", "vo": VO, "vm_image": IMAGE, "gpus": 1}
            (found,) = [one for one in ada.post("/plan", json=where).json()["items"] if one["site"] == "FED"]
            assert (found["rank"], found["flavour"]) == (1, "g1.large"), found
        finally:
            api.delete("/sites/FED").raise_for_status()
    assert "Bearer ey" not in federation.server.log
