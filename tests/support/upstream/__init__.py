"""A certified OpenID provider (npm: oidc-provider), as an upstream of Hansa."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey

from tests.support.debian import program
from tests.support.tools import ROOT

_HERE = Path(__file__).parent
_START_S = 60.0
CLIENT = "hansa"
SECRET = "the-secret-of-hansa-at-the-upstream"
ENTITLEMENT = "urn:mace:egi.eu:group:{}#aai.egi.eu"


def entitled(*groups: str) -> list[str]:
    """Entitlements as EGI Check-in writes them: ``vo``, ``vo:role=member``, ``vo:group``."""
    return [ENTITLEMENT.format(group) for group in groups]


def installed() -> Path:
    """The folder with the provider's packages, installed once for this lock file."""
    npm = program("npm")
    digest = hashlib.sha256((_HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = ROOT / ".cache" / "npm" / f"upstream-{digest}"
    if not (folder / "complete").exists():
        made = folder.with_name(f"{folder.name}.{os.getpid()}")
        made.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_HERE / name, made)
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            shutil.rmtree(made)
            pytest.skip(f"npm cannot install oidc-provider: {done.stderr[-500:]}")
        (made / "complete").touch()
        try:
            made.rename(folder)
        except OSError:  # another test run was faster
            shutil.rmtree(made)
    return folder


@dataclass
class Upstream:
    """The provider's process, its accounts, and its signing key."""

    folder: Path
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    redirects: list[str] = field(default_factory=list)
    port: int = 0
    process: subprocess.Popen[str] | None = None
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "up1", "use": "sig"}, private=True))

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Upstream:
        place = installed()
        script = place / "provider.mjs"
        shutil.copy(_HERE / "provider.mjs", script)
        client: dict[str, object] = {
            "client_id": CLIENT,
            "client_secret": SECRET,
            "redirect_uris": self.redirects,
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        }
        tool = {
            "client_id": "tool",
            "token_endpoint_auth_method": "none",
            "redirect_uris": ["http://127.0.0.1:7777/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "application_type": "native",
        }
        config = self.folder / "upstream.json"
        state = {
            "accounts": self.accounts,
            "clients": [client, tool],
            "jwks": {"keys": [self.key.as_dict(private=True)]},
        }
        config.write_text(json.dumps(state))
        with (self.folder / "upstream.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program("node", "nodejs"), str(script), str(self.port), str(config)],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                text=True,
            )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                if httpx.get(f"{self.url}/.well-known/openid-configuration").status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    @property
    def log(self) -> str:
        return (self.folder / "upstream.log").read_text(errors="replace")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def control(self, **change: Any) -> None:
        """Change accounts and behaviour: ``broken=True``: answers nothing but 503."""
        assert httpx.post(f"{self.url}/control", json=change).status_code == 200

    def account(self, sub: str, **claims: Any) -> None:
        """Add or change an account; ``entitlements`` in Check-in's form by :func:`entitled`."""
        self.accounts[sub] = {"name": sub, "preferred_username": sub, **claims}
        if self.process is not None:
            self.control(accounts=self.accounts)

    def person(self) -> Person:
        return Person(self)

    def settings(self, **more: Any) -> str:
        """The value of HANSA_IDENTITY__ISSUERS for a server that trusts it."""
        secret = self.folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        one: dict[str, Any] = {"name": "up", "preset": "egi-check-in", "title": "Upstream"}
        one |= {"url": self.url, "client_id": CLIENT}
        scopes = ["openid", "profile", "eduperson_entitlement", "entitlements", "eduperson_assurance"]
        one |= {"client_secret_file": str(secret), "scopes": scopes}
        return json.dumps([one | more])


class Person:
    """A browser of a few lines that signs in at the upstream's own pages."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.http = httpx.Client(follow_redirects=False, trust_env=False, timeout=60)

    def close(self) -> None:
        self.http.close()

    def authorize(self, url: str, login: str) -> str:
        """Go to an authorization request, sign in, consent; where the browser is sent at the end."""
        answer = self.http.get(url)
        for _ in range(20):
            if answer.is_redirect:
                target = urljoin(str(answer.url), answer.headers["location"])
                if not target.startswith(self.upstream.url):
                    return target
                answer = self.http.get(target)
                continue
            assert answer.status_code == 200, answer.text
            is_login = 'name="login"' in answer.text
            fields = {"prompt": "login", "login": login, "password": "x"} if is_login else {"prompt": "consent"}
            answer = self.http.post(str(answer.url), data=fields)
        raise AssertionError("the upstream never sent the browser back")

    def token(self, login: str, *, audience: str, scope: str = "openid api eduperson_entitlement") -> dict[str, Any]:
        """Tokens of the client ``tool`` for an audience, by code and PKCE."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        redirect = "http://127.0.0.1:7777/callback"
        query = {
            "response_type": "code",
            "client_id": "tool",
            "redirect_uri": redirect,
            "scope": scope,
            "state": "s",
            "resource": audience,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        back = self.authorize(f"{self.upstream.url}/auth?{urlencode(query)}", login)
        found = dict(parse_qsl(urlsplit(back).query))
        assert "code" in found, back
        fields = {"grant_type": "authorization_code", "client_id": "tool", "code": found["code"]}
        fields |= {"redirect_uri": redirect, "code_verifier": verifier, "resource": audience}
        answer = self.http.post(f"{self.upstream.url}/token", data=fields)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens
