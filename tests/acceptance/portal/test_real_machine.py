"""A machine that really runs, from the wizard to its end, in Chromium."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from hansa.machines.drivers.nspawn.root import probe
from hansa.server.launch import server_status
from tests.acceptance.portal.conftest import World, api_of, sign_in
from tests.support import apt
from tests.support.serverprocess import ServerProcess, eventually
from tests.support.ssh_in import new_key
from tests.support.vmimage import debian_image

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(900)]  # a disk of 400 MB goes up and is unpacked
PATIENCE_MS = 240_000


@pytest.fixture
def real(tmp_path: Path) -> Iterator[World]:
    """A server whose computer runs machines, with the image of the tests in its catalogue."""
    apt.need(["systemd-nspawn", "nft", "debugfs", "ip"], ["systemd-container", "nftables", "e2fsprogs", "iproute2"])
    found = probe(tmp_path / "probe")
    if not found.works:
        pytest.skip(f"nspawn machines do not work here: {found.problem}")
    image = debian_image()
    server = ServerProcess(tmp_path / "home", machines__local="nspawn")
    try:
        server.start()
        info = server_status(server.home)
        assert info is not None
        with api_of(info.url, info.token) as api:
            new = {"name": "real", "title": "Real", "vo": None, "login": "debian", "source": {"upload": True}}
            assert api.post("/vm-images", json=new).status_code == 201
            with image.open("rb") as content:
                answer = api.put("/vm-images/upload/1/real", content=content, timeout=600)
            assert answer.is_success, answer.text
            yield World(info.url, api, 0, 0, 0, server.home)
            for one in api.get("/machines").json()["items"]:
                api.delete(f"/machines/{one['name']}")
            eventually(lambda: not api.get("/machines").json()["items"], "all machines are gone")
    finally:
        server.end()


def test_a_real_machine_is_made_reached_and_deleted(real: World, browser: Browser, tmp_path: Path) -> None:
    key = new_key(tmp_path)
    context = browser.new_context()
    page = context.new_page()
    sign_in(real, page)
    page.goto(f"{real.url}/machines/new?image=real")
    page.check("[name=flavour][value=tiny]")
    page.click("text=Show the plan")
    page.fill("#name", "web")
    page.fill("#ssh_keys", key.with_suffix(".pub").read_text(encoding="utf-8").strip())
    page.click("main button >> text=Launch")
    page.wait_for_url(f"{real.url}/machines/web")
    expect(page.locator("#machine .phase").first).to_have_text("running", timeout=PATIENCE_MS)
    expect(page.locator("#machine")).to_contain_text("ready", timeout=PATIENCE_MS)
    words = shlex.split(page.locator("#ssh").inner_text())
    trust = ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oBatchMode=yes", "-i", str(key)]
    eventually(lambda: _said([words[0], *trust, *words[1:], "hostname"]) == "web", "what the page says signs in")
    page.click("main a >> text=Console")
    expect(page.locator("pre.log")).to_contain_text("login")
    page.goto(f"{real.url}/machines/web")
    page.click("main button >> text='Delete'")
    page.wait_for_url(f"{real.url}/machines")
    expect(page.locator("main")).to_contain_text("No machines yet", timeout=PATIENCE_MS)
    context.close()


def _said(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip()
