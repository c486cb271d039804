"""What the properties of an OpenStack say, and with what a site is signed in to."""

from __future__ import annotations

from typing import Any

import pytest

from hansa.engines.openstack import AccessToken, ApplicationCredential, Project
from hansa.kernel.errors import Permanent
from hansa.sites.kinds.base import Target, parse_settings, sign_in_of
from hansa.sites.kinds.openstack_look import credential, gpus_of, project_of
from hansa.sites.model import VoAccess

VO = "vo.example.org"


def target(settings: dict[str, Any], **more: Any) -> Target:
    url = "https://keystone.example.org/v3"
    return Target("e1", "NEBULA", "openstack", url, parse_settings("openstack", settings), **more)


@pytest.mark.parametrize(
    ("specs", "found"),
    [
        ({}, (0, "")),
        ({"hw:cpu_policy": "dedicated"}, (0, "")),
        ({"pci_passthrough:alias": "a100:2"}, (2, "a100")),
        ({"pci_passthrough:alias": "t4:1, t4:1"}, (2, "t4")),
        ({"resources:vgpu": "1"}, (1, "")),
        ({"accelerator:type": "GPU", "accelerator:number": "4", "accelerator:model": "V100"}, (4, "V100")),
        ({"accelerator:number": "many"}, (0, "")),
    ],
)
def test_gpus_of_a_flavour(specs: dict[str, str], found: tuple[int, str]) -> None:
    assert gpus_of(specs) == found


def test_a_project_is_found_by_property_unless_the_site_says_which() -> None:
    projects = [Project("1", "other", None), Project("2", "odd-name", VO), Project("3", "named", None)]
    assert project_of(projects, target({}), VO) == projects[1]
    said = target({}, vos={VO: VoAccess(VO, "named")})
    assert project_of(projects, said, VO) == projects[2]
    gone = target({}, vos={VO: VoAccess(VO, "deleted")})
    assert project_of(projects, gone, VO) is None


def test_the_credential_is_the_vos_own_before_the_sites() -> None:
    settings = {"auth": "v3applicationcredential"}
    both = {"id": "site", "secret": "a", f"{VO}/id": "vo", f"{VO}/secret": "b"}
    assert credential(target(settings, credential=both), VO) == ApplicationCredential("vo", "b")
    assert credential(target(settings, credential=both), "vo.other.org") == ApplicationCredential("site", "a")
    with pytest.raises(Permanent, match="secret"):
        credential(target(settings, credential={"id": "x"}), VO)
    assert credential(target({}), VO) is None
    assert isinstance(credential(target({}, token="t"), VO), AccessToken)


def test_users_see_how_to_sign_in_and_no_more() -> None:
    shown = sign_in_of("openstack", {"identity_provider": "idp", "network": "private"})
    assert shown["identity_provider"] == "idp"
    assert "network" not in shown
    assert sign_in_of("gone", {}) == {}
