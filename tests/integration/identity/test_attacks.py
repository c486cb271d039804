"""What must not work: bad tokens, forged forms, open redirects, fixed sessions, guessed passwords, leaked secrets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from hansa.kernel.secrets import Vault, read_master_keys
from tests.support.identity import PASSWORD, REALM, Browser, Pkce, Server, claims, header, returned

Mint = Callable[["Forge"], str]


class Forge:
    """Makes tokens that look like the server's, with its own key (read from the home) or with others."""

    def __init__(self, server: Server, token: str, id_token: str) -> None:
        self.claims = claims(token)
        self.header = header(token)
        self.token = token
        self.id_token = id_token
        self.strange = RSAKey.generate_key(2048, private=True)
        self.own = _signing_key(server.home, self.header["kid"])
        self.revoked = self.over = ""

    def sign(self, key: Any = None, head: dict[str, Any] | None = None, **change: Any) -> str:
        said = {name: value for name, value in (self.claims | change).items() if value is not None}
        return jwt.encode(self.header | (head or {}), said, key or self.own, algorithms=["RS256", "ES256"])

    def unsigned(self, algorithm: str) -> str:
        return f"{_b64({**self.header, 'alg': algorithm})}.{_b64(self.claims)}."

    def hs256_with_public_key(self) -> str:
        text = f"{_b64({**self.header, 'alg': 'HS256'})}.{_b64(self.claims)}"
        mac = hmac.digest(self.own.as_pem(private=False), text.encode(), hashlib.sha256)
        return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    def critical(self) -> str:
        text = f"{_b64({**self.header, 'crit': ['hansa'], 'hansa': 1})}.{_b64(self.claims)}"
        key = self.own.private_key
        assert key is not None
        mark = key.sign(text.encode(), PKCS1v15(), SHA256())
        return f"{text}.{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"

    def altered(self) -> str:
        head, _, mark = self.token.split(".")
        return f"{head}.{_b64(self.claims | {'name': 'root'})}.{mark}"


