"""tools/docs_reference.py and tools/openapi.py, fed with small stand-ins of the rooms."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from pydantic import BaseModel, Field

from hansa.kernel.errors import Code
from tests.support.tools import load_tool


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_tool("docs_reference")
    rooms = {"Settings": Settings, "click_app": click_app, "registry": registry}
    monkeypatch.setattr(module, "find", lambda _, name: rooms.get(name))
    return module


class Database(BaseModel):
    busy_timeout_s: float = Field(default=5.0, description="How long a writer waits | in seconds.")


class Settings(BaseModel):
    port: int | None = Field(default=None, description="The port.")
    database: Database = Database()


def click_app() -> click.Group:
    @click.group(help="Hansa.")
    def hansa() -> None: ...

    @hansa.command(help="Run a command.")
    @click.option("--cores", default=1, help="How many cores.")
    @click.argument("command")
    def run(cores: int, command: str) -> None: ...

    return hansa


def registry() -> dict[str, Code]:
    return {"jobs.none": Code("jobs.none", 404, 4, "There is no such job.")}


def test_settings_are_listed_with_their_groups(reference: ModuleType) -> None:
    page = reference.settings_page()
    assert "| `database.busy_timeout_s` | `float` | `5.0` | How long a writer waits \\| in seconds. |" in page
    assert "`port`" in page


def test_commands_are_listed_with_usage_and_options(reference: ModuleType) -> None:
    page = reference.cli_page()
    assert "## hansa run\n\nRun a command.\n\n    hansa run [OPTIONS] COMMAND\n" in page
    assert "| `--cores` | `1` | How many cores. |" in page


def test_errors_are_listed_with_their_docstring(reference: ModuleType) -> None:
    assert "| `jobs.none` | 404 | 4 | There is no such job. |" in reference.errors_page()


def test_routes_are_listed_from_the_contract(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    contract = tmp_path / "openapi.json"
    contract.write_text(json.dumps({"paths": {"/health": {"get": {"summary": "Is it alive?"}}}}))
    monkeypatch.setattr(reference, "CONTRACT", contract)
    assert "| `GET` | `/health` | Is it alive? |" in reference.api_page()


def test_a_changed_contract_is_shown_and_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = ModuleType("hansa.server.app")
    app.create_openapi = lambda: {"paths": {"/health": {}}}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hansa.server.app", app)
    openapi = load_tool("openapi")
    monkeypatch.setattr(openapi, "CONTRACT", tmp_path / "openapi.json")
    assert openapi.main(["--check"]) == 1
    assert '+ "paths": {' in capsys.readouterr().out
    assert openapi.main([]) == 0
    assert openapi.main(["--check"]) == 0
