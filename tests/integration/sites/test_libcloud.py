"""Endpoints of kind libcloud against an EC2 that listens here (moto): signed requests, quotas, refused keys."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from hansa.engines.egress import EgressPolicy
from hansa.kernel.errors import Permanent
from hansa.machines.drivers.base import Image, Life, MachineSpec, Progress, Refused, Size, Why
from hansa.machines.libcloud_site import build
from hansa.machines.places import Holder
from hansa.sites.kinds.base import Answer, Stage, Target, parse_settings
from hansa.sites.kinds.libcloud import LibcloudKind, quotas
from hansa.sites.model import VoAccess
from hansa.sites.wire import Quota
from tests.support.ec2 import ec2_server

VO = "vo.a"
LOOPBACK = EgressPolicy(allow_private=True)
KEY = {"key": "AKIAHANSA", "secret": "hush-hush-hush"}


@pytest.fixture(scope="module")
def ec2() -> Iterator[str]:
    """The address of an EC2 with a machine image of ours and a running machine."""
    with ec2_server() as url:
        cloud: Any = boto3.client(
            "ec2", "us-east-1", endpoint_url=url, aws_access_key_id=KEY["key"], aws_secret_access_key=KEY["secret"]
        )
        public = cloud.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        machine = cloud.run_instances(ImageId=public, MinCount=2, MaxCount=2)["Instances"][0]["InstanceId"]
        cloud.create_image(InstanceId=machine, Name="debian-of-ours")
        cloud.terminate_instances(InstanceIds=[machine])
        yield url


def target(url: str | None, **more: Any) -> Target:
    settings = parse_settings("libcloud", {"provider": "ec2", "region": "us-east-1", **more.pop("settings", {})})
    given: dict[str, Any] = {"vos": {VO: VoAccess(VO)}, "egress": LOOPBACK, "credential": KEY} | more
    return Target("e", "NEBULA", "libcloud", url, settings, **given)


async def test_a_probe_signs_in_and_lists(ec2: str) -> None:
    finding = await LibcloudKind().probe(target(ec2))
    assert (finding.answer, finding.stage) == (Answer.UP, Stage.LIST), finding.message


async def test_what_is_there(ec2: str) -> None:
    facts = await LibcloudKind().discover(target(ec2), VO)
    sizes = {one.name: one for one in facts.flavours}
    assert (sizes["t2.micro"].vcpus, sizes["t2.micro"].memory_mib) == (1, 1024)
    assert sizes["g2.8xlarge"].gpus == 4
    assert [(one.name, one.is_public) for one in facts.vm_images] == [("debian-of-ours", False)]
    assert facts.networks
    assert facts.notes == ["It does not say its limits as Libcloud reads them."]  # moto tells more than was asked
    theirs = await LibcloudKind().discover(target(ec2, settings={"image_owner": "amazon"}), VO)
    assert len([one for one in theirs.vm_images if one.is_public]) > 5


async def test_of_the_clouds_images_only_public_ones_are_started_and_by_their_ids(ec2: str) -> None:
    """Whoever names one: a private image of the account may be anything, as may one that has only the same name."""
    cloud = await build(target(ec2), Holder("user", VO))
    (ours,) = (await LibcloudKind().discover(target(ec2), VO)).vm_images
    theirs = await LibcloudKind().discover(target(ec2, settings={"image_owner": "amazon"}), VO)
    public = next(one for one in theirs.vm_images if one.is_public)
    for name in (ours.id, ours.name, public.name, "ami-00000000", "/etc/shadow"):
        spec = MachineSpec("thief", Image("", provider_id=name, is_public=True), Size(1, 1024, flavour="t3.micro"))
        with pytest.raises(Refused) as refused:
            await cloud.ensure(spec, "thief")
        assert refused.value.why is Why.IMAGE, name
        assert await cloud.observe("thief") is None
    good = MachineSpec("good", Image("", provider_id=public.id, is_public=True), Size(1, 1024, flavour="t3.micro"))
    assert (await cloud.ensure(good, "good")).life in (Life.BUILDING, Life.RUNNING)
    own = MachineSpec("own", Image("", provider_id=ours.id), Size(1, 1024, flavour="t3.micro"))
    assert (await cloud.ensure(own, "own")).life in (Life.BUILDING, Life.RUNNING), "its owner's own"
    for key in ("good", "own"):
        assert await cloud.delete(key) in (Progress.PENDING, Progress.DONE)


def test_the_limits_of_an_account_and_what_counts_against_them() -> None:
    class Driver:
        def ex_get_limits(self) -> dict[str, Any]:
            return {"resource": {"max-instances": 20}}

        def list_nodes(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(state=word) for word in ("running", "stopped", "terminated")]

    assert quotas(Driver(), []) == {"machines": Quota(20, 2)}


async def test_a_vo_has_a_key_of_its_own(ec2: str) -> None:
    own = {f"{VO}/key": "AKIAVO", f"{VO}/secret": "hush"}
    assert (await LibcloudKind().probe(target(ec2, credential=own))).stage is Stage.LIST
    assert (await LibcloudKind().probe(target(ec2, credential=own, vos={}))).stage is Stage.REACH


async def test_without_a_key_it_only_reaches_or_knows_nothing(ec2: str) -> None:
    seen = target(ec2, credential={})
    finding = await LibcloudKind().probe(seen)
    assert (finding.answer, finding.stage) == (Answer.UP, Stage.REACH)
    assert (await LibcloudKind().probe(replace(seen, url=None))).answer is Answer.UNKNOWN
    assert "no credential" in (await LibcloudKind().discover(seen, VO)).notes[0]


REFUSAL = b"""<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>AuthFailure</Code><Message>AWS was not able to validate the provided access credentials
</Message></Error></Errors><RequestID>1</RequestID></Response>"""


class Refuses(BaseHTTPRequestHandler):
    """An EC2 that knows no key, in the words of the real one."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", str(len(REFUSAL)))
        self.end_headers()
        self.wfile.write(REFUSAL)

    def log_message(self, *_: object) -> None:
        return


