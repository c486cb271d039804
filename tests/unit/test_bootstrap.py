"""tools/bootstrap.py: the decisions that it takes before anything is fetched."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.tools import load_tool


@pytest.fixture
def bootstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    module = load_tool("bootstrap")
    for name in (
        "UV_DEFAULT_INDEX",
        "UV_INDEX_URL",
        "PIP_INDEX_URL",
        "SSL_CERT_FILE",
        "PIP_CERT",
        "XDG_CONFIG_HOME",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    return module


def test_pip_configuration_gives_index_and_certificates(bootstrap: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://mirror.example/simple/\ncert = /ca.pem\n")
    assert bootstrap.index_url() == "https://mirror.example/simple"
    assert bootstrap.certificates() == "/ca.pem"


def test_the_environment_wins_over_files(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://mirror.example/simple\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple")
    assert bootstrap.index_url() == "https://pip.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "inhouse=https://uv.example/simple")
    assert bootstrap.index_url() == "https://uv.example/simple"


@pytest.mark.parametrize(
    "listing",
    [
        '{"files": [{"filename": "uv-1-py3-none-any.whl", "url": "../../files/uv-1-py3-none-any.whl"}]}',
        '<html><a href="../../files/uv-1-py3-none-any.whl#sha256=00">uv-1-py3-none-any.whl</a></html>',
    ],
    ids=["json", "html"],
)
def test_both_kinds_of_index_are_read(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, listing: str) -> None:
    monkeypatch.setattr(bootstrap, "download", lambda url, accept="": listing.encode())
    found = bootstrap.file_url("https://me:secret@mirror.example/simple", "uv-1-py3-none-any.whl")
    assert found == "https://me:secret@mirror.example/files/uv-1-py3-none-any.whl"


def test_a_password_is_never_shown(bootstrap: ModuleType) -> None:
    assert bootstrap.without_password("https://me:secret@mirror.example/simple") == "https://mirror.example/simple"


def wheel_with(content: bytes, version: str) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr(f"uv-{version}.data/scripts/uv", content)
    return memory.getvalue()


def test_a_wheel_with_another_digest_is_refused(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap, "file_url", lambda index, name: "https://mirror.example/uv.whl")
    monkeypatch.setattr(bootstrap, "download", lambda url: wheel_with(b"#!/bin/sh\n", bootstrap.UV_PINNED))
    with pytest.raises(SystemExit, match="sha256 differs"):
        bootstrap.fetch_uv(tmp_path / "tools" / "uv")
    assert not (tmp_path / "tools").exists()


def test_the_binary_is_put_in_its_place(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = wheel_with(b"#!/bin/sh\necho uv 9.8.7\n", bootstrap.UV_PINNED)
    monkeypatch.setattr(bootstrap, "wheel_for_this_machine", lambda: ("any", hashlib.sha256(wheel).hexdigest()))
    monkeypatch.setattr(bootstrap, "file_url", lambda index, name: "https://mirror.example/uv.whl")
    monkeypatch.setattr(bootstrap, "download", lambda url: wheel)
    target = tmp_path / "tools" / "uv"
    bootstrap.fetch_uv(target)
    assert bootstrap.uv_version(str(target)) == (9, 8, 7)
    assert [path.name for path in target.parent.iterdir()] == ["uv"]
