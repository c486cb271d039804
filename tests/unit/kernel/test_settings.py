from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hansa.kernel import errors
from hansa.kernel.settings import PROJECT_TABLES, Settings, default_home, find_project_file, read_settings

SOURCES = ["system", "user", "project", "environment", "flag"]
"""From the weakest to the strongest."""


def settings_of(folder: Path, **cores: int) -> Settings:
    """Settings where each named source sets ``job.cores``."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    files = {"system": folder / "system.toml", "user": home / "config.toml", "project": folder / "hansa.toml"}
    for source, file in files.items():
        if source in cores:
            file.write_text(f"[job]\ncores = {cores[source]}\n")
    return read_settings(
        home,
        flags={"job": {"cores": cores["flag"]}} if "flag" in cores else None,
        environ={"HANSA_JOB__CORES": str(cores["environment"])} if "environment" in cores else {},
        project=files["project"] if "project" in cores else None,
        system=files["system"],
    )


def test_without_any_source_there_are_defaults(tmp_path: Path) -> None:
    assert settings_of(tmp_path) == Settings()


@pytest.mark.parametrize("strongest", range(len(SOURCES)))
def test_a_stronger_source_wins_over_all_weaker_ones(tmp_path: Path, strongest: int) -> None:
    cores = {source: number + 10 for number, source in enumerate(SOURCES[: strongest + 1])}
    assert settings_of(tmp_path, **cores).job.cores == strongest + 10


def test_sources_are_merged_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[job]\ncores = 2\nmemory_mib = 7\n")
    environ = {"HANSA_JOB__CORES": "3", "HANSA_HOME": "/x", "HANSA_OTHER__KEY": "1", "PATH": "/bin"}
    found = read_settings(tmp_path, environ=environ, flags={"server": {"port": 1}}, system=tmp_path / "none")
    assert (found.job.cores, found.job.memory_mib, found.server.port) == (3, 7, 1)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[job]\ncores = 0\n", "job.cores"),
        ("[job]\ncores = 'many'\n", "job.cores"),
        ("[job]\ncoers = 2\n", "job.coers"),
        ("[jbo]\ncores = 2\n", "jbo"),
        ("[server]\nport = 65536\n", "server.port"),
        ("job = 3\n", "job"),
        ("[job\n", "config.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(errors.Fault) as caught:
        read_settings(tmp_path, environ={}, system=tmp_path / "none")
    assert caught.value.code is errors.SETTING
    assert named in str(caught.value)


def test_a_wrong_value_of_the_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.Fault, match=r"job\.cores"):
        read_settings(tmp_path, environ={"HANSA_JOB__CORES": "x"}, system=tmp_path / "none")


def test_a_key_that_does_not_exist_is_named_for_the_environment_too(tmp_path: Path) -> None:
    with pytest.raises(errors.Fault, match=r"job\.coers"):
        read_settings(tmp_path, environ={"HANSA_JOB__COERS": "2"}, system=tmp_path / "none")


@pytest.mark.parametrize("table", sorted(set(Settings.model_fields) - PROJECT_TABLES))
def test_a_project_file_cannot_reconfigure_a_server(tmp_path: Path, table: str) -> None:
    project = tmp_path / "hansa.toml"
    project.write_text(f"[{table}]\n")
    with pytest.raises(errors.Fault) as caught:
        read_settings(tmp_path, environ={}, project=project, system=tmp_path / "none")
    assert table in str(caught.value)
    assert str(project) in str(caught.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().job.cores = 3  # type: ignore[misc]


def test_every_setting_says_what_it_is() -> None:
    for name, table in Settings.model_fields.items():
        model: Any = table.annotation
        assert model.__doc__, name
        for key, field in model.model_fields.items():
            assert field.description, f"{name}.{key}"


def test_the_nearest_project_file_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "hansa.toml").touch()
    assert find_project_file(inner) == tmp_path / "hansa.toml"
    (tmp_path / "a" / "hansa.toml").touch()
    assert find_project_file(inner) == tmp_path / "a" / "hansa.toml"


def test_the_home_of_an_embedded_server(tmp_path: Path) -> None:
    assert default_home({"HANSA_HOME": str(tmp_path)}) == tmp_path
    assert default_home({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "hansa"
    assert default_home({}) == Path.home() / ".local/share/hansa"


def test_a_list_in_the_environment(tmp_path: Path) -> None:
    environ = {"HANSA_SITES__NETWORKS": "10.1.0.0/16, 127.0.0.0/8", "HANSA_SERVER__TRUSTED_PROXIES": "::1"}
    found = read_settings(tmp_path, environ=environ)
    assert found.sites.networks == ("10.1.0.0/16", "127.0.0.0/8")
    assert found.server.trusted_proxies == ("::1",)
