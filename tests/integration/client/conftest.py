"""The fake server, and ``hansa`` as a process that talks to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hansa import Hansa
from tests.integration.client.fake_server import TOKEN, Fake

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()
    yield server
    server.stop()


@pytest.fixture
def environ(fake: Fake, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HANSA_")}
    source = Path(__file__).resolve().parents[3] / "src"
    return kept | {
        "HANSA_SERVER": fake.url,
        "HANSA_TOKEN": TOKEN,
        "HANSA_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(source),
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def hansa(environ: dict[str, str], here: Path) -> Run:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "hansa.cli.main", *words]
        return subprocess.run(command, env=environ | more, cwd=here, capture_output=True, timeout=60, check=False)

    return run


@pytest.fixture
def client(fake: Fake, here: Path) -> Iterator[Hansa]:
    with Hansa(fake.url, TOKEN) as found:
        yield found
