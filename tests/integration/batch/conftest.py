"""A real Slurm, a real server, and an sshd between them where a test wants one. One of each for all tests here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.cli import Desk, Said
from tests.support.serverprocess import ServerProcess, eventually
from tests.support.slurm import Slurm
from tests.support.sshd import Sshd

LEFT_IN_PEACE_S = {"pilot__batch_idle_timeout_s": "5", "local__enabled": "false", "sites__canary_s": "5"}


@dataclass
class Cluster:
    """A server with one cluster, and a user at a terminal."""

    slurm: Slurm
    server: ServerProcess
    desk: Desk
    site: str

    def hansa(self, *words: str, code: int | None = 0) -> Said:
        return self.desk.hansa(*words, code=code)

    def job(self, *words: str) -> int:
        """Submit a job; its number."""
        return int(self.hansa("job", "submit", "-q", *words).out)

    def end(self, job: int, deadline_s: float = 180) -> dict[str, Any]:
        return self.server.await_end(job, deadline_s)

    def pilots(self) -> list[dict[str, Any]]:
        with self.server.client() as client:
            found: list[dict[str, Any]] = client.get("/pilots").raise_for_status().json()["items"]
        return found

    def tasks(self, job: int) -> list[dict[str, Any]]:
        with self.server.client() as client:
            found: list[dict[str, Any]] = client.get(f"/jobs/{job}/tasks").raise_for_status().json()["items"]
        return found

    def agents(self, pilot: str) -> list[psutil.Process]:
        """The processes of a pilot itself, not those that it started."""
        found = [one for one in psutil.process_iter(["cmdline"]) if pilot in " ".join(one.info["cmdline"] or ())]
        mine = {one.pid for one in found}
        return [one for one in found if one.ppid() not in mine]

    def sign_out(self) -> None:
        """End the SSH connection that commands share, as when the network was away for long."""
        from hansa.engines.ssh import OpensshShell

        config = self.desk.folder.parent / "config"
        asyncio.run(OpensshShell("mycluster", self.server.home / "run" / "ssh", ["-F", str(config)]).close())

    def free(self) -> None:
        """Nothing of an earlier test is left: no pilot lives, and Slurm runs nothing."""
        eventually(lambda: not self.slurm.jobs("pending,running,completing"), "Slurm is idle")
        final = ("ended", "lost")
        eventually(lambda: all(one["status"]["phase"] in final for one in self.pilots()), "no pilot lives")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path_factory.mktemp("slurm")).start()
    yield cluster
    cluster.stop()


def desk_of(server: ServerProcess, folder: Path) -> Desk:
    folder.mkdir(parents=True, exist_ok=True)
    return Desk(server.home, folder, server.settings)


def site_file(
    desk: Desk,
    name: str,
    settings: dict[str, Any],
    verb: str = "add",
    credential: dict[str, str] | None = None,
    **more: Any,
) -> None:
    import yaml

    end = {"kind": "slurm", "settings": settings} | ({"credential": credential} if credential else {})
    text = yaml.safe_dump({"name": name, "visibility": "owner", "endpoints": [end], **more})
    path = desk.write(f"{name}.yaml", text)
    path.chmod(0o600)
    desk.hansa("site", verb, str(path))
    up = f"{name} is up and its partitions are known"
    eventually(lambda: _is_up(desk, name), up, 300, 0.5)


def _is_up(desk: Desk, name: str) -> bool:
    (end,) = desk.hansa("site", "show", name, "-o", "json").json()["endpoints"]
    return end["health"]["phase"] == "up" and end["discovered"] is not None


@pytest.fixture(scope="module")
def cluster(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The server is on the login node."""
    folder = tmp_path_factory.mktemp("here")
    server = ServerProcess(folder / "home", **LEFT_IN_PEACE_S)
    server.settings["SLURM_CONF"] = str(slurm.conf)
    server.start()
    try:
        desk = desk_of(server, folder / "desk")
        settings = {"host": "login", "here": True, "folder": str(folder / "there"), "python": sys.executable}
        site_file(desk, "here", settings | {"poll_s": 1})
        yield Cluster(slurm, server, desk, "here")
    finally:
        server.end()
        _scancel(slurm)


@pytest.fixture(scope="module")
def far(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The server is on a laptop that reaches the login node by SSH; the site was added by one word."""
    folder = tmp_path_factory.mktemp("far")
    sshd = Sshd(folder / "sshd", {"SLURM_CONF": str(slurm.conf), "HOME": str(folder)}).start()
    server = ServerProcess(folder / "home", **LEFT_IN_PEACE_S)
    server.start()
    try:
        desk = desk_of(server, folder / "desk")
        (folder / "known_hosts").write_text(sshd.known_hosts)
        (folder / "config").write_text(
            f"Host mycluster\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
            f"  IdentityFile {sshd.folder}/user_key\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
        )
        desk.hansa("site", "add", "--ssh", "mycluster", "--ssh-config", str(folder / "config"))
        eventually(lambda: _is_up(desk, "mycluster"), "mycluster is up", 300, 0.5)
        yield Cluster(slurm, server, desk, "mycluster")
    finally:
        server.end()
        _scancel(slurm)
        sshd.stop()


def _scancel(slurm: Slurm) -> None:
    for state in ("PENDING", "RUNNING"):
        subprocess.run(["scancel", f"--state={state}", "-u", "root"], env=slurm.environment, check=False)
    eventually(lambda: not slurm.jobs("pending,running,completing"), "Slurm is idle")
