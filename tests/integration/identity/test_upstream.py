"""Signing in through a real, certified provider: with a browser, and with its tokens straight at the API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from tests.support.browser import TIMEOUT_MS, chromium
from tests.support.cli import Desk
from tests.support.identity import REALM, Browser, Server, claims, header
from tests.support.upstream import SECRET, Upstream, entitled

LOW = "https://aai.egi.eu/LoA#Low"
OTHER = {"name": "other", "title": "Elsewhere", "url": "http://127.0.0.1:9/realms/x", "client_id": "hansa"}
OTHER |= {"preset": "keycloak"}
"""A second issuer, where nobody answers."""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    made = Upstream(tmp_path_factory.mktemp("upstream"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def server(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that trusts the upstream, asks it about tokens every second, and takes those for its own address."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    upstream.redirects = [f"{url}{REALM}/broker/up/endpoint"]
    for name in ("maria", "paul"):
        upstream.account(name, eduperson_entitlement=entitled("vo.ruled:role=member"), eduperson_assurance=[LOW])
    upstream.start()
    made = Server(tmp_path_factory.mktemp("identity") / "home")
    made.environ = {
        "HANSA_SERVER__PORT": str(port),
        "HANSA_IDENTITY__ISSUERS": json.dumps(
            [*json.loads(upstream.settings(audiences=[url], assurance=[LOW])), OTHER | {"audiences": [url]}]
        ),
        "HANSA_IDENTITY__INTROSPECT_S": "1",
        "HANSA_IDENTITY__AWAY_S": "12",
    }
    made.secrets.add(SECRET)
    try:
        made.start()
        for vo, issuer_vo in (("vo.ruled", None), ("vo.named", "vo.other")):
            assert made.operator().post("/vos", json={"name": vo}).status_code == 201
            answer = made.operator().put(f"/vos/{vo}/rule", json={"issuer": "up", "issuer_vo": issuer_vo})
            assert answer.status_code == 200, answer.text
        yield made
    finally:
        made.close()


def sign_in(server: Server, upstream: Upstream, login: str, browser: Browser | None = None) -> Browser:
    """A browser that went through the upstream."""
    browser = browser or Browser(server)
    browser.get(f"{server.issuer}/broker/up/login")
    assert browser.page is not None
    come_back(server, upstream, login, browser, browser.page.headers["location"])
    return browser


def come_back(server: Server, upstream: Upstream, login: str, browser: Browser, url: str) -> httpx.Response:
    person = upstream.person()
    try:
        back = person.authorize(url, login)
    finally:
        person.close()
    server.secrets.add(dict(parse_qsl(urlsplit(back).query)).get("code", back))
    return browser.get(back)


def bearer(server: Server, upstream: Upstream, login: str, **more: Any) -> str:
    person = upstream.person()
    try:
        found = person.token(login, audience=more.pop("audience", server.url), **more)
    finally:
        person.close()
    server.seen(found)
    token: str = found["access_token"]
    return token


def members(server: Server, vo: str) -> dict[str, Any]:
    found = server.operator().get(f"/vos/{vo}/members").json()["items"]
    return {one["name"]: one for one in found}


def test_the_login_page_offers_it_and_a_real_browser_comes_back_signed_in(server: Server, upstream: Upstream) -> None:
    upstream.account("chris", eduperson_entitlement=entitled("vo.ruled:role=member"), eduperson_assurance=[LOW])
    with chromium() as browser:
        page = browser.new_context().new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(f"{server.issuer}/account")
        page.click("text=Sign in with Upstream")
        page.fill("input[name=login]", "chris")
        page.fill("input[name=password]", "x")
        page.click("button[type=submit]")
        page.click("text=Continue")
        page.wait_for_url(f"{server.issuer}/account")
        assert page.inner_text("h1") == "chris"
        assert "vo.ruled" in page.inner_text("main")
        assert "come from an issuer" in page.inner_text("main")
        page.click("text=Let Hansa go on")  # one click, and one is there
        page.click("text=Continue")  # its session there lives, but a lasting sign-in is always asked about
        page.wait_for_url(f"{server.issuer}/account")
        assert "may go on for you" in page.inner_text("main")


def test_an_account_is_made_once_and_memberships_follow_the_upstream(server: Server, upstream: Upstream) -> None:
    held = entitled("vo.ruled:astro:role=member", "vo.ruled:role=vm_operator", "vo.other:role=manager")
    upstream.account("maria", eduperson_entitlement=held, eduperson_assurance=[LOW])
    browser = sign_in(server, upstream, "maria")
    tokens = browser.tokens(scope="openid profile entitlements hansa")
    api = server.api(tokens["access_token"])
    first = api.get("/whoami").json()
    assert (first["issuer"], first["sub"]) == (upstream.url, "maria")
    assert first["vos"] == ["vo.named", "vo.ruled"]
    assert "urn:mace:hansa:group:vo.ruled:role=vm-operator#127.0.0.1" in claims(tokens["access_token"])["entitlements"]
    assert members(server, "vo.ruled")["maria"]["groups"] == ["astro"]
    seen = api.get("/vos/vo.named").json()
    assert (seen["membership"], seen["issuer"], seen["issuer_vo"]) == ("issuer", upstream.url, "vo.other")
    upstream.account("maria", entitlements=entitled("vo.ruled:role=member"), eduperson_assurance=[LOW])
    sign_in(server, upstream, "maria", browser)
    api = server.api(browser.tokens()["access_token"])
    assert api.get("/whoami").json()["id"] == first["id"]
    assert "maria" not in members(server, "vo.named")
    assert members(server, "vo.ruled")["maria"]["roles"] == ["member"]


def test_a_ruled_vo_takes_no_invitations_and_others_no_word_of_the_issuer(server: Server, upstream: Upstream) -> None:
    operator = server.operator()
    for path, body in (("invitations", {}), ("groups", {"name": "g"})):
        answer = operator.post(f"/vos/vo.ruled/{path}", json=body)
        assert answer.json()["code"] == "identity.vo_ruled", answer.text
    operator.post("/vos", json={"name": "vo.free"})
    upstream.account("ines", eduperson_entitlement=entitled("vo.free:role=manager"), eduperson_assurance=[LOW])
    sign_in(server, upstream, "ines")
    assert "ines" not in members(server, "vo.free")
    link = operator.post("/vos/vo.free/invitations", json={}).json()["link"]
    operator.put("/vos/vo.free/rule", json={"issuer": "up"})
    assert members(server, "vo.free") == {}
    assert Browser(server).get(link).status_code in (303, 410)
    sign_in(server, upstream, "ines")
    assert members(server, "vo.free")["ines"]["roles"] == ["member", "manager"]
    assert operator.put("/vos/vo.free/rule", json={"issuer": None}).json()["membership"] == "invitation"
    assert members(server, "vo.free") == {}
    assert operator.put("/vos/vo.free/rule", json={"issuer": "nobody"}).status_code == 404


def test_who_leaves_while_suspended_is_suspended_when_they_come_back(server: Server, upstream: Upstream) -> None:
    sign_in(server, upstream, "paul")
    server.operator().post("/vos/vo.ruled/members/paul/suspend", json={"why": "Away"})
    held = upstream.accounts["paul"]
    upstream.account("paul", eduperson_assurance=[LOW])
    sign_in(server, upstream, "paul")
    upstream.account("paul", **held)
    sign_in(server, upstream, "paul")
    assert members(server, "vo.ruled")["paul"]["suspended"] is True
    server.operator().post("/vos/vo.ruled/members/paul/resume")


def test_assurance_is_asked_for(server: Server, upstream: Upstream) -> None:
    upstream.account("vera", eduperson_assurance=["https://refeds.org/assurance"])
    browser = sign_in(server, upstream, "vera")
    assert browser.page is not None
    assert browser.page.status_code == 403
    assert "vouches too little" in browser.page.text
    assert server.whoami(bearer(server, upstream, "vera")) == 403


def test_a_linked_identity_signs_in_to_the_same_account(server: Server, upstream: Upstream) -> None:
    upstream.account("leo2", eduperson_assurance=[LOW], email="leo@example.org")
    browser = server.account("leo")
    me = server.api(browser.tokens()["access_token"]).get("/whoami").json()["id"]
    browser.get(f"{server.issuer}/account")
    page = browser.submit()
    assert page.status_code == 200, page.text
    url = _link(page.text)
    assert come_back(server, upstream, "leo2", browser, url).status_code == 303
    assert server.api(sign_in(server, upstream, "leo2").tokens()["access_token"]).get("/whoami").json()["id"] == me
    api = server.api(browser.tokens()["access_token"])
    (one,) = api.get("/identities").json()["items"]
    assert (one["title"], one["sub"]) == ("Upstream", "leo2")
    other = server.account("leonie")  # the identity has an account already
    other.get(f"{server.issuer}/account")
    taken = come_back(server, upstream, "leo2", other, _link(other.submit().text))
    assert taken.status_code == 409
    assert api.delete(f"/identities/{one['id']}").status_code == 204
    assert api.get("/identities").json()["items"] == []
    only = sign_in(server, upstream, "maria")
    mine = server.api(only.tokens()["access_token"])
    (last,) = mine.get("/identities").json()["items"]
    assert mine.delete(f"/identities/{last['id']}").json()["code"] == "identity.last_identity"


def _link(text: str) -> str:
    import html

    return html.unescape(text.partition('id="go" href="')[2].partition('"')[0])


def test_a_lasting_sign_in_is_given_listed_and_taken_back(server: Server, upstream: Upstream) -> None:
    browser = sign_in(server, upstream, "maria")
    api = server.api(browser.tokens()["access_token"])
    assert api.get("/authority").json()["items"] == []
    browser.get(f"{server.issuer}/account")
    assert come_back(server, upstream, "maria", browser, _link(browser.submit().text)).status_code == 303
    (one,) = api.get("/authority").json()["items"]
    assert (one["kind"], one["phase"], one["issuer"]) == ("offline_token", "active", upstream.url)
    assert "may go on for you" in browser.get(f"{server.issuer}/account").text
    other = server.account("nora")
    assert server.api(other.tokens()["access_token"]).delete(f"/authority/{one['id']}").status_code == 404
    database = b"".join(file.read_bytes() for file in (server.home / "db").iterdir())
    for secret in sorted(server.secrets):
        assert secret.encode() not in database, secret[:20]
        assert secret not in server.log, secret[:20]
    assert api.delete(f"/authority/{one['id']}").status_code == 204
    assert api.get("/authority").json()["items"] == []


def lasting(server: Server, upstream: Upstream, login: str, browser: Browser) -> None:
    """Let Hansa go on, by the button on the page that the browser is at."""
    assert come_back(server, upstream, login, browser, _link(browser.submit().text)).status_code == 303


def until(condition: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)
    return found


def test_a_lasting_sign_in_that_lapses_is_renewed_by_the_command_that_is_named(
    server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    """The server looks at a site as lena, by tokens of her issuer, until her issuer does not know her any more."""
    upstream.account("lena", eduperson_assurance=[LOW])
    upstream.control(opaque_s=303)  # good for five minutes is asked for: soon, each look needs a fresh one
    try:
        browser = sign_in(server, upstream, "lena")
        token = browser.tokens()["access_token"]
        api, operator = server.api(token), server.operator()
        browser.get(f"{server.issuer}/account")
        lasting(server, upstream, "lena", browser)
        me = api.get("/whoami").json()["id"]
        operator.post("/vos", json={"name": "vo.lena", "manager": me}).raise_for_status()
        end = {"kind": "openstack", "url": f"{upstream.url}/v3", "settings": {"issuer": upstream.url}}
        site = {"name": "LENA", "admins": [me], "endpoints": [end], "vos": {"vo.lena": None}}
        operator.post("/sites", json=site).raise_for_status()

        def phase() -> str:
            api.post("/sites/LENA/probe").raise_for_status()
            return str(api.get("/authority").json()["items"][0]["phase"])

        until(lambda: api.get("/sites/LENA").json()["endpoints"][0]["health"]["phase"] == "down")
        assert phase() == "active"
        del upstream.accounts["lena"]
        upstream.control(accounts=upstream.accounts)
        until(lambda: phase() == "lapsed")
        (lapsed,) = api.get("/authority").json()["items"]
        assert (lapsed["waiting_on"], lapsed["reason"]) == ("user", "identity.grant_expired")
        (plan,) = api.post("/plan", json={"work": "machine"}).json()["items"]
        finding = next(one for one in plan["findings"] if one["reason"] == "identity.grant_expired")
        assert (finding["waiting_on"], "hansa login --renew" in finding["remedy"]) == ("user", True)
        upstream.account("lena", eduperson_assurance=[LOW])
        desk = Desk(tmp_path / "home", tmp_path, {"HANSA_SERVER": server.url, "HANSA_TOKEN": token})
        command = desk.popen("login", "--renew", "--no-browser")
        try:
            assert command.stderr is not None
            line = command.stderr.readline().decode()
            browser.get(next(word for word in line.split() if word.startswith("http")))
            browser.follow()
            lasting(server, upstream, "lena", browser)
            _, said = command.communicate(timeout=60)
        finally:
            command.kill()
        assert (command.returncode, b"renewed" in said) == (0, True), said
        assert [one["phase"] for one in api.get("/authority").json()["items"]] == ["active"]
    finally:
        upstream.control(opaque_s=3600)


# --- attacks on the login -----------------------------------------------------------------------------------------


def begun(server: Server, browser: Browser, query: str = "") -> tuple[str, dict[str, str]]:
    browser.get(f"{server.issuer}/broker/up/login{query}")
    assert browser.page is not None
    url = browser.page.headers["location"]
    return url, dict(parse_qsl(urlsplit(url).query))


def test_a_login_can_be_finished_only_by_the_browser_that_began_it_and_once(server: Server, upstream: Upstream) -> None:
    attacker, victim = Browser(server), Browser(server)
    url, asked = begun(server, attacker)
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["nonce"]) > 30
    person = upstream.person()
    back = person.authorize(url, "maria")
    person.close()
    assert victim.get(back).status_code == 400  # session fixation: the attacker's login in the victim's browser
    assert "hansa_session" not in victim.http.cookies
    begun(server, victim)
    assert victim.get(back).status_code == 400  # nor with a cookie of another login
    assert attacker.get(back).status_code == 303
    assert attacker.get(back).status_code == 400  # replayed
    for broken in (back.replace("state=", "state=x"), back.replace("state=", "estate="), back.partition("?")[0]):
        url, _ = begun(server, attacker)
        assert attacker.get(broken).status_code == 400


@pytest.mark.parametrize("sender", ["http://127.0.0.1:1", "", "missing"])
def test_an_answer_of_another_issuer_is_refused(server: Server, upstream: Upstream, sender: str) -> None:
    browser = Browser(server)
    url, _ = begun(server, browser)
    person = upstream.person()
    back = person.authorize(url, "maria")
    person.close()
    query = dict(parse_qsl(urlsplit(back).query)) | {"iss": sender}
    if sender == "missing":  # this upstream has promised to say who it is
        del query["iss"]
    assert browser.get(f"{back.partition('?')[0]}?{urlencode(query)}").status_code == 400
    assert "hansa_session" not in browser.http.cookies


def test_an_answer_is_good_at_the_door_of_its_issuer_only(server: Server, upstream: Upstream) -> None:
    browser = Browser(server)
    assert "Sign in with Elsewhere" in browser.get(f"{server.issuer}/login").text
    url, _ = begun(server, browser)
    person = upstream.person()
    back = person.authorize(url, "maria")
    person.close()
    assert browser.get(back.replace("/broker/up/", "/broker/other/")).status_code == 400
    assert "hansa_session" not in browser.http.cookies
    away = browser.get(f"{server.issuer}/broker/other/login")
    assert away.status_code == 503
    assert "Elsewhere" in away.text


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil", f"{REALM}/../../x"])
def test_the_login_leads_to_our_own_pages_only(server: Server, upstream: Upstream, target: str) -> None:
    browser = Browser(server)
    url, _ = begun(server, browser, f"?{urlencode({'next': target})}")
    assert come_back(server, upstream, "maria", browser, url).headers["location"] == f"{server.url}/"


def test_the_session_is_new_and_links_need_our_own_form(server: Server, upstream: Upstream) -> None:
    victim = Browser(server)
    victim.http.cookies.set("hansa_session", "hansa_session_planted", domain="127.0.0.1")
    sign_in(server, upstream, "maria", victim)
    assert victim.http.cookies["hansa_session"] != "hansa_session_planted"
    for what in ("link", "renew"):
        assert victim.http.post(f"{server.issuer}/broker/up/{what}", data={"csrf": "x"}).status_code == 403
    assert Browser(server).get(f"{server.issuer}/broker/nobody/login").status_code == 404
    denied = Browser(server)
    _, asked = begun(server, denied)
    address = f"{server.issuer}/broker/up/endpoint"
    query = {"error": "access_denied", "error_description": "<b>no</b>", "state": asked["state"], "iss": upstream.url}
    answer = denied.get(f"{address}?{urlencode(query)}")
    assert answer.status_code == 403
    assert "<b>" not in answer.text


# --- its tokens at our API ----------------------------------------------------------------------------------------


class Forge:
    """Tokens that look like the upstream's, signed with its key or with others."""

    def __init__(self, upstream: Upstream, token: str) -> None:
        self.claims, self.header, self.token = claims(token), header(token), token
        self.own, self.strange = upstream.key, RSAKey.generate_key(2048, private=True)

    def sign(self, key: Any = None, head: dict[str, Any] | None = None, **change: Any) -> str:
        said = {name: value for name, value in (self.claims | change).items() if value is not None}
        return jwt.encode(self.header | (head or {}), said, key or self.own, algorithms=["RS256", "ES256"])

    def unsigned(self) -> str:
        import base64
        import json

        parts = [{**self.header, "alg": "none"}, self.claims]
        text = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts]
        return ".".join([*text, ""])

    def hs256(self) -> str:
        import base64
        import hashlib
        import hmac
        import json

        parts = [{**self.header, "alg": "HS256"}, self.claims]
        text = ".".join(base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts)
        mark = hmac.digest(self.own.as_pem(private=False), text.encode(), hashlib.sha256)
        return f"{text}.{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"


