"""The registry of sites on both dialects: who joins, sees, changes and removes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from hansa.kernel.errors import Fault
from hansa.kernel.secrets import Vault
from hansa.sites import store
from hansa.sites.model import Work, endpoint_refusals, site_refusals
from hansa.sites.service import rewrap_credentials
from hansa.sites.wire import Capacity, Contact, NewEndpoint, NewSite, SitePolicy
from tests.support.siteworld import KEYSTONE, SiteWorld, cloud


async def refused(call: Any) -> str:
    with pytest.raises(Fault) as fault:
        await call
    return fault.value.code.code


async def test_a_site_is_there_for_members_of_its_vos_only(world: SiteWorld) -> None:
    await world.vo("vo.a", world.ada)
    await world.registry.add(world.olga, cloud(admins=["olga"]))
    assert [one.name for one in (await world.sites.list_sites(world.ada)).items] == ["NEBULA"]
    assert (await world.sites.get(world.ada, "NEBULA")).vos == ["vo.a"]
    assert (await world.sites.list_sites(world.bob)).items == []
    assert await refused(world.sites.get(world.bob, "NEBULA")) == "sites.not_found"
    assert (await world.sites.get(world.olga, "NEBULA")).vos == ["vo.a", "vo.b"]
    (view,) = await world.serving(world.ada, "vo.a")
    (endpoint,) = view.endpoints
    assert endpoint.vos["vo.a"].project == "p1"
    assert "vo.b" not in endpoint.vos
    assert site_refusals(view, "vo.a", Work.MACHINES) == []
    assert endpoint_refusals(view, endpoint, "vo.a", world.clock.now()) == []
    assert [one.reason for one in endpoint_refusals(view, endpoint, None, world.clock.now())] == ["sites.vo_not_served"]
    assert await world.serving(world.ada, "vo.c") == []


async def test_only_operators_add_sites_for_others(world: SiteWorld) -> None:
    assert await refused(world.registry.add(world.ada, cloud())) == "sites.forbidden"
    mine = NewSite("mine", [NewEndpoint("openstack", url=KEYSTONE)])
    assert (await world.registry.add(world.ada, mine)).visibility == "owner"
    assert await refused(world.sites.get(world.olga, "mine")) == "sites.not_found"
    assert await refused(world.registry.remove(world.olga, "mine")) == "sites.not_found"
    assert [one.name for one in await world.serving(world.ada)] == ["mine"]
    assert await world.serving(world.olga) == []
    assert await refused(world.registry.add(world.bob, mine)) == "sites.taken"


async def test_its_administrators_change_it_and_others_do_not(world: SiteWorld) -> None:
    await world.vo("vo.a", world.ada, world.bob)
    await world.registry.add(world.olga, cloud())
    contacts = [Contact("Ops", "ops@nebula.example.org", "operations"), Contact("CSIRT", role="security")]
    changed = cloud(description="A cloud", country="IT", policy=SitePolicy(vm_lifetime_h=24), contacts=contacts)
    assert await refused(world.registry.change(world.bob, "NEBULA", changed)) == "sites.forbidden"
    before = (await world.sites.get(world.ada, "NEBULA")).endpoints[0].id
    seen = await world.registry.change(world.ada, "NEBULA", changed)
    assert (seen.description, seen.policy.vm_lifetime_h, seen.my_roles) == ("A cloud", 24, ["admin"])
    assert (seen.contacts, seen.country) == (contacts, "IT")
    assert seen.endpoints[0].id == before
    assert await refused(world.registry.remove(world.bob, "NEBULA")) == "sites.forbidden"
    await world.registry.remove(world.ada, "NEBULA")
    assert (await world.sites.list_sites(world.olga)).items == []


async def test_a_credential_is_sealed_and_stays_until_another_comes(world: SiteWorld) -> None:
    secret = {"application_credential_id": "a", "application_credential_secret": "s3cret-of-nebula"}
    site = cloud()
    new = replace(site, endpoints=[replace(site.endpoints[0], credential=secret)])
    shown = await world.registry.add(world.olga, new)
    assert shown.endpoints[0].has_credential
    assert "s3cret" not in repr(shown)
    async with world.database.read() as tx:
        row = await store.get_endpoint(tx, shown.endpoints[0].id)
    assert row is not None
    assert "s3cret" not in json.dumps([str(one) for one in row])
    await world.registry.change(world.ada, "NEBULA", site)
    assert await world.sites.credential(row.id) == secret
    keys = [b"n" * 32, b"k" * 32]
    async with world.database.begin() as tx:
        assert await rewrap_credentials(tx, Vault(keys)) == 1
    world.sites._vault = Vault(keys[:1])
    assert await world.sites.credential(row.id) == secret


async def test_the_pages_of_the_list(world: SiteWorld) -> None:
    for number in range(5):
        await world.registry.add(world.olga, cloud(f"site-{number}"))
    page = await world.sites.list_sites(world.olga, None, 3)
    rest = await world.sites.list_sites(world.olga, page.next, 3)
    assert [one.name for one in (*page.items, *rest.items)] == [f"site-{number}" for number in range(5)]
    assert rest.next is None


async def test_the_computer_itself_stays_a_site_of_its_owner(world: SiteWorld) -> None:
    await world.sites.ensure_local(world.ada.user_id, "ada", Capacity(2, 1000))
    assert [one.name for one in (await world.sites.list_sites(world.ada)).items] == ["local"]
    assert (await world.sites.list_sites(world.olga)).items == []
    assert await refused(world.registry.remove(world.ada, "local")) == "sites.forbidden"


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (NewSite("a b", [NewEndpoint("local")]), "kernel.invalid"),
        (NewSite("local", [NewEndpoint("local")]), "kernel.invalid"),
        (NewSite("x", [NewEndpoint("cray")]), "sites.kind"),
        (NewSite("x", [NewEndpoint("local")]), "sites.kind"),
        (NewSite("x", [NewEndpoint("openstack")]), "sites.url"),
        (NewSite("x", [NewEndpoint("ssh", url="https://x", settings={"host": "h"})]), "sites.url"),
        (NewSite("x", [NewEndpoint("ssh")]), "sites.settings"),
        (NewSite("x", [NewEndpoint("ssh", settings={"host": "h", "hots": 1})]), "sites.settings"),
        (NewSite("x", [NewEndpoint("ssh", settings={"host": "h", "own_config": True})]), "sites.settings"),
        (NewSite("x", [NewEndpoint("ssh", settings={"host": "h"})] * 2), "kernel.invalid"),
        (NewSite("x", [NewEndpoint("ssh", settings={"host": "h"})], admins=["nobody"]), "sites.no_user"),
    ],
)
async def test_what_cannot_be_a_site(world: SiteWorld, new: NewSite, code: str) -> None:
    assert await refused(world.registry.add(world.olga, new)) == code
    async with world.database.read() as tx:
        assert (await tx.execute(sa.select(sa.func.count()).select_from(store.sites))).scalar() == 0
