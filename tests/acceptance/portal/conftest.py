"""A real server with a real site, and a real browser. Screenshots of every page go to `.cache/screenshots`."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from hansa.server.launch import server_status
from tests.support.browser import TIMEOUT_MS, chromium
from tests.support.serverprocess import ServerProcess
from tests.support.tools import ROOT, load_tool

expect.set_options(timeout=TIMEOUT_MS)  # else five seconds
SCREENSHOTS = ROOT / ".cache" / "screenshots"
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0000000000000000000000000000000000000000000 me@here"
MODES: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "mobile": {"viewport": {"width": 390, "height": 800}, "color_scheme": "light"},
}


@dataclass
class World:
    """The server, its owner's API, and jobs in all states."""

    url: str
    api: httpx.Client
    done: int
    sweep: int
    huge: int
    home: Path
    long: int = 0
    """Tasks that ran for long enough to have a curve of what they used."""

    def submit(self, **spec: Any) -> int:
        answer = self.api.post("/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["number"])

    def wait(self, job: int) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while True:
            found: dict[str, Any] = self.api.get(f"/jobs/{job}").json()
            if found["status"]["phase"] in ("done", "failed", "killed"):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def link(self) -> str:
        answer = self.api.post("/portal/sign-ins")
        assert answer.status_code == 201, answer.text
        return str(answer.json()["link"])

    def write(self, statement: str, *values: object) -> None:
        """Into its database, past it: what would take days, or a partner that is not here."""
        books = sqlite3.connect(next((self.home / "db").glob("*.db")), timeout=60)
        with books:
            books.execute(statement, values)
        books.close()

    def other(self, name: str) -> httpx.Client:
        """The API of another user."""
        token = self.api.post("/users", json={"name": name}).json()["token"]
        return api_of(self.url, token)


def api_of(url: str, token: str) -> httpx.Client:
    """With patience: the computer may be busy."""
    return httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=120)


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("portal") / "home"
    server = ServerProcess(home, machines__local="fake", identity__issuers=json.dumps([ISSUER]))
    try:
        server.start()
        info = server_status(server.home)
        assert info is not None
        with api_of(info.url, info.token) as api:
            made = World(info.url, api, 0, 0, 0, home)
            script = f"echo hello; echo '{HOSTILE}'; echo x > out.txt; echo '{{\"loss\": 0.5}}' > result.json"
            made.done = made.submit(command=["sh", "-c", script], name=HOSTILE)
            numbers = 'test $((HANSA_TASK % 7)) -ne 3; code=$?; echo "{\\"loss\\": 0.{i}}" > result.json; exit $code'
            made.sweep = made.submit(command=["sh", "-c", numbers], array=True, count=40, name="night sweep")
            made.long = made.submit(command=["sleep", "2.5"], array=True, count=2, name="long", priority=9)
            made.wait(made.done)
            made.wait(made.sweep)
            made.wait(made.long)
            made.huge = made.submit(command=["sleep", "0.3"], array=True, count=1_000_000, name="huge", priority=0)
            _federate(made.api)
            yield made
            made.api.post(f"/jobs/{made.huge}/kill", json={})
    finally:
        server.end()


ISSUER = {
    "name": "check-in",
    "url": "https://127.0.0.1:9/auth",
    "client_id": "hansa",
    "preset": "egi-check-in",
    "login": False,
}
"""One that says who is in organisations. Nobody answers there: it is asked when somebody signs in."""


def _federate(api: httpx.Client) -> None:
    """An organisation with an endorsed VM image, a site that it has asked for capacity, a machine and a volume."""
    away = {"kind": "openstack", "url": "https://127.0.0.1:9/v3", "settings": {"image_sync": True}}
    vo = "vo.example.org"
    new = {"name": "tiny", "title": "Tiny", "vo": None, "source": {"upload": True}, "visibility": "all"}
    for path, body in (
        ("/vm-images", new),
        ("/vos", {"name": vo, "description": "Galaxies"}),
        ("/sites", {"name": "NEBULA", "country": "Italy", "endpoints": [away], "vos": {vo: None}}),
        ("/grants", {"vo": vo, "site": "NEBULA", "terms": {"core_hours": 1000}, "note": "for the survey"}),
        ("/vm-images/endorse/debian-12", {"vo": vo, "follow": True}),
        ("/vm-images/endorse/tiny", {"vo": vo, "follow": True}),
        ("/machines", {"image": "tiny", "name": "kept", "flavour": "tiny", "ssh_keys": [KEY]}),
        ("/volumes", {"name": "archive", "size_gib": 100, "vo": vo}),
    ):
        assert api.post(path, json=body).is_success, path
        if body is new:
            assert api.put("/vm-images/upload/1/tiny", content=b"\0" * 65_536).is_success


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Ended with these tests: while it is there, its event loop runs in this thread, and no async test can."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def open_page(world: World, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Pages that are signed in, each as a person of their own; errors of scripts and the policy fail the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def make(**options: Any) -> Page:
        signed_in = options.pop("signed_in", True)
        context = browser.new_context(**options)
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
        if signed_in:
            sign_in(world, page, scripts=options.get("java_script_enabled", True))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def sign_in(world: World, page: Page, *, scripts: bool = True) -> None:
    link = world.link()
    page.goto(link)
    if not scripts:
        page.fill("#code", link.partition("#")[2])
        page.click("main button")
    page.wait_for_url(f"{world.url}/")


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which looks for what people with disabilities would stumble over."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, of Debian's package npm")
    folder: Path = load_tool("portal").packages()
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