@pytest.fixture(scope="module")
def forge(server: Server, upstream: Upstream) -> Forge:
    return Forge(upstream, bearer(server, upstream, "maria"))


_NOW = int(time.time())
BAD: dict[str, Callable[[Forge], str]] = {
    "wrong key": lambda f: f.sign(f.strange),
    "unknown key": lambda f: f.sign(f.strange, {"kid": "nobody"}),
    "wrong kind of key": lambda f: f.sign(ECKey.generate_key("P-256", private=True), {"alg": "ES256"}),
    "alg none": lambda f: f.unsigned(),
    "alg HS256 with the public key": lambda f: f.hs256(),
    "forged claims": lambda f: (
        f.token.split(".")[0] + "." + f.sign(sub="root").split(".")[1] + "." + f.token.split(".")[2]
    ),
    "no signature": lambda f: f.token.rpartition(".")[0] + ".",
    "expired": lambda f: f.sign(exp=_NOW - 10),
    "no end": lambda f: f.sign(exp=None),
    "not yet valid": lambda f: f.sign(nbf=int(time.time()) + 300),
    "issued in the future": lambda f: f.sign(iat=int(time.time()) + 300),
    "wrong audience": lambda f: f.sign(aud="https://another.example.org"),
    "no audience": lambda f: f.sign(aud=None),
    "confused issuer": lambda f: f.sign(iss=f"{f.claims['iss']}/"),
    "unknown issuer": lambda f: f.sign(iss="https://evil.example"),
    "no subject": lambda f: f.sign(sub=None),
    "subject is no text": lambda f: f.sign(sub=7),
    "an id_token": lambda f: f.sign(None, {"typ": "JWT"}, nonce="n", at_hash="x"),
    "a refresh token of Keycloak": lambda f: f.sign(None, {"typ": "JWT"}, typ="Refresh"),
    "a logout token": lambda f: f.sign(None, {"typ": "logout+jwt"}),
    "bound to a key": lambda f: f.sign(cnf={"jkt": "x"}),
    "unknown to introspection": lambda f: f.sign(jti="made-up"),
    "no JWT": lambda f: "a.b.c",
    "much too long": lambda f: f.sign(more="x" * 20_000),
}