def _b64(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _signing_key(home: Path, key_id: str) -> RSAKey:
    vault = Vault(read_master_keys(home / "keys" / "master.key", {}))
    with sqlite3.connect(f"file:{home}/db/hansa.db?mode=ro", uri=True) as connection:
        sealed = connection.execute("SELECT private FROM signing_keys WHERE id = ?", (key_id,)).fetchone()[0]
    connection.close()
    return RSAKey.import_key(vault.open(sealed, f"signing_key/{key_id}"))


@pytest.fixture(scope="module")
def forge(server: Server, ada: Browser) -> Forge:
    tokens, revoked, over = ada.tokens(), ada.tokens()["access_token"], ada.tokens()
    made = Forge(server, tokens["access_token"], tokens["id_token"])
    made.revoked, made.over = revoked, over["access_token"]
    for token in (revoked, over["access_token"]):
        assert server.whoami(token) == 200  # so that they are in every cache
    for token in (revoked, over["refresh_token"]):
        assert server.post("revoke", client_id="hansa-cli", token=token).status_code == 200
    return made


NOW = time.time()
BAD: dict[str, Mint] = {
    "altered claims": Forge.altered,
    "signed with another key": lambda f: f.sign(f.strange),
    "signed with another kind of key": lambda f: f.sign(ECKey.generate_key("P-256"), {"alg": "ES256"}),
    "a key that nobody knows": lambda f: f.sign(f.strange, {"kid": "unknown"}),
    "a key that comes along": lambda f: f.sign(f.strange, {"jwk": f.strange.as_dict(private=False)}),
    "expired": lambda f: f.sign(exp=int(time.time()) - 1),
    "without an end": lambda f: f.sign(exp=None),
    "an end that is no number": lambda f: f.sign(exp="never"),
    "not yet valid": lambda f: f.sign(nbf=int(time.time()) + 60),
    "issued in the future": lambda f: f.sign(iat=int(time.time()) + 60),
    "for somebody else": lambda f: f.sign(aud=["https://elsewhere.example.org"]),
    "for nobody": lambda f: f.sign(aud=None),
    "of another issuer": lambda f: f.sign(iss="https://evil.example.org/auth/realms/hansa"),
    "of another realm": lambda f: f.sign(iss=f.claims["iss"] + "x"),
    "of nobody": lambda f: f.sign(sub="user_unknown"),
    "under no sign-in": lambda f: f.sign(sid="grant_unknown"),
    "without a sign-in": lambda f: f.sign(sid=None),
    "alg none": lambda f: f.unsigned("none"),
    "alg None": lambda f: f.unsigned("None"),
    "HS256 with the public key": Forge.hs256_with_public_key,
    "an id_token": lambda f: f.id_token,
    "a JWT of no kind": lambda f: f.sign(head={"typ": "JWT"}),
    "critical headers": Forge.critical,
    "too long": lambda f: f.sign(name="x" * 20_000),
    "no JWT": lambda _: "a.b.c",
    "rubbish": lambda _: "hansa_user_rubbish",
    "replayed after it was revoked": lambda f: f.revoked,
    "replayed after its sign-in was over": lambda f: f.over,
    "replayed at another server": lambda f: f.sign(iss=f.claims["iss"].replace("127.0.0.1", "localhost")),
}


def test_the_forge_can_make_a_good_one(server: Server, forge: Forge) -> None:
    assert server.whoami(forge.sign(jti="another")) == 200


@pytest.mark.parametrize("mint", BAD.values(), ids=BAD)
def test_bad_tokens_are_refused(server: Server, forge: Forge, mint: Mint) -> None:
    token = mint(forge)
    for _ in range(2):  # a cache must not make it any better
        answer = server.api(token).get("/whoami")
        assert answer.status_code == 401, answer.text
        assert answer.json()["code"] == "identity.bad_token"
    userinfo = httpx.get(f"{server.protocol}/userinfo", headers={"Authorization": f"Bearer {token}"})
    assert userinfo.status_code == 401 or claims(token).get("aud") != forge.claims["aud"]


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example.org/",
        "//evil.example.org/",
        "/\\evil.example.org/",
        f"{REALM}/../../..//evil.example.org",
        f"https:{REALM}/account",
        "javascript:alert(1)",
        f"{REALM}//evil.example.org",
        f"{REALM}/account\r\nLocation: https://evil.example.org",
        "/api/v1/whoami",
    ],
)
def test_a_login_leads_to_our_own_pages_only(server: Server, ada: Browser, target: str) -> None:
    browser = Browser(server)
    browser.get(f"{server.issuer}/login", next=target)
    browser.submit(name="ada", password=PASSWORD, next=target)
    assert browser.page is not None
    assert browser.page.headers["location"] == f"{server.url}/"


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "https://evil.example.org/callback"},
        {"redirect_uri": "http://127.0.0.1:7777/callback/.."},
        {"redirect_uri": "http://127.0.0.1:7777@evil.example.org/callback"},
        {"redirect_uri": "http://127.0.0.1.evil.example.org:7777/callback"},
        {"redirect_uri": "http://127.0.0.1:7777/callback?x=1"},
        {"redirect_uri": ""},
        {"client_id": "unknown"},
        {"client_id": ""},
        {"redirect_uri": "https://evil.example.org/", "response_type": "token"},
        {"redirect_uri": "https://evil.example.org/", "prompt": "none"},
    ],
)
def test_nobody_is_sent_to_a_redirect_uri_that_was_not_registered(
    server: Server, ada: Browser, change: dict[str, str]
) -> None:
    for browser in (Browser(server), ada):
        answer = browser.authorize(Pkce(), **change)
        assert answer.status_code == 400, answer.headers
        assert "location" not in answer.headers


