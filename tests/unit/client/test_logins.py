"""Stored sign-ins: where the secrets are, and when they are refreshed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

from hansa.client import logins, oidc
from hansa.client.connect import configured
from hansa.client.errors import HansaError

URL = "https://hansa.example.org"


class Memory(KeyringBackend):
    """A keyring in memory."""

    priority = 1

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError


@pytest.fixture
def memory() -> Iterator[Memory]:
    before, made = keyring.get_keyring(), Memory()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}


def save(environ: dict[str, str], expires: float) -> None:
    logins.save(logins.Stored(URL, f"{URL}/token", f"{URL}/revoke", "access-1", expires), "refresh-1", environ)


def files(environ: dict[str, str]) -> str:
    folder = Path(environ["XDG_CONFIG_HOME"])
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.rglob("*.json"))
    return "".join(file.read_text() for file in folder.rglob("*") if file.is_file())


def refreshes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def refresh(_endpoint: str, token: str, _ca_file: str | None) -> oidc.Tokens:
        asked.append(token)
        if token != f"refresh-{len(asked)}":
            raise oidc.Refused("invalid_grant", None)
        return oidc.Tokens(f"access-{len(asked) + 1}", f"refresh-{len(asked) + 1}", time.time() + 3600)

    monkeypatch.setattr(oidc, "refresh", refresh)
    return asked


def test_the_refresh_token_is_in_the_keyring_where_there_is_one(
    environ: dict[str, str], memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = refreshes(monkeypatch)
    save(environ, time.time() + 10)
    assert "refresh-1" not in files(environ)
    endpoint = configured(URL, None, None, environ)
    assert endpoint is not None
    assert endpoint.bearer() == "access-2"
    assert endpoint.bearer() == "access-2"
    assert asked == ["refresh-1"]
    assert list(memory.kept.values()) == ["refresh-2"]
    assert "refresh-2" not in files(environ)


def test_else_it_is_in_a_private_file(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = refreshes(monkeypatch)
    environ["HANSA_KEYRING"] = "0"
    save(environ, time.time() + 10)
    assert "refresh-1" in files(environ)
    one, other = logins.find(URL, environ), logins.find(URL, environ)
    assert one is not None
    assert other is not None
    assert (one.token(), other.token()) == ("access-2", "access-2")
    assert asked == ["refresh-1"]


def test_a_sign_in_that_has_ended_says_what_to_do(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    refreshes(monkeypatch)
    environ["HANSA_KEYRING"] = "0"
    save(environ, 0)
    file = next(Path(environ["XDG_CONFIG_HOME"]).rglob("*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"refresh_token": "stolen"}))
    login = logins.find(URL, environ)
    assert login is not None
    with pytest.raises(HansaError, match="has ended") as raised:
        login.token()
    assert raised.value.hint == f"Sign in again: hansa login {URL}"


def test_commands_go_where_one_is_signed_in_unless_told_otherwise(environ: dict[str, str], memory: Memory) -> None:
    assert configured(None, None, None, environ) is None
    save(environ, time.time() + 3600)
    found = configured(None, None, None, environ)
    assert found is not None
    assert (found.url, found.bearer()) == (URL, "access-1")
    assert configured(None, None, None, environ | {"HANSA_HOME": "/somewhere"}) is None
    other = configured(None, None, None, environ | {"HANSA_SERVER": "https://other.example.org"})
    assert other is not None
    assert (other.url, other.bearer()) == ("https://other.example.org", None)
    named = configured(None, None, None, environ | {"HANSA_TOKEN": "mine"})
    assert named is not None
    assert named.bearer() == "mine"


def test_no_secret_goes_over_plain_http() -> None:
    with pytest.raises(HansaError, match="not encrypted"):
        oidc.discover("http://hansa.example.org", None)
