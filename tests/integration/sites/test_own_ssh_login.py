"""``hansa site add --ssh`` as a user has it: a jump host, a key in the agent, a one-time code at a terminal, one
connection for all that follows; and a login that lapses."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Desk, Said
from tests.support.onetime import OneTime
from tests.support.serverprocess import ServerProcess, eventually
from tests.support.sshd import Sshd

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="PAM reads its rules from /etc/pam.d, which only root writes"),
]
PATIENCE_S = 180.0
TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])\n"
)


@dataclass
class Host:
    """A host that wants a key and a one-time code, behind a gate that wants the key; and a user at a terminal."""

    server: ServerProcess
    desk: Desk
    config: Path
    codes: OneTime

    def hansa(self, *words: str, code: int | None = 0) -> Said:
        return self.desk.hansa(*words, code=code)

    def at_a_terminal(self, *words: str, answer: Callable[[], str]) -> tuple[int, str]:
        """Run ``hansa WORDS`` with a terminal of its own; each prompt is answered. Its exit code and what it showed."""
        ours, theirs = pty.openpty()
        command = [sys.executable, "-c", TERMINAL, sys.executable, "-m", "hansa.cli.main", *words]
        process = subprocess.Popen(
            command, cwd=self.desk.folder, env=self.desk.environment(), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        text, answered, deadline = "", 0, time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < deadline:
                if select.select([ours], [], [], 0.2)[0]:
                    try:
                        text += os.read(ours, 4096).decode(errors="replace")
                    except OSError:  # nobody has the other side open any more
                        break
                    if text.count("Password: ") > answered:
                        answered += 1
                        os.write(ours, f"{answer()}\n".encode())
                elif process.poll() is not None:
                    break
            return process.wait(30), text
        finally:
            process.kill()
            process.wait()
            os.close(ours)

    def sign_out(self) -> None:
        """The shared connection ends, as when the network was away for long."""
        from hansa.engines.ssh import OpensshShell

        shell = OpensshShell("mycluster", self.server.home / "run" / "ssh", ["-F", str(self.config)])
        asyncio.run(shell.close())

    def health(self) -> dict[str, Any]:
        self.hansa("site", "probe", "mycluster")
        (end,) = self.hansa("site", "show", "mycluster", "-o", "json").json()["endpoints"]
        return dict(end["health"])

    def is_idle(self) -> bool:
        with self.server.client() as client:
            found = client.get("/pilots").raise_for_status().json()["items"]
        return all(one["status"]["phase"] in ("ended", "lost") for one in found)

    def await_health(self, phase: str) -> None:
        seen: list[dict[str, Any]] = []

        def is_so() -> bool:
            seen.append(self.health())
            return bool(seen[-1]["phase"] == phase)

        try:
            eventually(is_so, f"mycluster is {phase}", 90, 0.5)
        except AssertionError as error:
            raise AssertionError(
                f"{error}: {seen[-1]}\n{(self.config.parent / 'target/log').read_text()[-1500:]}"
            ) from error


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An ssh-agent without keys, as environment."""
    said = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True, timeout=60).stdout
    found = dict(re.findall(r"(SSH_AUTH_SOCK|SSH_AGENT_PID)=([^;]+);", said))
    yield {"SSH_AUTH_SOCK": found["SSH_AUTH_SOCK"]}
    subprocess.run(["ssh-agent", "-k"], env=os.environ | found, capture_output=True, check=False, timeout=60)


def path_without_slurm(folder: Path) -> str:
    """Where the tests' own computer has a Slurm, the host has none."""
    folder.mkdir()
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for file in Path(place).iterdir():
            if (
                not re.match(r"s(batch|queue|info|control|cancel|run|acct)$", file.name)
                and not (folder / file.name).exists()
            ):
                (folder / file.name).symlink_to(file)
    return str(folder)


@pytest.fixture
def host(tmp_path: Path, agent: dict[str, str]) -> Iterator[Host]:
    codes = OneTime(tmp_path / "codes")
    gate = Sshd(tmp_path / "gate").start()
    environment = {"PATH": path_without_slurm(tmp_path / "bin"), "HOME": str(tmp_path)}
    target = Sshd(tmp_path / "target", environment, pam=codes.service).start()
    subprocess.run(["ssh-add", "-q", str(gate.folder / "user_key")], env=os.environ | agent, check=True, timeout=60)
    (target.folder / "authorized").write_text((gate.folder / "user_key.pub").read_text())
    (tmp_path / "known_hosts").write_text(gate.known_hosts + target.known_hosts)
    config = tmp_path / "config"
    config.write_text(
        f"Host gate\n  Port {gate.port}\nHost mycluster\n  Port {target.port}\n  ProxyJump gate\n"
        f"Host *\n  HostName 127.0.0.1\n  User {gate.user}\n  IdentityFile none\n"
        f"  UserKnownHostsFile {tmp_path}/known_hosts\n  NumberOfPasswordPrompts 1\n"
    )
    server = ServerProcess(tmp_path / "home", local__enabled="false", pilot__batch_idle_timeout_s="5")
    server.settings |= agent
    folder = tmp_path / "desk"
    folder.mkdir()
    try:
        server.start()
        made = Host(server, Desk(server.home, folder, server.settings), config, codes)
        yield made
        made.sign_out()
    finally:
        server.end()
        target.stop()
        gate.stop()
        codes.remove()


def test_a_code_once_then_all_goes_through_that_connection_until_it_lapses(host: Host) -> None:
    add = ("site", "add", "--ssh", "mycluster", "--ssh-config", str(host.config), "-o", "json")
    refused = host.hansa(*add, code=None)
    assert refused.code != 0
    assert "hansa site login --host mycluster --ssh-config" in refused.err, "without a terminal it says what to do"
    assert host.hansa("site", "list", "-o", "id").out.split() == [], "and nothing was added"

    code, shown = host.at_a_terminal(*add, answer=lambda: "000000")
    assert code != 0
    assert "The login at mycluster failed" in shown
    assert host.codes.taken == 0

    code, shown = host.at_a_terminal(*add, answer=host.codes.next)
    assert code == 0, shown
    assert "mycluster wants you to sign in" in shown
    host.await_health("up")
    assert host.hansa("run", "--site", "mycluster", "--", "echo", "there").out == "there\n"
    assert host.codes.taken == 1, "one code served probes, discovery, pilot and files"

    host.sign_out()
    host.await_health("login")
    health = host.health()
    assert (health["waiting_on"], health["reason"]) == ("user", "sites.login")
    assert "hansa site login mycluster" in health["message"]
    job = int(host.hansa("job", "submit", "-q", "--site", "mycluster", "--", "echo", "later").out)

    def is_explained() -> bool:
        return "hansa site login mycluster" in host.hansa("job", "explain", str(job)).out

    eventually(is_explained, "who must act is told", PATIENCE_S, 1)

    code, shown = host.at_a_terminal("site", "login", "mycluster", answer=host.codes.next)
    assert code == 0, shown
    assert host.server.await_end(job, PATIENCE_S)["exit_code"] == 0
    assert host.codes.taken == 2
    eventually(host.is_idle, "no pilot lives", PATIENCE_S, 0.5)
    (stored,) = json.loads(host.hansa("site", "show", "mycluster", "-o", "json").out)["endpoints"]
    assert not stored["has_credential"]
