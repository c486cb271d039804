"""Start-up: the hot paths import nothing that is slow."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.integration.client.fake_server import Fake

SLOW = {"typer", "rich", "httpx", "pydantic", "asyncio", "yaml", "fastapi", "cloudpickle"}


@pytest.mark.parametrize(
    ("words", "more"),
    [(["--version"], {"click", "hansa.client", "json", "http"}), (["run", "-q", "--", "true"], {"pathspec"})],
)
def test_hot_paths_import_little(fake: Fake, environ: dict[str, str], words: list[str], more: set[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "hansa.cli.main", *words]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "hansa.cli" in imported
    assert imported & (SLOW | more) == set()


def test_the_package_itself_imports_nothing() -> None:
    code = "import sys, hansa; print([m for m in sys.modules if m.startswith('hansa.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
