"""What users install: the wheel, the units, the two commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from hansa.kernel.settings import read_settings
from tests.support.tools import load_tool

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "hansa"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


@pytest.mark.slow
def test_the_wheel_holds_everything_that_is_not_tests(tmp_path: Path) -> None:
    bootstrap = load_tool("bootstrap")
    uv, environment = bootstrap.find_uv(ignore_path=False), bootstrap.uv_environment()
    build = [uv, "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {f"hansa/{path.relative_to(PACKAGE).as_posix()}" for path in shipped_files()}
    assert sources <= names
    assert {"hansa/py.typed", "hansa/node/protocol.py"} <= names
    strangers = {name for name in names if not name.startswith("hansa/") and ".dist-info/" not in name}
    assert not strangers


def shipped_files() -> list[Path]:
    """Sources, migrations, templates, styles: every file of the package but what Python makes of them."""
    return [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_understood_by_systemd(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze, of Debian's package systemd")
    program = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit.read_text())
    copy = tmp_path / unit.name
    copy.write_text(program)
    is_user_unit = "user" in unit.name
    verify = ["systemd-analyze", *(["--user"] if is_user_unit else []), "verify", "--man=no", str(copy)]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(verify, env=environment, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert not complaints, done.stderr


def test_the_server_unit_is_hardened() -> None:
    unit = (ROOT / "deploy" / "systemd" / "hansa-server.service").read_text()
    for line in (
        "NoNewPrivileges=true",
        "ProtectSystem=strict",
        "StateDirectory=hansa",
        "CapabilityBoundingSet=\n",
    ):
        assert line in unit
    assert "User=hansa" in unit


def test_the_example_of_settings_is_valid(tmp_path: Path) -> None:
    shutil.copy(ROOT / "deploy" / "config.toml", tmp_path / "config.toml")
    settings = read_settings(tmp_path, environ={}, system=tmp_path / "none")
    assert settings.database.url is not None


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if re.match(r"(exec )?make\b", line)]
    assert commands == ["exec make test"]
    assert "make test" in (ROOT / "README.md").read_text()
