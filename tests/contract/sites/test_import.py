"""The EGI federation's files: all 25 where they are at hand, and what is odd about some of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from hansa.kernel.errors import Fault
from hansa.sites import egi, store
from hansa.sites.wire import ImportRequest, SitePolicy
from tests.support.siteworld import SiteWorld

DATA = Path(os.environ.get("HANSA_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")) / "egi-sites"
MAPPINGS = {"vo.a": "urn:mace:egi.eu: group:vo.a:role=member#aai.egi.eu"}


def document(**more: Any) -> dict[str, Any]:
    vos = [{"name": "vo.a", "auth": {"project_id": "p1", "region": "north"}}, {"name": "ops", "auth": {}}]
    site = {"gocdb": "NEBULA", "endpoint": "https://k.example.org:5000/v3/", "vos": vos, "protocol": "oidc"}
    return {**site, "images": {"sync": True, "formats": ["raw"]}, **more}


async def test_what_a_file_becomes(world: SiteWorld) -> None:
    await world.vo("vo.a", world.ada)
    request = ImportRequest({"NEBULA.yaml": document(colour="blue")}, MAPPINGS)
    (item,) = (await world.registry.import_sites(world.olga, request)).items
    assert (item.outcome, item.endpoints, item.vos) == ("added", 1, 2)
    assert item.notes == [
        "NEBULA.yaml: colour is not known and was left out.",
        "NEBULA.yaml: ops is in no VO mapping.",
    ]
    (view,) = await world.serving(world.ada, "vo.a")
    (end,) = view.endpoints
    assert (end.name, end.url) == ("k.example.org", "https://k.example.org:5000/v3")
    assert end.settings == {"protocol": "oidc", "image_sync": True, "image_formats": ["raw"]}
    assert end.vos["vo.a"].project == "p1"
    assert end.vos["vo.a"].settings["entitlement"] == "urn:mace:egi.eu:group:vo.a:role=member#aai.egi.eu"


async def test_imported_again_it_is_brought_up_to_date_and_keeps_what_was_set_here(world: SiteWorld) -> None:
    request = ImportRequest(
        {"a.yaml": document(), "b.yaml": document(endpoint="https://other.example.org/v3")}, MAPPINGS
    )
    await world.registry.import_sites(world.olga, request)
    before = {one.name: one.id for one in (await world.sites.get(world.olga, "NEBULA")).endpoints}
    assert len(before) == 2
    async with world.database.begin() as tx:
        await store.update(tx, "NEBULA", policy={"vm_lifetime_h": 5})
    (item,) = (await world.registry.import_sites(world.olga, request)).items
    assert item.outcome == "unchanged"
    (item,) = (await world.registry.import_sites(world.olga, ImportRequest({"a.yaml": document(vos=[])}))).items
    assert (item.outcome, item.endpoints) == ("changed", 1)
    site = await world.sites.get(world.olga, "NEBULA")
    assert [(one.name, one.id) for one in site.endpoints] == [("k.example.org", before["k.example.org"])]
    assert site.policy == SitePolicy(vm_lifetime_h=5)


@pytest.mark.parametrize(
    "wrong", [{"gocdb": 5}, {"endpoint": None}, {"vos": [{"auth": {}}]}, {"endpoint": "http://k/v3"}]
)
async def test_a_file_that_is_wrong_imports_nothing(world: SiteWorld, wrong: dict[str, Any]) -> None:
    request = ImportRequest({"a.yaml": document(gocdb="GOOD"), "b.yaml": document(**wrong)})
    with pytest.raises(Fault):
        await world.registry.import_sites(world.olga, request)
    assert (await world.sites.list_sites(world.olga)).items == []
    with pytest.raises(Fault):
        await world.registry.import_sites(world.ada, ImportRequest({"a.yaml": document()}))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no files of the federation at {DATA} (HANSA_SHARED_DATA)")
async def test_the_whole_federation(world: SiteWorld) -> None:
    documents = {one.name: yaml.safe_load(one.read_text()) for one in (DATA / "sites").glob("*.yaml")}
    assert len(documents) == 25
    mappings = yaml.safe_load((DATA / "vo-mappings.yaml").read_text())["vos"]
    request = ImportRequest(documents, mappings)
    items = (await world.registry.import_sites(world.olga, request)).items
    assert sum(one.endpoints for one in items) == 25
    assert sum(len(one.files) for one in items) == 25
    assert {one.outcome for one in items} == {"added"}
    pairs = {(doc["gocdb"], vo["name"]) for doc in documents.values() for vo in doc["vos"]}
    page = await world.sites.list_sites(world.olga)
    assert {(site.name, vo) for site in page.items for vo in site.vos} == pairs
    assert {one.outcome for one in (await world.registry.import_sites(world.olga, request)).items} == {"unchanged"}
    assert all(" " not in text for text in _entitlements(egi.read_sites(documents, mappings)))


def _entitlements(found: list[egi.Read]) -> list[str]:
    accesses = [access for one in found for end in one.site.endpoints for access in end.vos.values()]
    return [str(getattr(one, "settings", {}).get("entitlement", "")) for one in accesses]
