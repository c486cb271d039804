"""Candidates from views of sites."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hansa.kernel.status import Party, Status
from hansa.placement.choose import choose, explain_all
from hansa.placement.model import Candidate, Gpu, GrantLeft, Measured, Request, data_needs
from hansa.placement.views import BATCH_OVERHEAD_S, MACHINE_OVERHEAD_S, PILOT_MEMORY_MIB, Platform, candidates
from hansa.sites.capacity_model import Left, NoGrant
from hansa.sites.model import EndpointView, SiteView, Visibility, VoAccess, Work
from hansa.sites.wire import Capacity, Facts, Flavour, Network, Partition, Quota, SitePolicy, VmImage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
UP = Status("up", "sites.up", "", Party.NOBODY, NOW)
LAPSED = Status("login", "sites.login", "Sign in: hansa site login CLUSTER", Party.USER, NOW)
NODES = Facts(
    partitions=[
        Partition("short", 4, 128, 32, 64_000, [], 3600, True, 96),
        Partition("gpu", 1, 16, 16, 32_000, ["a100", "a100"], None, False, 16),
    ]
)


def endpoint(kind: str = "slurm", facts: Facts | None = NODES, **settings: Any) -> EndpointView:
    host = {"host": "login"} if kind in ("slurm", "ssh") else {}
    return EndpointView("e1", kind, kind, None, host | settings, UP, facts={"": facts} if facts else {})


def site(*ends: EndpointView, name: str = "CLUSTER", **more: Any) -> SiteView:
    values: dict[str, Any] = {"kind": ends[0].kind if ends else "local", "visibility": Visibility.ALL}
    values |= {"policy": SitePolicy(), "capacity": Capacity(0, 0)}
    return SiteView(name, owner_id="u", owner_name="ada", status=UP, endpoints=ends, **(values | more))


def one(view: SiteView, vo: str | None = None, work: Work = Work.PILOTS, **more: Any) -> Candidate:
    (found,) = candidates([view], vo, work, NOW, **more)
    return found


def test_a_cluster_offers_a_node_of_its_default_partition() -> None:
    found = one(site(endpoint()))
    assert (found.site, found.endpoint, found.kind, found.cores, found.memory_mib) == (
        "CLUSTER", "slurm", "slurm", 32, 64_000 - PILOT_MEMORY_MIB
    )  # fmt: skip
    assert (found.nodes, found.gpus, found.load) == (4, (), 0.25)
    assert found.wall_time_s == 3600 - BATCH_OVERHEAD_S
    assert not found.is_own


def test_another_partition_is_the_sites_the_vos_or_the_jobs_choice() -> None:
    gpus = (Gpu("a100"), Gpu("a100"))
    assert one(site(endpoint(partition="gpu"))).gpus == gpus
    assert one(site(endpoint()), partition="gpu").gpus == gpus
    mine = replace(endpoint(), vos={"vo": VoAccess("vo", None, {"partition": "gpu"})}, is_for_vos=True)
    assert one(site(mine), "vo").cores == 16
    assert one(site(mine), "vo").wall_time_s is None
    assert [refusal.reason for refusal in one(site(mine)).refusals] == ["sites.vo_not_served"]
    assert one(site(endpoint(partition="nobody knows it"))).cores is None


def test_what_was_not_discovered_is_not_known() -> None:
    found = one(site(endpoint(facts=None)))
    assert (found.cores, found.memory_mib, found.gpus, found.wall_time_s, found.load) == (None,) * 5
    assert choose(Request(cores=999), [found]).best is found


def test_a_computer_offers_itself_with_the_tags_of_its_settings() -> None:
    facts = Facts(capacity=Capacity(8, 16_000, ["0, NVIDIA T4, 15360 MiB"]))
    found = one(site(endpoint("ssh", facts, tags=["fast", "data:k2"], required_tags=["mine"])))
    assert (found.cores, found.memory_mib, found.nodes) == (8, 16_000, 1)
    assert found.gpus == (Gpu("NVIDIA T4", 1, 15_360),)
    assert (found.tags, found.required_tags) == (frozenset({"fast", "data:k2"}), frozenset({"mine"}))
    assert found.data == frozenset({"k2"})


def test_the_embedded_site_needs_no_endpoint() -> None:
    view = site(name="local", capacity=Capacity(2, 4000, tags=["laptop"]), visibility=Visibility.OWNER)
    found = one(view, platforms={"local": Platform(arch="x86_64")})
    assert (found.kind, found.cores, found.is_own, found.arch) == ("local", 2, True, "x86_64")
    assert found.tags == frozenset({"laptop"})


def test_a_site_without_such_an_endpoint_says_so() -> None:
    found = one(site(endpoint("openstack", None)))
    assert found.refusals[0].message == "It has nothing that runs jobs."
    assert choose(Request(), [found]).best is None


def test_refusals_of_site_and_endpoint_are_carried_with_who_must_act() -> None:
    view = site(replace(endpoint(), health=LAPSED), drained="Works", policy=SitePolicy(pilots=False))
    found = one(view)
    assert [refusal.reason for refusal in found.refusals] == ["sites.drained", "sites.no_pilots", "sites.login"]
    assert found.refusals[-1].waiting_on is Party.USER
    (verdict,) = explain_all(choose(Request(), [found]))
    assert any("hansa site login CLUSTER" in finding.message for finding in verdict.findings)


def test_a_grant_bounds_only_where_it_is_demanded_and_speaks_for_a_site_everywhere() -> None:
    left = Left(3_600_000, 10, share=0.5, limited_by="your cap")
    granted = one(site(endpoint()), "vo", grants={"CLUSTER": left})
    assert (granted.demands_grant, granted.grant) == (False, GrantLeft(3600.0, 0.5, 10, limited_by="your cap"))
    other = one(site(endpoint(), name="ANOTHER"), "vo")
    asked = Request(vo="vo", cores=11, wall_time_s=600)  # more than is left of the grant
    assert [found.site for found in choose(asked, [other, granted]).order] == ["CLUSTER", "ANOTHER"]
    gone = one(site(endpoint()), "vo", grants={"CLUSTER": NoGrant("capacity.ended", "Over.", Party.VO_MANAGER)})
    assert (gone.demands_grant, gone.grant) == (False, None)
    strict = site(endpoint(), policy=SitePolicy(demands_grant=True, price_per_core_hour=0.1))
    found = one(strict, "vo", grants={"CLUSTER": left})
    assert found.grant == GrantLeft(3600.0, 0.5, 10, limited_by="your cap")
    assert found.price == 0.1
    refused = one(strict, "vo", grants={"CLUSTER": NoGrant("capacity.none", "None.", Party.VO_MANAGER)})
    assert (refused.demands_grant, refused.grant, refused.no_grant) == (True, None, "None.")
    assert one(strict, "vo").grant is None


def test_a_cloud_offers_flavours_images_networks_and_what_is_free() -> None:
    facts = Facts(
        flavours=[Flavour("1", "small", 2, 4000, 20), Flavour("2", "gpu", 8, 32_000, 0, 1, "A100")],
        vm_images=[VmImage("i1", "debian"), VmImage("i2", "secret")],
        networks=[Network("n1", "public", is_external=True)],
        quotas={"cores": Quota(10, 4), "machines": Quota(None, 3)},
    )
    view = site(endpoint("openstack", facts), policy=SitePolicy(vm_images_denied=["secret"]))
    found = one(view, work=Work.MACHINES)
    assert found.flavours is not None
    assert [(flavour.name, flavour.disk_mib) for flavour in found.flavours] == [("small", 20_480), ("gpu", None)]
    assert found.flavours[1].gpus == (Gpu("A100", 1),)
    assert found.vm_images == frozenset({"debian", "i1"})
    assert (found.networks, found.has_public_addresses) == (frozenset({"public", "n1"}), True)
    assert found.quota is not None
    assert (found.quota.cores, found.quota.machines, found.quota.memory_mib) == (6, None, None)


def test_ec2_has_more_images_than_are_listed() -> None:
    listed = Facts(vm_images=[VmImage("ami-1", "ours")])
    assert one(site(endpoint("libcloud", listed, provider="ec2")), work=Work.MACHINES).vm_images is None
    assert one(site(endpoint("libcloud", listed, provider="gce")), work=Work.MACHINES).vm_images == frozenset(
        ("ami-1", "ours")
    )


def test_the_load_of_a_cloud_is_that_of_its_scarcest_quota_and_of_a_computer_its_own() -> None:
    facts = Facts(quotas={"cores": Quota(10, 4), "machines": Quota(10, 9), "memory_mib": Quota(None, 5)})
    assert one(site(endpoint("openstack", facts)), work=Work.MACHINES).load == 0.9
    assert one(site(endpoint("openstack", Facts())), work=Work.MACHINES).load is None
    assert one(site(endpoint("ssh", Facts(capacity=Capacity(8, 16_000), load=0.25)))).load == 0.25
    assert one(site(endpoint("ssh", Facts(capacity=Capacity(8, 16_000))))).load is None


def test_data_is_near_in_the_same_country_and_better_at_the_site() -> None:
    computer = Facts(capacity=Capacity(8, 16_000))
    has = site(endpoint("ssh", computer, tags=["data:k2"]), name="z", country="IT")
    near = site(endpoint("ssh", computer), name="y", country="IT")
    far = site(endpoint("ssh", computer), name="x", country="FR")
    nowhere = site(endpoint("ssh", computer), name="w")
    found = candidates([far, nowhere, near, has], None, Work.PILOTS, NOW)
    choice = choose(Request(data=data_needs((), ["k2"]), is_data_required=True), found)
    assert [candidate.site for candidate in choice.order] == ["z", "y", "w", "x"], "none is left out"
    said = {
        verdict.site: next(f for f in verdict.factors if f.name == "data").message for verdict in explain_all(choice)
    }
    assert said["y"] == "It has 0 of 1 data sets, 1 more is in its country."
    strict = choose(Request(data=data_needs(["k2"], ["k3"]), is_data_required=True), found)
    assert [candidate.site for candidate in strict.order] == ["z"]


def test_machines_for_jobs_are_given_tasks_that_fit_into_the_life_that_the_site_allows() -> None:
    policy = SitePolicy(vm_lifetime_h=12)
    clouds = (endpoint("openstack", Facts()), replace(endpoint("machines", None, image="debian"), id="e2"))
    assert one(site(clouds[0], policy=policy), work=Work.MACHINES).wall_time_s == 12 * 3600
    assert one(site(*clouds, policy=policy)).wall_time_s == 12 * 3600 - MACHINE_OVERHEAD_S
    assert one(site(*clouds)).wall_time_s is None


def test_what_was_measured_goes_by_the_site() -> None:
    seen = Measured(5, 1, 2.0)
    assert one(site(endpoint()), measured={"CLUSTER": seen, "other": Measured()}).measured is seen


def test_many_nodes_and_options_of_a_batch_system_are_rules() -> None:
    cluster, computer = one(site(endpoint())), one(site(endpoint("ssh", None), name="pc"))
    choice = choose(Request(nodes=5), [cluster, computer])
    assert set(choice.reasons.values()) == {"placement.nodes"}
    assert choose(Request(nodes=4), [cluster, computer]).order == (cluster,)
    choice = choose(Request(needs_batch_system=True), [cluster, computer])
    assert (choice.order, choice.reasons) == ((cluster,), {("pc", "ssh"): "placement.batch_system"})
