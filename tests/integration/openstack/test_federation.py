"""Tokens of Hansa's issuer at a real OpenStack: keystone behind mod_auth_openidc, as at sites of EGI."""

from __future__ import annotations

import httpx
import pytest
from keystoneauth1.exceptions import Unauthorized

from tests.support.openstack.contents import IMAGE
from tests.support.openstack.federation import PROTOCOL, PROVIDER
from tests.support.openstack.fixtures import VO, Federation

pytestmark = [pytest.mark.openstack, pytest.mark.timeout(600)]
SIGN_IN = f"/OS-FEDERATION/identity_providers/{PROVIDER}/protocols/{PROTOCOL}/auth"


def token(who: object) -> str:
    return str(who.tokens()["access_token"])  # type: ignore[attr-defined]


def project(federation: Federation, access: str) -> str:
    with federation.connect(access) as cloud:
        found = cloud.session.get(f"{federation.auth_url}/auth/projects").json()["projects"]
    (one,) = [entry for entry in found if entry.get("egi.VO") == VO]
    return str(one["id"])


def test_a_member_lists_images_and_quotas(federation: Federation) -> None:
    access = token(federation.ada)
    with federation.connect(access, project_id=project(federation, access)) as cloud:
        assert IMAGE in [image.name for image in cloud.image.images()]  # others come by image synchronisation
        assert cloud.compute.get_limits().absolute.instances == 10
        assert {flavor.name for flavor in cloud.compute.flavors()} >= {"m1.small", "g1.large"}


def test_who_is_in_no_vo_is_refused(federation: Federation) -> None:
    with federation.connect(token(federation.bob)) as cloud, pytest.raises(Unauthorized):
        cloud.session.get_token()


def test_a_changed_token_is_refused(federation: Federation) -> None:
    first, second, last = token(federation.ada).split(".")
    for bad in (
        "rubbish",
        f"{first}.{second}.{last[:-6]}AAAAAA",
        f"{first}.{second}.",
        f"eyJhbGciOiJub25lIn0.{second}.",
    ):
        answer = httpx.get(federation.auth_url + SIGN_IN, headers={"Authorization": f"Bearer {bad}"})
        assert answer.status_code == 401, bad


def test_headers_as_apache_makes_them_are_not_believed_of_a_client(federation: Federation) -> None:
    entitled = f"urn:mace:hansa:group:{VO}:role=member#127.0.0.1"
    forged = {
        "OIDC-sub": "mallory",
        "OIDC-iss": federation.server.issuer,
        "OIDC-eduperson-entitlement": entitled,
        "OIDC-eduperson_entitlement": entitled,
    }
    assert httpx.get(federation.auth_url + SIGN_IN, headers=forged).status_code == 401
    signed_in = forged | {"Authorization": f"Bearer {token(federation.bob)}"}
    assert httpx.get(federation.auth_url + SIGN_IN, headers=signed_in).status_code == 401
