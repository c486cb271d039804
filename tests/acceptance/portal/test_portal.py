"""What people do in the portal, in Chromium."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.portal.conftest import HOSTILE, KEY, MODES, SCREENSHOTS, World
from tests.support.serverprocess import eventually
from tests.support.tools import ROOT

Open = Callable[..., Page]
WIRE_BYTES = 200_000
REALM = "/auth/realms/hansa"
LISTS = ("/", "/jobs", "/machines", "/volumes", "/snapshots", "/sites", "/vos", "/usage")
"""As somebody sees them who has nothing yet."""
DOORS = (
    "/sign-in",
    f"{REALM}/login",
    f"{REALM}/account",
    f"{REALM}/device",
    f"{REALM}/join?invitation=none",
    "/jobs/999999999",
    "/machines?q=nothing-of-this-name",
    "/vos/no.such.example.org",
)
"""Where people come in, and pages that say that there is nothing."""


def pages(world: World) -> list[str]:
    """Every page that only reads."""
    return [
        "/",
        "/jobs",
        "/jobs?phase=failed&q=name~sweep",
        f"/jobs/{world.sweep}",
        f"/jobs/{world.huge}",
        f"/jobs/{world.sweep}/tasks?sort=wall_s&plot_y=loss",
        f"/jobs/{world.done}/log",
        f"/jobs/{world.long}/usage?task=1",
        f"/jobs/{world.done}/usage",
        f"/jobs/{world.done}/files",
        f"/jobs/new?like={world.sweep}",
        "/jobs/new",
        "/machines",
        "/machines/kept",
        "/machines/kept/console",
        "/machines/new",
        "/machines/new?image=debian-12",
        "/machines/new?image=debian-12&flavour=small&step=plan",
        "/machines/new?image=no-such-image&step=plan",
        "/volumes",
        "/volumes/new",
        "/volumes/archive",
        "/snapshots",
        "/sites",
        "/sites/local",
        "/sites/NEBULA",
        "/sites/join",
        "/vos",
        "/vos/vo.example.org",
        "/vos/vo.example.org/members",
        "/vos/vo.example.org/images",
        "/vos/vo.example.org/access",
        "/vos/vo.example.org/settings",
        "/images",
        "/images/places",
        "/images/show/preset/debian-12",
        "/usage",
        "/usage?by=day&whose=all",
        "/admin",
        "/search?q=sweep",
        "/search?q=nothing-of-this-name",
        "/components",
    ]


def test_a_code_signs_in_once_and_leaves_no_trace(world: World, open_page: Open) -> None:
    link = world.link()
    page = open_page(signed_in=False)
    page.goto(f"{world.url}/jobs?phase=failed")
    assert "/auth/realms/hansa/login?next=" in page.url
    page.goto(link)
    page.wait_for_url(f"{world.url}/")
    assert "signin" not in page.evaluate("JSON.stringify(history.state) + location.href")
    other = open_page(signed_in=False)
    other.goto(link)
    expect(other.locator("main")).to_contain_text("used before")


def test_colours_are_chosen_and_kept_and_one_signs_out(world: World, open_page: Open) -> None:
    page = open_page(color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click(".menu summary")
    page.click(".menu button >> text=Dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(ground) != light
    page.goto(f"{world.url}/sites")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.click(".menu summary")
    page.click(".menu button >> text=System")
    expect(page.locator("html")).to_have_attribute("data-theme", "auto")
    assert page.evaluate(ground) == light
    page.click(".menu summary")
    page.click(".menu button >> text='Sign out'")
    expect(page.locator("main")).to_contain_text("You are signed out")
    page.goto(f"{world.url}/jobs")
    assert "/auth/realms/hansa/login?next=" in page.url


def test_submit_by_form_and_read_the_log_live(world: World, open_page: Open) -> None:
    page = open_page()
    page.click("text=Submit a job")
    page.fill("#command", "sh -c 'echo first; sleep 2; echo second'")
    expect(page.locator("#preview")).to_contain_text("hansa job submit -- sh -c")
    page.click("main form >> text=Submit")
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    page.click("nav >> text=Log")
    expect(page.locator("#log")).to_contain_text("first")
    expect(page.locator("#log")).to_contain_text("second")
    page.click("nav >> text=Overview")
    expect(page.locator("#state .phase").first).to_have_text("done")


def test_what_is_wrong_is_said_beside_the_field(open_page: Open) -> None:
    page = open_page()
    page.goto(page.url + "jobs/new")
    page.fill("#command", "echo 'half")
    page.fill("#last", "ten")
    page.click("main form >> text=Submit")
    expect(page.locator("#command-hint")).to_contain_text("never closed")
    expect(page.locator("#last-hint")).to_contain_text("whole number")


def test_counts_change_by_themselves_in_two_tabs(world: World, open_page: Open) -> None:
    first = open_page()
    first.goto(f"{world.url}/jobs")
    second = first.context.new_page()
    second.goto(f"{world.url}/")
    chip, tile = first.locator("#jobs .chip.failed b"), second.locator("#home .tile.failed b")
    before = int(chip.inner_text().replace(",", ""))
    expect(tile).to_have_text(f"{before:,}")
    job = world.submit(command=["sh", "-c", "exit 4"], name="seen by itself")
    expect(second.locator("#home")).to_contain_text(f"Job {job} failed")
    expect(second.locator("#home time").first).not_to_contain_text("UTC")
    expect(tile).to_have_text(f"{before + 1:,}")
    expect(second.locator(f"#home .timeline a[href='/jobs/{job}']").first).to_be_visible()
    first.bring_to_front()
    expect(first.locator("#jobs")).to_contain_text("seen by itself")
    expect(chip).to_have_text(f"{before + 1:,}")


def test_what_a_task_uses_is_drawn_while_it_runs(world: World, open_page: Open) -> None:
    """The curve comes by itself; its table says the same, with what was asked for."""
    go = "while [ ! -e go ]; do sleep 0.1; done"
    job = world.submit(
        command=["sh", "-c", f"(sleep 90; touch go) & {go}"], name="slow", requirements={"memory_mib": 77}
    )
    page = open_page()
    page.goto(f"{world.url}/jobs/{job}")
    page.click("text=Resources")
    chart = page.locator("#state figure.curve").first
    expect(chart.locator("svg path")).to_be_visible(timeout=120_000)
    expect(chart).to_contain_text("asked for 1")
    memory = page.locator("#state figure.curve", has_text="asked for 77 MiB")
    expect(memory.locator("line.limit")).to_have_count(1)
    rows = page.locator("#state details.twin tbody tr")
    before = rows.count()
    expect(rows.nth(before)).to_be_attached(timeout=120_000)  # it grows by itself
    page.click("text=The same as a table")
    expect(rows.first).to_be_visible()
    expect(rows.first).to_contain_text("1.0 s")
    page.click("text=Overview")
    expect(page.locator("#state figure.curve svg path").first).to_be_visible()
    world.api.post(f"/jobs/{job}/kill", json={})
    world.wait(job)
    page.goto(f"{world.url}/jobs/{world.long}/usage")
    page.fill("#task", "1")
    page.click("text=Show")
    expect(page.locator("#state h2").first).to_have_text("Task 1 over its time")
    expect(page.locator("#state")).to_contain_text("How its tasks differ")
    with world.other("peeps") as stranger:
        assert stranger.get(f"/jobs/{job}/tasks/0/usage").status_code == 404
        assert stranger.get(f"/jobs/{job}/usage").status_code == 404


def test_what_a_machine_uses_is_drawn(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/machines/kept")
    expect(page.locator("#use figure.curve svg path").first).to_be_visible(timeout=180_000)  # it comes by itself
    expect(page.locator("#use")).to_contain_text("Busy cores")
    expect(page.locator("#use")).to_contain_text("asked for")
    assert len(world.api.get("/machines/kept/usage").json()["cores"]) >= 1


def test_html_in_names_and_logs_is_text(world: World, open_page: Open) -> None:
    page = open_page()
    job = world.submit(command=["echo", HOSTILE], name=HOSTILE)  # the latest of all: it is on every page
    world.wait(job)
    for path in ("/", "/jobs", f"/jobs/{job}", f"/jobs/{job}/log", f"/search?q={job}"):
        page.goto(world.url + path)
        expect(page.locator("main")).to_contain_text(HOSTILE)
        assert page.locator("main img, main script").count() == 0
        assert page.title() != "1"


def test_nothing_of_another_users_is_there(world: World, open_page: Open) -> None:
    with world.other("mallory") as api:
        link = api.post("/portal/sign-ins").json()["link"]
    page = open_page(signed_in=False)
    page.goto(link)
    page.wait_for_url(f"{world.url}/")
    number = world.done
    for path in (
        f"/jobs/{number}",
        f"/jobs/{number}/tasks",
        f"/jobs/{number}/log",
        f"/jobs/{number}/log/raw",
        f"/jobs/{number}/log/more?cursor=now",
        f"/jobs/{number}/files",
        f"/jobs/{number}/tasks/0/files/out.txt",
        f"/jobs/new?like={number}",
        "/machines/kept",
        "/machines/kept/console",
        "/volumes/archive",
        "/sites/local",
        "/vos/vo.example.org",
        "/vos/vo.example.org/members",
        "/vos/vo.example.org/images",
        "/vos/vo.example.org/settings",
        "/vos/vo.example.org/access",
    ):
        assert page.request.get(world.url + path).status == 404, path
    assert page.request.get(f"{world.url}/admin").status == 403
    assert "sweep" not in page.request.get(f"{world.url}/search?q=sweep").text().partition("<main")[2]


def test_everything_can_be_read_without_scripts(world: World, open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    for path in pages(world):
        answer = page.goto(world.url + path)
        assert answer is not None
        assert answer.status == (422 if "no-such-image" in path else 200), path
        assert page.locator("main h1").count() == 1, path
    page.goto(f"{world.url}/jobs/{world.done}/log")
    expect(page.locator("#log")).to_contain_text("hello")
    page.goto(f"{world.url}/jobs/{world.done}")
    expect(page.locator("time").first).to_contain_text("UTC")


def test_a_job_is_held_released_and_submitted_again_with_changes(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/jobs/new")
    page.fill("#command", "echo {i}")
    page.fill("#last", "2")
    page.click("details.more > summary")
    page.fill("#labels", "campaign=k2")
    page.check("[name=hold]")
    expect(page.locator("#preview")).to_contain_text("--label campaign=k2 --hold -- echo")
    page.click("main form >> text=Submit")
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    expect(page.locator("#state")).to_contain_text("held")
    page.click("main button >> text=Release")
    expect(page.locator("#state .phase").first).to_have_text("done")
    expect(page.locator("#state")).to_contain_text("Of 3 tasks")
    page.click("text=campaign=k2")
    expect(page.locator("#jobs tbody tr")).to_have_count(1)
    page.click("#jobs tbody a")
    page.click("text=Submit again with changes")
    expect(page.locator("#labels")).to_have_value("campaign=k2")
    page.fill("#last", "1")
    page.click("main form >> text=Submit")
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    expect(page.locator("#state .phase").first).to_have_text("done")


def test_a_whole_log_is_searched_and_downloaded(world: World, open_page: Open) -> None:
    job = world.submit(command=["sh", "-c", "seq 1 40000; echo needle; seq 1 40000"])
    world.wait(job)
    page = open_page()
    page.goto(f"{world.url}/jobs/{job}/log")
    expect(page.locator("main")).to_contain_text("Only the last 64 KiB are shown")
    assert "needle" not in page.locator("#log").inner_text()
    for words, regex in (("NEEDLE", False), ("^ne+d.e$", True)):
        page.fill("#find", words)
        page.set_checked("[name=regex]", regex)
        page.click("main button >> text=Show")
        expect(page.locator("#log")).to_contain_text("40001  needle")
        assert page.locator("#log").inner_text().strip() == "40001  needle"
    page.fill("#find", "(")
    page.click("main button >> text=Show")
    expect(page.locator("main")).to_contain_text("regular expression")
    page.goto(f"{world.url}/jobs/{job}/log")
    with page.expect_download() as download:
        page.click("text=Download all of it")
    numbers = [*map(str, range(1, 40_001))]
    said = Path(download.value.path()).read_text(encoding="utf-8")
    assert said.splitlines() == [*numbers, "needle", *numbers]
    assert download.value.suggested_filename == f"job-{job}-stdout.txt"


def test_output_files_are_found_and_downloaded(world: World, open_page: Open) -> None:
    odd = "ä <b>&amp; 100%.csv"
    script = f"mkdir -p 'deep er' && printf 'a,%s\\n' $HANSA_TASK > 'deep er/{odd}' && echo x > plain.txt"
    job = world.submit(command=["sh", "-c", script], array=True, count=2)
    world.wait(job)
    page = open_page()
    page.goto(f"{world.url}/jobs/{job}")
    page.click("nav >> text=Files")
    expect(page.locator("main tbody tr")).to_have_count(4)
    page.fill("#task", "1")
    page.click("main button >> text=Show")
    expect(page.locator("main tbody tr")).to_have_count(2)
    for name, content in ((f"deep er/{odd}", "a,1\n"), ("plain.txt", "x\n")):
        row = page.locator("main tbody tr", has_text=name)
        expect(row).to_contain_text(f"{len(content)} bytes")
        with page.expect_download() as download:
            row.locator("a").click()
        assert Path(download.value.path()).read_text(encoding="utf-8") == content
        assert download.value.suggested_filename.startswith(name.rpartition("/")[2][:1])


def test_results_are_sorted_by_a_click_and_drawn(world: World, open_page: Open) -> None:
    """All of them, not only those of the page; the table is the picture's twin."""
    script = 'echo "{\\"loss\\": $(( (HANSA_TASK * 37) % 205 ))}" > result.json'
    job = world.submit(command=["sh", "-c", script], array=True, count=205)
    world.wait(job)
    by_loss = sorted(range(205), key=lambda task: (task * 37) % 205)
    page = open_page()
    page.goto(f"{world.url}/jobs/{job}")
    page.click("nav >> text=Tasks and results")
    expect(page.locator("main tbody tr")).to_have_count(200)
    assert _column(page, "Task") == [str(task) for task in range(200)]
    page.click("main thead a >> text=loss")
    page.wait_for_url(re.compile("sort=loss"))
    expect(page.locator("main th[aria-sort=ascending]")).to_contain_text("loss")
    assert _column(page, "Task") == [str(task) for task in by_loss[:200]]
    page.click("main thead a >> text=loss")
    page.wait_for_url(re.compile("down=true"))
    expect(page.locator("main th[aria-sort=descending]")).to_contain_text("loss")
    assert _column(page, "loss")[:3] == ["204", "203", "202"]
    page.select_option("#plot_x", "index")
    page.select_option("#plot_y", "loss")
    page.click("main button >> text=Show")
    page.wait_for_url(re.compile("plot_y=loss"))
    cloud = page.locator("figure svg path.dot")
    expect(cloud).to_be_visible()
    assert (cloud.get_attribute("d") or "").count("M") == 205
    picture = page.locator("figure svg")
    assert picture.get_attribute("aria-label") == ("loss against Task, 205 tasks; the table below has the same numbers")
    twin = dict(zip(_column(page, "Task"), _column(page, "loss"), strict=True))
    page.click("main .pager >> text=Next")
    expect(page.locator("main tbody tr")).to_have_count(5)
    twin |= dict(zip(_column(page, "Task"), _column(page, "loss"), strict=True))
    assert twin == {str(task): str((task * 37) % 205) for task in range(205)}


