"""The protocol from outside: code with PKCE, devices, refresh, introspection, revocation, exchange, keys."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.identity import (
    ACCESS_TOKEN,
    DEVICE,
    EXCHANGE,
    PASSWORD,
    Browser,
    Pkce,
    Server,
    claims,
    header,
    returned,
)

MEMBER = "urn:mace:hansa:group:vo.example.org:role=member#127.0.0.1"
MANAGER = "urn:mace:hansa:group:vo.example.org:role=manager#127.0.0.1"


def test_discovery_names_keycloaks_paths(server: Server) -> None:
    found = httpx.get(f"{server.issuer}/.well-known/openid-configuration").json()
    assert found["issuer"] == server.issuer
    assert found["token_endpoint"] == f"{server.url}/auth/realms/hansa/protocol/openid-connect/token"
    assert found["device_authorization_endpoint"] == f"{server.protocol}/auth/device"
    assert found["introspection_endpoint"] == f"{server.protocol}/token/introspect"
    assert found["code_challenge_methods_supported"] == ["S256"]


def test_code_with_pkce_from_the_login_page_to_the_api(server: Server, ada: Browser) -> None:
    browser, pkce = Browser(server), Pkce()
    page = browser.authorize(pkce, nonce="n0nce")
    assert page.status_code == 200
    assert "form-action 'self' http://127.0.0.1:7777;" in page.headers["content-security-policy"]
    browser.submit(name="ada", password=PASSWORD)
    back = returned(browser.follow())
    assert back["state"] == "st4te"
    assert back["iss"] == server.issuer
    server.secrets.add(back["code"])
    answer = server.token(
        grant_type="authorization_code",
        client_id="hansa-cli",
        code=back["code"],
        redirect_uri="http://127.0.0.1:7777/callback",
        code_verifier=pkce.verifier,
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    keys = KeySet.import_key_set(httpx.get(f"{server.protocol}/certs").json())
    access = jwt.decode(found["access_token"], keys, algorithms=["RS256"])
    assert access.header["typ"] == "at+jwt"
    assert access.claims["iss"] == server.issuer
    assert access.claims["aud"] == [server.url]
    assert access.claims["client_id"] == "hansa-cli"
    assert {"sub", "jti", "iat", "exp", "scope"} <= access.claims.keys()  # RFC 9068, 2.2
    assert access.claims["eduperson_entitlement"] == access.claims["entitlements"] == [MEMBER, MANAGER]
    identity = jwt.decode(found["id_token"], keys, algorithms=["RS256"]).claims
    assert (identity["aud"], identity["nonce"], identity["sub"]) == ("hansa-cli", "n0nce", access.claims["sub"])
    me = server.api(found["access_token"]).get("/whoami").json()
    assert (me["name"], me["vos"], me["operator"]) == ("ada", ["vo.example.org"], False)
    user = httpx.get(f"{server.protocol}/userinfo", headers={"Authorization": f"Bearer {found['access_token']}"})
    assert user.json()["sub"] == access.claims["sub"]
    assert user.json()["preferred_username"] == "ada"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"code_verifier": "x" * 50}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:7778/callback"}, "invalid_grant"),
        ({"code": "hansa_code_unknown"}, "invalid_grant"),
        ({"client_id": "nobody"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
def test_what_does_not_fit_the_code_is_refused(
    server: Server, ada: Browser, change: dict[str, str], error: str
) -> None:
    pkce = Pkce()
    fields = {
        "grant_type": "authorization_code",
        "client_id": "hansa-cli",
        "code": ada.code(pkce),
        "redirect_uri": "http://127.0.0.1:7777/callback",
        "code_verifier": pkce.verifier,
    }
    answer = server.token(**{name: value for name, value in (fields | change).items() if value})
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] == error


def test_a_code_that_comes_twice_ends_what_it_was_redeemed_for(server: Server, ada: Browser) -> None:
    pkce = Pkce()
    fields = {
        "grant_type": "authorization_code",
        "client_id": "hansa-cli",
        "code": ada.code(pkce),
        "redirect_uri": "http://127.0.0.1:7777/callback",
        "code_verifier": pkce.verifier,
    }
    first = server.token(**fields).json()
    assert server.whoami(first["access_token"]) == 200
    assert server.token(**fields).json()["error"] == "invalid_grant"
    assert server.whoami(first["access_token"]) == 401
    again = server.token(grant_type="refresh_token", client_id="hansa-cli", refresh_token=first["refresh_token"])
    assert again.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"code_challenge": "", "code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"request": "eyJ"}, "invalid_request"),
    ],
)
def test_a_wrong_request_goes_back_with_its_reason(
    server: Server, ada: Browser, change: dict[str, str], error: str
) -> None:
    answer = ada.authorize(Pkce(), **change)
    if change == {"request": "eyJ"}:
        assert answer.status_code == 400
        return
    back = returned(answer)
    assert (back["error"], back["state"], back["iss"]) == (error, "st4te", server.issuer)


def test_prompt_none_never_shows_a_page(server: Server, ada: Browser) -> None:
    assert returned(Browser(server).authorize(Pkce(), prompt="none"))["error"] == "login_required"
    assert "code" in returned(ada.authorize(Pkce(), prompt="none"))


def test_prompt_login_asks_again_and_then_goes_on(server: Server, ada: Browser) -> None:
    browser = Browser(server)
    browser.login("ada")
    assert "Sign in" in browser.authorize(Pkce(), prompt="login").text
    browser.submit(name="ada", password=PASSWORD)
    assert "code" in returned(browser.follow())


def test_consent_is_asked_once_of_clients_that_are_not_trusted(server: Server, ada: Browser) -> None:
    callback = "https://hub.example.org/callback"
    client = server.add_client(id="hub", name="The hub", redirect_uris=[callback], confidential=True)
    auth = ("hub", client["secret"])
    ask = {"client_id": "hub", "redirect_uri": callback, "scope": "openid profile hansa"}
    page = ada.authorize(Pkce(), **ask)
    assert "The hub wants to" in page.text
    assert "do on this server all" not in page.text  # its tokens are not for our API
    assert returned(ada.submit(decision="deny"))["error"] == "access_denied"
    ada.authorize(Pkce(), **ask)
    assert "code" in returned(ada.submit(decision="allow"))
    pkce = Pkce()
    fields = {"grant_type": "authorization_code", "redirect_uri": callback, "code_verifier": pkce.verifier}
    code = ada.code(pkce, **ask)
    assert server.token(client_id="hub", code=code, **fields).status_code == 401
    assert server.token(auth=("hub", "wrong"), code=code, **fields).status_code == 401
    found = server.token(auth=auth, code=code, **fields).json()
    assert claims(found["access_token"])["aud"] == ["hub"]
    assert server.whoami(found["access_token"]) == 401
    assert claims(found["id_token"])["aud"] == "hub"


def wait_for_device(server: Server, code: str) -> httpx.Response:
    return server.token(grant_type=DEVICE, client_id="hansa-cli", device_code=code)


def test_a_device_waits_for_its_user(server: Server, ada: Browser) -> None:
    started = server.post("auth/device", client_id="hansa-cli", scope="openid offline_access hansa").json()
    assert wait_for_device(server, started["device_code"]).json()["error"] == "authorization_pending"
    assert wait_for_device(server, started["device_code"]).json()["error"] == "slow_down"
    browser = Browser(server)
    browser.get(started["verification_uri"])
    assert "Sign in" in browser.follow().text
    browser.submit(name="ada", password=PASSWORD)
    browser.follow()
    assert browser.submit(user_code="ZZZZ-ZZZZ").status_code == 404
    page = browser.submit(user_code=started["user_code"].lower().replace("-", " "))
    assert started["user_code"] in page.text
    assert browser.submit(decision="allow").status_code == 200
    found = wait_for_device(server, started["device_code"])
    assert found.status_code == 200, found.text
    assert "id_token" in found.json()
    assert server.whoami(found.json()["access_token"]) == 200
    assert wait_for_device(server, started["device_code"]).json()["error"] == "invalid_grant"


def test_a_device_can_be_refused(server: Server, ada: Browser) -> None:
    started = server.post("auth/device", client_id="hansa-cli", scope="openid").json()
    ada.get(started["verification_uri_complete"])
    assert ada.submit(decision="deny").status_code == 200
    assert wait_for_device(server, started["device_code"]).json()["error"] == "access_denied"


def refreshed(server: Server, token: str, **more: str) -> httpx.Response:
    return server.token(grant_type="refresh_token", client_id="hansa-cli", refresh_token=token, **more)


def test_refresh_tokens_rotate_and_reuse_ends_the_family(server: Server, ada: Browser) -> None:
    first = ada.tokens(scope="openid offline_access hansa")
    second = refreshed(server, first["refresh_token"]).json()
    assert claims(second["id_token"])["auth_time"] == claims(first["id_token"])["auth_time"]
    third = refreshed(server, second["refresh_token"]).json()
    assert server.whoami(third["access_token"]) == 200
    assert refreshed(server, first["refresh_token"]).json()["error"] == "invalid_grant"
    assert refreshed(server, third["refresh_token"]).json()["error"] == "invalid_grant"
    assert server.whoami(third["access_token"]) == 401
    owner = server.api(ada.tokens()["access_token"])
    assert owner.get("/whoami").status_code == 200


def test_a_refresh_may_narrow_and_never_widens(server: Server, ada: Browser) -> None:
    first = ada.tokens(scope="openid hansa.read")
    assert refreshed(server, first["refresh_token"], scope="openid hansa").json()["error"] == "invalid_scope"
    narrow = refreshed(server, first["refresh_token"], scope="openid").json()
    assert narrow["scope"] == "openid"
    assert server.api(narrow["access_token"]).get("/jobs").status_code == 403
    wide = refreshed(server, narrow["refresh_token"]).json()
    assert server.api(wide["access_token"]).get("/jobs").status_code == 200
    assert server.api(wide["access_token"]).post("/jobs", json={"command": ["true"]}).status_code == 403


@pytest.fixture(scope="module")
def site(server: Server) -> tuple[str, str]:
    """A confidential client that may introspect any token."""
    return "site-a", server.add_client(id="site-a", confidential=True, introspects=True)["secret"]


def test_introspection(server: Server, ada: Browser, site: tuple[str, str]) -> None:
    token = ada.tokens()["access_token"]
    found = server.post("token/introspect", site, token=token).json()
    assert found["active"] is True
    assert (found["username"], found["iss"], found["entitlements"]) == ("ada", server.issuer, [MEMBER, MANAGER])
    assert server.post("token/introspect", site, token="rubbish").json() == {"active": False}
    assert server.post("token/introspect", site, token=token[:-4] + "AAAA").json() == {"active": False}
    assert server.post("token/introspect", client_id="hansa-cli", token=token).status_code == 401
    other = server.add_client(id="nosy", confidential=True)["secret"]
    assert server.post("token/introspect", ("nosy", other), token=token).json() == {"active": False}


def test_revocation(server: Server, ada: Browser, site: tuple[str, str]) -> None:
    one, other = ada.tokens(), ada.tokens()
    assert server.post("revoke", client_id="hansa-cli", token=one["access_token"]).status_code == 200
    assert server.whoami(one["access_token"]) == 401
    assert server.post("token/introspect", site, token=one["access_token"]).json() == {"active": False}
    second = refreshed(server, one["refresh_token"]).json()
    assert server.whoami(second["access_token"]) == 200
    assert server.post("revoke", site, token=other["refresh_token"]).status_code == 200  # not its own: no effect
    assert server.whoami(other["access_token"]) == 200
    assert server.post("revoke", client_id="hansa-cli", token=second["refresh_token"]).status_code == 200
    assert server.whoami(second["access_token"]) == 401
    assert refreshed(server, second["refresh_token"]).json()["error"] == "invalid_grant"
    assert server.post("revoke", client_id="hansa-cli", token="rubbish").status_code == 200


def exchanged(server: Server, token: str, auth: tuple[str, str] | None = None, **more: str) -> httpx.Response:
    who = {} if auth else {"client_id": "hansa-cli"}
    fields = {"subject_token": token, "subject_token_type": ACCESS_TOKEN, **who, **more}
    return server.token(auth=auth, grant_type=EXCHANGE, **fields)


def test_token_exchange_only_narrows(server: Server, ada: Browser, site: tuple[str, str]) -> None:
    token = ada.tokens()["access_token"]
    found = exchanged(server, token, scope="openid hansa.read").json()
    assert found["issued_token_type"] == ACCESS_TOKEN
    assert "refresh_token" not in found
    narrow = claims(found["access_token"])
    assert narrow["exp"] <= claims(token)["exp"]
    assert "entitlements" not in narrow
    known = claims(found["id_token"])
    assert (known["aud"], known["sub"], known["exp"] <= narrow["exp"]) == ("hansa-cli", narrow["sub"], True)
    assert "id_token" not in exchanged(server, token, scope="hansa.read").json()
    assert server.api(found["access_token"]).post("/jobs", json={"command": ["true"]}).status_code == 403
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"audience": "https://elsewhere.example.org"}, "invalid_target"),
        ({"scope": "openid offline_access"}, "invalid_scope"),
        ({"scope": "openid voperson_id"}, "invalid_scope"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
    ]
    for change, error in refusals:
        fields = {"subject_token": token, "subject_token_type": ACCESS_TOKEN, "client_id": "hansa-cli"}
        assert server.token(grant_type=EXCHANGE, **(fields | change)).json()["error"] == error
    assert exchanged(server, found["access_token"], scope="hansa").json()["error"] == "invalid_scope"
    assert exchanged(server, token, auth=site).json()["error"] == "invalid_grant"  # neither its own nor for it
    server.post("revoke", client_id="hansa-cli", token=token)
    assert exchanged(server, token).json()["error"] == "invalid_grant"


def test_keys_rotate_and_old_tokens_stay_valid(server: Server, ada: Browser) -> None:
    before = ada.tokens()["access_token"]
    new = server.operator().post("/keys/rotate").json()["id"]
    after = ada.tokens()["access_token"]
    assert header(after)["kid"] == new != header(before)["kid"]
    assert server.whoami(before) == server.whoami(after) == 200
    published = {key["kid"] for key in httpx.get(f"{server.protocol}/certs").json()["keys"]}
    assert {header(before)["kid"], new} <= published
    assert all("d" not in key for key in httpx.get(f"{server.protocol}/certs").json()["keys"])


def test_suspension_is_immediate(server: Server) -> None:
    browser = server.account("eve")
    tokens = browser.tokens(scope="openid offline_access hansa")
    assert server.whoami(tokens["access_token"]) == 200
    operator = server.operator()
    lines: list[str] = []
    with server.api(tokens["access_token"]).stream("GET", "/events") as stream:
        for line in stream.iter_lines():
            if not lines:
                assert operator.post("/users/eve/suspend").json()["suspended"] is True
            lines.append(line)
            assert lines.count(": still here") < 3, "what is open then ends, too"
    assert server.whoami(tokens["access_token"]) == 403
    assert refreshed(server, tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert "Sign in" in browser.authorize(Pkce()).text
    assert browser.login("eve").status_code == 401
    operator.post("/users/eve/resume")
    assert browser.login("eve").status_code == 303


def test_logout_goes_only_where_the_client_said(server: Server, ada: Browser) -> None:
    target = "https://app.example.org/bye"
    server.add_client(id="app", redirect_uris=["https://app.example.org/cb"], logout_uris=[target], trusted=True)
    browser = Browser(server)
    browser.login("ada")
    tokens = browser.tokens()
    logout = f"{server.protocol}/logout"
    assert "Sign out?" in browser.get(logout, client_id="app", post_logout_redirect_uri=target, state="s").text
    assert "Sign out?" in browser.get(logout, id_token_hint="a.b.c").text
    answer = browser.get(logout, id_token_hint=tokens["id_token"], post_logout_redirect_uri="https://evil.example")
    assert answer.status_code == 200
    assert server.whoami(tokens["access_token"]) == 401  # it was given under this session
    browser.login("ada")
    browser.get(logout, client_id="app", post_logout_redirect_uri=target, state="s")
    assert browser.submit().headers["location"] == f"{target}?state=s"
    assert "Sign in" in browser.authorize(Pkce()).text


def test_a_server_that_comes_back_knows_its_keys_and_sign_ins(server: Server, ada: Browser) -> None:
    tokens = ada.tokens(scope="openid offline_access hansa")
    server.stop()
    server.start()
    assert server.whoami(tokens["access_token"]) == 200
    assert refreshed(server, tokens["refresh_token"]).status_code == 200
    assert time.time() < claims(tokens["access_token"])["exp"]
