"""Volumes and snapshots, and what is done to many jobs at once, in Chromium."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.acceptance.portal.conftest import KEY, World

Open = Callable[..., Page]


def test_a_volume_is_made_given_to_a_machine_taken_and_deleted(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/volumes")
    expect(page.locator("#volumes")).to_contain_text("archive")
    page.click("text=Create a volume")
    page.fill("#name", "Big Data")
    page.fill("#size_gib", "5")
    page.click("main button >> text='Create'")
    expect(page.locator(".notice.error")).to_contain_text("cannot name a volume")
    page.fill("#name", "scratch")
    page.select_option("#site", "local")
    page.click("main button >> text='Create'")
    page.wait_for_url(f"{world.url}/volumes/scratch")
    expect(page.locator("#volume .phase").first).to_have_text("available")
    page.select_option("#machine", "kept")
    page.click("main button >> text='Attach'")
    expect(page.locator("#volume .phase").first).to_have_text("attached")
    page.goto(f"{world.url}/machines/kept")
    expect(page.locator("main")).to_contain_text("/dev/vdb")
    page.click("main a >> text='scratch'")
    page.click("main button >> text='Detach'")
    expect(page.locator("#volume .phase").first).to_have_text("available")
    page.click("summary >> text='Delete this volume'")
    page.fill("#sure", "archive")
    page.click("text='Delete it and all that is on it'")
    expect(page.locator("main")).to_contain_text("its name was not typed")
    page.goto(f"{world.url}/volumes/scratch")
    page.click("summary >> text='Delete this volume'")
    page.fill("#sure", "scratch")
    page.click("text='Delete it and all that is on it'")
    page.wait_for_url(f"{world.url}/volumes")
    expect(page.locator("#volumes")).not_to_contain_text("scratch")


def test_machines_are_searched_filtered_and_sorted(world: World, open_page: Open) -> None:
    days = {"row-a": 3, "row-b": 1, "row-c": 2}
    for name, lasts in days.items():
        new = {"image": "tiny", "name": name, "flavour": "tiny", "ssh_keys": [KEY], "lifetime_s": lasts * 86_400}
        assert world.api.post("/machines", json=new).is_success
    page = open_page()
    page.goto(f"{world.url}/machines")
    for head in ("Name", "Organisation", "Site", "State", "Created", "Updated", "Expires"):
        expect(page.locator("#machines thead th", has_text=head)).to_have_count(1)
    page.fill("#find", "row-")
    page.click("main button >> text=Filter")
    names = page.locator("#machines tbody td:first-child a")
    expect(names).to_have_text(["row-a", "row-b", "row-c"])
    page.click("#machines thead a >> text=Expires")
    expect(names).to_have_text(["row-b", "row-c", "row-a"])
    expect(page.locator("#machines th[aria-sort=ascending]")).to_contain_text("Expires")
    page.click("#machines thead a >> text=Expires")
    expect(names).to_have_text(["row-a", "row-c", "row-b"])
    assert {"q=row-", "sort=expires", "down=true"} <= set(page.url.partition("?")[2].split("&"))
    expect(page.locator("#machines tbody .phase").first).to_have_text("running")
    page.select_option("#state", "stopped")
    page.click("main button >> text=Filter")
    expect(page.locator("#machines")).to_contain_text("No machine of yours matches this")
    for name in days:
        assert world.api.delete(f"/machines/{name}").is_success


def test_the_disk_of_a_machine_is_kept_as_an_image(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/machines/kept")
    page.fill("#s-name", "kept-gold")
    page.click("main button >> text='Take a snapshot'")
    page.wait_for_url(f"{world.url}/snapshots")
    row = page.locator("#snapshots tbody tr", has_text="kept-gold")
    expect(row.locator(".phase")).to_have_text("ready")
    row.locator("a >> text='Start a machine of it'").click()
    expect(page.locator("main")).to_contain_text("kept-gold@1")
    assert world.api.get("/vm-images/show/kept-gold").json()["versions"][0]["status"]["phase"] == "ready"


def test_ticked_jobs_are_held_released_and_killed_together(world: World, open_page: Open) -> None:
    jobs = [
        world.submit(command=["true"], hold=True, labels={"batch": "b7"}, name=f"ticked {number}")
        for number in range(3)
    ]
    page = open_page()
    page.goto(f"{world.url}/jobs")
    page.select_option("#phase", "waiting")
    page.fill("#find", "label:batch=b7")
    page.click("main button >> text=Filter")
    expect(page.locator("#jobs tbody tr")).to_have_count(3)
    assert page.url == f"{world.url}/jobs?phase=waiting&q=label%3Abatch%3Db7"
    page.goto(f"{world.url}/jobs?q=label:batch=b7")
    expect(page.locator("#jobs tbody tr")).to_have_count(3)
    page.click("main button >> text='Kill'")
    expect(page.locator("#notices")).to_contain_text("No job was ticked")
    page.goto(f"{world.url}/jobs?q=label:batch=b7")
    page.check(f"[name='job.{jobs[0]}']")
    page.click("main button >> text='Release'")
    expect(page.locator("#notices")).to_contain_text("1 of 1 jobs")
    expect(page.locator("#jobs tbody tr")).to_have_count(3)  # the filter stays
    expect(page.locator("main code >> text=hansa job list label:batch=b7")).to_be_visible()
    assert world.wait(jobs[0])["status"]["phase"] == "done"
    page.goto(f"{world.url}/jobs?q=label:batch=b7")
    page.check("[data-ticks]")
    page.click("main button >> text='Hold'")
    expect(page.locator("#notices")).to_contain_text("2 of 3 jobs: asked for.")
    page.goto(f"{world.url}/jobs?q=label:batch=b7")
    page.check("[data-ticks]")
    page.uncheck(f"[name='job.{jobs[0]}']")
    page.click("main button >> text='Kill'")
    expect(page.locator("#notices")).to_contain_text("2 of 2 jobs")
    phases = [world.wait(job)["status"]["phase"] for job in jobs]
    assert phases == ["done", "killed", "killed"]
    page.goto(f"{world.url}/jobs?q=label:batch=b7")
    page.check(f"[name='job.{jobs[1]}']")
    page.click("main button >> text='Run failed tasks again'")
    expect(page.locator("#notices")).to_contain_text("1 of 1 jobs")
    assert world.wait(jobs[1])["status"]["phase"] == "done"


def test_every_main_task_is_done_without_a_mouse(world: World, open_page: Open) -> None:
    """Sign in, submit, open, cancel, and the wizard of a machine: with Tab, Enter, Space, arrows and letters alone."""
    page = open_page(signed_in=False)
    code = world.link().partition("#")[2]
    page.goto(f"{world.url}/sign-in")
    walk_to(page, "#code")
    page.keyboard.type(code)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{world.url}/")
    walk_to(page, "main a[href$='/jobs/new']")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{world.url}/jobs/new")
    walk_to(page, "#command")
    page.keyboard.type("sleep 600")
    walk_to(page, "#name")
    page.keyboard.type("by keyboard")
    walk_to(page, "main form button:has-text('Submit')")
    page.keyboard.press("Space")
    expect(page.locator("main h1")).to_have_text("by keyboard")
    number = page.url.rpartition("/")[2]
    page.goto(f"{world.url}/jobs")
    walk_to(page, f"main a[href$='/jobs/{number}']")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{world.url}/jobs/{number}")
    walk_to(page, "main button[value=kill]")
    page.keyboard.press("Enter")
    expect(page.locator("#state .phase").first).to_have_text("killed")
    page.goto(f"{world.url}/machines")
    walk_to(page, "main a[href$='/machines/new']")
    page.keyboard.press("Enter")
    walk_to(page, "main a[href*='image=tiny']")
    page.keyboard.press("Enter")
    walk_to(page, "[name=flavour]:checked")
    page.keyboard.press("ArrowUp")
    walk_to(page, "main button:has-text('Show the plan')")
    page.keyboard.press("Enter")
    walk_to(page, "#name")
    page.keyboard.type("typed")
    walk_to(page, "#ssh_keys")
    page.keyboard.type(KEY)
    walk_to(page, "main button:has-text('Launch')")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{world.url}/machines/typed")
    assert world.api.get("/machines/typed").json()["size"]["flavour"] in ("tiny", "fake-tiny", None)
    expect(page.locator("#machine .phase").first).to_have_text("running")
    walk_to(page, "main button[value=delete]")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{world.url}/machines")


def walk_to(page: Page, selector: str) -> None:
    """With Tab from where the focus is; fails where Tab never comes there."""
    expect(page.locator(selector).first).to_be_visible()
    for _ in range(150):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement?.matches(wanted) ?? false", selector.split(":has-text")[0]):
            wanted = page.locator(selector).first
            if wanted.evaluate("one => one === document.activeElement"):
                return
    raise AssertionError(f"Tab never comes to {selector}")
