"""Organisations, their images and grants, usage and administration, in Chromium."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.acceptance.portal.conftest import World

Open = Callable[..., Page]
VO = "crew.example.org"


def in_vo(world: World, name: str = VO) -> str:
    """An organisation of somebody else's, so that the rules of one test are not those of another."""
    if not any(one["name"] == "keeper" for one in world.api.get("/users").json()["items"]):
        world.other("keeper").close()
    answer = world.api.post("/vos", json={"name": name, "description": "Stars", "manager": "keeper"})
    assert answer.status_code in (201, 409), answer.text
    return name


def test_what_an_organisation_is_for_is_written_down_and_told(world: World, open_page: Open) -> None:
    vo = in_vo(world)
    other, page = open_page(), open_page()
    other.goto(f"{world.url}/vos/{vo}")
    expect(other.locator("#vo")).to_contain_text("Stars")
    page.goto(f"{world.url}/vos/{vo}/settings")
    page.fill("#description", "Dark matter <b>and</b> its maps")
    page.click("main button >> text='Save'")
    expect(page.locator("#notices")).to_contain_text("written down")
    expect(other.locator("#vo")).to_contain_text("Dark matter <b>and</b> its maps")  # by itself: it is an event
    page.goto(f"{world.url}/vos/{vo}/settings")
    page.fill("#s-why", "The grant has ended")
    page.click("main button >> text='Suspend'")
    expect(page.locator("main")).to_contain_text("The grant has ended")
    page.click("main button >> text='Let it work again'")
    expect(page.locator("main .phase").first).to_have_text("active")


def test_members_come_by_invitation_or_as_an_issuer_says(world: World, open_page: Open) -> None:
    vo = in_vo(world, "ruled.example.org")
    page = open_page()
    page.goto(f"{world.url}/vos/{vo}/members")
    page.fill("#group", "analysis")
    page.click("main button >> text='Make it'")
    expect(page.locator("#notices")).to_contain_text("The group is made")
    page.check("section.card [name='role.vm-operator']")
    page.fill("#i-groups", "analysis")
    page.click("main button >> text='Make a link'")
    link = page.locator("#invitation").inner_text()
    assert "/join?invitation=" in link
    with world.other("nina") as nina:
        joined = nina.post("/vos/join", json={"token": link.partition("invitation=")[2].strip()})
        assert joined.is_success, joined.text
    page.goto(f"{world.url}/vos/{vo}/members")
    row = page.locator("main tr", has_text="nina")
    expect(row).to_contain_text("analysis")
    row.locator("summary").click()
    row.locator("[name='role.manager']").check()
    row.locator("button >> text='Set'").click()
    expect(page.locator("#notices")).to_contain_text("nina is member, vm-operator, manager now")
    page.goto(f"{world.url}/vos/{vo}/members")
    page.click("summary >> text='Change who says so'")
    page.select_option("#r-issuer", "check-in")
    page.fill("#r-name", "vo.upstream.example.org")
    page.fill("#r-sure", "not its name")
    page.click("main button >> text='Let them say so'")
    expect(page.locator("main")).to_contain_text("was not typed")
    assert world.api.get(f"/vos/{vo}").json()["membership"] == "invitation"
    page.goto(f"{world.url}/vos/{vo}/members")
    page.click("summary >> text='Change who says so'")
    page.select_option("#r-issuer", "check-in")
    page.fill("#r-name", "vo.upstream.example.org")
    page.fill("#r-sure", vo)
    page.click("main button >> text='Let them say so'")
    expect(page.locator("main")).to_contain_text("check-in, by the entitlements of its people. It calls it vo.upstream")
    expect(page.locator("main")).to_contain_text("Nobody is in it yet")
    found = world.api.get(f"/vos/{vo}").json()
    assert (found["membership"], found["issuer_vo"], found["members"]) == ("issuer", "vo.upstream.example.org", 0)
    page.click("summary >> text='Change who says so'")
    page.select_option("#r-issuer", "")
    page.fill("#r-sure", vo)
    page.click("main button >> text='Let them say so'")
    expect(page.locator("main")).to_contain_text("Its managers, by invitation")


