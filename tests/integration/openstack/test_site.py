"""Hansa looks at a real OpenStack: probe and discovery with a token, a password and an application credential."""

from __future__ import annotations

from typing import Any

import pytest

from hansa.engines.egress import EgressPolicy
from hansa.kernel.errors import Permanent, Temporary
from hansa.sites.kinds.base import Answer, Stage, Target, parse_settings
from hansa.sites.kinds.openstack import OpenstackKind
from hansa.sites.model import VoAccess
from tests.support.openstack import contents
from tests.support.openstack.fixtures import VO, Federation
from tests.support.openstack.layout import PASSWORD

pytestmark = [pytest.mark.openstack, pytest.mark.timeout(600)]
LOOPBACK = EgressPolicy(allow_private=True)


def target(federation: Federation, settings: dict[str, Any], **more: Any) -> Target:
    given: dict[str, Any] = {"vos": {VO: VoAccess(VO)}, "egress": LOOPBACK} | more
    url = given.pop("url", federation.auth_url)
    return Target("e", "NEBULA", "openstack", url, parse_settings("openstack", settings), **given)


async def test_with_a_members_token(federation: Federation) -> None:
    kind = OpenstackKind()
    seen = target(federation, {}, token=federation.ada.tokens()["access_token"])
    finding = await kind.probe(seen)
    assert (finding.answer, finding.stage) == (Answer.UP, Stage.LIST), finding.message
    facts = await kind.discover(seen, VO)
    assert {flavour.name: flavour.vcpus for flavour in facts.flavours}["m1.large"] == 4
    (gpu,) = [flavour for flavour in facts.flavours if flavour.gpus]
    assert (gpu.name, gpu.gpus, gpu.gpu_model) == ("g1.large", 1, "a100")
    assert facts.gpus == ["a100"]
    assert contents.IMAGE in [image.name for image in facts.vm_images]  # others come by image synchronisation
    assert [network.name for network in facts.networks if network.is_external] == ["public"]
    assert facts.quotas["machines"].limit == 10
    assert facts.quotas["floating_ips"].limit
    with pytest.raises(Permanent, match=r"no project of vo\.other\.org"):
        await kind.discover(seen, "vo.other.org")


async def test_with_a_token_of_nobody_it_says_so(federation: Federation) -> None:
    finding = await OpenstackKind().probe(target(federation, {}, token=federation.bob.tokens()["access_token"]))
    assert (finding.answer, finding.stage) == (Answer.DOWN, Stage.SIGN_IN)
    assert "refused the sign-in" in finding.message


async def test_with_an_application_credential(federation: Federation) -> None:
    with contents.connect(federation.cloud.place) as admin:
        made = admin.identity.create_application_credential(user=admin.current_user_id, name="hansa")
    seen = target(federation, {"auth": "v3applicationcredential"}, credential={"id": made.id, "secret": made.secret})
    kind = OpenstackKind()
    assert (await kind.probe(seen)).answer is Answer.UP
    assert (await kind.discover(seen, VO)).vm_images
    wrong = target(federation, {"auth": "v3applicationcredential"}, credential={"id": made.id, "secret": "guess"})
    finding = await kind.probe(wrong)
    assert (finding.answer, finding.stage) == (Answer.DOWN, Stage.SIGN_IN)


async def test_with_a_password(federation: Federation) -> None:
    given = {"username": "admin", "password": PASSWORD}
    seen = target(federation, {"auth": "v3password"}, credential=given, vos={VO: VoAccess(VO, "admin")})
    assert (await OpenstackKind().probe(seen)).answer is Answer.UP


async def test_what_is_no_keystone_is_told_apart(federation: Federation) -> None:
    kind = OpenstackKind()
    nova = await kind.probe(target(federation, {}, url=federation.cloud.place.url("nova")))
    assert (nova.answer, nova.stage, nova.reason) == (Answer.DOWN, Stage.REACH, "sites.garbage")
    nothing = await kind.probe(target(federation, {}, url=f"http://{federation.cloud.place.address}:9/v3"))
    assert (nothing.answer, nothing.reason) == (Answer.DOWN, "sites.unreachable")


async def test_a_catalogue_leads_nowhere_that_the_policy_forbids(federation: Federation) -> None:
    strict = EgressPolicy()
    seen = target(federation, {}, token=federation.ada.tokens()["access_token"], egress=strict, url=federation.auth_url)
    with pytest.raises((Permanent, Temporary), match=r"must not connect|not encrypted"):
        await OpenstackKind().discover(seen, VO)
