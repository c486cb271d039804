"""A server process to sign in at, and a browser of a few lines that does so."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.support.clear import assert_none_in_clear

REALM = "/auth/realms/hansa"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
SCOPE = "openid profile eduperson_entitlement hansa"
PASSWORD = "seven wild geese fly"
START_S = 180.0
ANSWER_S = 120.0
"""A busy machine takes its time."""
_FORM = re.compile(r'<form method="(\w+)" action="([^"]*)">(.*?)</form>', re.DOTALL)
_INPUT = re.compile(r'<input[^>]* name="([^"]*)"(?:[^>]* value="([^"]*)")?')


@dataclass
class Server:
    """A server process of a home of its own."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    secrets: set[str] = field(default_factory=set)
    """Every secret that a test has seen, to be searched for where none may be."""
    clients: list[httpx.Client] = field(default_factory=list)

    def start(self) -> Server:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HANSA_")}
        with (self.home.parent / f"{self.home.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hansa.server", "--home", str(self.home)],
                env=environ | {"HANSA_LOCAL__ENABLED": "false", "HANSA_LOG__LEVEL": "debug"} | self.environ,
                stdout=log,
                stderr=log,
            )
        try:
            self._await_start(self.process)
        except BaseException:
            self.stop()
            raise
        return self

    def _await_start(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_S
        while not self._is_up():
            assert process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def _is_up(self) -> bool:
        try:
            return self.process is not None and self.info["pid"] == self.process.pid
        except (OSError, ValueError):
            return False

    def client(self, **options: Any) -> httpx.Client:
        """A client that :meth:`close` closes."""
        self.clients.append(httpx.Client(**{"timeout": ANSWER_S, **options}))
        return self.clients[-1]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.stop()
        assert_none_in_clear(self.home, self.secrets)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(120)
            self.process = None

    @property
    def log(self) -> str:
        return (self.home.parent / f"{self.home.name}.log").read_text(errors="replace")

    @property
    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "run" / "server.json").read_bytes())
        return found

    @property
    def url(self) -> str:
        return str(self.info["url"])

    @property
    def issuer(self) -> str:
        return self.url + REALM

    @property
    def protocol(self) -> str:
        return f"{self.issuer}/protocol/openid-connect"

    def operator(self) -> httpx.Client:
        return self.api(self.info["token"])

    def api(self, token: str) -> httpx.Client:
        return self.client(base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {token}"})

    def whoami(self, token: str) -> int:
        return self.api(token).get("/whoami").status_code

    def seen(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Remember the secrets of an answer."""
        names = ("access_token", "refresh_token", "device_code", "secret", "token")
        self.secrets |= {answer[name] for name in names if isinstance(answer.get(name), str)}
        return answer

    def post(self, endpoint: str, auth: tuple[str, str] | None = None, **fields: str) -> httpx.Response:
        answer = httpx.post(f"{self.protocol}/{endpoint}", data=fields, auth=auth, timeout=ANSWER_S)
        if answer.status_code == 200:
            self.seen(answer.json())
        return answer

    def token(self, **fields: Any) -> httpx.Response:
        return self.post("token", fields.pop("auth", None), **fields)

    def invited(self, name: str) -> str:
        """The link of a fresh invitation."""
        link = str(self.operator().post("/users/invitations", json={"name": name}).json()["link"])
        self.secrets.add(link.partition("=")[2])
        return link

    def add_client(self, **fields: Any) -> dict[str, Any]:
        answer = self.operator().post("/clients", json=fields)
        assert answer.status_code == 201, answer.text
        return self.seen(answer.json())

    def account(self, name: str, password: str = PASSWORD) -> Browser:
        """A browser of a new user who has set a password; signed in."""
        browser = Browser(self)
        self.secrets.add(password)
        browser.get(self.invited(name))
        answer = browser.submit(password=password, again=password)
        assert answer.status_code == 303, answer.text
        return browser


@dataclass
class Pkce:
    """A verifier and its challenge."""

    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def challenge(self) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")


class Browser:
    """Keeps cookies, fills in forms, follows no redirect by itself."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = server.client(follow_redirects=False)
        self.page: httpx.Response | None = None

    def get(self, url: str, **query: str) -> httpx.Response:
        self.page = self.http.get(url, params=query or None)
        self._remember()
        return self.page

    def form(self) -> tuple[str, str, dict[str, str]]:
        """Method, address and fields of the form on the page."""
        assert self.page is not None
        found = _FORM.search(self.page.text)
        assert found, self.page.text
        fields = {name: html.unescape(value or "") for name, value in _INPUT.findall(found[3])}
        return found[1], html.unescape(found[2]), fields

    def submit(self, **fields: str) -> httpx.Response:
        method, action, hidden = self.form()
        url = self.server.url + action
        if method == "get":
            return self.get(url, **(hidden | fields))
        self.page = self.http.post(url, data=hidden | fields)
        self._remember()
        return self.page

    def follow(self) -> httpx.Response:
        """Go where the answer says, while that is this server."""
        assert self.page is not None
        while self.page.is_redirect and self.page.headers["location"].startswith(self.server.url):
            self.get(self.page.headers["location"])
        return self.page

    def login(self, name: str, password: str = PASSWORD) -> httpx.Response:
        self.get(f"{self.server.issuer}/login")
        return self.submit(name=name, password=password)

    def authorize(self, pkce: Pkce, **query: str) -> httpx.Response:
        asked = {
            "response_type": "code",
            "client_id": "hansa-cli",
            "redirect_uri": "http://127.0.0.1:7777/callback",
            "scope": SCOPE,
            "state": "st4te",
            "code_challenge": pkce.challenge,
            "code_challenge_method": "S256",
        }
        asked |= query
        self.get(f"{self.server.protocol}/auth", **{name: value for name, value in asked.items() if value})
        return self.follow()

    def code(self, pkce: Pkce, **query: str) -> str:
        answer = self.authorize(pkce, **query)
        found = returned(answer)
        assert "code" in found, (answer.status_code, answer.text, found)
        self.server.secrets.add(found["code"])
        return found["code"]

    def tokens(self, **query: str) -> dict[str, Any]:
        """Tokens of the built-in client, by code and PKCE."""
        pkce = Pkce()
        self.server.secrets.add(pkce.verifier)
        answer = self.server.token(
            grant_type="authorization_code",
            client_id="hansa-cli",
            code=self.code(pkce, **query),
            redirect_uri="http://127.0.0.1:7777/callback",
            code_verifier=pkce.verifier,
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def _remember(self) -> None:
        for name, value in self.http.cookies.items():
            assert "hansa" in name
            if name != "hansa_said":  # what a page tells once
                self.server.secrets.add(value)


def returned(answer: httpx.Response) -> dict[str, str]:
    """The parameters with which a client gets its user back."""
    assert answer.is_redirect, (answer.status_code, answer.text)
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def claims(token: str) -> dict[str, Any]:
    """The claims of a JWT, unverified."""
    return _part(token, 1)


def header(token: str) -> dict[str, Any]:
    return _part(token, 0)


def _part(token: str, number: int) -> dict[str, Any]:
    text = token.split(".")[number]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found