async def test_a_key_that_the_cloud_does_not_know_is_told_apart_and_its_secret_not_told() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            finding = await LibcloudKind().probe(target(f"http://127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()
    assert (finding.answer, finding.stage, finding.reason) == (Answer.DOWN, Stage.SIGN_IN, "sites.sign_in")
    assert "refused the sign-in" in finding.message
    assert KEY["secret"] not in finding.message


async def test_what_is_away_and_what_cannot_be(ec2: str) -> None:
    away = await LibcloudKind().probe(target("http://127.0.0.1:9"))
    assert (away.answer, away.reason) == (Answer.DOWN, "sites.unreachable")
    unknown = await LibcloudKind().probe(target(ec2, settings={"provider": "cirrus"}))
    assert (unknown.answer, "no driver for cirrus" in unknown.message) == (Answer.DOWN, True)
    nowhere = await LibcloudKind().probe(target(ec2, settings={"region": "atlantis"}))
    assert (nowhere.answer, "does not take these settings" in nowhere.message) == (Answer.DOWN, True)


async def test_requests_pass_the_egress_policy(ec2: str) -> None:
    with pytest.raises(Permanent, match=r"must not connect|not encrypted"):
        await LibcloudKind().discover(target(ec2, egress=EgressPolicy()), VO)


@pytest.mark.parametrize(
    ("provider", "said"),
    [("gce", "no request was ever sent"), ("opennebula", "never at a real one"), ("ovh", "untested"), ("ec2", None)],
)
def test_a_check_says_how_well_a_provider_is_known(provider: str, said: str | None) -> None:
    needs = LibcloudKind().needs(target(None, settings={"provider": provider}), 300, 3600)
    trials = [one.what for one in needs.requirements if one.group == "trial"]
    assert (said is None and not trials) or (said is not None and said in trials[0])
