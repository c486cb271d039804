from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from hansa.kernel.secrets import new_token, token_hash, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_file_is_private_from_its_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = os.open

    def spy(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        descriptor = real(path, flags, *args, **kwargs)
        if flags & os.O_CREAT:
            seen.append(mode(Path(path)))
        return descriptor

    monkeypatch.setattr(os, "open", spy)
    before = os.umask(0)
    try:
        write_private(tmp_path / "token", "secret")
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert mode(tmp_path / "token") == 0o600
    assert (tmp_path / "token").read_text() == "secret"


def test_a_private_file_replaces_one_that_others_could_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), mode(file)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_tokens_are_recognisable_and_kept_as_hashes() -> None:
    one, two = new_token("pilot"), new_token("pilot")
    assert one.startswith("hansa_pilot_")
    assert one != two
    assert token_hash(one) == token_hash(one) != token_hash(two)
    assert one not in token_hash(one)