def _column(page: Page, name: str) -> list[str]:
    """What stands under a head of the table."""
    heads = [one.strip(" ↑↓") for one in page.locator("main thead th").all_inner_texts()]
    cells = page.locator(f"main tbody td:nth-child({heads.index(name) + 1})").all_inner_texts()
    return [one.strip() for one in cells]


def test_a_million_tasks_are_a_picture_with_its_list(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/jobs/{world.huge}")
    expect(page.locator("#state")).to_contain_text("The array, 1,000,000 tasks")
    assert page.locator("svg.array path.waiting").count() == 1
    shown = None  # the page is live: for a moment its picture may be taken away for the next one
    while shown is None:
        expect(page.locator("svg.array")).to_be_visible()
        shown = page.locator("svg.array").bounding_box()
    assert shown["width"] > 400
    assert shown["height"] >= 40
    columns = page.locator("details li", has_text="999,999")
    expect(columns).to_have_count(1)  # the last of the stretches that cover it
    assert page.locator("details li", has_text=" to ").count() in range(100, 500)


def test_why_a_job_waits_stands_on_its_page(world: World, open_page: Open) -> None:
    first = world.submit(command=["true"], hold=True, name="held back")
    second = world.submit(command=["true"], after=[{"job": first}], name="behind it")
    page = open_page()
    page.goto(f"{world.url}/jobs/{second}")
    expect(page.locator("#state .lead")).to_contain_text(f"{first}")
    why = page.locator("#state section", has_text="Why is it where it is").first
    expect(why).to_contain_text("A task needs 1 cores")
    expect(why).to_contain_text("Not possible at NEBULA: It has nothing that runs jobs")
    expect(page.locator("#state .timeline li").first).to_be_visible()
    page.click(f".facts a >> text='{first}'")
    expect(page.locator("#state")).to_contain_text("held")
    world.write(
        "UPDATE jobs SET reason = 'identity.grant_expired', waiting_on = 'user', message = 'Its sign-in has ended.'"
        " WHERE number = ?",
        first,
    )
    page.goto(f"{world.url}/jobs/{first}")
    expect(page.locator("#state .lead")).to_have_text("Its sign-in has ended.")
    page.click("#state a >> text='Let Hansa go on while I am away'")
    page.wait_for_url(re.compile("/auth/realms/hansa/(account|renew)"))
    expect(page.locator("main")).to_contain_text("Hansa")
    for job in (second, first):
        world.api.post(f"/jobs/{job}/kill", json={})
        world.wait(job)


def test_a_machine_that_ends_soon_is_on_the_first_page_with_its_button(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/")
    tile = page.locator("#home .tile", has_text="machines run")
    new = {"image": "tiny", "name": "brief", "flavour": "tiny", "ssh_keys": [KEY], "lifetime_s": 3600}
    assert world.api.post("/machines", json=new).is_success
    need = page.locator("#home li", has_text="The machine is stopped then")
    expect(need).to_contain_text("brief")  # by itself
    expect(need.locator("time")).to_contain_text("minutes")
    expect(tile.locator("b")).not_to_have_text("0")
    page.click("[aria-label='Extend brief by 7 days from now']")
    page.wait_for_url(f"{world.url}/machines/brief")
    expect(page.locator("#machine time[data-countdown]").first).to_contain_text("7 days")
    page.goto(f"{world.url}/")
    expect(page.locator("#home")).not_to_contain_text("The machine is stopped then")
    assert world.api.delete("/machines/brief").is_success


def test_a_site_is_checked_joined_drained_and_forgotten(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/sites/join")
    page.fill("#text", "name: [")
    page.click("main button >> text=Check")
    expect(page.locator(".notice.error")).to_contain_text("not YAML")
    away = "name: CLOUD\nendpoints:\n- {kind: openstack, url: 'https://127.0.0.1:9/v3'}\nvos: {vo.example.org: p}\n"
    page.fill("#text", away)
    page.click("main button >> text=Check")
    expect(page.locator("main")).to_contain_text("Something does not work yet")
    page.click("main button >> text='Join'")
    page.wait_for_url(f"{world.url}/sites/CLOUD")
    page.fill("#drain-why", "New switches")
    page.click("text=Let no new work start")
    expect(page.locator("main")).to_contain_text("It takes no new work; what runs goes on. New switches")
    page.click("summary >> text=Announce a downtime")
    page.fill("#d-ends", "2099-01-01T10:00")
    page.click("main button >> text='Announce'")
    expect(page.locator(".notice.error, .empty")).to_contain_text("longer than a year")
    page.goto(f"{world.url}/sites/CLOUD")
    page.click("summary >> text=Remove this site")
    page.fill("#sure", "CLOUD")
    page.click("text=Forget it, its history")
    page.wait_for_url(f"{world.url}/sites")
    assert world.api.get("/sites/CLOUD").status_code == 404


def test_capacity_is_asked_for_and_agreed_and_an_image_endorsed(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/")
    expect(page.locator("#home")).to_contain_text("vo.example.org asks for capacity. for the survey")
    page.goto(f"{world.url}/sites/NEBULA")
    page.click("summary >> text=Answer")
    page.click("text=Agree to what they ask")
    expect(page.locator("main")).to_contain_text("agreed to 1,000 core hours")
    page.goto(f"{world.url}/")
    balance = page.locator("#home tr", has_text="NEBULA").filter(has_text="vo.example.org")
    expect(balance).to_contain_text("1,000")
    page.goto(f"{world.url}/vos/vo.example.org")
    expect(page.locator("main")).to_contain_text("1,000 core hours")
    page.click("main a >> text=Debian 12")
    page.click("main button >> text=Take it back")
    expect(page.locator("main")).to_contain_text("No organisation has endorsed it")
    page.select_option("main select[name=vo]", "vo.example.org")
    page.select_option("#version", "latest")
    page.click("main button >> text='Endorse'")
    expect(page.locator("main")).to_contain_text("Members of vo.example.org may start it")


def test_a_machine_is_made_by_the_wizard_kept_for_longer_and_deleted(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/machines")
    page.click("text=Create a machine")
    page.click("main a >> text=Tiny")
    page.check("[name=flavour][value=medium]")
    page.click("summary >> text=Volumes")
    expect(page.locator("#volumes-hint")).to_contain_text("archive")
    page.fill("#volumes", "7G:nowhere")
    page.click("text=Show the plan")
    expect(page.locator(".notice.error")).to_contain_text("is no volume")
    page.fill("#volumes", "7G")
    page.select_option("#site", "NEBULA")
    page.click("summary >> text=Network")
    page.fill("#ports", "443 8000-8010")
    page.click("text=Show the plan")
    expect(page.locator(".notice.error")).to_contain_text("No site can run it as it is")
    expect(page.locator("main details[open] .list")).to_contain_text("NEBULA")
    page.click(".steps a >> text=Size and place")
    expect(page.locator("#ports")).to_have_value("443 8000-8010")
    page.select_option("#site", "")
    page.click("text=Show the plan")
    expect(page.locator("main form .facts")).to_contain_text("vo.example.org")
    expect(page.locator("aside")).to_contain_text("--volume 7G")
    expect(page.locator("main .list").first).to_contain_text("local")
    expect(page.locator("main .list").first).to_contain_text("2 × CPU, 4.0 GiB")
    page.click("text=Where it cannot run, and why")
    expect(page.locator("main")).to_contain_text("NEBULA")
    page.fill("#name", "No Name")
    page.fill("#ssh_keys", KEY)
    page.click("main button >> text=Launch")
    expect(page.locator(".notice.error")).to_contain_text("cannot name a machine")
    page.fill("#name", "web")
    page.click("main button >> text=Launch")
    page.wait_for_url(f"{world.url}/machines/web")
    expect(page.locator("#machine .phase").first).to_have_text("running")
    expect(page.locator("#ssh")).to_contain_text("ssh ")
    expect(page.locator("#machine .facts")).to_contain_text("443, 8000-8010")
    page.reload()
    expect(page.locator("main section.card", has_text="Volumes")).to_contain_text("7 GiB")
    volume = page.locator("main section.card", has_text="Volumes").locator("li a").inner_text()
    page.fill("#days", "30")
    page.click("main button >> text=Extend")
    expect(page.locator("#notices")).to_contain_text("30 days from now")
    expect(page.locator("#machine")).to_contain_text("in 30 days")
    page.click("main a >> text=Console")
    expect(page.locator("main h1")).to_have_text("Console of web")
    page.goto(f"{world.url}/machines/web")
    page.click("main button >> text='Stop'")
    expect(page.locator("#machine .phase").first).to_have_text("stopped")
    page.select_option("#flavour", "small")
    page.click("main button >> text='Resize'")
    expect(page.locator("#machine .facts")).to_contain_text("1 × CPU, 2.0 GiB")
    page.click("main button >> text='Start'")
    expect(page.locator("#machine .phase").first).to_have_text("running")
    page.click("main button >> text='Reboot'")
    expect(page.locator("#machine .timeline")).to_contain_text(re.compile("reboot", re.IGNORECASE))
    page.check("main section [name=restart]")
    page.click("main button >> text='Set'")
    expect(page.locator("#notices")).to_contain_text("It is started again when it fails")
    assert world.api.get("/machines/web").json()["restart"] is True
    page.click("main button >> text='Delete'")
    page.wait_for_url(f"{world.url}/machines")
    expect(page.locator("#machines")).not_to_contain_text("web")
    eventually(lambda: world.api.get(f"/volumes/{volume}").json()["machine"] is None, "the volume is free")
    assert world.api.delete(f"/volumes/{volume}").is_success


def test_credentials_and_service_accounts_of_an_organisation(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/vos/vo.example.org")
    page.click("nav >> text=Credentials and services")
    page.select_option("#c-site", "NEBULA")
    page.fill("#c-id", "app-1")
    page.fill("#c-secret", "quite-secret")
    page.click("text=Keep it, in the place of an earlier one")
    expect(page.locator("#notices")).to_contain_text("signs in at NEBULA with it")
    expect(page.locator("main table").first).to_contain_text("NEBULA")
    assert "quite-secret" not in page.content()
    page.fill("#s-name", "Gate Way")
    page.click("main button >> text='Add'")
    expect(page.locator("main")).to_contain_text("cannot name a service")
    page.goto(f"{world.url}/vos/vo.example.org/access")
    page.fill("#s-name", "gateway")
    page.click("main button >> text='Add'")
    secret = page.locator("#secret").inner_text()
    assert len(secret) > 20
    page.goto(f"{world.url}/vos/vo.example.org/access")
    assert secret not in page.content()
    page.click("[aria-label='Remove gateway.vo.example.org']")
    expect(page.locator("main")).to_contain_text("No service account yet")
    page.click("[aria-label='Forget the credential at NEBULA']")
    expect(page.locator("main")).to_contain_text("No credential yet")
    assert world.api.get("/vos/vo.example.org/credentials").json()["items"] == []


def test_pages_of_what_is_shared_change_by_themselves(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/sites/NEBULA")
    expect(page.locator("#site")).to_be_visible()
    assert world.api.post("/sites/NEBULA/drain", json={"why": "New switches"}).is_success
    expect(page.locator("#site")).to_contain_text("New switches")
    assert world.api.post("/sites/NEBULA/resume").is_success
    expect(page.locator("#site")).not_to_contain_text("New switches")
    page.goto(f"{world.url}/vos/vo.example.org")
    expect(page.locator("#vo")).to_be_visible()
    assert world.api.post("/vos/vo.example.org/groups", json={"name": "analysis"}).is_success
    expect(page.locator("#vo")).to_contain_text("analysis")


def test_the_search_finds_things_of_every_kind(world: World, open_page: Open) -> None:
    world.other("zora").close()
    page = open_page()
    for word, href in (
        ("sweep", f"/jobs/{world.sweep}"),
        (str(world.done), f"/jobs/{world.done}"),
        ("kept", "/machines/kept"),
        ("nebula", "/sites/NEBULA"),
        ("galaxies", "/vos/vo.example.org"),
        ("debian", "/images/show/preset/debian-12"),
        ("archive", "/volumes/archive"),
        ("italy", "/sites/NEBULA"),
        ("zora", "/admin?q=zora"),
    ):
        page.goto(f"{world.url}/search?q={word}")
        expect(page.locator(f"main a[href='{href}']").first).to_be_visible()


def test_by_keyboard_alone(world: World, open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("night")
    expect(page.locator("#hits a").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{world.url}/jobs/{world.sweep}")
    page.goto(f"{world.url}/jobs/new")
    page.focus("#command")
    page.keyboard.type("true")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/jobs/\d+$"))
    page.keyboard.press("Control+k")
    expect(page.locator("#q")).to_be_focused()
    page.goto(f"{world.url}/machines/new?image=debian-12")
    page.focus("[name=flavour][value=small]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("flavour=medium.*step=plan|step=plan.*flavour=medium"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(MODES))
def test_every_page_is_seen_small_and_without_a_barrier(world: World, open_page: Open, axe: str, mode: str) -> None:
    page = open_page(**MODES[mode])
    guest = open_page(signed_in=False, **MODES[mode])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    for number, path in enumerate(pages(world)):
        answer = page.goto(world.url + path)
        assert answer is not None
        assert answer.status == (422 if "no-such-image" in path else 200), path
        assert len(answer.body()) < WIRE_BYTES - 110_000, f"{path}: {len(answer.body())}"
        page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")
        said += _look(page, axe, f"{number:02}-{_name(path)}.{mode}", full=True)
    page.click(".menu summary")
    page.fill("#q", "e")
    expect(page.locator("#hits a").first).to_be_visible()
    said += _look(page, axe, f"90-search-and-menu.{mode}")
    with world.other(f"nobody-{mode}") as api:
        guest.goto(api.post("/portal/sign-ins").json()["link"])
    guest.wait_for_url(f"{world.url}/")
    for number, path in enumerate(LISTS):
        guest.goto(world.url + path)
        if guest.locator("main .empty").count() == 0:
            said.append(f"{path} teaches nobody what belongs there")
        said += _look(guest, axe, f"{80 + number}-nothing-{_name(path)}.{mode}", full=True)
    guest.context.clear_cookies()
    for number, path in enumerate(DOORS):
        who = guest if path in ("/sign-in", f"{REALM}/login") else page
        who.goto(world.url + path)
        said += _look(who, axe, f"{91 + number}-{_name(path)}.{mode}", full=True)
    assert not said, "\n".join(said)


def _name(path: str) -> str:
    return path.partition("?")[0].removeprefix(REALM).strip("/").replace("/", "-") or "home"


def _look(page: Page, axe: str, name: str, *, full: bool = False) -> list[str]:
    """A picture of it, and what is wrong with it."""
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=full, caret="initial")
    said = [f"{name} is too wide"] if page.evaluate("document.documentElement.scrollWidth > innerWidth") else []
    page.evaluate(axe)
    found = page.evaluate("axe.run().then(found => found.violations)")
    return said + [f"{name}: {one['id']}: {[node['html'][:120] for node in one['nodes'][:3]]}" for one in found]


@pytest.mark.slow
def test_what_is_checked_in_is_what_the_sources_make(axe: str) -> None:
    done = subprocess.run(
        [sys.executable, "tools/portal.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
