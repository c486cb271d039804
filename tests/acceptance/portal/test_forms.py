"""What every page and every form of the portal keeps to."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import click
import httpx
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from playwright.sync_api import Page
from starlette.routing import Match

from hansa.cli.app import hansa
from hansa.portal.frame import POLICY_OF_CONTENT, VisitAllowed
from hansa.server.app import create_app
from tests.acceptance.portal.conftest import HOSTILE, World
from tests.acceptance.portal.test_portal import pages

Open = Callable[..., Page]
BARE = """() => [...document.querySelectorAll("main form[method=post]")].filter(
  (form) => !form.closest("section, .split, details.more")?.querySelector(".copies, .snippet, #preview"),
).map((form) => form.outerHTML.slice(0, 300))"""
SNIPPETS = """() => [...document.querySelectorAll(".snippet pre")].map((one) => one.innerText)"""
MARKUP = """() => [...document.querySelectorAll("main img, main script, main iframe, [onerror], [onload]")].length"""


def of_browsers(dependant: Dependant) -> Iterator[VisitAllowed]:
    if isinstance(dependant.call, VisitAllowed):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from of_browsers(inner)


def test_a_form_of_somebody_else_changes_nothing(world: World, open_page: Open) -> None:
    page = open_page()
    there = {"job": str(world.huge), "machine": "kept", "volume": "archive", "site": "NEBULA", "vo": "vo.example.org",
             "member": "me", "name:path": "preset/debian-12"}  # fmt: skip
    routes = [one for one in iter_route_contexts(create_app().routes) if isinstance(one.original_route, APIRoute)]
    posts = [one.path for one in routes if one.methods == {"POST"} and list(of_browsers(one.dependant))]
    assert len(posts) >= 20
    for path in posts:
        path = re.sub(r"{([^}]+)}", lambda found: there[found[1]], str(path))
        for token in ("", "0" * 64):
            form: dict[str, Any] = {"csrf": token, "command": "true", "act": "kill"}
            assert page.request.post(world.url + path, form=form).status == 403, path
    assert world.api.get(f"/jobs/{world.huge}").json()["status"]["phase"] != "killed"
    assert world.api.get("/machines/kept").json()["wanted"] != "deleted"


def test_every_page_forbids_what_is_not_ours(world: World, open_page: Open) -> None:
    page = open_page()
    for path in pages(world):
        answer = page.request.get(world.url + path)
        assert answer.headers["content-security-policy"] == POLICY_OF_CONTENT, path
        text = answer.text()
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|<[^>]+\s(style|on[a-z]+)=", text), path
    assert "unsafe" not in POLICY_OF_CONTENT
    outside = httpx.get(f"{world.url}/sign-in")
    assert outside.headers["content-security-policy"] == POLICY_OF_CONTENT


def test_every_form_can_be_copied_and_what_is_copied_is_understood(world: World, open_page: Open) -> None:
    page = open_page(java_script_enabled=True)
    api = create_app()
    bare, wrong, seen = [], [], set[str]()
    for path in pages(world):
        page.goto(world.url + path)
        bare += [f"{path}: {form}" for form in page.evaluate(BARE)]
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        seen |= set(page.evaluate(SNIPPETS))
    assert not bare, "\n".join(bare)
    for text in sorted(seen):
        problem = _of_command(text) if text.startswith("hansa ") else _of_call(api, text)
        wrong += [f"{text}: {problem}"] if problem else []
    assert not wrong, "\n".join(wrong)
    assert len(seen) > 60


def _of_command(text: str) -> str:
    """What is wrong with a command of ours; files that it names need not be there."""
    command: click.Command = hansa
    words = shlex.split(re.split(r" < | && ", text)[0])[1:]
    try:
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words[0])
            if found is None:
                return f"there is no {words[0]}"
            command, words = found, words[1:]
        command.make_context("hansa", words)
    except click.UsageError as error:
        return "" if "site.yaml" in text else error.format_message()
    return ""


def _of_call(api: object, text: str) -> str:
    """What is wrong with a request of the API, by curl or Python: no such route."""
    curl = re.match(r"curl (?:-X (?P<method>[A-Z]+) )?'?(?P<url>http[^'\s]+)", text)
    python = re.search(r"call\('(?P<method>[A-Z]+)', '(?P<url>[^']+)'", text)
    found = curl or python
    if found is None:
        return "" if "Hansa().submit(" in text else "this is no request"
    path = urlsplit(found["url"]).path.removeprefix("/api/v1")
    scope = {"type": "http", "method": found["method"] or "POST", "path": f"/api/v1{path}", "root_path": ""}
    routes = api.routes  # type: ignore[attr-defined]
    return "" if any(route.matches(dict(scope))[0] is Match.FULL for route in routes) else "there is no such route"


def test_markup_in_whatever_people_type_is_text(world: World, open_page: Open) -> None:
    api = world.api
    eve = api.post("/users", json={"name": "eve"}).json()["user"]
    vo, away = "odd.example.org", {"kind": "openstack", "url": "https://127.0.0.1:9/v3"}
    new = {"name": "odd", "title": HOSTILE, "description": HOSTILE, "licence": HOSTILE[:60], "contact": HOSTILE[:60],
           "vo": None, "source": {"upload": True}, "visibility": "all"}  # fmt: skip
    site = {"name": "ODD", "description": HOSTILE, "country": HOSTILE[:60], "endpoints": [away], "vos": {vo: None}}
    for path, body in (
        ("/vos", {"name": vo, "description": HOSTILE, "manager": eve["name"]}),
        ("/sites", site),
        ("/sites/ODD/drain", {"why": HOSTILE}),
        ("/sites/ODD/bans", {"kind": "user", "who": "eve", "why": HOSTILE}),
        ("/sites/ODD/downtimes", {"ends": "2035-01-01T00:00:00Z", "starts": "2034-12-31T00:00:00Z",
                                  "description": HOSTILE}),
        ("/grants", {"vo": vo, "site": "ODD", "terms": {"core_hours": 7}, "note": HOSTILE}),
        ("/vm-images", new),
        (f"/vos/{vo}/suspend", {"why": HOSTILE}),
    ):  # fmt: skip
        answer = api.post(path, json=body)
        assert answer.is_success, (path, answer.text)
    odd = world.submit(command=["echo", HOSTILE], name=HOSTILE, comment=HOSTILE, group=HOSTILE[:60], hold=True,
                       labels={"odd": HOSTILE[:60]}, env={"ODD": HOSTILE})  # fmt: skip
    page = open_page()
    paths = [f"/jobs/{odd}", f"/jobs/new?like={odd}", "/jobs", "/", "/sites", "/sites/ODD", "/vos", f"/vos/{vo}",
             "/images", "/images/show/odd", "/admin", f"/search?q={odd}", "/search?q=onerror"]  # fmt: skip
    try:
        for path in paths:
            page.goto(world.url + path)
            assert page.evaluate(MARKUP) == 0, path
            assert page.title() != "1", path
            assert "&lt;img src=x" in page.content() or path in ("/sites", "/admin"), path
    finally:
        api.post(f"/jobs/{odd}/kill", json={})
        for path in ("/sites/ODD",):
            api.delete(path)