def test_forms_of_other_sites_are_refused(server: Server, ada: Browser) -> None:
    stranger = Browser(server)
    stranger.get(f"{server.issuer}/login")
    csrf = stranger.form()[2]["csrf"]
    device = server.post("auth/device", client_id="hansa-cli", scope="openid hansa").json()
    forged = [
        (f"{server.issuer}/login", {"name": "ada", "password": PASSWORD}),
        (f"{server.issuer}/device", {"user_code": device["user_code"], "decision": "allow"}),
        (f"{server.protocol}/auth/decision", {"request": "client_id=hansa-cli", "decision": "allow"}),
        (f"{server.issuer}/welcome", {"invitation": "x", "password": PASSWORD, "again": PASSWORD}),
        (f"{server.issuer}/join", {"invitation": "x"}),
    ]
    for url, fields in forged:
        for token in ({}, {"csrf": ""}, {"csrf": csrf}):
            assert ada.http.post(url, data=fields | token).status_code == 403, url
    assert "Sign out?" in ada.http.post(f"{server.protocol}/logout", data={"csrf": csrf}).text
    assert ada.authorize(Pkce()).is_redirect  # still signed in
    waiting = server.token(
        grant_type="urn:ietf:params:oauth:grant-type:device_code",
        client_id="hansa-cli",
        device_code=device["device_code"],
    )
    assert waiting.json()["error"] == "authorization_pending"


def test_a_session_that_was_there_before_the_login_is_worth_nothing(server: Server, ada: Browser) -> None:
    victim = Browser(server)
    victim.http.cookies.set("hansa_session", "hansa_session_planted", domain="127.0.0.1")
    victim.http.cookies.set("hansa_visit", "planted", domain="127.0.0.1")
    victim.login("ada")
    attacker = Browser(server)
    attacker.http.cookies.set("hansa_session", "hansa_session_planted", domain="127.0.0.1")
    assert "Sign in" in attacker.authorize(Pkce()).text
    assert victim.http.cookies["hansa_session"] != "hansa_session_planted"
    assert victim.http.cookies["hansa_visit"] != "planted"
    first = victim.http.cookies["hansa_session"]
    victim.login("ada")
    attacker.http.cookies.set("hansa_session", first, domain="127.0.0.1")
    assert "Sign in" in attacker.authorize(Pkce()).text


def test_pages_allow_no_script_no_frame_and_no_cache(server: Server) -> None:
    answer = httpx.get(f"{server.issuer}/login")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self';")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert (answer.headers["x-frame-options"], answer.headers["cache-control"]) == ("DENY", "no-store")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert "samesite=lax" in answer.headers["set-cookie"].lower()
    assert "<script" not in answer.text
    assert "style=" not in answer.text


def test_what_people_type_is_shown_as_text(server: Server) -> None:
    browser = Browser(server)
    browser.get(f"{server.issuer}/login")
    page = browser.submit(name='"><script>alert(1)</script>', password="x")
    assert "<script>" not in page.text


def test_guessing_is_slowed_down_and_says_nothing(server: Server) -> None:
    server.account("zoe")
    browser = Browser(server)
    texts = set()
    for attempt in range(5):
        browser.get(f"{server.issuer}/login")
        for name in ("nobody", "zoe"):
            browser.get(f"{server.issuer}/login")
            page = browser.submit(name=name, password=f"wrong guess {attempt}")
            assert page.status_code == 401
            texts.add(page.text.replace(name, "NAME").replace(browser.form()[2]["csrf"], "CSRF"))
    assert len(texts) == 1  # not even that a name exists
    browser.get(f"{server.issuer}/login")
    assert browser.submit(name="zoe", password=PASSWORD).status_code == 401  # locked
    time.sleep(5.2)
    browser.get(f"{server.issuer}/login")
    assert browser.submit(name="zoe", password=PASSWORD).status_code == 303


def test_invitations_are_good_once(server: Server) -> None:
    link = server.invited("kim")
    newer = server.invited("kim")
    assert Browser(server).get(link).status_code == 410
    one, two = Browser(server), Browser(server)
    one.get(newer)
    two.get(newer)
    assert one.submit(password="short", again="short").status_code == 422
    assert one.submit(password=PASSWORD, again=PASSWORD + "x").status_code == 422
    assert one.submit(password=PASSWORD, again=PASSWORD).status_code == 303
    assert two.submit(password=PASSWORD, again=PASSWORD).status_code == 410
    assert two.get(newer).status_code == 410


