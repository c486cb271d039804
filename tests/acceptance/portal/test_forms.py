"""What every page and every form of the portal keeps to."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from playwright.sync_api import Page, expect
from starlette.routing import Match

from hansa import portal
from hansa.cli.app import hansa
from hansa.portal.frame import POLICY_OF_CONTENT, VisitAllowed
from hansa.server.app import create_app
from tests.acceptance.portal.conftest import HOSTILE, World
from tests.acceptance.portal.test_portal import pages
from tests.support.serverprocess import SOURCES

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


THERE = {"machine": "kept", "volume": "archive", "site": "NEBULA", "vo": "vo.example.org", "member": "me",
         "name": "preset/debian-12", "index": "0", "path": "out.txt"}  # fmt: skip
NO_PAGES = {"/live", "/jobs/{job}/log/more", "/jobs/{job}/log/raw", "/jobs/{job}/tasks/{index}/files/{path:path}",
            "/usage.csv"}  # fmt: skip
"""What browsers fetch and nobody reads as a page."""
ACTS = sorted(
    {
        act
        for file in (Path(portal.__file__).parent / "templates").rglob("*.html")
        for act in re.findall(r'name="act" value="([a-z-]+)"', file.read_text(encoding="utf-8"))
    }
)
"""What the buttons of forms ask for."""


def routes(method: str) -> list[str]:
    """The paths of the portal's routes, with their parameters, in the order in which they are asked."""
    found = [one for one in iter_route_contexts(create_app().routes) if isinstance(one.original_route, APIRoute)]
    return [str(one.path) for one in found if one.methods == {method} and list(of_browsers(one.dependant))]


def filled(path: str, **values: str) -> str:
    there = THERE | values
    return re.sub(r"{([a-z]+)(:path)?}", lambda found: there[found[1]], path)


def test_no_page_is_left_out_of_the_walks(world: World) -> None:
    patterns = {
        path: re.compile(re.sub(r"{[a-z]+}", "[^/]+", re.sub(r"{[a-z]+:path}", ".+", path))) for path in routes("GET")
    }
    walked = set()
    for page in pages(world):
        walked.add(next(path for path, one in patterns.items() if one.fullmatch(urlsplit(page).path)))
    assert set(patterns) - NO_PAGES - walked == set()


def test_guessed_addresses_and_forms_of_a_stranger_open_and_change_nothing(world: World, open_page: Open) -> None:
    """Every route, with a token that is good for its forms."""
    hidden = {"name": "hidden", "vo": None, "source": {"upload": True}}
    assert world.api.post("/vm-images", json=hidden).is_success
    before = _all_there(world)
    page = open_page(signed_in=False)
    with world.other("trudy") as api:
        page.goto(api.post("/portal/sign-ins").json()["link"])
    page.wait_for_url(f"{world.url}/")
    page.goto(f"{world.url}/jobs/new")
    csrf = page.locator("main form [name=csrf]").first.get_attribute("value")
    own = {"job": str(world.done), "name": "user/root/hidden", "member": world.api.get("/whoami").json()["id"]}
    gets = [filled(path, **own) for path in routes("GET") if "{" in path]
    assert len(gets) >= 18
    for path in gets:
        query = "?cursor=now" if path.endswith("/more") else ""
        assert page.request.get(f"{world.url}{path}{query}").status == 404, path
    posts = [filled(path, **own) for path in routes("POST") if "{" in path or path == "/grants/act"]
    assert len(posts) >= 10
    assert len(ACTS) >= 35
    form = {
        **{"csrf": csrf, "why": "w", "who": "root", "machine": "kept", "version": "1", "vo": "vo.example.org"},
        **{"site": "NEBULA", "note": "n", "name": "x", "id": "i", "secret": "s", "scope.hansa.jobs": "1", "days": "9"},
        **{"flavour": "small", "ends": "2035-01-01T10:00", "core_hours": "5", "group": "g", "description": "mine now"},
        "url": "https://127.0.0.1:9/l",
    }
    for path in posts:
        for act in ACTS:
            sent: dict[str, Any] = form | {"act": act, "sure": path.split("/")[2]}
            answer = page.request.post(world.url + path, form=sent, max_redirects=0)
            assert answer.status in (400, 403, 404, 409, 422), (path, act, answer.status)
    assert _all_there(world) == before


def _all_there(world: World) -> list[Any]:
    """What a stranger would have changed."""
    api = world.api
    machine, volume = api.get("/machines/kept").json(), api.get("/volumes/archive").json()
    site, vo = api.get("/sites/NEBULA").json(), api.get("/vos/vo.example.org").json()
    return [
        api.get(f"/jobs/{world.done}").json()["status"],
        *(machine[name] for name in ("wanted", "expires", "restart", "size")),
        *(volume[name] for name in ("machine", "status")),
        *(site[name] for name in ("drained", "downtimes", "visibility")),
        *(vo[name] for name in ("description", "suspended", "members", "groups", "membership")),
        *(api.get(f"/vos/vo.example.org/{what}").json() for what in ("members", "services", "image-policy")),
        api.get("/sites/NEBULA/bans").json(),
        len(api.get("/vm-images/show/preset/debian-12").json()["endorsements"]),
        len(api.get("/grants").json()["items"]),
    ]


def test_what_is_copied_from_a_form_does_what_the_form_does(world: World, open_page: Open, tmp_path: Path) -> None:
    """Pasted into a shell, and into Python, as the button gives it."""
    (tmp_path / "hansa").write_text(f'#!/bin/sh\nexec {sys.executable} -m hansa.cli.main "$@"\n', encoding="utf-8")
    (tmp_path / "hansa").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HANSA_")}
    environment |= {"HANSA_HOME": str(world.home), "PYTHONPATH": SOURCES, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(f"{world.url}/jobs/new")
    page.fill("#command", "echo 'a  b' {i}")
    page.fill("#name", "copied <it> 'so'")
    page.fill("#last", "1")
    expect(page.locator("#preview")).to_contain_text("2 tasks")
    expect(page.locator("#preview")).to_contain_text("copied")
    for kind in ("CLI", "curl", "Python"):
        snippet = page.locator("#preview details", has_text=f"Copy as {kind}")
        if snippet.get_attribute("open") is None:
            snippet.locator("summary").click()
        snippet.locator("button").click()
        expect(snippet.locator("button")).to_have_text("Copied")
        text = page.evaluate("navigator.clipboard.readText()")
        words = [sys.executable, "-c", text] if kind == "Python" else ["bash", "-c", text]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, (kind, text, done.stdout, done.stderr)
        found = world.api.get("/jobs", params={"name": "copied <it> 'so'"}).json()["items"]
        assert len(found) == ("CLI", "curl", "Python").index(kind) + 1, (kind, text, done.stdout)
        newest = max(found, key=lambda one: int(one["number"]))
        assert (newest["command"], newest["count"]) == (["echo", "a  b", "{i}"], 2)
        assert world.wait(newest["number"])["status"]["phase"] == "done"


def test_a_form_of_somebody_else_changes_nothing(world: World, open_page: Open) -> None:
    page = open_page()
    posts = routes("POST")
    assert len(posts) >= 20
    for path in posts:
        path = filled(path, job=str(world.huge))
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
        is_command = text.startswith("hansa ") and " | curl " not in text
        problem = _of_command(text) if is_command else _of_call(api, text)
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
    curl = re.match(r"hansa token --header \| curl -H @- (?:-X (?P<method>[A-Z]+) )?'?(?P<url>http[^'\s]+)", text)
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