def test_a_good_token_is_taken(server: Server, upstream: Upstream, forge: Forge) -> None:
    assert server.whoami(forge.token) == 200
    api = server.api(forge.token)
    assert api.get("/whoami").json()["vos"] == ["vo.ruled"]
    assert api.get("/users").status_code == 403


@pytest.mark.parametrize("name", BAD)
def test_bad_tokens_are_refused(server: Server, forge: Forge, name: str) -> None:
    assert server.whoami(BAD[name](forge)) == 401


def test_a_token_for_somebody_else_is_refused(server: Server, upstream: Upstream) -> None:
    assert server.whoami(bearer(server, upstream, "maria", audience="https://another.example.org")) == 401


def test_a_token_makes_the_account_and_keeps_the_memberships(server: Server, upstream: Upstream) -> None:
    upstream.account("tina", eduperson_entitlement=entitled("vo.ruled:role=member"), eduperson_assurance=[LOW])
    token = bearer(server, upstream, "tina")
    assert server.api(token).get("/whoami").json()["vos"] == ["vo.ruled"]
    assert "tina" in members(server, "vo.ruled")


def test_a_token_that_was_revoked_upstream_ends_within_the_interval(server: Server, upstream: Upstream) -> None:
    token = bearer(server, upstream, "maria")
    assert server.whoami(token) == 200
    fields = {"token": token, "client_id": "tool"}
    upstream.control(accounts={})  # the account is gone there: its tokens are inactive
    httpx.post(f"{upstream.url}/token/revocation", data=fields)
    time.sleep(1.1)
    status = server.whoami(token)
    upstream.control(accounts=upstream.accounts)
    assert status == 401


