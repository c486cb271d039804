"""A real OpenSSH server on loopback, with keys and a configuration of its own: ended by process id."""

from __future__ import annotations

import getpass
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.apt import need, program
from tests.support.slurm import free_ports


@dataclass
class Sshd:
    """Lets one user in, with one key. ``environment`` is what every command of a session sees. With ``pam``, the name
    of a PAM service, what that asks by keyboard-interactive is wanted besides the key."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    pam: str = ""
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def user(self) -> str:
        return getpass.getuser()

    @property
    def key(self) -> str:
        """The private key that is let in."""
        return (self.folder / "user_key").read_text()

    @property
    def host_key(self) -> str:
        """The server's public key, as a line of known_hosts without the host."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    @property
    def known_hosts(self) -> str:
        return f"[127.0.0.1]:{self.port} {self.host_key}\n"

    def start(self) -> Sshd:
        need(["sshd", "ssh", "ssh-keygen"], ["openssh-server", "openssh-client"])
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "user_key"):
            if not (self.folder / name).exists():
                command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
                subprocess.run(command, check=True, timeout=60)
        (self.folder / "authorized").write_text((self.folder / "user_key.pub").read_text())
        (self.folder / "authorized").chmod(0o600)
        Path("/run/sshd").mkdir(exist_ok=True) if getpass.getuser() == "root" else None
        self.port = self.port or free_ports(1)[0]
        self._launch()
        return self

    def _launch(self) -> None:
        settings = {"SHLVL": "2", **self.environment}  # bash then leaves the user's .bashrc alone
        variables = " ".join(f'"{name}={value}"' for name, value in settings.items())
        binary = str(program("sshd"))
        first = []
        if self.pam:  # the service is called as the program is
            link = self.folder / self.pam
            link.unlink(missing_ok=True)
            link.symlink_to(binary)
            binary = str(link)
            first = ["UsePAM yes", "KbdInteractiveAuthentication yes", "PermitRootLogin yes",
                     "AuthenticationMethods publickey,keyboard-interactive"]  # fmt: skip
        lines = [
            *first,  # of several values sshd takes the first
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {self.folder}/host_key",
            f"AuthorizedKeysFile {self.folder}/authorized", f"PidFile {self.folder}/sshd.pid", "UsePAM no",
            "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password",
            "StrictModes no", "AllowTcpForwarding yes", "AllowStreamLocalForwarding yes", "PrintMotd no",
            "MaxSessions 64", "MaxStartups 64", "LogLevel VERBOSE",
        ]  # fmt: skip
        lines.append(f"SetEnv {variables}")
        (self.folder / "config").write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-D", "-e", "-f", str(self.folder / "config")],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "sshd does not listen"
            time.sleep(0.02)

    def restart(self) -> None:
        """After :meth:`stop`: the same port and keys again."""
        self._launch()

    def stop(self) -> None:
        """It and all sessions are gone afterwards."""
        if self._process is None:
            return
        import psutil

        parent = psutil.Process(self._process.pid)
        for child in parent.children(recursive=True):
            if child.name() in ("sshd", self.pam[:15]):
                child.kill()
        self._process.kill()
        self._process.wait(30)
        self._process = None
