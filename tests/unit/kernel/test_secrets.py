from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from hansa.kernel.errors import Fault
from hansa.kernel.secrets import (
    Vault,
    new_master_key,
    new_token,
    read_master_keys,
    token_hash,
    write_private,
)


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


def test_a_vault_opens_what_it_sealed_for_the_same_purpose_only(tmp_path: Path) -> None:
    vault = Vault([b"k" * 32])
    sealed = vault.seal(b"secret", "key/1")
    assert b"secret" not in sealed.encode()
    assert sealed != vault.seal(b"secret", "key/1")
    assert vault.open(sealed, "key/1") == b"secret"
    other = "A" if sealed[-8] != "A" else "B"  # not the last characters: of those some bits are not read
    for damaged, context in ((sealed, "key/2"), (sealed[:-8] + other + sealed[-7:], "key/1"), ("x", "key/1")):
        with pytest.raises(Fault) as raised:
            vault.open(damaged, context)
        assert raised.value.code.code == "kernel.sealed"


def test_a_master_key_is_rotated_while_the_old_one_still_opens() -> None:
    old, new = b"o" * 32, b"n" * 32
    sealed = Vault([old]).seal(b"secret", "c")
    both = Vault([new, old])
    assert both.open(sealed, "c") == b"secret"
    rewrapped = both.rewrap(sealed, "c")
    assert Vault([new]).open(rewrapped, "c") == b"secret"
    with pytest.raises(Fault, match="does not have"):
        Vault([new]).open(sealed, "c")


def test_master_keys_come_from_a_private_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    first, second = new_master_key(), new_master_key()
    write_private(file, f"{first}\n{second}\n")
    assert len(read_master_keys(file, {})) == 2
    assert read_master_keys(file, {"HANSA_MASTER_KEY": second})[0] == read_master_keys(file, {})[1]
    file.chmod(0o640)
    with pytest.raises(Fault, match="Others can read"):
        read_master_keys(file, {})
    for bad in ("short", "!" * 43):
        with pytest.raises(Fault, match="no master key"):
            read_master_keys(file, {"HANSA_MASTER_KEY": bad})
    with pytest.raises(Fault, match="cannot be read"):
        read_master_keys(tmp_path / "none", {})
