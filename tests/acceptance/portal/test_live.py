"""Live pages that lose their connection or their reader, and times where the reader is, in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.acceptance.portal.conftest import World, api_of, sign_in
from tests.support.serverprocess import ServerProcess

Open = Callable[..., Page]
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
  Object.defineProperty(document, "visibilityState", {configurable: true, get: () => hidden ? "hidden" : "visible"});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_page_that_was_cut_off_catches_up(world: World, open_page: Open) -> None:
    page = open_page()
    page.goto(f"{world.url}/jobs")
    before = world.submit(command=["true"], hold=True, name="before the cut", vo="vo.example.org")
    expect(page.locator("#jobs")).to_contain_text("before the cut")
    page.context.set_offline(True)
    after = world.submit(command=["true"], hold=True, name="during the cut", vo="vo.example.org")
    page.context.set_offline(False)
    expect(page.locator("#jobs")).to_contain_text("during the cut")
    for job in (before, after):
        world.api.post(f"/jobs/{job}/kill", json={})


def test_a_server_that_is_started_again_is_heard_without_a_reload(browser: Browser, tmp_path: Path) -> None:
    """Killed as with kill -9: the table catches up, and the log of a task that went on without it."""
    server, go = ServerProcess(tmp_path / "home"), tmp_path / "go"
    context = browser.new_context()
    try:
        server.start()
        with api_of(server.url, server.token) as api:
            own = World(server.url, api, 0, 0, 0, server.home)
            job = own.submit(command=["sh", "-c", f"echo first; until [ -e {go} ]; do sleep 0.1; done; echo second"])
            page = context.new_page()
            sign_in(own, page)
            page.goto(f"{own.url}/jobs/{job}/log")
            expect(page.locator("#log")).to_contain_text("first")
            table = context.new_page()
            table.goto(f"{own.url}/jobs")
            for one in (page, table):
                one.evaluate("document.body.dataset.kept = 'yes'")
            before = server.url
            server.kill()
            server.start()
            assert server.url == before
            own.submit(command=["true"], hold=True, name="after the start")
            expect(table.locator("#jobs")).to_contain_text("after the start")
            go.touch()
            page.bring_to_front()
            expect(page.locator("#log")).to_contain_text("second")
            for one in (page, table):
                assert one.evaluate("document.body.dataset.kept") == "yes"
    finally:
        context.close()
        server.end()


def test_two_tabs_of_a_browser_share_one_stream(world: World, open_page: Open) -> None:
    first = open_page()
    with first.expect_request("**/live"):
        first.goto(f"{world.url}/jobs")
    second = first.context.new_page()
    asked: list[str] = []
    second.on("request", lambda request: asked.append(request.url))
    second.goto(f"{world.url}/")
    job = world.submit(command=["true"], hold=True, name="told to both", vo="vo.example.org")
    expect(second.locator("#home")).to_contain_text("told to both")
    expect(first.locator("#jobs")).to_contain_text("told to both")
    assert [url for url in asked if url.endswith("/live")] == []
    first.close()  # the other takes over
    later = world.submit(command=["true"], hold=True, name="told to the last", vo="vo.example.org")
    expect(second.locator("#home")).to_contain_text("told to the last")
    assert [url for url in asked if url.endswith("/live")]
    for one in (job, later):
        world.api.post(f"/jobs/{one}/kill", json={})


def test_a_hidden_page_asks_for_nothing_and_catches_up(world: World, open_page: Open) -> None:
    page = open_page()
    asked: list[str] = []
    with page.expect_request("**/live"):
        page.goto(f"{world.url}/jobs")
    page.evaluate(HIDE, True)
    other = open_page()  # a person of their own: their page shows when the change has come to browsers
    other.goto(f"{world.url}/jobs")
    page.on("request", lambda request: asked.append(request.url))
    job = world.submit(command=["true"], hold=True, name="while nobody looked", vo="vo.example.org")
    expect(other.locator("#jobs")).to_contain_text("while nobody looked")
    assert asked == []
    assert "while nobody looked" not in page.locator("#jobs").inner_text()
    page.evaluate(HIDE, False)
    expect(page.locator("#jobs")).to_contain_text("while nobody looked")
    world.api.post(f"/jobs/{job}/kill", json={})


def test_what_is_open_is_not_replaced_by_news(world: World, open_page: Open) -> None:
    job = world.submit(command=["true"], hold=True, name="looked at", vo="vo.example.org")
    page = open_page()
    page.goto(f"{world.url}/jobs")
    page.check(f"[name='job.{job}']")
    later = world.submit(command=["true"], hold=True, name="came later", vo="vo.example.org")
    other = open_page()
    other.goto(f"{world.url}/jobs")
    expect(other.locator("#jobs")).to_contain_text("came later")
    assert page.is_checked(f"[name='job.{job}']")
    page.uncheck(f"[name='job.{job}']")
    page.locator("main h1").click()
    expect(page.locator("#jobs")).to_contain_text("came later")  # when it is out of hands
    for one in (job, later):
        world.api.post(f"/jobs/{one}/kill", json={})


def test_times_are_those_of_the_readers_zone(world: World, open_page: Open) -> None:
    titles = {}
    for zone in ("Asia/Tokyo", "America/New_York"):
        page = open_page(timezone_id=zone, locale="en-GB")
        page.goto(f"{world.url}/jobs/{world.done}")
        moment = page.locator("#state time").first
        expect(moment).not_to_contain_text("UTC")
        titles[zone] = (moment.get_attribute("datetime"), moment.get_attribute("title"))
    (utc, tokyo), (same, york) = titles["Asia/Tokyo"], titles["America/New_York"]
    assert utc == same
    assert "GMT+9" in str(tokyo)
    assert tokyo != york