def test_local_suspension_is_immediate(server: Server, upstream: Upstream) -> None:
    token = bearer(server, upstream, "paul")
    api = server.api(token)
    me = api.get("/whoami").json()["id"]
    assert server.operator().post(f"/users/{me}/suspend").status_code == 200
    assert api.get("/whoami").status_code == 403
    browser = sign_in(server, upstream, "paul")
    assert browser.page is not None
    assert browser.page.status_code == 403
    server.operator().post(f"/users/{me}/resume")
    assert api.get("/whoami").status_code == 200


def test_while_the_upstream_is_away_tokens_are_believed_for_a_while(server: Server, upstream: Upstream) -> None:
    token, fresh = bearer(server, upstream, "maria"), bearer(server, upstream, "paul")
    assert server.whoami(token) == 200
    upstream.control(broken=True)
    try:
        time.sleep(1.1)
        assert server.whoami(token) == 200  # asked in vain
        assert server.whoami(fresh) == 200  # issued a moment ago
        answer = until(lambda: (said := server.api(token).get("/whoami")).status_code != 200 and said)
        assert (answer.status_code, answer.json()["code"]) == (503, "identity.upstream_away")
        away = Browser(server)
        assert away.get(f"{server.issuer}/broker/up/login").status_code in (303, 503)
    finally:
        upstream.control(broken=False)
    until(lambda: server.whoami(token) == 200)
