"""What an upstream says, and what it means: entitlements, assurance, memberships, grants of authority. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from hansa.identity.access import BadToken
from hansa.identity.authority import is_good
from hansa.identity.authority_room import REFRESH, Lapse, decide, next_refresh
from hansa.identity.model import Role
from hansa.identity.upstream.bearer import Held, is_believed, is_fresh
from hansa.identity.upstream.issuers import read_issuers
from hansa.identity.upstream.model import (
    PRESETS,
    BadPattern,
    Given,
    Profile,
    clean_name,
    compile_pattern,
    is_assured,
    read_entitlements,
    read_profile,
)
from hansa.identity.upstream.people import Change, Wanted, decide_memberships
from hansa.identity.upstream.remote import read_keys
from hansa.identity.upstream.tokens import check_access, check_id_token
from hansa.kernel.errors import Fault
from hansa.kernel.reconcile import Act, Settle
from hansa.kernel.settings import IdentitySettings, IssuerSettings

T0 = datetime(2026, 11, 25, 12, tzinfo=UTC)
EGI = PRESETS["egi-check-in"].patterns
VO = "urn:mace:egi.eu:group:vo.access.egi.eu"


@pytest.mark.parametrize(
    ("values", "given"),
    [
        ([f"{VO}#aai.egi.eu"], [("vo.access.egi.eu", set(), ())]),
        ([f"{VO}:role=member#aai.egi.eu"], [("vo.access.egi.eu", {Role.MEMBER}, ())]),
        ([f"{VO}:role=vm_operator#aai.egi.eu"], [("vo.access.egi.eu", {Role.VM_OPERATOR}, ())]),
        ([f"{VO}:role=manager#aai.egi.eu"], [("vo.access.egi.eu", {Role.MANAGER}, ())]),
        ([f"{VO}:role=janitor#aai.egi.eu"], [("vo.access.egi.eu", set(), ())]),
        ([f"{VO}:a:b:role=manager#aai.egi.eu"], [("vo.access.egi.eu", set(), ("a:b",))]),
        ([f"{VO}:a#aai.egi.eu", f"{VO}:role=member#aai.egi.eu"], [("vo.access.egi.eu", {Role.MEMBER}, ("a",))]),
        ([f"{VO}:a%20b#aai.egi.eu"], [("vo.access.egi.eu", set(), ("a b",))]),
        ([f"{VO}#evil.example"], []),
        ([VO], []),
        ([f"x{VO}#aai.egi.eu"], []),
        (["urn:mace:egi.eu:group:role=member#aai.egi.eu"], []),
        (["urn:mace:terena.org:group:vo.access.egi.eu#aai.egi.eu"], []),
        ([f"{VO}{':a' * 2000}#aai.egi.eu"], []),
    ],
)
def test_entitlements_are_memberships(values: list[str], given: list[Any]) -> None:
    found = read_entitlements(values, EGI)
    assert [(one.vo, set(one.roles), one.groups) for one in found] == given


def test_groups_of_keycloak_are_paths() -> None:
    found = read_entitlements(["/vo.a", "/vo.a/astro/x", "vo.b"], PRESETS["keycloak"].patterns)
    assert found == (Given("vo.a", frozenset(), ("astro:x",)),)


@pytest.mark.parametrize("pattern", ["{vo", "{vo}]", "[[{vo}]]", "[{vo}", "urn:{role}", "{vo}{vo}", "{who}", "}{vo}"])
def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(BadPattern):
        compile_pattern(pattern)


def profile(**claims: Any) -> Profile:
    is_complete = claims.pop("is_complete", True)
    return read_profile(
        {"sub": "s-1", **claims},
        "https://up",
        entitlement_claims=("eduperson_entitlement", "entitlements"),
        patterns=EGI,
        roles={"boss": "manager"},
        is_complete=is_complete,
    )


def test_what_is_not_said_is_not_none() -> None:
    assert profile(is_complete=False).given is None
    assert profile().given == ()
    assert profile(is_complete=False, entitlements=[]).given == ()
    both = profile(eduperson_entitlement=[f"{VO}:role=member#aai.egi.eu"], entitlements=f"{VO}:role=boss#aai.egi.eu")
    assert both.given == (Given("vo.access.egi.eu", frozenset({Role.MEMBER, Role.MANAGER}), ()),)


def test_names_are_for_people() -> None:
    assert profile(preferred_username="  maria\n").name == "maria"
    assert profile(name="<b>Maria</b>").name == "bMariab"
    assert profile().name == "user-s-1"
    assert len(clean_name("x" * 500)) == 80
    assert clean_name("\u202e\x00") == ""


def test_one_of_the_needed_assurances_is_enough() -> None:
    low = profile(eduperson_assurance=["low", "other"])
    assert is_assured(low, [])
    assert is_assured(low, ["high", "low"])
    assert not is_assured(low, ["high"])


def vo(name: str, issuer_vo: str | None = None, assurance: list[str] | None = None) -> Any:
    return SimpleNamespace(name=name, issuer_vo=issuer_vo, assurance=assurance)


def held(name: str, identity: str | None, roles: list[str] | None = None) -> Any:
    return SimpleNamespace(vo=name, identity_id=identity, roles=roles or [], groups=[], suspended=None)


def test_memberships_follow_one_identity_and_touch_no_other() -> None:
    given = [Given("a", frozenset({Role.MEMBER, Role.MANAGER}), ("g", "no group!")), Given("up-b", frozenset(), ())]
    ruled = [vo("a"), vo("b", "up-b"), vo("c"), vo("d")]
    rows = [held("c", "identity_1"), held("d", "identity_2"), held("e", None)]
    assert decide_memberships(ruled, given, rows, "identity_1", profile()) == [
        Change("a", Wanted(["manager"], ["g"]), is_new=True),
        Change("b", Wanted([], []), is_new=True),
        Change("c", None, is_new=False),
    ]
    same = [held("a", "identity_1", ["manager"])]
    same[0].groups = ["g"]
    assert decide_memberships([vo("a")], given, same, "identity_1", profile()) == []
    assert decide_memberships([vo("a", assurance=["high"])], given, [], "identity_1", profile()) == []


def issuer(**more: Any) -> Any:
    settings = IssuerSettings(name="up", url="https://up", client_id="me", **more)
    return next(iter(read_issuers([settings], "https://own")))


def test_an_issuer_is_read_with_its_preset() -> None:
    one = issuer(preset="egi-check-in")
    assert (one.title, one.takes_tokens, one.rules_vos) == ("EGI Check-in", False, True)
    assert "voperson_id" in one.scopes
    for bad in ({"patterns": ["{x}"]}, {"roles": {"a": "king"}}, {"client_secret_file": "/nowhere/at/all"}):
        with pytest.raises(Fault, match="up is not set up right"):
            issuer(**bad)
    with pytest.raises(ValueError, match="https"):
        IssuerSettings(name="up", url="http://up", client_id="me")
    with pytest.raises(Fault, match="this server itself"):
        read_issuers([IssuerSettings(name="up", url="https://own", client_id="me")], "https://own")


GOOD = {"aud": "https://api", "azp": "tool", "scope": "openid api"}


@pytest.mark.parametrize(
    ("rule", "header", "claims", "is_good"),
    [
        ({"audiences": ["https://api"]}, {}, {}, True),
        ({"audiences": ["https://api"]}, {"typ": "at+jwt"}, {"aud": ["x", "https://api"], "nonce": "n"}, True),
        ({"audiences": ["https://api"]}, {"typ": "JWT"}, {"nonce": "n"}, False),
        ({"audiences": ["https://api"]}, {"typ": "JWT"}, {"nonce": "n", "typ": "Bearer"}, True),
        ({"audiences": ["https://api"]}, {}, {"aud": "https://api/"}, False),
        ({"audiences": ["https://api"]}, {}, {"aud": None}, False),
        ({"clients": ["tool"]}, {}, {"aud": None}, True),
        ({"clients": ["tool"]}, {}, {"azp": None, "client_id": "tool"}, True),
        ({"clients": ["tool"]}, {}, {"azp": "other", "client_id": "tool"}, False),
        ({"clients": ["tool"], "api_scopes": ["api"]}, {}, {}, True),
        ({"clients": ["tool"], "api_scopes": ["api", "more"]}, {}, {}, False),
        ({"clients": ["tool"], "api_scopes": ["api"]}, {}, {"scope": None, "scp": ["api"]}, False),
        ({"clients": ["tool"]}, {}, {"typ": "ID"}, False),
        ({"clients": ["tool"]}, {}, {"at_hash": "x"}, False),
        ({"clients": ["tool"]}, {}, {"cnf": {"jkt": "x"}}, False),
        ({}, {}, {}, False),
    ],
)
def test_which_access_tokens_the_api_takes(
    rule: dict[str, Any], header: dict[str, Any], claims: dict[str, Any], is_good: bool
) -> None:
    said = GOOD | claims
    try:
        check_access(header, said, issuer(**rule))
    except BadToken:
        assert not is_good
    else:
        assert is_good


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "you"},
        {"aud": ["me", "you"]},
        {"azp": "you"},
        {"nonce": "m"},
        {"nonce": None},
        {"aud": ["you"], "azp": "me"},
    ],
)
def test_an_id_token_is_for_this_client_and_this_login(change: dict[str, Any]) -> None:
    check_id_token({"aud": ["me"], "nonce": "n"}, issuer(), "n")
    check_id_token({"aud": ["me", "you"], "azp": "me", "nonce": "n"}, issuer(), "n")
    with pytest.raises(BadToken):
        check_id_token({"aud": ["me"], "nonce": "n"} | change, issuer(), "n")


def test_secret_keys_and_encryption_keys_verify_nothing() -> None:
    with pytest.raises(ValueError, match="no key"):
        read_keys({"keys": [{"kty": "oct", "k": "eA"}, {"kty": "RSA", "use": "enc"}, {"kty": "RSA", "d": "x"}]})


def test_while_the_issuer_is_away_a_token_is_believed_for_a_while_and_never_beyond_its_end() -> None:
    one = Held(issuer(), {}, (T0 + timedelta(minutes=10)).timestamp(), T0, T0, profile())
    assert is_believed(one, T0 + timedelta(minutes=9), 900)
    assert not is_believed(one, T0 + timedelta(minutes=10), 900)
    assert not is_believed(one, T0 + timedelta(minutes=9), 300)


@pytest.mark.parametrize(
    ("vouched_s", "asked_s", "now_s", "fresh"),
    [
        (0, 0, 59, True),
        (0, 0, 60, False),
        (0, 880, 899, True),  # asked in vain
        (0, 880, 900, False),  # nor does the wait for the next question prolong it
        (890, 890, 920, True),  # it answered
    ],
)
def test_an_issuer_is_asked_every_minute_and_is_away_for_15_at_most(
    vouched_s: int, asked_s: int, now_s: int, fresh: bool
) -> None:
    settings = IdentitySettings()
    assert (settings.introspect_s, settings.away_s) == (60, 900)
    with pytest.raises(ValueError, match="900"):
        IdentitySettings(away_s=901)
    vouched, asked, now = (T0 + timedelta(seconds=one) for one in (vouched_s, asked_s, now_s))
    held = Held(issuer(), {}, (T0 + timedelta(hours=1)).timestamp(), vouched, asked, profile())
    assert is_fresh(held, now, timedelta(seconds=settings.introspect_s), settings.away_s) is fresh


def grant(**change: Any) -> Any:
    row = {
        "kind": "offline_token",
        "phase": "active",
        "expires": None,
        "refreshed": T0,
        "created": T0,
        "access_expires": T0 + timedelta(hours=1),
        "generation": 1,
        "observed_generation": 1,
    }
    return SimpleNamespace(**(row | change))


def test_a_grant_is_refreshed_long_before_its_end() -> None:
    assert next_refresh(T0, None) == T0 + timedelta(hours=12)
    assert next_refresh(T0, T0 + timedelta(hours=1)) == T0 + timedelta(minutes=30)
    assert decide(grant(), T0) == Settle("identity.grant_good", T0 + timedelta(hours=12))
    assert isinstance(decide(grant(), T0 + timedelta(hours=12)), Act)
    wanted = decide(grant(generation=2, access_expires=T0), T0)
    assert isinstance(wanted, Act)
    assert wanted.operation == REFRESH
    assert isinstance(decide(grant(generation=2), T0), Settle)  # what there is lasts
    assert isinstance(decide(grant(expires=T0), T0), Lapse)
    assert decide(grant(phase="lapsed"), T0 + timedelta(days=9)) == Settle("identity.grant_over")
    site = grant(kind="site_credential", expires=T0 + timedelta(days=1), access_expires=None)
    assert decide(site, T0) == Settle("identity.grant_good", T0 + timedelta(days=1))


def test_a_credential_must_last_until_the_end_of_what_is_started() -> None:
    until = T0 + timedelta(days=2)
    assert is_good(grant(kind="site_credential"), until, T0)
    assert not is_good(grant(kind="site_credential", expires=T0 + timedelta(days=1)), until, T0)
    assert is_good(grant(expires=T0 + timedelta(days=1)), until, T0)  # it is prolonged
    assert not is_good(grant(expires=T0), until, T0)
    assert not is_good(grant(phase="lapsed"), until, T0)
