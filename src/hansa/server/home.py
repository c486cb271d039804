"""HANSA_HOME: the folder that holds everything of an embedded server.

``config.toml db/ keys/ blobs/ images/ logs/ machines/ run/``, all 0700. Port and issuer are chosen once, under a lock,
and stay.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hansa.kernel.disk import refuse_network_disk
from hansa.kernel.errors import Fault
from hansa.kernel.secrets import (
    MASTER_KEY_VARIABLE,
    Vault,
    new_master_key,
    new_token,
    read_master_keys,
    write_private,
)
from hansa.kernel.settings import Settings, read_settings
from hansa.server import errors

_PORTS = range(20_000, 32_000)  # below what systems give to outgoing connections
_FOLDERS = ("db", "keys", "blobs", "images", "logs", "machines", "run")


@dataclass(frozen=True)
class Home:
    """A home that has been set up, with the settings that were read from it."""

    path: Path
    settings: Settings

    @property
    def database_url(self) -> str:
        return self.settings.database.url or f"sqlite:///{self.database_file}"

    @property
    def database_file(self) -> Path:
        return self.path / "db" / "hansa.db"

    @property
    def is_embedded(self) -> bool:
        return self.settings.database.url is None

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def owner_name(self) -> str:
        return getpass.getuser()

    @property
    def url(self) -> str:
        """The URL that clients and pilots use."""
        server = self.settings.server
        if server.url:
            return server.url.rstrip("/")
        host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host  # noqa: S104 - compared, not bound
        return f"{'https' if server.tls_certificate else 'http'}://{host}:{server.port}"

    @property
    def issuer(self) -> str:
        return self.settings.identity.issuer or self.url

    def pilot_urls(self) -> list[str]:
        return [self.url]

    def local_token(self) -> str:
        """The token of whoever owns the home."""
        return (self.path / "keys" / "local.token").read_text(encoding="ascii").strip()

    @property
    def master_key_file(self) -> Path:
        return self.path / "keys" / "master.key"

    def vault(self) -> Vault:
        """What seals the secrets of this server. Raises Fault ``kernel.master_key``."""
        return Vault(read_master_keys(self.master_key_file, os.environ))


def open_home(path: Path, flags: dict[str, Any] | None = None) -> Home:
    """Set the home up where it is new, and read its settings. Safe when many processes do so at once.

    Raises Fault ``server.no_home``, ``kernel.network_disk`` or ``kernel.setting``.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.stat().st_uid != os.getuid():
            raise Fault(
                errors.NO_HOME, f"{path} belongs to somebody else.", hint="Set HANSA_HOME to a folder of yours."
            )
        path.chmod(0o700)
        with locked(path / ".lock"):
            _set_up(path)
    except OSError as error:
        raise Fault(
            errors.NO_HOME, f"{path} cannot be used: {error.strerror}.", hint="Set HANSA_HOME to a folder of yours."
        ) from error
    return Home(path, read_settings(path, flags=flags))


def _set_up(path: Path) -> None:
    for name in _FOLDERS:
        (path / name).mkdir(exist_ok=True, mode=0o700)
    refuse_network_disk(path / "db" / "hansa.db")
    token = path / "keys" / "local.token"
    if not token.exists():
        write_private(token, new_token("local") + "\n")
    master = path / "keys" / "master.key"
    if not master.exists() and not os.environ.get(MASTER_KEY_VARIABLE):
        write_private(master, new_master_key() + "\n")
    config = path / "config.toml"
    if not config.exists():
        port = free_port()
        lines = [
            "# Written at the first start. Edit it; the settings reference lists every key.",
            "[server]",
            f"port = {port}",
            "",
            "[identity]",
            f'issuer = "http://127.0.0.1:{port}"',
            "",
        ]
        write_private(config, "\n".join(lines))


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    chance = random.SystemRandom()
    for _ in range(200):
        port = chance.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Fault(errors.PORT, "No free port was found on loopback.", hint="Set server.port in config.toml.")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; waits for it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