def test_an_image_list_is_followed_and_left(world: World, open_page: Open) -> None:
    vo = in_vo(world)
    page = open_page()
    page.goto(f"{world.url}/vos/{vo}/images")
    expect(page.locator("#vo")).to_contain_text("It follows no list")
    page.fill("#l-url", "http://127.0.0.1:9/image.list")
    page.click("main button >> text='Follow it'")
    expect(page.locator("main")).to_contain_text("Nobody could tell who wrote this list")
    page.goto(f"{world.url}/vos/{vo}/images")
    page.fill("#l-url", "https://127.0.0.1:9/image.list")
    page.click("main button >> text='Follow it'")
    expect(page.locator("#notices")).to_contain_text("It is read now")
    expect(page.locator("#vo table .phase")).to_have_text("failing")  # by itself: nobody answers there
    page.click("[aria-label='Follow https://127.0.0.1:9/image.list no more']")
    expect(page.locator("#vo")).to_contain_text("It follows no list")
    assert world.api.get(f"/vos/{vo}/image-subscriptions").json()["items"] == []
    page.uncheck("[name=any_registry]")
    page.fill("#registries", "docker.io ghcr.io")
    page.check("[name=public_list]")
    page.click("main button >> text='Set'")
    expect(page.locator("#notices")).to_contain_text("is set")
    assert world.api.get(f"/vos/{vo}/image-policy").json()["public_list"] is True
    page.goto(f"{world.url}/vos/{vo}/images")
    page.uncheck("[name=public_list]")
    page.click("main button >> text='Set'")
    expect(page.locator("#notices")).to_contain_text("is set")
    assert world.api.get(f"/vos/{vo}/image-policy").json()["public_list"] is False
    assert sorted(world.api.get(f"/vos/{vo}/image-policy").json()["registries"]) == ["docker.io", "ghcr.io"]


def test_granted_hours_are_shared_out(world: World, open_page: Open) -> None:
    vo, api = in_vo(world), world.api
    assert api.post(f"/vos/{vo}/groups", json={"name": "fits"}).is_success
    assert api.post("/grants", json={"vo": vo, "site": "NEBULA", "terms": {"core_hours": 500}, "note": ""}).is_success
    assert api.post(f"/grants/{vo}/NEBULA/agree", json={}).is_success
    page = open_page()
    page.goto(f"{world.url}/vos/{vo}")
    page.click("summary >> text='Share out the hours at NEBULA'")
    page.fill("#c1-each", "50")
    page.fill("#c1-groups", "fits=200\nnonsense")
    page.click("main button >> text='Share it out so'")
    expect(page.locator("main")).to_contain_text("Line 2 of the groups is not NAME=HOURS")
    page.goto(f"{world.url}/vos/{vo}")
    page.click("summary >> text='Share out the hours at NEBULA'")
    page.fill("#c1-each", "50")
    page.fill("#c1-groups", "fits=200")
    page.fill("#c1-users", "root=120,5")
    page.click("main button >> text='Share it out so'")
    expect(page.locator("#vo")).to_contain_text("each user 50 fits 200 root 120.5")
    caps = api.get(f"/grants/{vo}/NEBULA").json()["caps"]
    assert caps == {"each_user": 50.0, "users": {"root": 120.5}, "groups": {"fits": 200.0}}


def test_a_request_for_capacity_is_refused_with_its_reason(world: World, open_page: Open) -> None:
    vo = in_vo(world, "asks.example.org")
    asked = {"vo": vo, "site": "NEBULA", "terms": {"core_hours": 9}, "note": "please"}
    assert world.api.post("/grants", json=asked).is_success
    page = open_page()
    page.goto(f"{world.url}/admin")
    expect(page.locator("main")).to_contain_text(vo)
    page.goto(f"{world.url}/sites/NEBULA")
    row = page.locator("tr", has_text=vo)
    row.locator("summary >> text=Answer").click()
    row.locator("[name=note]").fill("We are full until spring")
    row.locator("button >> text=Refuse").click()
    expect(page.locator("main tr", has_text=vo)).to_contain_text("We are full until spring")
    assert world.api.get(f"/grants/{vo}/NEBULA").json()["status"]["phase"] == "refused"


