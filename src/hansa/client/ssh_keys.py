"""The SSH keys by which a person comes into their machines, and the command that does."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hansa.client.connect import config_folder
from hansa.client.errors import USAGE, HansaError
from hansa.machines.wire import Machine

_USUAL = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")


def own_key(environ: Mapping[str, str] | None = None) -> Path:
    """The private key that Hansa keeps on this computer for its user's machines; made when first asked for."""
    file = config_folder(os.environ if environ is None else environ) / "ssh" / "id_ed25519"
    if file.exists():
        return file
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    openssh = serialization.PrivateFormat.OpenSSH
    private = key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.touch(mode=0o600)
    partial.write_bytes(private)
    try:
        os.link(partial, file)  # whoever is first wins
        file.with_suffix(".pub").write_bytes(public + b" hansa\n")
    except FileExistsError:
        pass
    finally:
        partial.unlink()
    return file


def public_keys(files: Sequence[Path] = (), environ: Mapping[str, str] | None = None) -> list[str]:
    """Lines for authorized_keys: Hansa's own key, and these files or the usual ones of ``~/.ssh``."""
    env = os.environ if environ is None else environ
    usual = [Path(env.get("HOME", "~")).expanduser() / ".ssh" / name for name in _USUAL]
    chosen = list(files) or [file for file in usual if file.is_file()]
    found = []
    for file in [_public_of(own_key(env)), *chosen]:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise HansaError(USAGE, f"The key {file} cannot be read: {error}.", hint="Name a .pub file.") from error
        if "PRIVATE KEY" in text:
            raise HansaError(USAGE, f"{file} is a private key.", hint=f"The public one is {file}.pub.")
        found += [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return found


def _public_of(private: Path) -> Path:
    """The public half, made again where it is missing: a crash may have come between the two files."""
    file = private.with_suffix(".pub")
    if not file.exists():
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_ssh_private_key(private.read_bytes(), None)
        made = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        file.write_bytes(made + b" hansa\n")
    return file


def ssh_command(machine: Machine, words: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> list[str]:
    """The command that signs in there. A machine's host key is kept under its id: addresses are used again.

    Raises HansaError where it has no address that can be reached.
    """
    access = machine.ssh
    if access is None:
        hint = f"hansa machine explain {machine.name}; a public address comes with: hansa machine create --public"
        raise HansaError(USAGE, f"{machine.name} has no address to sign in at.", hint=hint)
    env = os.environ if environ is None else environ
    known = config_folder(env) / "ssh" / "known_hosts"
    known.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    strict = "accept-new"
    if access.host_keys:
        known = known.with_name(f"known_hosts.{machine.id}")
        known.write_text("".join(f"{machine.id} {key}\n" for key in access.host_keys), encoding="utf-8")
        strict = "yes"
    options = {
        "UserKnownHostsFile": f'"{known}"',
        "HostKeyAlias": machine.id,
        "StrictHostKeyChecking": strict,
        "LogLevel": "ERROR",
        "ConnectionAttempts": "30",  # one a second: a machine that has just started has no sshd yet
    }
    command = ["ssh", "-i", str(own_key(env)), "-p", str(access.port)]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    if access.jump:
        command += ["-o", f"ProxyCommand={_through(access.jump, env)}"]
    given = list(words[1:] if words[:1] == ("--",) else words)
    return [*command, f"{access.user}@{access.host}", *([shlex.join(given)] if given else [])]


def _through(jump: str, env: Mapping[str, str]) -> str:
    """The command that leads through a jump host (``user@host:port``): with Hansa's key, the user's own, or an agent.

    Of ``-J`` the jump host would hear of no key but those of ``~/.ssh/config``. It is a URL, which is no option.
    """
    own = own_key(env)
    home = Path(env.get("HOME") or Path.home()) / ".ssh"
    keys = [own, *(home / name.removesuffix(".pub") for name in _USUAL if (home / name.removesuffix(".pub")).exists())]
    known = f'"{own.with_name("known_hosts")}" "{home / "known_hosts"}"'
    words = ["ssh", "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=accept-new"]
    words += [word for key in keys for word in ("-i", str(key))]
    quoted = shlex.join([*words, "-o", "LogLevel=ERROR"]).replace("%", "%%")
    return f"{quoted} -W %h:%p {shlex.quote(f'ssh://{jump}').replace('%', '%%')}"


def await_answer(machine: Machine, patience_s: float = 30.0, pause_s: float = 0.05) -> None:
    """Return when its sshd answers, where only that is missing: ssh itself would try once a second.

    Anything else is for ssh to find and to tell.
    """
    access = machine.ssh
    if access is None or access.jump:
        return
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            with socket.create_connection((access.host, access.port), timeout=2) as link:
                link.settimeout(2)
                if link.recv(4):
                    return
        except (ConnectionRefusedError, ConnectionResetError):
            pass
        except OSError as error:
            if error.errno != errno.EHOSTUNREACH:  # a guest whose network is not up yet
                return
        time.sleep(pause_s)