def test_only_operators_administer(server: Server, ada: Browser) -> None:
    api = server.api(ada.tokens()["access_token"])
    for method, path in (
        ("GET", "/users"),
        ("POST", "/users/invitations"),
        ("POST", "/clients"),
        ("GET", "/clients"),
        ("POST", "/keys/rotate"),
        ("POST", "/vos"),
        ("POST", "/users/ada/suspend"),
    ):
        body = {"name": "x1", "id": "x1"} if method == "POST" else None
        assert api.request(method, path, json=body).status_code in (403, 422), path
    assert api.post("/keys/rotate").status_code == 403


def _kept(server: Server, ada: httpx.Client) -> set[str]:
    """Secrets that are given to be kept, in all places where such can be given."""
    operator = server.operator()
    end = {
        "kind": "openstack", "url": "https://keystone.example.org:5000/v3", "settings": {"auth": "v3password"},
        "credential": {
            "username": "hansa", "password": "kept-of-an-endpoint", "vo.example.org/secret": "kept-of-a-vo-there",
        },
    }  # fmt: skip
    slurm = {
        "kind": "slurm", "settings": {"host": "login.example.org", "user": "hansa"},
        "credential": {"private_key": "kept-private-key-of-a-login"},
    }  # fmt: skip
    new = {"name": "SECRETIVE", "endpoints": [end, slurm]}
    assert operator.post("/sites", json=new).status_code == 201
    fields = {"id": "app", "secret": "kept-application-credential"}
    assert ada.put("/vos/vo.example.org/credentials/SECRETIVE", json={"fields": fields}).is_success
    login = {"username": "ada", "password": "kept-password-of-a-registry"}
    assert ada.put("/registry-logins/registry.example.org", json=login).is_success
    service = ada.post("/vos/vo.example.org/services", json={"name": "secretive"})
    assert service.is_success, service.text
    shown = operator.get("/sites/SECRETIVE").text + ada.get("/vos/vo.example.org/credentials").text
    shown += ada.get("/registry-logins").text
    assert "kept-" not in shown, "what is kept is never shown"
    return {
        "kept-of-an-endpoint", "kept-of-a-vo-there", "kept-private-key-of-a-login", "kept-application-credential",
        "kept-password-of-a-registry", service.json()["secret"],
    }  # fmt: skip


def test_no_secret_is_in_the_database_or_the_logs_in_clear(server: Server, ada: Browser) -> None:
    started = server.post("auth/device", client_id="hansa-cli", scope="openid").json()
    ada.get(started["verification_uri_complete"])
    ada.submit(decision="allow")
    tokens = ada.tokens(scope="openid offline_access hansa")
    server.token(grant_type="refresh_token", client_id="hansa-cli", refresh_token=tokens["refresh_token"])
    server.add_client(id="secretive", confidential=True)
    vo = server.api(tokens["access_token"]).post("/vos/vo.example.org/invitations", json={}).json()
    kept = _kept(server, server.api(tokens["access_token"]))
    key = _signing_key(server.home, header(tokens["access_token"])["kid"]).as_pem(private=True).decode()
    known = {
        *server.secrets,
        *kept,
        vo["link"].partition("=")[2],
        server.info["token"],
        (server.home / "keys" / "master.key").read_text().strip(),
        *(line for line in key.splitlines() if len(line) > 40),
    }
    known |= {token.rpartition(".")[2] for token in known if token.count(".") == 2}
    assert len(known) > 40
    places = {file: file.read_bytes() for file in (server.home / "db").iterdir()}
    places[Path("log")] = server.log.encode()
    for folder in ("logs", "blobs"):
        places |= {file: file.read_bytes() for file in (server.home / folder).rglob("*") if file.is_file()}
    for secret in sorted(known):
        for place, content in places.items():
            assert secret.encode() not in content, f"{secret[:20]}… in {place}"
    assert (server.home / "keys" / "master.key").stat().st_mode & 0o077 == 0
    assert returned(ada.authorize(Pkce()))["code"]