def test_images_by_site_say_how_they_are_there(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/images/places")
    expect(page.locator("#places tbody tr", has_text="tiny")).to_contain_text("NEBULA for vo.example.org")
    expect(page.locator("#places thead")).to_contain_text("NEBULA")
    page.select_option("#site", "NEBULA")
    page.fill("#find", "tiny")
    page.check("[name=only]")
    page.click("main button >> text=Show")
    expect(page.locator("#places tbody tr")).to_have_count(1)
    assert "site=NEBULA" in page.url
    page.click("#places tbody a >> text=tiny")
    expect(page.locator("#images")).to_contain_text("Tiny")
    known = "name = 'tiny' AND place LIKE 'NEBULA%'"
    try:  # no cloud is here: as if it had been brought there, and nobody looks again
        world.write(
            "UPDATE vm_image_places SET phase = 'there', reason = 'images.there', message = 'It is there.',"
            f" checked = ?, due_at = ?, lease_token = NULL WHERE {known}",
            *(int(moment.timestamp() * 1e6) for moment in (datetime.now(UTC), datetime(2099, 1, 1, tzinfo=UTC))),
        )
        page.goto(f"{world.url}/images/places?q=tiny")
        row = page.locator("#places tbody tr", has_text="tiny")
        expect(row.locator(".phase")).to_have_text("there")
        expect(row.locator("time")).not_to_contain_text("UTC")
        expect(page.locator("#places")).to_contain_text("1 of 1 are there")
        page.check("[name=only]")
        page.click("main button >> text=Show")
        expect(page.locator("#places")).to_contain_text("No image at a site matches this")
    finally:
        world.write(f"UPDATE vm_image_places SET phase = 'waiting', due_at = 0 WHERE {known}")


def test_a_version_is_withdrawn_with_its_reason(world: World, open_page: Open) -> None:
    new = {"name": "holed", "title": "Holed", "vo": None, "source": {"upload": True}, "visibility": "all"}
    assert world.api.post("/vm-images", json=new).is_success
    assert world.api.put("/vm-images/upload/1/holed", content=b"\1" * 65_536).is_success
    page = open_page()
    page.goto(f"{world.url}/images/show/holed")
    page.click("summary >> text=Withdraw a version")
    page.fill("#gone-why", "It has a <i>hole</i>")
    page.click("main button >> text='Withdraw'")
    expect(page.locator("#notices")).to_contain_text("withdrawn")
    expect(page.locator("#versions")).to_contain_text("It has a <i>hole</i>")
    assert world.api.get("/vm-images/show/holed").json()["versions"][0]["status"]["phase"] == "withdrawn"


def test_usage_is_drawn_filtered_and_downloaded(world: World, open_page: Open) -> None:
    job = world.submit(command=["sleep", "0.05"], array=True, count=3, vo="vo.example.org")
    world.wait(job)
    _used_before(world)
    page = open_page()
    page.goto(f"{world.url}/usage")
    page.select_option("#by", "vo")
    page.fill("#vo", "vo.example.org")
    page.click("main button >> text=Show")
    expect(page.locator("main tbody tr")).to_have_count(1)
    expect(page.locator("main tbody tr")).to_contain_text("vo.example.org")
    expect(page.locator("figure svg.bar")).to_have_count(1)
    page.fill("#vo", "")
    page.fill("#site", "local")
    page.select_option("#by", "vo,site")
    page.select_option("#whose", "all")
    page.click("main button >> text=Show")
    bars = [float(one.get_attribute("width") or 0) for one in page.locator("figure rect.accent").all()]
    assert max(bars) == 100
    assert len(bars) == page.locator("main tbody tr").count() >= 2
    with page.expect_download() as download:
        page.click("text=Download CSV")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [(row["vo"] or "none", row["site"]) for row in rows] == [
        tuple(one.locator("td").all_inner_texts()[:2]) for one in page.locator("main tbody tr").all()
    ]
    assert sum(int(row["tasks"]) for row in rows) >= 3
    page.select_option("#by", "day")
    page.click("main button >> text=Show")
    points = (page.locator("svg.area polyline").get_attribute("points") or "").split()
    assert len(points) == page.locator("main tbody tr").count() >= 2
    page.fill("#since", "2000-01-01")
    page.fill("#until", "2000-01-02")
    page.click("main button >> text=Show")
    expect(page.locator(".empty")).to_contain_text("Nothing was used")
    page.goto(f"{world.url}/usage?since=yesterday")
    expect(page.locator(".empty")).to_contain_text("'yesterday' is no day")


def _used_before(world: World) -> None:
    """As if something had run two days ago: usage of one day alone has no curve."""
    before = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
    world.write(
        "INSERT OR IGNORE INTO usage SELECT ?, owner_id, vo, vo_group, site, kind, tasks, wall_s, core_s, cpu_s,"
        " gpu_s FROM usage WHERE site = 'local' LIMIT 1",
        before,
    )


def test_an_operator_invites_suspends_and_sees_what_waits(world: World, open_page: Open) -> None:
    with world.other("oscar") as oscar:
        page = open_page()
        page.goto(f"{world.url}/admin")
        expect(page.locator("main")).to_contain_text("EGI Check-in")
        page.click("[aria-label='Suspend oscar']")
        expect(page.locator("tr", has_text="oscar").locator(".phase")).to_have_text("suspended")
        assert oscar.get("/jobs").status_code in (401, 403)
        page.click("[aria-label='Let oscar in again']")
        expect(page.locator("tr", has_text="oscar").locator(".phase")).to_have_text("active")
        assert oscar.get("/jobs").status_code == 200
    page.fill("#user", "paula")
    page.click("main button >> text='Make an invitation'")
    link = page.locator("#invitation").inner_text().strip()
    guest = open_page(signed_in=False)
    guest.goto(link)
    expect(guest.locator("input[type=password]").first).to_be_visible()
    page.goto(f"{world.url}/admin")
    page.fill("#vo", "Not A Name")
    page.click("main button >> text='Create'")
    expect(page.locator("main")).to_contain_text("cannot name a virtual organisation")
    page.goto(f"{world.url}/admin")
    page.fill("#vo", "fresh.example.org")
    page.fill("#about", "Fresh")
    page.click("main button >> text='Create'")
    page.wait_for_url(f"{world.url}/vos/fresh.example.org")
    _leave(world, "fresh.example.org", "olga")
    assert world.api.post("/sites/NEBULA/drain", json={"why": "New cables"}).is_success
    page.goto(f"{world.url}/admin")
    expect(page.locator("main")).to_contain_text("New cables")
    page.click("[aria-label='Let new work start at NEBULA again']")
    page.wait_for_url(f"{world.url}/sites/NEBULA")
    expect(page.locator("#notices")).to_contain_text("New work starts there again")
    page.goto(f"{world.url}/admin")
    page.click("text=Sign tokens with a new key")
    expect(page.locator("#notices")).to_contain_text(re.compile("signed with the key"))


def _leave(world: World, vo: str, heir: str) -> None:
    """Somebody else manages the organisation: who is in two of them has to name one, in all other tests."""
    invited = world.api.post(f"/vos/{vo}/invitations", json={"roles": ["manager"], "groups": []})
    with world.other(heir) as other:
        assert other.post("/vos/join", json={"token": invited.json()["link"].partition("=")[2]}).is_success
    me = world.api.get("/whoami").json()["id"]
    assert world.api.delete(f"/vos/{vo}/members/{me}").is_success
