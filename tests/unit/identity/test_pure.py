"""The decisions of identity that need nothing but their arguments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from authlib.oauth2 import OAuth2Error

from hansa.identity.keys import still_published
from hansa.identity.lockout import Failures, keys_of, wait_s
from hansa.identity.model import Membership, Role, entitlements
from hansa.identity.passwords import check_password
from hansa.identity.provider.browser import Browser, origin_of, safe_next
from hansa.identity.provider.clients import Client, built_in, redirect_problem, same_redirect
from hansa.identity.provider.grants import narrow, narrow_scopes
from hansa.identity.provider.service import normal_user_code
from hansa.kernel.errors import Fault

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_entitlements_as_aarc_g069_has_them() -> None:
    mine = [
        Membership("vo.a", frozenset({Role.MANAGER}), ("astro", "astro:radio")),
        Membership("vo.b", suspended=True),
        Membership("vo.c", vo_suspended=True),
    ]
    assert entitlements(mine, "hansa.example.org") == [
        "urn:mace:hansa:group:vo.a:role=member#hansa.example.org",
        "urn:mace:hansa:group:vo.a:role=manager#hansa.example.org",
        "urn:mace:hansa:group:vo.a:astro:role=member#hansa.example.org",
        "urn:mace:hansa:group:vo.a:astro:radio:role=member#hansa.example.org",
    ]


def waits(count: int, ago_s: float, key: str = "both") -> float:
    free = keys_of("Ada ", "10.0.0.1")
    name = next(one for one in free if one.startswith(key))
    return wait_s({name: Failures(count, NOW - timedelta(seconds=ago_s))}, free, NOW)


def test_the_wait_grows_with_failures_and_has_an_end() -> None:
    assert waits(4, 0) == 0
    assert waits(5, 0) == 5
    assert waits(5, 5) == 0
    assert waits(7, 0) == 20
    assert waits(500, 0) == 900
    assert waits(500, 25 * 3600) == 0


def test_others_do_not_pay_for_one_who_guesses() -> None:
    assert waits(40, 0, "name") == 0
    assert waits(60, 0, "name") > 0
    assert keys_of("ADA", "a") == keys_of("ada ", "a")


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaa", "adaadaada1", "x" * 1001])
def test_easy_passwords_are_refused(password: str) -> None:
    with pytest.raises(Fault, match="password"):
        check_password(password, "ada")


def test_a_name_inside_a_long_password_does_no_harm() -> None:
    check_password("seven wild geese fly", "eve")


@pytest.mark.parametrize(
    ("given", "is_same"),
    [
        ("http://127.0.0.1:1234/callback", True),
        ("http://127.0.0.1/callback", True),
        ("http://127.0.0.1:1234/callback/", False),
        ("http://127.0.0.1:1234/callback?a=b", False),
        ("http://127.0.0.1:1234/callback#x", False),
        ("http://127.0.0.1:x/callback", False),
        ("http://user@127.0.0.1:1234/callback", False),
        ("https://127.0.0.1:1234/callback", False),
        ("http://localhost:1234/callback", False),
    ],
)
def test_redirects_are_the_same_but_for_the_port_on_loopback(given: str, is_same: bool) -> None:
    assert same_redirect("http://127.0.0.1/callback", given) is is_same


def test_only_loopback_has_free_ports() -> None:
    assert not same_redirect("https://a.example/cb", "https://a.example:444/cb")
    assert not same_redirect("http://localhost/cb", "http://localhost:444/cb")
    assert same_redirect("http://[::1]/cb", "http://[::1]:444/cb")


def test_redirects_that_can_be_registered() -> None:
    assert redirect_problem("https://a.example/cb") is None
    assert redirect_problem("http://localhost:8000/cb") is None
    for bad in ("http://a.example/cb", "https://*.example/cb", "https://a.example/#x", "javascript:x", "https://u@a/"):
        assert redirect_problem(bad), bad


def test_tokens_of_a_client_are_for_itself_unless_it_was_set_up_otherwise() -> None:
    assert Client("a", "").audience("api") == ["a"]
    assert Client("a", "", audiences=("site",)).audience("api") == ["site"]
    assert built_in().audience("api") == ["api"]
    assert Client("a", "").get_allowed_scope("openid hansa hansa.read x openid") == "openid"


def test_a_login_leads_nowhere_else() -> None:
    home = "/"
    for good in ("/auth/realms/hansa/device?user_code=AB//C&x=https://a", "/jobs/12?phase=failed", "/"):
        assert safe_next(good) == good
    for bad in (
        None,
        "",
        "//a",
        "https://a/auth/realms/hansa/x",
        "/auth/realms/hansa/../x",
        "/auth/realms/hansax",
        "/api/v1/jobs",
        "jobs",
        "\\",
    ):
        assert safe_next(bad) == home, bad


def test_origins() -> None:
    assert origin_of("https://a.example:8/x?y") == "https://a.example:8"
    for bad in ("javascript:x", "https://a;script-src *", "", None, "https://a b/"):
        assert origin_of(bad) is None


def test_user_codes_as_people_type_them() -> None:
    assert normal_user_code(" bcdf ghjk") == normal_user_code("BCDF-GHJK") == "BCDF-GHJK"


def test_exchange_narrows() -> None:
    assert narrow(["a", "b"], []) == ["a", "b"]
    assert narrow(["a", "b"], ["b"]) == ["b"]
    with pytest.raises(OAuth2Error):
        narrow(["a"], ["a", "c"])
    assert narrow_scopes(frozenset({"openid", "offline_access"}), None) == "openid"
    assert narrow_scopes(frozenset({"hansa"}), "hansa.read") == "hansa.read"
    for bad in ("hansa", "offline_access"):
        with pytest.raises(OAuth2Error):
            narrow_scopes(frozenset({"hansa.read", "offline_access"}), bad)


def test_a_retired_key_is_published_until_its_last_token_has_expired() -> None:
    assert still_published(None, NOW, 3600)
    assert still_published(NOW, NOW + timedelta(seconds=3600), 3600)
    assert not still_published(NOW, NOW + timedelta(hours=2), 3600)


def test_behind_https_cookies_are_for_this_host_alone() -> None:
    browser = Browser("https://hansa.example.org", b"k" * 32)
    answer = browser.signed_in("/auth/realms/hansa/account", "secret")
    cookies = answer.headers.getlist("set-cookie")
    assert any(cookie.startswith("__Host-hansa_session=secret;") for cookie in cookies)
    for cookie in cookies:
        assert cookie.startswith("__Host-hansa_")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}
    assert answer.headers["location"] == "https://hansa.example.org/auth/realms/hansa/account"
