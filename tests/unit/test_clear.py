"""The search for secrets finds them."""

from __future__ import annotations

from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from hansa.kernel.secrets import new_token
from tests.support import clear

KEY = RSAKey.generate_key(2048, private=True)
JWT = jwt.encode({"alg": "RS256"}, {"sub": "ada", "iss": "https://hansa.example.org"}, KEY)
SECRETS = [new_token("local"), JWT, KEY.as_pem(private=True).decode(), "seven wild geese"]


@pytest.mark.parametrize("secret", SECRETS, ids=["token", "JWT", "key", "password"])
def test_a_secret_is_found_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    home = tmp_path / "home"
    (home / "db").mkdir(parents=True)
    content = b"x" * 500 + secret.encode() + b"\0" * 500
    assert clear.in_clear(content, [SECRETS[-1]])
    (home / "db" / "hansa.db").write_bytes(content)
    monkeypatch.setattr(clear, "_CHUNK", 512)  # it is cut in two
    with pytest.raises(AssertionError, match="in clear in"):
        clear.assert_none_in_clear(home, [SECRETS[-1]])
    (home / "db" / "hansa.db").write_bytes(b"y" * 2000)
    (tmp_path / "home.log").write_bytes(content)
    with pytest.raises(AssertionError, match=r"home\.log"):
        clear.assert_none_in_clear(home, [SECRETS[-1]])


def test_what_is_no_secret_is_left_alone() -> None:
    assert not clear.in_clear(KEY.as_pem(private=False) + b"hansa_jobs hansa_user_01a2 eyJhbGciOiJub25lIn0", ["ab"])
