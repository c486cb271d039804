"""Programs that sign in: service accounts of a VO, and tokens of a real oidc-agent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.debian import program
from tests.support.identity import DEVICE, Browser, Pkce, Server, claims


@pytest.fixture(scope="module")
def manager(server: Server, ada: Browser) -> httpx.Client:
    return server.api(ada.tokens()["access_token"])


def add(server: Server, manager: httpx.Client, name: str, *scopes: str) -> dict[str, Any]:
    body = {"name": name} | ({"scopes": list(scopes)} if scopes else {})
    answer = manager.post("/vos/vo.example.org/services", json=body)
    assert answer.status_code == 201, answer.text
    return server.seen(answer.json())


def token(server: Server, made: dict[str, Any], **fields: str) -> httpx.Response:
    return server.token(grant_type="client_credentials", auth=(made["id"], made["secret"]), **fields)


def test_a_gateway_gets_tokens_of_its_vo_and_its_scopes_only(server: Server, manager: httpx.Client) -> None:
    made = add(server, manager, "gateway")
    assert made["id"] == "gateway.vo.example.org"
    answer = token(server, made).json()
    assert (answer["scope"], "refresh_token" in answer) == ("hansa.jobs", False)
    api = server.api(answer["access_token"])
    me = api.get("/whoami").json()
    assert (me["name"], me["vos"], me["operator"]) == (made["id"], ["vo.example.org"], False)
    assert api.get("/jobs").status_code == 200
    for method, path in (("POST", "/vos/join"), ("POST", "/vos/vo.example.org/invitations"), ("GET", "/users")):
        assert api.request(method, path, json={"token": "x"} if path.endswith("join") else {}).status_code == 403
    assert token(server, made, scope="hansa").status_code == 400
    assert server.token(grant_type="client_credentials", auth=(made["id"], "wrong")).status_code == 401
    assert server.token(grant_type="client_credentials", client_id=made["id"]).status_code == 401
    assert server.token(grant_type="client_credentials", client_id="hansa-cli").status_code in (400, 401)
    listed = manager.get("/vos/vo.example.org/services").json()["items"]
    assert [(one["id"], one["secret"]) for one in listed] == [(made["id"], None)]
    assert made["id"] not in {one["id"] for one in server.operator().get("/clients").json()["items"]}
    assert manager.delete(f"/vos/vo.example.org/services/{made['id']}").status_code == 204
    assert api.get("/whoami").status_code == 401
    assert token(server, made).status_code == 401


def test_nobody_signs_in_at_a_service_account_or_as_one(server: Server, ada: Browser, manager: httpx.Client) -> None:
    made = add(server, manager, "reader", "hansa.read")
    answer = ada.get(f"{server.protocol}/auth", client_id=made["id"], response_type="code", redirect_uri="https://x/")
    assert answer.status_code == 400
    for grant in ("urn:ietf:params:oauth:grant-type:device_code", "refresh_token", "authorization_code"):
        answer = server.token(grant_type=grant, auth=(made["id"], made["secret"]), code="x", refresh_token="x")
        assert answer.status_code == 400
    user = server.api(token(server, made).json()["access_token"]).get("/whoami").json()["id"]
    assert server.operator().post(f"/users/{user}/suspend").status_code == 200
    assert token(server, made).status_code == 400
    other = server.api(server.account("otto").tokens()["access_token"])
    assert other.post("/vos/vo.example.org/services", json={"name": "mine"}).status_code == 404


def test_a_service_account_from_the_command_line(server: Server, tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HANSA_")}
    environ = inherited | {"HANSA_SERVER": server.url, "HANSA_TOKEN": server.info["token"], "HOME": str(tmp_path)}

    def run(*words: str, said: str | None = None) -> str:
        command = [sys.executable, "-m", "hansa.cli.main", *words]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, input=said, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = json.loads(run("vo", "service", "add", "vo.example.org", "portal", "-o", "json"))
    server.seen(made)
    assert "portal.vo.example.org" in run("vo", "service", "list", "vo.example.org")
    secret = "the-secret-of-an-application-credential"
    server.secrets.add(secret)
    said = json.dumps({"id": "app", "secret": secret})
    kept = json.loads(run("vo", "credential", "set", "vo.example.org", "cloud-1", "-o", "json", said=said))
    assert (kept["site"], kept["phase"]) == ("cloud-1", "active")
    assert "cloud-1" in run("vo", "credential", "list", "vo.example.org")
    run("vo", "credential", "remove", kept["id"])
    run("vo", "service", "remove", "vo.example.org", made["id"])
    assert run("authority", "list", "-o", "id") == ""
    assert run("identity", "list", "-o", "id") == ""


# --- oidc-agent ---------------------------------------------------------------------------------------------------


@contextmanager
def agent(folder: Path) -> Iterator[dict[str, str]]:
    """A real oidc-agent with a folder of its own; the environment that finds it."""
    binary = program("oidc-agent", "oidc-agent-cli")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HANSA_", "OIDC_"))}
    environ = inherited | {"HOME": str(folder), "OIDC_CONFIG_DIR": str(folder / "oidc"), "TMPDIR": str(folder)}
    (folder / "oidc").mkdir(mode=0o700)
    said = subprocess.run(
        [binary, "--no-webserver", "--no-autoload"], env=environ, capture_output=True, text=True, check=True, cwd=folder
    ).stdout
    found = dict(re.findall(r"(OIDC_SOCK|OIDCD_PID)=([^;]+);", said))
    try:
        yield environ | {"OIDC_SOCK": found["OIDC_SOCK"]}
    finally:
        os.kill(int(found["OIDCD_PID"]), 15)


def test_oidc_agent_gets_tokens_from_our_issuer_and_hansa_uses_them(
    server: Server, ada: Browser, tmp_path: Path
) -> None:
    server.add_client(id="oidc-agent", api=True, redirect_uris=["http://localhost:4242"])
    scope = "openid profile offline_access hansa"
    started = server.post("auth/device", client_id="oidc-agent", scope=scope).json()
    ada.get(started["verification_uri_complete"])
    ada.submit(decision="allow")
    fields = {"client_id": "oidc-agent", "device_code": started["device_code"]}
    assert (
        httpx.post(f"{server.protocol}/token/introspect", auth=("oidc-agent", ""), data={"token": "x"}).status_code
        == 401
    )
    refresh = server.token(grant_type=DEVICE, **fields).json()["refresh_token"]
    with agent(tmp_path) as environ:
        command = [
            program("oidc-gen", "oidc-agent-cli"),
            "lab",
            f"--issuer={server.issuer}",
            "--client-id=oidc-agent",
            "--client-secret=",
            "--scope=openid profile offline_access hansa",
            "--redirect-uri=http://localhost:4242",
            "--rt-env=LAB_REFRESH",
            "--pw-env=LAB_PASSWORD",
            "--prompt=none",
            "--confirm-default",
            "--confirm-yes",
            "-m",
        ]
        secret = environ | {"LAB_REFRESH": refresh, "LAB_PASSWORD": "a password of the agent"}
        done = subprocess.run(
            command, env=secret, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout + done.stderr
        done = subprocess.run(
            ["oidc-token", "lab"], env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        found = done.stdout.strip()
        assert claims(found)["preferred_username"] == "ada"
        assert server.whoami(found) == 200
        used = environ | {"HANSA_SERVER": server.url, "HANSA_OIDC_AGENT": "lab"}
        command = [sys.executable, "-m", "hansa.cli.main", "whoami", "-o", "json"]
        done = subprocess.run(command, env=used, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["name"] == "ada"
        used["HANSA_OIDC_AGENT"] = "nobody"
        done = subprocess.run(command, env=used, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 3
        assert "oidc-agent gave no token" in done.stderr
    assert returned_code(ada)


def returned_code(browser: Browser) -> str:
    """The sign-in of the browser lives on."""
    return browser.code(Pkce())
