"""Trying a site writes nothing, and says what the site must allow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hansa.engines.egress import EgressPolicy
from hansa.kernel.errors import Fault, Temporary
from hansa.kernel.settings import SiteSettings
from hansa.sites.checking import CheckService
from hansa.sites.kinds.base import Answer, kind_of
from hansa.sites.wire import NewEndpoint, NewSite
from tests.support.fakekind import FakeKind, public
from tests.support.siteworld import SiteWorld, cloud


def service(world: SiteWorld, kind: FakeKind) -> CheckService:
    return CheckService(world.registry, lambda _: kind, SiteSettings(), EgressPolicy(resolve=public))


async def test_what_works_and_what_does_not(world: SiteWorld) -> None:
    kind = FakeKind()
    report = await service(world, kind).check(world.olga, cloud())
    assert report.ok
    assert [step.ok for step in report.endpoints[0].steps] == [True, True, True]
    kind.facts = Temporary("no such project")
    report = await service(world, kind).check(world.olga, cloud())
    assert not report.ok
    assert report.endpoints[0].steps[1].message == "no such project"
    kind.answer = Answer.DOWN
    assert [step.ok for step in (await service(world, kind).check(world.olga, cloud())).endpoints[0].steps] == [False]
    assert (await world.sites.list_sites(world.olga)).items == []
    with pytest.raises(Fault):
        await service(world, kind).check(world.ada, cloud())


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (NewEndpoint("openstack", url="https://k.example.org:5000/v3"), ["k.example.org", "mapping"]),
        (
            NewEndpoint("slurm", settings={"host": "login.example.org", "user": "hansa"}),
            ["sbatch", "login.example.org:22", "as hansa with a key", "squeue: every 15 s"],
        ),
        (NewEndpoint("slurm", settings={"host": "h", "transport": "https", "poll_s": 60}), ["by HTTPS", "every 60 s"]),
        (NewEndpoint("ssh", settings={"host": "h", "jump": "gate"}), ["to gate", "Files below ~/.hansa"]),
        (NewEndpoint("libcloud", settings={"provider": "ec2"}), ["API of ec2: port 443"]),
    ],
)
async def test_each_kind_says_what_it_needs(world: SiteWorld, end: NewEndpoint, words: list[str]) -> None:
    async def nowhere(_host: str, _port: int) -> list[str]:
        raise OSError("no network in this test")

    policy = EgressPolicy(resolve=nowhere)
    checks = CheckService(world.registry, kind_of, SiteSettings(probe_timeout_s=0.1), policy)
    report = await checks.check(world.olga, replace(NewSite("X", [end]), visibility="all"))
    said = " ".join(need.what for need in report.endpoints[0].requires)
    assert all(word in said for word in words), said
    per_hour = {"openstack": 3 * 12 + 6, "slurm": 12 + 1, "ssh": 12 + 1, "libcloud": 12 + 5}
    assert report.endpoints[0].calls_per_hour == per_hour[end.kind], "probes and discoveries, at rest"
