"""Errors of OpenStack in our words, connections kept, and secrets that do not show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from keystoneauth1 import exceptions as auth
from openstack import exceptions as sdk

from hansa.engines.openstack import AccessToken, ApplicationCredential, Clouds, Password, Place, translate
from hansa.kernel.errors import Permanent, Temporary

HOST = "keystone.example.org"
HERE = Place(f"https://{HOST}/v3")


def refused(kind: Any, words: str, status: int) -> Any:
    answer = SimpleNamespace(status_code=status, headers={}, request=SimpleNamespace(method="GET", url="https://x"))
    return kind(words, response=answer)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (auth.ConnectFailure("no route"), Temporary),
        (auth.DiscoveryFailure("what is this"), Temporary),
        (auth.Unauthorized("no"), Permanent),
        (auth.InternalServerError("oops"), Temporary),
        (sdk.ResourceTimeout("late"), Temporary),
        (refused(sdk.HttpException, "Quota exceeded for instances", 403), Permanent),
        (refused(sdk.HttpException, "slow down", 429), Temporary),
        (refused(sdk.HttpException, "conflict", 409), Temporary),
        (refused(sdk.NotFoundException, "gone", 404), Permanent),
    ],
)
def test_an_error_is_temporary_or_permanent_and_names_the_site(error: Exception, kind: type[Exception]) -> None:
    found = translate(error, HOST)
    assert type(found) is kind
    assert HOST in str(found)


def test_a_defect_of_ours_stays_one() -> None:
    assert translate(KeyError("x"), HOST) is None


def test_the_site_says_when_to_come_again() -> None:
    error = refused(sdk.HttpException, "busy", 503)
    error.response.headers["Retry-After"] = "17"
    found = translate(error, HOST)
    assert isinstance(found, Temporary)
    assert found.retry_after_s == 17


def test_secrets_do_not_show() -> None:
    for credential in (
        ApplicationCredential("id", "s3cret"),
        Password("ada", "s3cret"),
        AccessToken("ada", lambda: "s3cret"),
    ):
        assert "s3cret" not in repr(credential)
        assert "s3cret" not in credential.identity
        assert "s3cret" in credential.auth().values()


def test_a_connection_is_kept_while_the_credential_is_the_same_one() -> None:
    clouds = Clouds(1)
    try:
        first = clouds.at(HERE, AccessToken("ada", lambda: "old"))
        again = clouds.at(HERE, AccessToken("ada", lambda: "new"))
        assert again is first
        assert first.credential.auth()["access_token"] == "new"
        assert clouds.at(HERE, AccessToken("bob", lambda: "his")) is not first
        assert clouds.at(Place(HERE.auth_url, "p"), AccessToken("ada", lambda: "new")) is not first
    finally:
        clouds.close()


async def test_a_sign_in_that_has_ended_is_made_anew_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clouds = Clouds(1)
    made: list[object] = []

    def connect(_self: object, _timeout_s: float, _loop: object) -> object:
        made.append(SimpleNamespace(close=lambda: None))
        return made[-1]

    monkeypatch.setattr("hansa.engines.openstack.Cloud._connect", connect)

    def work(connection: object) -> str:
        if connection is made[0] and ended:
            raise auth.Unauthorized("expired")
        return "fine"

    try:
        cloud, ended = clouds.at(HERE, AccessToken("ada", lambda: "t")), False
        assert await cloud.call(work) == "fine"
        ended = True
        assert await cloud.call(work) == "fine"
        assert len(made) == 2
    finally:
        clouds.close()
